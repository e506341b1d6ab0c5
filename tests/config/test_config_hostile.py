"""Whatever stands where a configuration should be: problems with file and line, soon, and no more."""

import os
import pathlib
import random
import string
import subprocess
import sys
import threading
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker import config
from broker.cli import main as cli
from broker.config import kinds, loading, tree, values
from tests.each import each

ROOT = pathlib.Path(__file__).parent.parent.parent
KINDS = kinds.classes()
ENVIRON = {"T": "11secret", "JENKINS_TOKEN": "11secret"}
HEAD = 'owner: o\ncontroller: {url: "https://c/", user: u, token: "env:T"}\nlisten: "off"\n'
GOOD = f"{HEAD}templates:\n  t:\n    labels: l\n"
SOON_S = 5.0  # of processor time; an idle machine needs a fifth


def problems(text):
    """Read, and return the lines of what is wrong; anything but settings or those fails."""
    began = time.process_time()
    try:
        loading.parse(text, KINDS, environ=ENVIRON)
        lines = ()
    except config.ConfigError as error:
        lines = error.lines or ("no words",)
    assert time.process_time() - began < SOON_S
    for line in lines:
        assert line.startswith("broker.yaml:")
        assert int(line.split(":")[1]) >= 1
        assert "\n" not in line
        assert len(line) < 1200
        line.encode()
    return lines


# --- forty odd ones ----------------------------------------------------------------------------

ODD = {
    "deep-list": "owner: " + "[" * 5000,
    "deep-list-closed": "owner: " + "[" * 2000 + "]" * 2000,
    "deep-mapping": "owner: " + "{a: " * 3000,
    "deep-blocks": "\n".join("  " * n + "a:" for n in range(400)),
    "deep-sequences": "- " * 3000 + "x",
    "half-a-megabyte-of-brackets": "[" * (1 << 19),
    "itself": "owner: &a [*a]",
    "merged-with-itself": "owner: &a {<<: *a}",
    "a-bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    ),
    "a-bomb-of-merges": "a: &a {x: 1}\n"
    + "".join(
        f"b{n}: &b{n} {{<<: [*{'b' + str(n - 1) if n else 'a'}, *{'b' + str(n - 1) if n else 'a'}]}}\n"
        for n in range(60)
    ),
    "bool-maybe": f"{GOOD}    cap: !!bool maybe\n",
    "int-maybe": f"{GOOD}    cap: !!int maybe\n",
    "int-empty": f'{GOOD}    cap: !!int ""\n',
    "float-empty": f'{GOOD}    cap: !!float ""\n',
    "timestamp-foo": f"{GOOD}    cap: !!timestamp foo\n",
    "timestamp-month-13": f"{GOOD}    cap: 2026-13-45\n",
    "binary": f"{GOOD}    cap: !!binary x\n",
    "set": f"{GOOD}    labels: !!set {{a, b}}\n",
    "omap": f"{GOOD}    labels: !!omap [a: 1]\n",
    "python": f"{GOOD}    labels: !!python/object/apply:os.system [id]\n",
    "own-tag": f"{GOOD}    labels: !mine x\n",
    "huge-decimal": f"{GOOD}    cap: {'9' * 5000}\n",
    "huge-hexadecimal": f"{GOOD}    cap: 0x{'f' * 50000}\n",
    "huge-sexagesimal": f"{GOOD}    cap: 1{':59' * 100_000}\n",
    "negative-beyond-a-float": f"{GOOD}    cap: -{'9' * 400}\n",
    "infinite-cap": f"{GOOD}    cap: .inf\n",
    "nan": f"{GOOD}    heap_share: .nan\n",
    "endless-duration": f"{GOOD}    connect_deadline: {'9' * 400}d\n",
    "long-duration": f"{HEAD}high_availability: {{lease: {'9' * 60}d, namespace: n}}\ntemplates: {{t: {{labels: l}}}}\n",
    "endless-size": f"{GOOD}    resources: {{memory: {'9' * 60}Ti}}\n",
    "nul": f'{GOOD}    remote_fs: "/a\\0b"\n',
    "nul-in-a-key": f'{GOOD}    environment: {{"a\\0": b}}\n',
    "surrogate": f'{GOOD}    remote_fs: "/a\\ud800"\n',
    "surrogate-in-a-key": f'{HEAD}templates: {{"\\udfff": {{labels: l}}}}\n',
    "escape-in-a-key": f'{HEAD}"\\e[31m": 1\ntemplates: {{t: {{labels: l}}}}\n',
    "beyond-unicode": f'{GOOD}    remote_fs: "\\U7fffffff"\n',
    "a-key-of-100-kB": f"{HEAD}{'k' * 100_000}: 1\ntemplates: {{t: {{labels: l}}}}\n",
    "keys-of-all-types": f"{HEAD}1: a\n2.5: b\ntrue: c\n~: d\n2026-01-01: e\ntemplates: {{}}\n",
    "a-mapping-as-key": f"{HEAD}? {{a: 1}}\n: x\ntemplates: {{}}\n",
    "defaults-of-all-types": f"{HEAD}defaults: {{process: [], docker: 5, labels: {{}}}}\ntemplates: {{t: {{}}}}\n",
    "sections-are-texts": f"{HEAD}templates: {{t: {{labels: l, docker: x, process: [1], kubernetes: ~}}}}\n",
    "backends-of-all-types": f"{HEAD}backends: {{a: 1, b: [], c: {{kind: []}}, d: {{kind: {{}}}}, ~: ~}}\ntemplates: {{t: {{labels: l}}}}\n",
    "port-of-a-million": GOOD.replace("https://c/", "https://c:1000000/"),
    "bad-ipv6": GOOD.replace("https://c/", "https://[::1/"),
    "proxy-bad-ipv6": GOOD.replace("user: u", 'user: u, proxy: "http://[x:y@z"'),
    "a-tag-alone": "!!int",
    "an-anchor-alone": "&a",
    "an-unknown-alias": "owner: *nobody",
    "percent": "%YAML 9.9\n---\nowner: o",
    "tabs": "owner:\t\to\n\tcontroller: x",
    "hour-without-unit": f"{GOOD}    warm: {{schedule: {{windows: [{{days: mon-fri, from: 7, to: 19, min_idle: 4}}]}}}}\n",
    "raw-of-all-types": f"{HEAD}backends: {{d: {{kind: docker}}, k: {{kind: kubernetes, namespace: n}}, m: {{kind: mesos, master: 'm:1'}}}}\n"
    "templates: {t: {labels: l, image: i, docker: {docker: {HostConfig: [1]}}, "
    "kubernetes: {pod: {spec: {containers: [[], 1, {name: []}], volumes: {}}}}, mesos: {raw: {container: 7}}}}\n",
}


@each("name", ODD)
def test_an_odd_text_gives_problems(name):
    """Each with the line; never a traceback, never long."""
    assert problems(ODD[name])


def test_there_are_forty():
    """A lost one does not pass as success."""
    assert len(ODD) >= 40


@pytest.mark.parametrize(
    "where", ["    ", *(pytest.param(one, marks=pytest.mark.soak) for one in ("", "      "))]
)
def test_sixty_thousand_unknown_keys_take_no_time(where):
    """At the top, in a template, in an environment: told in one line, within a second or so."""
    text = GOOD.rstrip("\n") + "\n"
    if len(where) == 6:
        text += "    retention:\n"
    began = time.process_time()
    lines = problems(text + "".join(f"{where}key{n}: 1\n" for n in range(60_000)))
    assert time.process_time() - began < SOON_S
    assert 1 <= len(lines) <= 30


def test_two_thousand_unknown_keys_are_told_in_twenty_lines():
    """Whoever mixes up two files need not read them all, and none of the rest is lost."""
    lines = problems(
        HEAD + "".join(f"key{n:04}: 1\n" for n in range(2000)) + "templates: {T: {}}\n"
    )
    assert len([line for line in lines if "unknown setting; allowed" in line]) == 20
    assert len([line for line in lines if "1980 more unknown settings" in line]) == 1
    assert len([line for line in lines if "templates.T" in line]) >= 1


# --- examples, damaged -------------------------------------------------------------------------

WHOLE = [path.read_text() for path in sorted(ROOT.glob("examples/*/broker*.yaml"))]
EXAMPLES = (
    WHOLE + [path.read_text() for path in sorted(ROOT.glob("tests/golden/config/*.yaml"))][::5]
)
WORDS = [
    *("[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<: *a", "!!int ", "!!bool ", "!!timestamp "),
    *(
        '"',
        "'",
        "|",
        ">",
        "#",
        "%",
        "\t",
        "\n",
        "\0",
        "\x85",
        "\ufeff",
        "\ud7ff",
        "~",
        "null",
        "0x",
    ),
    *(
        "1e400",
        "-1",
        ".inf",
        "1:00:00",
        "true",
        "off",
        "{name}",
        "0o7",
        "\\u0000",
        '"\\ud800"',
        "é",
    ),
    *(string.ascii_letters, "9" * 50, "templates:", "kind: docker", "kind: mesos", "kubernetes:"),
]


def damaged(dice, text):
    """Change a text in a few places: characters, words, lines taken out, doubled, moved."""
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(text) + 1)
        match dice.randrange(7):
            case 0:
                text = text[:at] + dice.choice(WORDS) + text[at:]
            case 1:
                text = text[:at] + text[at + dice.randint(1, 30) :]
            case 2:
                lines = text.splitlines(keepends=True)
                dice.shuffle(lines)
                text = "".join(lines)
            case 3:
                lines = text.splitlines(keepends=True) or [""]
                lines.insert(dice.randrange(len(lines)), dice.choice(lines))
                text = "".join(lines)
            case 4:  # another indentation
                lines = text.splitlines(keepends=True) or [""]
                number = dice.randrange(len(lines))
                lines[number] = dice.choice(["  ", "    ", ""]) + lines[number].lstrip(" ")
                text = "".join(lines)
            case 5:  # a value of another type
                lines = text.splitlines(keepends=True) or [""]
                number = dice.randrange(len(lines))
                key, colon, _ = lines[number].partition(":")
                lines[number] = f"{key}{colon} {dice.choice(WORDS)}\n"
                text = "".join(lines)
            case 6:
                text = text[:at]
    return text


@given(st.integers(0, 1 << 32))
def test_a_damaged_example_is_good_or_has_problems(seed):
    """Whatever an editor, a merge or a template engine made of it."""
    dice = random.Random(seed)
    problems(damaged(dice, dice.choice(EXAMPLES)))


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.binary(max_size=4),
    st.text(max_size=12),
    st.sampled_from(
        ["10m", "2Gi", "env:T", "file:/dev/zero", "{name}", "/a", "linux", "unlimited"]
    ),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _paths(part, (*path, number))


@given(st.integers(0, 1 << 32), _VALUES)
def test_any_value_anywhere_is_good_or_has_problems(seed, value):
    """Every place of an example, with something of any type in it."""
    dice = random.Random(seed)
    data = yaml.safe_load(dice.choice(WHOLE))
    where = dice.choice(list(_paths(data))[1:])
    inner = data
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    problems(yaml.safe_dump(data, allow_unicode=True))


@given(st.text(max_size=400))
def test_any_text_is_good_or_has_problems(text):
    """Whatever it is."""
    problems(text)


@given(st.binary(max_size=300))
def test_any_file_is_good_or_has_problems(content):
    """Bytes, too."""
    path = pathlib.Path(f"/tmp/agent-broker-hostile-{os.getpid()}")
    path.write_bytes(content)
    try:
        with pytest.raises(config.ConfigError):
            loading.load(path, KINDS, environ={})
    finally:
        path.unlink()


# --- what is not a regular file -------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def large(tmp_path):
    """A hundred megabytes, that take no room."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    return path


@pytest.fixture(params=["fifo", "zero", "large", "folder", "socket"])
def odd_file(request, tmp_path):
    match request.param:
        case "zero":
            return pathlib.Path("/dev/zero")
        case "folder":
            (tmp_path / "broker.yaml").mkdir()
            return tmp_path
        case "socket":
            import socket

            path = tmp_path / "socket"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
            return path
        case name:
            return request.getfixturevalue(name)


def within(work, seconds=20.0):
    """Do it in a thread that may hang, and say so if it does."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    return found[0]


def test_a_configuration_that_is_no_file_is_refused_at_once(odd_file, capsys):
    """Also when a SIGHUP has it read again: the next reading is not held up."""
    assert within(lambda: cli.main(["check-config", "--config", str(odd_file)])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a regular file" in line or "larger than" in line

    def again():
        try:
            return loading.load(odd_file, kinds.classes(), environ={})
        except config.ConfigError as error:
            return str(error)

    assert "cannot be read" in within(again)


def test_a_secret_that_is_no_file_is_refused_not_cut(odd_file, tmp_path):
    """Half a token is worse than none."""

    def work():
        try:
            return values.resolve(f"file:{odd_file}", base=tmp_path, environ={})
        except values.Bad as error:
            return str(error)

    assert "regular file" in (told := within(work)) or "larger than 16384 bytes" in told


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf11secret\r\n", b"  11secret\n\n", b"11secret"])
def test_a_secret_is_what_can_be_seen(content, tmp_path):
    """Without blanks around it, and without the mark that some editors put before a text."""
    (tmp_path / "token").write_bytes(content)
    found = values.resolve("file:token", base=tmp_path, environ={})
    assert found.reveal() == "11secret"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf\n", b"a\nb", b"a\x85b", b"\xff\xfea\x00"])
def test_a_secret_that_is_none(content, tmp_path):
    """Empty, several lines, no text."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(values.Bad):
        values.resolve("file:token", base=tmp_path, environ={})


def test_a_configuration_may_begin_with_the_mark_of_its_bytes(tmp_path):
    """Some editors write it."""
    path = tmp_path / "broker.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert loading.load(path, KINDS, environ=ENVIRON).templates


# --- labels, as people write them --------------------------------------------------------------


@each(
    ("label", "said"),
    [
        ('"linux, docker"', ", (U+002C)"),
        ("“linux docker”", "“ (U+201C)"),
        ('"linux\u200b"', "U+200B"),
        ("[linux;docker]", "; (U+003B)"),
        ('"\ufefflinux"', "U+FEFF"),
        ("linux docker", None),
        ("[linux, docker-1.2_x/y]", None),
        ("größe", None),
    ],
)
def test_a_label_that_nobody_will_ask_for_is_said(label, said):
    """It works, so it is a warning; the character is spelled, for some cannot be seen."""
    made = loading.parse(GOOD.replace("labels: l", f"labels: {label}"), KINDS, environ=ENVIRON)
    found = [w.text for w in made.warnings if "labels" in w.path]
    assert bool(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("tcp://[fd00::1]:2376", True),
        ("https://[fd00::1]:2376", True),
        ("tcp://engine.example:2376", True),
        ("tcp://[fd00::1", False),
        ("tcp://[engine]:2376", False),
        ("tcp://e:99999", False),
    ],
)
def test_an_engine_by_its_address(url, good):
    """As Docker writes it."""
    told = f"{HEAD}backends: {{d: {{kind: docker, hosts: [{{url: '{url}', tls: true}}]}}}}\ntemplates: {{t: {{labels: l, image: i}}}}\n"
    assert (problems(told) == ()) == good


def test_merges_are_as_yaml_says():
    """Own keys win, of several sources the first, a source may be merged itself."""
    read = tree.parse(
        "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {z: 3, <<: [*b, *a]}\nd: {<<: *a}\n"
    )
    assert read.faults == []
    assert read.data["c"] == {"x": 1, "y": 2, "z": 3}
    assert read.data["d"] == {"x": 1, "y": 1}


# --- what people write, told in their words ----------------------------------------------------


@each(
    ("written", "found"),
    [
        ("no", "found false;"),
        ("", "found nothing;"),
        ("2020-01-01", "found 2020-01-01;"),
        ("!!binary aGVsbG8=", "found binary data of 5 bytes;"),
        ("[null, true, x, {a: no}]", "found [nothing, true, 'x', {a: false}];"),
        ("!!set {a}", "found {a: nothing};"),
        ("{a: {b: {c: {d: 1}}}}", "found {a: {b: {c: …}}};"),
        ("=", "found '=';"),
        ("<<", "found '<<';"),
    ],
)
def test_a_wrong_value_is_quoted_as_yaml_has_it(written, found):
    """The reader of a message knows YAML, not the language of this program."""
    (line,) = problems(f"{GOOD}    executors: {written}\n")
    assert f"templates.t.executors: {found} allowed: a whole number" in line


def test_a_number_by_sixtieths_is_not_taken():
    """12:30 is 750 for YAML 1.1 alone, wherever a number may stand."""
    (line,) = problems(f"{GOOD}    cap: 12:30\n")
    assert "templates.t.cap: found '12:30'; allowed: a whole number" in line


@pytest.mark.parametrize("token", ["11f2a9c0d1", "11 secret", "{AQAAAB}", ""])
def test_what_no_variable_can_be_called_is_not_shown(token):
    """Who writes a token behind ``env:`` does not find it in the message."""
    text = GOOD.replace('"env:T"', f'"env:{token}"')
    (line,) = problems(text)
    assert (
        "controller.token: found env: with something that is not the name of a variable (not shown)"
        in line
    )
    assert not token or token not in line


def test_a_bomb_is_told_as_what_it_is():
    """Too many values are not a matter of depth."""
    (line,) = problems(ODD["a-bomb"])
    assert "more than 20000 values" in line


def test_another_case_is_alike():
    """The plugins write NORMAL."""
    (line,) = problems(f"{GOOD}    mode: NORMAL\n")
    assert line.endswith("hint: did you mean normal?")


def test_a_link_to_nothing_in_a_folder_is_told_as_one(tmp_path, capsys):
    """A team's file is nothing that ``init`` writes."""
    (tmp_path / "broker.yaml").write_text(GOOD)
    (tmp_path / "a.yaml").symlink_to("nowhere")

    assert cli.main(["check-config", "-c", str(tmp_path)]) == cli.BAD_INPUT
    assert capsys.readouterr().err == (
        f"agent-broker: {tmp_path}/a.yaml: a link to what is not there\n"
    )


def test_an_output_without_the_characters_spells_them(tmp_path):
    """A terminal of another character set, a file with a name that is no text: still an answer."""
    (tmp_path / "broker.yaml").write_text(GOOD)
    (tmp_path / os.fsdecode(b"\xff.yml")).write_text("")
    told = subprocess.run(
        [sys.executable, "-m", "broker", "check-config", "-c", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )

    assert (told.returncode, told.stderr) == (0, b"")
    assert b"\\udcff.yml:1: not read" in told.stdout
