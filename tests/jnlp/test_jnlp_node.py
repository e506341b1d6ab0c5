import json
import pathlib

import pytest

from jnlp import node, tunnel
from tests.each import each

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"


def definition(**changes):
    return node.NodeDefinition(**{"name": "a-linux-x1", "remote_fs": "/agent", **changes})


def recorded_configs():
    for path in sorted(RECORDINGS.glob("nodes/*.json")):
        for exchange in json.loads(path.read_text())["exchanges"]:
            body = exchange["response"].get("body")
            if body and body.startswith("<?xml") and "<slave>" in body:
                yield pytest.param(body, id=f"{path.stem}-{exchange['note']}")


CONFIGS = list(recorded_configs())

PROPERTIES = """<?xml version='1.1' encoding='UTF-8'?>
<!-- <label>in a comment</label> -->
<slave plugin="x@1 > 0">
  <name>n-1</name>
  <nodeProperties>
    <some.Plugin a="<label>" b='</slave>'>
      <label>not ours</label>
      <mode>not ours</mode>
      <script><![CDATA[<label>if (a < b) </slave>]]></script>
    </some.Plugin>
  </nodeProperties>
  <temporaryOfflineCause class="x"><label>neither</label></temporaryOfflineCause>
  <mode>NORMAL</mode>
  <label>a &amp;&#65; b</label>
</slave>
"""


def test_a_sound_definition_has_no_problems():
    """What the templates normally make."""
    sound = definition(
        labels=("linux", "docker-20.10", "java_17", "größe:XL", "a/b"),
        description="Started by the broker [owner=a]",
        executors=3,
    )
    assert node.problems(sound) == ()


@each(
    ("changes", "text"),
    [
        ({"name": ""}, "A-Z a-z 0-9"),
        ({"name": "two words"}, "A-Z a-z 0-9"),
        ({"name": "émile"}, "A-Z a-z 0-9"),
        ({"name": "a.b"}, "A-Z a-z 0-9"),
        ({"name": "-headless"}, "beginning with a letter"),
        ({"name": "@file"}, "A-Z a-z 0-9"),
        ({"name": "a\n"}, "A-Z a-z 0-9"),
        ({"name": ".."}, "A-Z a-z 0-9"),
        ({"name": "x" * 64}, "at most 63"),
        ({"name": "x" * 300}, "at most 63"),
        ({"name": "master"}, "reserved"),
        ({"name": "Built-In"}, "reserved"),
        ({"name": "MASTER"}, "reserved"),
        ({"executors": 0}, "a whole number from 1"),
        ({"executors": -1}, "a whole number from 1"),
        ({"executors": "many"}, "a whole number from 1"),
        ({"executors": True}, "a whole number from 1"),
        ({"executors": 1.5}, "a whole number from 1"),
        ({"remote_fs": ""}, "an absolute path"),
        ({"remote_fs": "agent"}, "an absolute path"),
        ({"remote_fs": "C:agent"}, "an absolute path"),
        ({"remote_fs": "/a\0b"}, "an absolute path"),
        ({"labels": ("two words",)}, "' ' is not allowed"),
        ({"labels": ("",)}, "is empty"),
        ({"labels": ("a&&b",)}, "'&' is not allowed"),
        ({"labels": ("!a",)}, "'!' is not allowed"),
        ({"labels": ("a->b",)}, "'>' is not allowed"),
        ({"labels": ("(a",)}, "is not allowed"),
        ({"labels": ('"a"',)}, "is not allowed"),
        ({"labels": ("ok", "a\tb")}, "is not allowed"),
        ({"labels": ("a\u00a0b",)}, "is not allowed"),
        ({"description": "a\nb"}, "control characters"),
    ],
)
def test_what_the_controller_takes_silently(changes, text):
    """Each is found, and the message says what is allowed."""
    (problem,) = (p for p in node.problems(definition(**changes)) if text in p)
    assert len(problem) < 400


def test_all_problems_are_told_at_once():
    """Not only the first one."""
    found = node.problems(definition(name="a b", executors=0, remote_fs="x", labels=("a b", "!")))
    assert len(found) == 5


@pytest.mark.parametrize("path", ["/agent", "C:\\agent", "d:/agent", "\\\\host\\share"])
def test_absolute_paths_of_both_worlds(path):
    """Agents may be Windows machines."""
    assert node.problems(definition(remote_fs=path)) == ()


def test_the_form_of_a_plain_node():
    """Mode, labels and transport are where the controller looks for them."""
    form = node.creation_form(
        definition(
            labels=("a", "b"),
            exclusive=False,
            executors=2,
            description="ümlaut",
            connection=tunnel.connection(tunnel.Transport.WEBSOCKET),
        )
    )
    document = json.loads(form["json"])
    assert form["json"].isascii()
    assert (document["mode"], document["labelString"]) == ("NORMAL", "a b")
    assert (document["numExecutors"], document["nodeDescription"]) == ("2", "ümlaut")
    # a bag: a class that the controller does not know is left out without a word
    assert document["nodeProperties"] == {
        "stapler-class-bag": "true",
        "io-jenkins-plugins-casc-core-CascKeepNode": {},
    }
    assert document["launcher"]["webSocket"] is True
    assert document["retentionStrategy"]["$class"].endswith("$Always")


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (tunnel.connection(tunnel.Transport.TCP, tunnel="gate:50443"), {"tunnel": "gate:50443"}),
        (tunnel.connection(tunnel.Transport.TCP), {}),
    ],
)
def test_the_form_names_a_tunnel_only_where_there_is_one(connection, expected):
    """Some controllers keep an empty text as a tunnel and hand it to agents."""
    launcher = json.loads(node.creation_form(definition(connection=connection))["json"])[
        "launcher"
    ]
    assert expected == {key: launcher[key] for key in ("tunnel",) if key in launcher}


@pytest.mark.parametrize("config", CONFIGS)
def test_recorded_configs_keep_everything_but_labels(config):
    """XML 1.1 declaration, launcher and properties stay; swapping back gives the first text."""
    labels = node.labels_of(config)
    swapped = node.with_labels(config, ("retired",))
    assert node.labels_of(swapped) == ("retired",)
    assert node.is_exclusive(swapped)
    assert node.name_of(swapped) == node.name_of(config) != ""
    assert swapped.startswith('<?xml version="1.1" encoding="UTF-8"?>')
    assert node.with_labels(swapped, labels, exclusive=node.is_exclusive(config)) == config


def test_there_are_recorded_configs():
    """The test above is about something."""
    assert len(CONFIGS) >= 5


def test_only_the_nodes_own_label_is_changed():
    """Plugins, comments, CDATA and attributes may hold labels, modes and closing tags too."""
    assert node.labels_of(PROPERTIES) == ("a", "&A", "b")
    assert not node.is_exclusive(PROPERTIES)
    swapped = node.with_labels(PROPERTIES, ("x",))
    expected = PROPERTIES.replace("<mode>NORMAL", "<mode>EXCLUSIVE")
    expected = expected.replace("a &amp;&#65; b", "x")
    assert swapped == expected


@pytest.mark.parametrize("label", ["<label/>", "<label></label>", "<label />", ""])
def test_a_node_without_labels_gets_some(label):
    """Empty, self-closed and missing elements."""
    config = f"<slave>\n  <name>n</name>\n  {label}\n</slave>"
    assert node.labels_of(config) == ()
    swapped = node.with_labels(config, ("a", "b"), exclusive=False)
    assert node.labels_of(swapped) == ("a", "b")
    assert "<mode>NORMAL</mode>" in swapped
    assert node.name_of(swapped) == "n"
    assert node.labels_of(node.with_labels(swapped, ())) == ()


@pytest.mark.parametrize("text", ["", "hello", "<slave>", "</slave>", "<slave><a></slave></a>"])
def test_what_is_no_config(text):
    """An error, not a guess."""
    for function in (node.labels_of, node.name_of, lambda t: node.with_labels(t, ("a",))):
        with pytest.raises(ValueError, match=r"not a node's config\.xml"):
            function(text)


def test_labels_that_are_none_are_not_written():
    """They would split or break the expression."""
    with pytest.raises(ValueError, match="is not allowed"):
        node.with_labels("<slave/>", ("a b",))


@pytest.mark.parametrize(
    ("properties", "kept"),
    [
        ("<nodeProperties/>", False),
        (
            f'<nodeProperties>\n    <{node.KEEP_PROPERTY} plugin="x@2080"/>\n  </nodeProperties>',
            True,
        ),
        (f"<label>{node.KEEP_PROPERTY}</label>", False),
    ],
)
def test_a_node_that_stays_when_the_configuration_is_loaded_again(properties, kept):
    assert node.is_kept(f"<?xml version='1.1'?>\n<slave>\n  {properties}\n</slave>") is kept
