"""What came out of a variable is never quoted: the file's own text is."""

import pytest

from broker import config
from broker.config import concealing, errors, kinds, loading
from tests.each import each

KINDS = kinds.classes()
SECRET = "Hunter2-Tiger9"
HEAD = "owner: o\ncontroller: {url: 'http://localhost/'}\n"


def refused(text, **environ):
    with pytest.raises(config.ConfigError) as caught:
        loading.parse(text, KINDS, environ=environ)
    return list(caught.value.lines)


@each(
    "text",
    [
        "listen: ${PW}\ntemplates: {t: {labels: x}}",
        "listen: 'a ${PW}'\ntemplates: {t: {labels: x}}",
        "poll: {busy: '${PW}'}\ntemplates: {t: {labels: x}}",
        "poll: ${PW}\ntemplates: {t: {labels: x}}",
        "templates: {t: {labels: ['a b${PW}']}}",
        "templates: {t: {labels: x, backends: ['${PW}']}}",
        "templates: {t: {labels: x, mode: '${PW}'}}",
        "templates: {t: {labels: x, connect: {tunnel: '${PW}'}}}",
        "templates: {t: {labels: x, resources: {memory: '${PW}'}}}",
        "templates: {t: {labels: x, warm: {schedule: {zone: '${PW}'}}}}",
        "defaults: {retention: {idle: '${PW}'}}\ntemplates: {t: {labels: x}}",
        "templates: {t: '${PW}'}",
        "templates: ['${PW}']",
        "limits: {agents: '${PW}'}\ntemplates: {t: {labels: x}}",
        "backends: {d: {kind: docker}}\ntemplates: {t: {labels: x, image: '${PW}:'}}",
        "backends: {d: {kind: '${PW}'}}\ntemplates: {t: {labels: x}}",
        "backends: {d: {kind: docker, hosts: [{url: '${PW}'}]}}\ntemplates: {t: {labels: x}}",
        "backends: {k: {kind: kubernetes, namespace: '${PW}'}}\ntemplates: {t: {labels: x}}",
        "backends: {m: {kind: mesos, master: 'x ${PW}'}}\ntemplates: {t: {labels: x}}",
    ],
)
def test_no_message_quotes_the_value_of_a_variable(text):
    """Wherever it stands, and whatever is wrong with it: the file's text is quoted."""
    lines = "\n".join(refused(HEAD + text, PW=SECRET))
    for part in ("hunter", "tiger", SECRET.lower()):
        assert part not in lines.lower()
    assert "${PW}" in lines


@pytest.mark.parametrize("value", ["123456789", "a'b\"c" * 3, "x" * 300, "line\ttab", "ab"])
def test_values_of_every_form_are_concealed(value):
    """A number that YAML reads, quotes of both kinds, what is cut, and what is spelled out."""
    (line,) = refused(
        HEAD + "templates: {t: {labels: x, retention: {idle: '${PW}'}}}",
        PW=value,
    )
    said = line.partition("retention.idle: ")[2]
    assert said.startswith("found '${PW}'; allowed: a duration")
    (line,) = refused(
        HEAD
        + "poll: {busy: ${PW}}\ntemplates: {t: {labels: x}}".replace(
            "{busy: ${PW}}", "\n  busy: ${PW}"
        ),
        PW="123456789",
    )
    assert "123456789" not in line


def test_what_is_said_elsewhere_is_left_as_it_is():
    """A short value is no reason to change messages about other settings."""
    lines = refused(HEAD + "state_dir: ${A}\npoll: {busy: xa}\ntemplates: {t: {labels: x}}", A="a")
    assert lines == [
        "broker.yaml:4: poll.busy: found 'xa'; allowed: a duration like 30s, 10m, 1h30m or 250ms"
    ]


def test_a_long_value_is_concealed_at_any_path():
    """A message of another setting may quote it, too."""
    problem = errors.Problem(
        path=("a",), text="the same as 'Hunter2-Tiger9'", hint="not Hunter2-Tiger9"
    )
    one = concealing.Inserted(path=("b",), written="${PW}", value=SECRET)
    told = concealing.concealed(problem, [one])
    assert (told.text, told.hint) == ("the same as '${PW}'", "not ${PW}")
