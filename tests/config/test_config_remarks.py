"""A kind's settings judge themselves: warnings are told, what is wrong refuses the file."""

import pytest
from attrs import frozen

from backends.kit import remarks
from broker import config
from broker.config import kinds, loading

HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:T'}\nlisten: off\n"


@frozen(kw_only=True)
class Place:
    url: str = "https://here/"

    def remarks(self):
        if self.url.startswith("http://"):
            yield remarks.Remark(path=("url",), text="the token travels in the clear")


@frozen(kw_only=True)
class Settings:
    places: tuple[Place, ...] = (Place(),)

    def remarks(self):
        for number, place in enumerate(self.places):
            for remark in place.remarks():
                yield remarks.Remark(
                    path=("places", number, *remark.path), text=remark.text, hint="https://"
                )


@frozen(kw_only=True)
class Template:
    shared: bool = False

    def remarks(self, common):
        if self.shared and not common.alone:
            yield remarks.Remark(path=("shared",), text=f"below {common.remote_fs}", wrong=True)


KINDS = {"x": config.KindClasses(settings=Settings, template_settings=Template)}


def parse(text):
    return loading.parse(f"{HEAD}{text}", KINDS, environ={"T": "11secret"})


def test_a_backends_settings_warn_where_they_stand():
    """The path goes on from the section; the same words of two templates are said once."""
    made = parse(
        "backends: {a: {kind: x, cap: 9, places: [{}, {url: 'http://b/'}]}}\n"
        "templates: {t: {labels: l}, u: {labels: m}}"
    )
    (warning,) = made.warnings
    assert warning.placed() == (
        "broker.yaml:4: backends.a.places[1].url: the token travels in the clear; hint: https://"
    )


def test_a_warning_of_the_defaults_is_said_once_where_it_stands():
    """With the line in the file, as a problem."""
    made = parse(
        "backends: {a: {kind: x, cap: 9}}\n"
        "defaults:\n  executors: 2\n  retention:\n    max_builds: 3\n"
        "templates: {t: {labels: l}, u: {labels: m}}"
    )
    (warning,) = made.warnings
    assert warning.placed().startswith("broker.yaml:8: defaults.retention.max_builds: with 2 ")


def test_what_is_wrong_refuses_the_file():
    """With line and path; what a template says to all kinds is known to its kind."""
    text = (
        "backends: {a: {kind: x, cap: 9}, b: {kind: x, cap: 9}}\n"
        "templates:\n  t: {labels: l, remote_fs: /w, x: {shared: true}}\n"
    )
    with pytest.raises(config.ConfigError) as caught:
        parse(text)
    assert caught.value.lines == ("broker.yaml:6: templates.t.x.shared: below /w",)
    assert parse(text.replace("labels: l", "labels: l, cap: 1")).templates


@pytest.mark.parametrize(
    ("pattern", "odd"),
    [
        ("https://c/job/team-a/**", "://"),
        ("job/team-a/**", "job/"),
        ("team-a » app", " » "),
        ("team-a/** ", " "),
    ],
)
def test_a_pattern_copied_of_a_page_is_told(pattern, odd):
    """It is taken, for a job may be called so, and would stand for none of those that are meant."""
    made = parse(
        "backends: {a: {kind: x, cap: 9}}\n"
        f"templates: {{t: {{labels: l, only_for: ['{pattern}', 'team-a/my-job']}}}}"
    )
    (warning,) = made.warnings
    assert warning.placed().startswith(
        f"broker.yaml:5: templates.t.only_for[0]: '{pattern}' is for jobs that have '{odd}' in"
    )


LOCAL = "owner: o\ncontroller: {url: 'http://localhost:1/', user: u, token: 'env:T'MORE}\nlisten: off\n"
PLACES = """\
backends: {d: {kind: docker}, k: {kind: kubernetes, namespace: n}, s: {kind: swarm}}
templates: {t: {labels: l, image: a, backends: [KIND]SAID}, u: {labels: m, image: a, backends: [KIND]SAID}}
"""


@pytest.mark.parametrize(
    ("kind", "said", "more", "is_warned"),
    [
        ("d", "", "", True),
        ("d", "", ", agent_url: 'http://127.0.0.2/'", True),
        ("d", "", ", agent_url: 'http://c.example/'", False),
        ("d", ", connect: {mode: websocket}", "", True),
        ("d", ", docker: {network: host}", "", False),
        ("d", ", docker: {docker: {HostConfig: {NetworkMode: 'container:x'}}}", "", False),
        ("d", ", docker: {network: mine}", "", True),
        ("d", ", connect: {mode: direct, direct: 'a:1', instance_identity: QQ==}", "", False),
        ("s", "", "", True),
        ("s", ", swarm: {networks: [host]}", "", False),
        ("k", "", "", True),
        ("k", ", kubernetes: {pod: {spec: {hostNetwork: true}}}", "", False),
    ],
)
def test_a_controller_on_loopback_is_not_found_from_containers(kind, said, more, is_warned):
    """Once, however many templates there are; where they share their host's network it is."""
    text = LOCAL.replace("MORE", more) + PLACES.replace("SAID", said).replace("KIND", kind)
    made = loading.parse(text, kinds.classes(), environ={"T": "11secret"})
    told = [one.placed() for one in made.warnings if "not find the controller" in one.placed()]
    assert is_warned == bool(told)
    for line in told:
        place = "controller.agent_url" if more else "controller.url"
        assert line.startswith(f"broker.yaml:2: {place}: agents of t run in containers")
    assert len(told) <= 1
