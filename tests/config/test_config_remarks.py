"""A kind's settings judge themselves: warnings are told, what is wrong refuses the file."""

import pytest
from attrs import frozen

from backends.kit import remarks
from broker import config
from broker.config import loading

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
