"""What a configuration says, setting by setting, as digests that tell two of them apart."""

import pytest

from broker.config import kinds, loading
from tests.each import each

KINDS = kinds.classes()
HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:TOKEN'}\n"
TEMPLATE = "templates: {t: {labels: l"


def parts(text, **environ):
    return loading.parse(f"{HEAD}{text}", KINDS, environ={"TOKEN": "11secret"} | environ).parts


BASE = f"{TEMPLATE}}}}}\n"


def differing(one, other):
    before, after = parts(one), parts(other)
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


@each(
    ("text", "paths"),
    [
        (f"{TEMPLATE}, cap: 3}}}}", ["templates.t.cap"]),
        (f"{TEMPLATE}, warm: {{min_idle: 1}}}}}}", ["templates.t.warm.min_idle"]),
        (f"{TEMPLATE}, process: {{nice: 3}}}}}}", ["templates.t.process.nice"]),
        (f"{TEMPLATE}, environment: {{A: b, C: d}}}}}}", ["templates.t.environment"]),
        (f"defaults: {{cap: 3}}\n{BASE}", ["templates.t.cap"]),
        (f"limits: {{agents: 3}}\n{BASE}", ["limits.agents"]),
        (
            f"backends: {{local: {{kind: process, starting: 5}}}}\n{BASE}",
            ["backends.local.starting"],
        ),
        (f"backends: {{local: {{kind: process, path: /x}}}}\n{BASE}", ["backends.local.path"]),
        (f"listen: 'off'\n{BASE}", ["listen"]),
        (f"watch_files: 5s\n{BASE}", ["watch_files"]),
        (
            f"{TEMPLATE}, warm: {{schedule: {{zone: Europe/Berlin}}}}}}}}",
            ["templates.t.warm.schedule"],
        ),
    ],
)
def test_a_difference_is_named_by_its_setting(text, paths):
    """As it stands in the file, wherever it comes from."""
    assert paths == differing(BASE, text)


@pytest.mark.parametrize(
    "text",
    [
        f"{TEMPLATE}, cap: null, executors: 1, connect_deadline: 300s}}}}",
        f"poll: {{busy: 1000ms}}\nlimits: {{}}\n{BASE}",
        "templates: {t: {labels: [l]}}",
    ],
)
def test_what_means_the_same_is_no_difference(text):
    """A default that is written out, another unit, another way of writing."""
    assert [] == differing(BASE, text)


def test_what_has_its_default_is_left_out():
    """Few are kept of many settings, and another version's new ones make no difference."""
    assert {
        *("owner", "controller.url", "controller.user", "controller.token"),
        *("backends.local.kind", "backends.local.cap", "templates.t.labels"),
    } >= parts(BASE).keys()


def test_no_secret_is_digested():
    """Another token makes no difference: only where it is."""
    assert parts(BASE) == parts(BASE, TOKEN="11another")
    assert "controller.token" in parts(BASE)
