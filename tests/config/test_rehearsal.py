"""What can only fail is said when the configuration is read, for each template and backend."""

import pytest

from broker import config
from broker.config import kinds, loading

HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:T'}\nlisten: off\n"
CLUSTER = "{kind: kubernetes, namespace: n, server: 'https://k/', token_file: /t, pods: {a: {}}}"
BACKENDS = f"backends:\n  engine: {{kind: docker}}\n  cluster: {CLUSTER}\ntemplates:\n"


def said(templates: str) -> tuple[bool, list[str]]:
    """Return whether it is good, and what is said; the first template stands in line 8."""
    text = f"{HEAD}{BACKENDS}{templates}"
    try:
        made = loading.parse(text, kinds.classes(), environ={"T": "11secret"})
    except config.ConfigError as error:
        return False, list(error.lines)
    lines = [warning.placed() for warning in made.warnings]
    return True, [line for line in lines if "templates." in line]


def test_a_template_that_no_backend_can_serve_is_refused():
    """Each says why, with the setting that is missing as a hint."""
    good, (engine, cluster) = said("  t: {labels: l}")

    start = "broker.yaml:8: templates.t: on backend "
    assert not good
    assert (
        engine == f"{start}engine: a container needs an image; hint: set `image` in the template"
    )
    assert cluster.startswith(f"{start}cluster: no image; hint: ")


def test_one_that_another_backend_can_serve_is_warned_of():
    """There it has its agents; on the first it never will."""
    good, (line,) = said("  t: {labels: l, image: x, kubernetes: {inherits: [b]}}")

    assert good
    assert ": on backend cluster: inherits 'b', but the backend's `pods` are: a" in line


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("inherits: [b]", "inherits 'b', but the backend's `pods` are: a"),
        (
            "pod: {spec: {containers: [{name: jnlp, $patch: delete}]}}",
            "`pod` removes the container 'jnlp'",
        ),
        ("in_container: true", "in_container is on, but the backend has no section"),
    ],
)
def test_a_pod_that_cannot_be_is_said_where_its_section_stands(section, words):
    """With the line of the template's section."""
    template = f"  t:\n    labels: l\n    backends: [cluster]\n    image: x\n    kubernetes: {{{section}}}"
    good, (line,) = said(template)

    assert not good
    assert line.startswith(f"broker.yaml:12: templates.t.kubernetes: on backend cluster: {words}")


def test_a_template_that_is_wrong_otherwise_is_not_gone_through():
    """What follows from another mistake is not told beside it."""
    _, (line,) = said("  t: {labels: l, cap: -1}")

    assert "templates.t.cap" in line


def test_a_good_one_is_good():
    """On both."""
    assert (True, []) == said("  t: {labels: l, image: x}")
