"""The merge of pod YAML: rules one by one, and what holds for any layers."""

import copy
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from backends.kubernetes.pods import merge
from tests.each import each


def laid(*layers: dict[str, Any]) -> dict[str, Any]:
    """Lay all upon each other and finish."""
    pod: dict[str, Any] = {}
    for layer in layers:
        pod = merge.merge(pod, layer)
    return merge.finish(pod)


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


@each(
    ("under", "over", "expected"),
    [
        pytest.param(
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "/w/", "name": "w"}]}]),
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "/./w", "name": "x"}]}]),
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "/w", "name": "x"}]}]),
            id="one place, however it is written",
        ),
        pytest.param(
            spec(),
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "C:\\w\\"}]}]),
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "C:\\w"}]}]),
            id="one place on Windows as well",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "image": "1", "tty": True}, {"name": "b"}]),
            spec(containers=[{"name": "c"}, {"name": "a", "image": "2"}]),
            spec(
                containers=[{"name": "a", "image": "2", "tty": True}, {"name": "b"}, {"name": "c"}]
            ),
            id="containers by name, lower order first",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "env": [{"name": "X", "value": "1"}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "X", "valueFrom": {"f": 1}}]}]),
            spec(containers=[{"name": "a", "env": [{"name": "X", "valueFrom": {"f": 1}}]}]),
            id="a variable is replaced as a whole",
        ),
        pytest.param(
            spec(volumes=[{"name": "w", "emptyDir": {}}, {"name": "x"}]),
            spec(volumes=[{"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]),
            spec(
                volumes=[{"name": "w", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "x"}]
            ),
            id="a volume has one source",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "/w", "name": "w"}]}]),
            spec(
                containers=[{"name": "a", "volumeMounts": [{"mountPath": "/w", "readOnly": True}]}]
            ),
            spec(
                containers=[
                    {
                        "name": "a",
                        "volumeMounts": [{"mountPath": "/w", "name": "w", "readOnly": True}],
                    }
                ]
            ),
            id="mounts by path",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "ports": [{"containerPort": 53}]}]),
            spec(containers=[{"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]),
            spec(
                containers=[
                    {
                        "name": "a",
                        "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
                    }
                ]
            ),
            id="ports by number and protocol",
        ),
        pytest.param(
            spec(tolerations=[{"key": "a"}]),
            spec(tolerations=[{"key": "b"}, {"key": "a"}, {"key": "b"}]),
            spec(tolerations=[{"key": "a"}, {"key": "b"}]),
            id="tolerations are joined",
        ),
        pytest.param(
            spec(containers=[{"name": "a", "command": ["x", "y"]}]),
            spec(containers=[{"name": "a", "command": ["z"]}]),
            spec(containers=[{"name": "a", "command": ["z"]}]),
            id="other lists are replaced",
        ),
        pytest.param(
            spec(hostname="h", nodeSelector={"disk": "ssd", "zone": "a"}),
            spec(hostname=None, nodeSelector={"zone": None}),
            spec(nodeSelector={"disk": "ssd"}),
            id="null removes",
        ),
        pytest.param(
            spec(containers=[{"name": "a"}, {"name": "b"}], affinity={"x": 1}),
            spec(containers=[{"name": "b", "$patch": "delete"}], affinity={"$patch": "delete"}),
            spec(containers=[{"name": "a"}]),
            id="$patch: delete removes",
        ),
        pytest.param(
            spec(fieldOfTomorrow={"deep": [{"a": 1}]}),
            spec(fieldOfTomorrow={"other": 2}, containers=[{"name": "a", "newField": [1]}]),
            spec(
                fieldOfTomorrow={"deep": [{"a": 1}], "other": 2},
                containers=[{"name": "a", "newField": [1]}],
            ),
            id="unknown fields go through",
        ),
    ],
)
def test_rules(under: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each documented rule, on the smallest pods that show it."""
    assert expected == laid(under, over)


def test_what_was_removed_can_come_back() -> None:
    """A layer above a removal starts afresh, without what was removed."""
    removal = spec(containers=[{"name": "a", "$patch": "delete"}], affinity=None)
    again = spec(containers=[{"name": "a", "image": "2"}], affinity={"y": 2})
    below = spec(containers=[{"name": "a", "tty": True}], affinity={"x": 1})

    assert again == laid(below, removal, again)


@each(
    ("layer", "words"),
    [
        (spec(containers=[{"image": "x"}]), "pod.spec.containers[0]: has no 'name'"),
        (spec(containers=[{"name": "a"}, {"name": "a"}]), "a is there twice"),
        (spec(containers={"name": "a"}), "a section stands where a list belongs"),
        (spec(containers=["a"]), "pod.spec.containers[0]: a text stands where a section belongs"),
        ({"spec": ["a"]}, "a list stands where a section belongs"),
        ({"metadata": {"labels": "a=b"}}, "pod.metadata.labels: a text stands"),
        (spec(containers=[{"name": {"a": 1}}]), "must be plain"),
        (spec(affinity={"$patch": "replace"}), "allowed: delete"),
        (spec(x=[{1: 2}]), "pod.spec.x[0]: the key 1 is not a text"),
        (spec(x=object), "hint: quote it"),
    ],
)
def test_a_layer_that_cannot_be_merged_is_told_with_its_place(
    layer: dict[str, Any], words: str
) -> None:
    """The message says where and what."""
    with pytest.raises(merge.MergeError) as raised:
        merge.check(layer)

    assert words in str(raised.value)


_TEXTS = st.sampled_from(["a", "b", "c"])
_PLAIN = st.one_of(st.integers(0, 3), _TEXTS, st.booleans())
_SOME = st.dictionaries(_TEXTS, _PLAIN, max_size=3)


def _named(more: dict[str, st.SearchStrategy[Any]], key: str = "name") -> st.SearchStrategy[Any]:
    entry = st.fixed_dictionaries({key: _TEXTS}, optional=more)
    return st.lists(entry, max_size=3, unique_by=lambda e: e[key])


_CONTAINERS = _named(
    {
        "image": _TEXTS,
        "env": _named({"value": _TEXTS, "valueFrom": _SOME}),
        "volumeMounts": _named({"name": _TEXTS, "readOnly": st.booleans()}, key="mountPath"),
        "command": st.lists(_TEXTS, max_size=2),
        "securityContext": _SOME,
    }
)
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({}, optional={"labels": _SOME, "annotations": _SOME}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": _CONTAINERS,
                "initContainers": _CONTAINERS,
                "volumes": _named({"emptyDir": _SOME, "secret": _SOME}),
                "tolerations": st.lists(_SOME, max_size=3),
                "nodeSelector": _SOME,
                "hostname": _TEXTS,
                "tomorrow": _SOME,
            },
        ),
    },
)


@hypothesis.given(LAYERS, LAYERS)
def test_laying_twice_changes_nothing(under: dict[str, Any], over: dict[str, Any]) -> None:
    """Idempotent, and the layers themselves are never changed."""
    before = copy.deepcopy((under, over))
    once = merge.merge(under, over)

    assert once == merge.merge(once, over)
    assert before == (under, over)


@hypothesis.given(LAYERS, LAYERS, LAYERS)
def test_fragments_may_be_made_of_fragments(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    """Associative, as long as nothing is removed."""
    assert merge.merge(merge.merge(a, b), c) == merge.merge(a, merge.merge(b, c))


@hypothesis.given(LAYERS)
def test_nothing_is_lost_or_shared(layer: dict[str, Any]) -> None:
    """Over nothing and under nothing a layer stays what it is, in a copy of its own."""
    merged = merge.merge({}, layer)

    assert merge.merge(layer, {}) == layer
    for key, value in merged.get("spec", {}).items():
        if isinstance(value, list | dict):
            assert value is not layer["spec"][key]
