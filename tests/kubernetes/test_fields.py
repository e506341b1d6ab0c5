"""What kind of value a pod's fields take: as the official package has it, said with its place."""

import re
from typing import Any

import pytest
from kubernetes import client

from backends.kit import remarks
from backends.kubernetes import settings
from backends.kubernetes.pods import fields

FORMS = {
    "str": {"text", "quantity"},
    "List[str]": {"[text]"},
    "List[int]": {"[number]"},
    "Dict[str, str]": {"{text}", "{quantity}"},
    "int": {"number"},
    "bool": {"truth"},
    "object": {"port"},
    "datetime": {"text"},
}


def test_the_table_says_what_the_official_models_say() -> None:
    """Of each field of each type that both know; they are made of other documents."""
    asked = 0
    for section, known in fields.known().items():
        model = getattr(client, f"V1{section}", None)
        if model is None:
            continue
        for attribute, kind in model.openapi_types.items():
            name = model.attribute_map[attribute]
            form = fields.KINDS.form(section, name)
            if not known.get(name):
                continue
            inner = re.sub(r"^List\[(?:Core)?V1(.*)\]$", r"[\1]", kind)
            assert form in FORMS.get(kind, {inner.removeprefix("Core").removeprefix("V1")}), (
                section,
                name,
            )
            asked += 1
    assert asked > 400


def told(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what is said of a template's pod: text and hint by place."""
    options = settings.KubernetesTemplate(pod=pod)
    common = remarks.Common(settings=settings.KubernetesSettings())
    said = [remark for remark in options.remarks(common) if remark.wrong]
    return {".".join(map(str, remark.path)): (remark.text, remark.hint) for remark in said}


QUOTE = "put it in quotes, as it is written there"


@pytest.mark.parametrize(
    ("spec", "place", "text", "hint"),
    [
        ({"nodeSelector": {"gpu": True}}, "nodeSelector.gpu", "found true; allowed: a text", QUOTE),
        (
            {"dnsConfig": {"options": [{"name": "ndots", "value": 2}]}},
            "dnsConfig.options.0.value",
            "found 2; allowed: a text",
            QUOTE,
        ),
        ({"hostNetwork": "true"}, "hostNetwork", "found 'true'; allowed: true or false",
         "without quotes"),
        ({"activeDeadlineSeconds": "60"}, "activeDeadlineSeconds",
         "found '60'; allowed: a whole number", "without quotes"),
        ({"activeDeadlineSeconds": 1.5}, "activeDeadlineSeconds",
         "found 1.5; allowed: a whole number", ""),
        ({"activeDeadlineSeconds": True}, "activeDeadlineSeconds",
         "found true; allowed: a whole number", ""),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_said_where_it_stands(
    spec: dict[str, Any], place: str, text: str, hint: str
) -> None:
    """The API server would refuse the whole pod for it."""
    assert {f"pod.spec.{place}": (text, hint)} == told({"spec": spec})


@pytest.mark.parametrize(
    ("container", "place", "text"),
    [
        ({"command": ["sleep", 30]}, "command.1", "found 30; allowed: a text"),
        ({"command": "sleep 30"}, "command", "found 'sleep 30'; allowed: a list of texts"),
        ({"args": [["a"]]}, "args.0", "found a list; allowed: a text"),
        ({"env": [{"name": "AT", "value": 690}]}, "env.0.value", "found 690; allowed: a text"),
        ({"ports": [{"containerPort": "80"}]}, "ports.0.containerPort",
         "found '80'; allowed: a whole number"),
        ({"securityContext": {"privileged": "yes"}}, "securityContext.privileged",
         "found 'yes'; allowed: true or false"),
    ],
)  # fmt: skip
def test_also_in_containers(container: dict[str, Any], place: str, text: str) -> None:
    """Of whichever kind, and in the backend's fragments as in the template."""
    pod = {"spec": {"initContainers": [{"name": "c", **container}]}}
    where = f"spec.initContainers.0.{place}"

    assert [text] == [text for text, _ in [told(pod)[f"pod.{where}"]]]
    (remark,) = settings.KubernetesSettings(pods={"base": pod}).remarks()
    assert (f"pods.base.{where}", text) == (".".join(map(str, remark.path)), remark.text)


def test_what_takes_both_and_what_nobody_knows_is_left_alone() -> None:
    """Quantities, ports of probes, removals, and fields of tomorrow."""
    container = {
        "name": "c",
        "image": "i",
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
        "livenessProbe": {"tcpSocket": {"port": 80}},
        "env": [{"name": "GONE", "value": None}],
        "ring": {"of": [7, True]},
    }
    assert {} == told(
        {"metadata": {"labels": {"gone": None}}, "spec": {"containers": [container]}}
    )
