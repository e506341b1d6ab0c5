"""What a configuration may say and what becomes of it; nonsense never ends in a traceback."""

import functools
import json
import math
import pathlib
import shlex
import string

import attrs
import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker import config
from broker.cli import main as cli
from broker.config import describing, kinds, loading, reading, samples, shape
from tests.each import each

ROOT = pathlib.Path(__file__).parent.parent.parent
KINDS = kinds.classes()
ENVIRON = {"JENKINS_TOKEN": "11token-of-the-test"}
HEAD = "owner: o\ncontroller: {url: 'http://c/'}\n"


def parse(text, **more):
    return loading.parse(text, KINDS, environ=ENVIRON, **more)


def template(text):
    (made,) = parse(f"{HEAD}templates: {{t: {{labels: x, {text}}}}}").templates
    return made


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("10m", 600.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("2d", 172800.0),
        ("never", None),
    ],
)
def test_durations(told, seconds):
    """As people write them; ``never`` where that is a value."""
    assert seconds == template(f"retention: {{idle: {told}}}").retention.idle_s


@pytest.mark.parametrize(
    ("told", "size"),
    [
        ("512Mi", 512 << 20),
        ("2Gi", 2 << 30),
        ("500M", 500_000_000),
        ("2g", None),
        ("134217728", 128 << 20),
    ],
)
def test_sizes(told, size):
    """Binary and decimal units are told apart; a unit that could mean either is refused."""
    if size is None:
        with pytest.raises(config.ConfigError, match="allowed: a size"):
            template(f"resources: {{memory: {told}}}")
    else:
        assert size == template(f"resources: {{memory: {told}}}").launch.resources.memory_bytes


@pytest.mark.parametrize(
    ("moment", "idle"),
    [(1_780_293_540, 1), (1_780_293_600, 4), (1_780_336_800, 1), (1_780_207_200, 1)],
    # Mon 2026-06-01 07:59 in Berlin, 08:00, 20:00, Sun 08:00
)
def test_the_warm_minimum_follows_the_week_of_its_zone(moment, idle):
    """08:00 is local, and in summer that is 06:00 UTC."""
    told = 'warm: {min_idle: 1, schedule: {zone: Europe/Berlin, windows: [{days: mon-fri, from: "08:00", to: "20:00", min_idle: 4}]}}'
    made = parse(f"{HEAD}templates: {{t: {{labels: x, {told}}}}}")
    (of_moment,) = config.policy(made, wall_now=moment).templates
    assert idle == of_moment.min_idle


def test_defaults_lie_under_every_template():
    """Sections are merged, everything else is replaced."""
    made = parse(
        f"{HEAD}defaults: {{cap: 3, retention: {{idle: 1m, max_age: 1h}}, process: {{nice: 9}}}}\n"
        "templates: {a: {labels: x}, b: {labels: y, cap: 1, retention: {idle: 5m}}}"
    )
    a, b = made.templates
    assert (a.cap, a.retention.idle_s, a.retention.max_age_s) == (3, 60.0, 3600.0)
    assert (b.cap, b.retention.idle_s, b.retention.max_age_s) == (1, 300.0, 3600.0)
    assert [next(iter(t.launch.platform.values())).nice for t in (a, b)] == [9, 9]


def test_a_revision_is_of_what_the_agent_is_not_of_when_it_goes():
    """A changed cap or retention retires nobody; a changed command does."""
    before = template("cap: 1").revision
    assert before == template("cap: 2, retention: {idle: 1h}, warm: {min_idle: 2}").revision
    assert before != template("command: [x]").revision
    assert before != template("executors: 2").revision


def test_how_long_a_cache_is_kept_is_no_part_of_a_revision():
    """It is about the next agent; that there is a cache is about each."""

    def revised(told):
        cache = f"{{name: 'c-{{slot}}', target: /c{told}}}"
        text = (
            "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:JENKINS_TOKEN'}\n"
            "backends: {d: {kind: docker}}\n"
            f"templates: {{t: {{labels: x, image: x, docker: {{volumes: [{cache}]}}}}}}\n"
        )
        (made,) = parse(text).templates
        return made.revision

    assert revised("") == revised(", max_age: 14d, max_size: 1Gi")
    assert revised("") != revised(", read_only: true")


def test_a_secret_comes_from_a_file_beside_the_configuration(tmp_path):
    """A relative path starts where the file stands, the line break at the end is not part of it."""
    (tmp_path / "token").write_text("s3cret\n")
    path = tmp_path / "broker.yaml"
    path.write_text(
        "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'file:token'}\ntemplates: {t: {labels: x}}\n"
    )
    made = loading.load(path, KINDS, environ={})
    assert made.secrets() == ("s3cret",)
    assert "s3cret" not in repr(made)
    assert "s3cret" not in repr(made.controller.session())


def test_a_proxy_with_a_password_comes_from_a_reference():
    """It never appears in a repr, and the log is told to blank it."""
    made = loading.parse(
        "owner: o\ncontroller: {url: 'https://c/', proxy: 'env:P'}\ntemplates: {t: {labels: x}}",
        KINDS,
        environ={"P": "http://u:hunter2@proxy:3128"},
    )
    assert made.controller.proxy == "http://u:hunter2@proxy:3128"
    assert made.secrets() == ("hunter2",)
    assert "hunter2" not in repr(made) + repr(made.controller.session())


def test_warnings_do_not_end_it(monkeypatch):
    """What works but is unwise is said."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    made = parse(
        f"{HEAD}templates: {{t: {{labels: x, executors: 2, retention: {{max_builds: 3}}, environment: {{API_TOKEN: z}}, memory: {{}}}}}}"
    )
    assert [w.where() for w in made.warnings] == [
        "controller.user",
        "templates.t.environment.API_TOKEN",
        "templates.t.retention.max_builds",
        "templates.t.memory",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (1 << 21)])
def test_a_file_that_is_no_configuration(tmp_path, capsys, content):
    """Not text, or far too long: said in one line."""
    path = tmp_path / "broker.yaml"
    path.write_bytes(content)
    assert cli.main(["check-config", "--config", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_that_is_not_there_or_a_directory(tmp_path, capsys):
    """Said in one line, with what to do."""
    assert cli.main(["check-config", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "agent-broker init writes one" in capsys.readouterr().err
    assert cli.main(["check-config", "--config", str(tmp_path)]) == 2
    assert f"{tmp_path / 'broker.yaml'}: there is no such file" in capsys.readouterr().err


# --- the schema for editors, the sample, the examples ---


@functools.cache
def _schema():
    return describing.schema(KINDS)


@functools.cache
def _editor():
    """Return what marks mistakes as an editor does."""
    return jsonschema.Draft202012Validator(_schema())


def examples():
    return sorted(ROOT.glob("examples/*/broker*.yaml"))


def test_the_schema_is_one():
    """Editors read draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(_schema())


@pytest.mark.parametrize("path", examples(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_example_loads_and_fits_the_schema(path, tmp_path):
    """With the secrets and certificates that it names put in their place."""
    text = path.read_text()
    told = yaml.safe_load(text)
    _editor().validate(told)
    for key in ("token", "password", "proxy"):
        reference = str(told["controller"].get(key, ""))
        if reference.startswith("file:"):
            (tmp_path / key).write_text("11secret")
            text = text.replace(reference, f"file:{tmp_path / key}")
    made = loading.parse(text, KINDS, environ=ENVIRON, base=path.parent)
    assert made.templates


@pytest.mark.parametrize("kind", samples.KINDS)
def test_the_sample_of_init_loads_and_fits_the_schema(kind, tmp_path, capsys, monkeypatch):
    """``init`` writes what ``check-config`` accepts, and never over a file."""
    path = tmp_path / "broker.yaml"
    monkeypatch.setenv("JENKINS_TOKEN", "x")
    assert cli.main(["init", str(path), "--backend", kind]) == 0
    assert cli.main(["check-config", "--config", str(path)]) == 0
    _editor().validate(yaml.safe_load(path.read_text()))
    before = path.read_text()
    assert cli.main(["init", str(path)]) == 3
    assert before == path.read_text()
    capsys.readouterr()


@pytest.mark.parametrize("name", [None, "mine.yaml", "a b.yaml"])
def test_init_says_a_command_that_finds_what_it_wrote(name, tmp_path, capsys, monkeypatch):
    """Also where it is not the name that ``check-config`` looks for by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JENKINS_TOKEN", "x")
    assert cli.main(["init"] if name is None else ["init", name]) == 0
    _, _, command = capsys.readouterr().out.partition("then ")
    program, *arguments = shlex.split(command)
    assert program == "agent-broker"
    assert cli.main(arguments) == 0


def test_the_readme_has_a_configuration_of_ten_lines():
    """It is the one in the README that loads, not a copy."""
    text = (ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert len(text.splitlines()) == 10
    _editor().validate(yaml.safe_load(text))
    assert [t.name for t in parse(text).templates] == ["linux"]


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "tests/golden/config").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_the_schema_never_refuses_what_loads(path):
    """Editors may miss a mistake, but never mark what is right: so only these may pass both."""
    try:
        told = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError):
        return
    fits = _editor().is_valid(told)
    with pytest.raises(config.ConfigError):
        loading.parse(path.read_text(), KINDS, environ=ENVIRON)
    if path.stem in {
        "unknown-keys",
        "wrong-types",
        "durations",
        "sizes",
        "missing",
        "inline-secret",
    }:
        assert not fits


# --- nonsense ---

_KEYS = st.sampled_from(
    [
        f.name.removesuffix("_s")
        for cls in (
            shape.Document,
            shape.Template,
            shape.Controller,
            shape.Warm,
            shape.Retention,
            shape.Connect,
            shape.Schedule,
            shape.ScheduleWindow,
            shape.Backend,
        )
        for f in cls.__attrs_attrs__
    ]
    + ["process", "memory", "docker", "from", "to", "x"]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**12)
    | st.floats(allow_nan=True)
    | st.sampled_from(
        [
            "",
            "10m",
            "2Gi",
            "env:X",
            "file:/",
            "file:.",
            "http://[",
            "http://u:p@h:1/",
            "mon",
            "07:00",
            "x && y",
            "tcp",
            "h:1",
            "\0",
            "\ud800"[:0],
            "é" * 70,
            "process",
        ]
    )
    | st.text(string.printable, max_size=12)
)
_NONSENSE = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_KEYS | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=30,
)


def _only_problems(text):
    try:
        parse(text)
    except config.ConfigError as raised:
        error = raised
    else:
        return
    assert str(error).startswith("broker.yaml:")
    json.dumps(error.documents())
    assert all(len(line) < 4096 for line in str(error).splitlines())


@given(st.dictionaries(_KEYS, _NONSENSE, max_size=8))
def test_nonsense_never_ends_in_a_traceback(told):
    """Whatever the structure, the answer is settings or problems with a line."""
    good = {"owner": "o", "controller": {"url": "http://c/"}, "templates": {"t": {"labels": "x"}}}
    _only_problems(yaml.safe_dump(good | told, allow_unicode=True))
    _only_problems(yaml.safe_dump(good | {"templates": {"t": {"labels": "x"} | told}}))
    _only_problems(
        yaml.safe_dump(good | {"defaults": told, "backends": {"b": {"kind": "process"} | told}})
    )


@given(st.text(alphabet="ab:- \n\t{}[]&*!|>'\"%@#,?~<.0\x00\x85é\u2028", max_size=60))
def test_text_that_is_hardly_yaml_never_ends_in_a_traceback(text):
    """Tags, anchors, control characters, unfinished flows."""
    _only_problems(text)
    _only_problems(f"{HEAD}templates:\n  t:\n    labels: x\n    cap: {text}\n")


def test_an_alias_bomb_is_refused_at_once():
    """Ten levels of ten aliases are ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    with pytest.raises(config.ConfigError, match="more than 20000 values"):
        parse("\n".join(lines))


def test_infinity_is_no_number():
    """YAML has words for it, platforms have none."""
    assert math.isinf(yaml.safe_load(".inf"))
    with pytest.raises(config.ConfigError, match="a number"):
        template("resources: {cpu_limit: .inf}")


@each(
    ("told", "known", "hint"),
    [
        ("executor", "executors", True),
        ("web-socket", "websocket", True),
        ("nise", "nice", True),
        ("min-idle", "min_idle", True),
        ("no_new_privilege", "no_new_privileges", True),
        ("privileged", "no_new_privileges", False),
        ("new_privileges", "no_new_privileges", False),
        ("unverified", "verified", False),
        ("insecure", "secure", False),
        ("max_idle", "min_idle", False),
        ("disable_socket", "enable_socket", False),
        ("cap_adds", "cap_drop", False),
        ("cap_add", "cap_drop", False),
        ("sidecar", "shares", False),
    ],
)
def test_a_hint_names_what_is_alike_and_never_the_opposite(told, known, hint):
    """Who follows it gets what was asked for."""
    assert reading.guess(told, [known]) == (f"did you mean {known}?" if hint else "")


def test_no_setting_is_the_hint_for_its_opposite():
    """Of all settings of all kinds: what says no to one of them is not answered with it."""
    classes = [shape.Document, shape.Template, shape.Backend]
    classes += [c for kind in KINDS.values() for c in (kind.settings, kind.template_settings)]
    for cls in classes:
        known = [reading.key_of(attribute) for attribute in attrs.fields(cls)]
        for name in known:
            turned = name.removeprefix("no_") if name.startswith("no_") else f"no_{name}"
            for told in (turned, f"un{name}", f"disable_{name}"):
                assert told in known or f"mean {name}?" not in reading.guess(told, known)


def test_privileged_is_not_answered_with_no_new_privileges():
    """Which would have taken a privilege in the place of giving one."""
    with pytest.raises(config.ConfigError) as caught:
        parse(
            f"{HEAD}backends: {{b: {{kind: docker}}}}\n"
            "templates: {t: {labels: x, image: i, docker: {privileged: true}}}"
        )
    (line,) = (one for one in caught.value.lines if "privileged: unknown" in one)
    assert "hint" not in line


TEAMS = """
owner: o
controller: {{url: "https://c/", user: u, token: "env:T"}}
listen: "off"
limits: {{agents: {most}}}
templates:
  day: {{labels: d, warm: {{schedule: {{zone: Europe/Berlin, windows: [{day}]}}}}}}
  night: {{labels: n, {paused}warm: {{min_idle: 1, schedule: {{zone: UTC, windows: [{night}]}}}}}}
"""
DAY = '{days: mon-fri, from: "08:00", to: "18:00", min_idle: 4}'
NIGHT = '{days: daily, from: "20:00", to: "06:00", min_idle: 4}'
LATE = '{days: fri, from: "15:00", to: "20:00", min_idle: 3}'


@pytest.mark.parametrize(
    ("most", "day", "night", "paused", "refused"),
    [
        (5, DAY, NIGHT, "", ""),  # never at once: 4 and 1, or 4
        (4, DAY, NIGHT, "", "found 4, and 5 agents are to be idle at once: day 4, night 1"),
        (6, DAY, LATE, "", "found 6, and 7 agents are to be idle at once: day 4, night 3"),
        (7, DAY, LATE, "", ""),
        (4, DAY, LATE, "paused: true, ", ""),
    ],
)
def test_all_that_is_to_be_warm_at_once_may_be_there(most, day, night, paused, refused):
    """Windows that never meet are no sum; each in its own zone; what is paused starts nothing."""
    text = TEAMS.format(most=most, day=day, night=night, paused=paused)
    if not refused:
        loading.parse(text, kinds.classes(), environ={"T": "t"})
        return
    with pytest.raises(config.ConfigError) as raised:
        loading.parse(text, kinds.classes(), environ={"T": "t"})
    (line,) = raised.value.lines
    assert line.startswith(f"broker.yaml:5: limits.agents: {refused}; hint: ")
