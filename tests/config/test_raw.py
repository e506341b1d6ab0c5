"""Pod YAML in a configuration: what YAML 1.1 takes for another kind of value counts as written."""

import textwrap
from typing import Any

import pytest

from broker import config
from broker.config import kinds, loading
from tests.each import each

KINDS = kinds.classes()
HEAD = """
owner: o
controller: {url: "http://127.0.0.1/"}
backends: {k: {kind: kubernetes, namespace: a}}
"""


def parse(text: str) -> Any:
    return loading.parse(HEAD + textwrap.dedent(text), KINDS, environ={})


def pod(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a template's pod as it is read, and the warnings about it by place."""
    where = "templates:\n  t:\n    labels: x\n    image: i\n    kubernetes:\n      pod:\n"
    settings = parse(where + textwrap.indent(textwrap.dedent(text), "        "))
    (template,) = settings.templates
    said = {".".join(map(str, w.path[4:])): w.text for w in settings.warnings if "pod" in w.path}
    (options,) = template.launch.platform.values()
    return options.pod, said


@each(
    "written",
    ["42", "0", "1.10", "1e3", "0x1F", "1_000", "true", "False", "on", "yes", "No",
     "0123", "0o755", "2024-01-01", "2024-13-40", "18446744073709551616"],
)  # fmt: skip
def test_a_text_is_what_was_written(written: str) -> None:
    """Whatever kind YAML 1.1 sees in it; said once for each place, unless it is a text anyway."""
    read, said = pod(f"""
        metadata: {{annotations: {{a: {written}}}, labels: {{b: {written}}}}}
        spec:
          nodeSelector: {{c: {written}}}
          containers:
            - name: n
              image: i
              args: [{written}]
              env: [{{name: E, value: {written}}}]
    """)

    (container,) = read["spec"]["containers"]
    texts = [
        read["metadata"]["annotations"]["a"],
        read["metadata"]["labels"]["b"],
        read["spec"]["nodeSelector"]["c"],
        container["args"][0],
        container["env"][0]["value"],
    ]
    assert 5 * [written] == texts
    assert (0 if written in {"1e3", "0o755"} else 5) == len(said)
    assert all(f"{written} is a " in text for text in said.values())


@pytest.mark.parametrize("written", ["-1", "1.5e+3", "12:30", "1:02:03.5", ".inf"])
def test_also_one_that_no_label_can_have(written: str) -> None:
    """In annotations, arguments and variables every text is allowed."""
    read, said = pod(f"""
        metadata: {{annotations: {{a: {written}}}}}
        spec: {{containers: [{{name: n, image: i, args: [{written}]}}]}}
    """)
    (container,) = read["spec"]["containers"]
    assert [written] * 2 == [read["metadata"]["annotations"]["a"], *container["args"]]
    assert 2 == len(said)
    with pytest.raises(config.ConfigError, match="allowed: letters, digits"):
        pod(f"metadata: {{labels: {{a: {written}}}}}")


def test_a_warning_says_where_and_what_to_do() -> None:
    """With the line in the file; quotes end it."""
    text = (
        "templates: {t: {labels: x, image: i, kubernetes: {pod: {metadata: {labels: {a: %s}}}}}}"
    )
    (warning,) = parse(text % "on").warnings[:1]
    assert ("put it in quotes", 5) == (warning.hint, warning.line)
    assert "on is a truth value in YAML: taken for the text that belongs here" == warning.text
    assert not [w for w in parse(text % "'on'").warnings if "labels" in w.path[3:]]


def test_numbers_and_truth_values_in_quotes() -> None:
    """As the plugin's reader takes them; what is no plain number stays wrong."""
    read, said = pod("""
        spec:
          hostNetwork: "false"
          containers:
            - {name: n, image: i, tty: yes, ports: [{containerPort: "8080"}]}
    """)

    assert read["spec"]["hostNetwork"] is False
    (container,) = read["spec"]["containers"]
    assert (True, 8080) == (container["tty"], container["ports"][0]["containerPort"])
    assert {"spec.hostNetwork", "spec.containers.0.ports.0.containerPort"} == set(said)
    with pytest.raises(config.ConfigError, match="found '8_080'; allowed: a whole number"):
        pod("spec: {containers: [{name: n, image: i, ports: [{containerPort: '8_080'}]}]}")


def test_sixtieths_are_no_number_where_one_belongs() -> None:
    """12:30 is 750 for YAML 1.1 alone: nobody means that."""
    with pytest.raises(config.ConfigError, match="found '12:30'; allowed: a whole number"):
        pod("spec: {activeDeadlineSeconds: 12:30}")


def test_an_octal_mode_is_the_number_it_is_for_kubectl() -> None:
    """And where neither a text nor a mode belongs it is refused, as everywhere."""
    read, said = pod("spec: {volumes: [{name: v, secret: {secretName: s, defaultMode: 0644}}]}")
    _, also = pod("spec: {volumes: [{name: v, configMap: {name: s, defaultMode: 0o644}}]}")
    assert ["'0o644' is a text in YAML: taken for the number that belongs here"] == [
        *also.values()
    ]
    assert (0o644, {}) == (read["spec"]["volumes"][0]["secret"]["defaultMode"], said)
    with pytest.raises(config.ConfigError, match="0755 is read as 493"):
        pod("spec: {activeDeadlineSeconds: 0755}")


def test_in_defaults_fragments_and_merged_sections_too() -> None:
    """Wherever pod YAML may stand; a value that replaces a merged one is judged as its own."""
    settings = parse("""
        defaults: {kubernetes: {pod: {metadata: {labels: &shared {a: 1, b: 2}}}}}
        templates:
          t:
            labels: x
            image: i
            kubernetes:
              pod: {metadata: {annotations: {<<: *shared, b: "two"}}}
    """)
    (template,) = settings.templates
    (options,) = template.launch.platform.values()
    assert {"a": "1", "b": "2"} == options.pod["metadata"]["labels"]
    assert {"a": "1", "b": "two"} == options.pod["metadata"]["annotations"]

    fragment = {"spec": {"nodeSelector": {"spot": "true"}}}
    text = HEAD.replace("namespace: a", "pods: {p: {spec: {nodeSelector: {spot: true}}}}")
    settings = loading.parse(text + "templates: {t: {labels: x, image: i}}", KINDS, environ={})
    assert fragment == settings.backends["k"].settings.pods["p"]
    assert [("backends", "k", "pods", "p", "spec", "nodeSelector", "spot")] == [
        w.path for w in settings.warnings if "pods" in w.path
    ]


def test_nowhere_else() -> None:
    """The broker's own settings take no number for a text."""
    with pytest.raises(config.ConfigError, match="found 1; allowed: a text"):
        parse("templates: {t: {labels: x, image: i, environment: {A: 1}}}")
