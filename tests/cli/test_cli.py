"""The command line: helps, exit codes, what is printed for people and for programs."""

import argparse
import asyncio
import contextlib
import functools
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import attrs
import pytest

from broker import config, exits, page_address, store
from broker.cli import configuring
from broker.cli import main as cli
from broker.config import kinds, loading
from broker.status import Server, documents, terminal
from tests import patience
from tests.status import status_source

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "cli"
CONFIG = """\
owner: o
controller: {url: "http://127.0.0.1:1/"}
listen: "off"
templates:
  linux: {labels: linux shell}
  gpu: {labels: [linux, gpu], cap: 1}
  any: {labels: any, mode: normal, takes_unlabelled: true}
"""


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "broker.yaml"
    made.write_text(CONFIG + f"state_dir: {tmp_path}/state\n")
    return str(made)


def golden(name, text):
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert file.read_text() == text


def commands():
    (subs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subs.choices


def test_the_helps_are_as_agreed(monkeypatch):
    """One file with all of them, as on a terminal of 80 columns with colours, on every Python."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    texts = [cli.parser().format_help(), *(made.format_help() for made in commands().values())]
    golden("help.txt", "\n".join(texts))


def test_whatever_lists_something_has_json():
    """The others list nothing, or are for programs already."""
    without = {name for name, made in commands().items() if "--json" not in made.format_help()}
    assert without == {"run", "init", "schema", "render", "record", "import", "completion", "hook"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "COMMAND: found 'fly'; allowed: run, demo, check-config, plan,"),
        (["statsu"], "did you mean status?"),
        (
            ["init", "--backend", "x"],
            "found 'x'; allowed: process, docker, swarm, kubernetes, mesos",
        ),
        (["completion", "tcsh"], "shell: found 'tcsh'; allowed: bash, zsh, fish"),
        (["describe"], "missing: AGENT"),
        (["status", "--wat"], "unknown: --wat"),
        (["status", "--watc=5"], "unknown: --watc=5"),
        (["run", "--config"], "--config: a value is missing"),
        (["demo", "--seconds", "-3"], "found '-3'; allowed: seconds, a number from 1 to 86400"),
        (["demo", "--seconds", "nan"], "found 'nan'"),
        (["demo", "--listen", "8087"], "found '8087'; allowed: HOST:PORT"),
        (["demo", "--controller-only", "--listen", f"h:{'9' * 5000}"], "allowed: HOST:PORT"),
        (
            ["record", "x", "--every", "0"],
            "found '0'; allowed: seconds, a number from 0.1 to 3600",
        ),
        (["record", "x", "--seconds", "-3"], "found '-3'; allowed: seconds, a number from 0"),
        (["plan", "--world", "x", "--number", "0"], "a number from 1 on"),
        (["status", "--url", "nonsense"], "found 'nonsense'; allowed: an address"),
        (["status", "--url", "ftp://x/"], "allowed: an address"),
        (["status", "--watch", "0"], "found '0'; allowed: seconds, a number from 0.5 to 3600"),
        (["status", "--names", "--json"], "--names stands alone"),
        (["describe", "../x"], "the name of an agent"),
        (["logs", "x", "--tail", "3000"], "allowed: a number from 1 to 2000"),
    ],
)
def test_arguments_that_cannot_be(capsys, arguments, words):
    """Code 2, and one line that says what is wanted, as of any other input."""
    assert 2 == cli.main(arguments)
    said = capsys.readouterr().err
    assert re.fullmatch(r"agent-broker: .*; hint: agent-broker.* --help\n", said)
    assert words in said


@pytest.mark.parametrize("arguments", [["--version"], ["plan", "--help"]])
def test_what_is_asked_for_is_no_error(capsys, arguments):
    """argparse prints it and ends."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert 0 == ended.value.code
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check-config"], 0, ""),
        (["explain", "linux"], 0, ""),
        (["explain", "linux &&"], 2, "the label 'linux &&' is malformed: "),
        (["plan"], 1, "controller: unreachable"),
        (["sweep"], 1, "controller: unreachable"),
        (["status"], 2, "listen is off"),
        (["status", "--url", "http://127.0.0.1:1"], 1, "no broker answers at http://127.0.0.1:1"),
        (["doctor"], 1, "checks failed"),
    ],
)
def test_exit_codes(capsys, path, arguments, code, words):
    """0 done, 1 the outside did not play along, 2 the input is wrong; one line, no traceback."""
    assert code == cli.main([*arguments, "--config", path])
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == (code != 0)


def test_a_state_directory_that_cannot_be_is_wrong_input(tmp_path, capsys):
    """Said before anything is started."""
    (tmp_path / "file").write_text("")
    made = tmp_path / "broker.yaml"
    made.write_text(CONFIG + f"state_dir: {tmp_path}/file/state\n")
    assert cli.main(["run", "--config", str(made)]) == 2
    assert "state_dir" in capsys.readouterr().err.splitlines()[-1]


def test_explain_says_who_serves_and_what_the_others_lack(path, capsys):
    """In order of preference, for people and for programs."""
    assert cli.main(["explain", "linux && gpu", "--config", path]) == 0
    assert capsys.readouterr().out == (
        "template  serves  why\n"
        "linux     no      has linux, shell, does not have gpu\n"
        "gpu       yes     has gpu, linux\n"
        "any       no      has any, does not have gpu, linux\n"
    )
    assert cli.main(["explain", "", "--config", path, "--json"]) == 0
    assert [a["template"] for a in json.loads(capsys.readouterr().out) if a["serves"]] == ["any"]


def test_check_config_tells_programs_what_is_configured(path, capsys, monkeypatch):
    """Templates, kinds of backends and warnings."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["check-config", "--config", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["templates"] == ["linux", "gpu", "any"]
    assert told["backends"] == {"local": "process"}
    assert told["warnings"] == [
        f"{path}:2: controller.user: missing: the broker works as anonymous"
    ]
    assert cli.main(["check-config", "--config", path]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"warning: {told['warnings'][0]}"


def test_the_schema_is_printed(capsys):
    """As JSON, for an editor."""
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["owner"]["type"] == "string"


def test_a_reader_that_goes_away_is_no_error():
    """``agent-broker schema | head -1``."""
    first = subprocess.run(
        f"'{sys.executable}' -m broker schema | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=patience.seconds(30),
        check=False,
    )
    assert (first.returncode, first.stdout, first.stderr) == (0, "{\n", "")


PRINTING = [
    ("--help",),
    ("--version",),
    ("run", "--help"),
    ("schema",),
    ("init", "new.yaml"),
    ("check-config",),
    ("check-config", "--json"),
    ("explain", "linux"),
    ("render", "pods"),
    ("doctor",),
    ("demo", "--controller-only", "--listen", "127.0.0.1:0"),
    pytest.param(("demo", "--seconds", "1", "--listen", "127.0.0.1:0"), marks=pytest.mark.soak),
]


def printing(path, arguments, where):
    """Run a command whose output goes somewhere; return its exit code, and what it said of that."""
    if arguments[0] in {"check-config", "explain", "render", "doctor"}:
        arguments = (*arguments, "--config", path)
    said = io.StringIO()
    with contextlib.redirect_stdout(where), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = ended.code
    return code, said.getvalue()


@pytest.fixture
def printed(path):
    """The configuration with a template that can be rendered; nobody warns about root."""
    text = pathlib.Path(path).read_text()
    backends = (
        "backends: {local: {kind: process}, d: {kind: docker, hosts: [{url: 'unix:///no'}]}}\n"
    )
    pathlib.Path(path).write_text(
        text.replace(
            "templates:\n", "templates:\n  pods: {labels: pods, image: i, backends: [d]}\n"
        )
        + backends
    )
    return path


FULL = "agent-broker: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_an_output_that_is_full_is_one_line_and_an_exit_code(
    printed, arguments, tmp_path, monkeypatch
):
    """Whatever was to be printed, and wherever it was printed."""
    monkeypatch.chdir(tmp_path)
    with open("/dev/full", "w") as full:
        assert (1, FULL) == printing(printed, arguments, full)


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_pipe_that_nobody_reads_is_no_error(printed, arguments, tmp_path, monkeypatch):
    """There is nobody to say anything to."""
    monkeypatch.chdir(tmp_path)
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as pipe:
        assert (0, "") == printing(printed, arguments, pipe)


def test_what_failed_by_itself_says_so_also_where_its_output_is_full(printed):
    """One line all the same."""
    with open("/dev/full", "w") as full:
        code, said = printing(printed, ("doctor", "--json"), full)
    assert code == 1
    assert re.fullmatch(r"agent-broker: \d of \d checks failed\n", said)


def test_the_interpreter_does_not_try_again_to_write_where_it_is_full():
    """At its own end, as a program."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "broker", "schema"], stdout=full, stderr=subprocess.PIPE,
            timeout=patience.seconds(30), check=False, text=True,
        )  # fmt: skip
    assert (1, FULL) == (ended.returncode, ended.stderr)


def test_where_no_word_can_be_said_the_exit_code_is_left():
    """Both outputs on a full disk."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "broker", "schema"], stdout=full, stderr=full,
            timeout=patience.seconds(30), check=False,
        )  # fmt: skip
    assert ended.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_controller_alone_ends_on_a_signal_wherever_it_was_started(number):
    """A script's background job inherits that SIGINT is ignored."""
    served = subprocess.Popen(
        [sys.executable, "-m", "broker", "demo", "--controller-only", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN),
    )
    try:
        assert served.stdout.readline().startswith("SIMULATED controller at http://127.0.0.1:")
        said = ""
        while "then Ctrl-C here" not in said:  # all that is said before it serves
            line = served.stdout.readline()
            assert line, said
            said += line
        served.send_signal(number)
        out, err = served.communicate(timeout=patience.seconds(30))
    finally:
        served.kill()
        served.wait()
    assert (served.returncode, out, err) == (0, "", "")
    config = said.partition("<<END\n")[2].partition("END\n")[0]
    made = loading.parse(config, kinds.classes(), environ={"DEMO_TOKEN": "x"})
    assert made.listen == ("127.0.0.1", 8087)
    assert "agent-broker run --drain --config try.yaml" in said


# --- status ---


def told(source):
    return {
        name: getattr(documents, name)(source) for name in ("plan", "queue", "templates", "agents")
    }


def test_status_for_people():
    """What waits, what is held back, what died, which agents there are."""
    golden("status.txt", terminal.render(told(status_source.full())) + "\n")


def test_status_before_the_first_look():
    """Says that nothing is known, without failing."""
    text = terminal.render(
        told(status_source.FixedSource(is_ready=(False, "nothing was read yet")))
    )
    assert text.startswith("owner o, NOT READY: nothing was read yet, read ? ago")


def test_a_remote_text_cannot_steer_the_terminal():
    """No escape sequence, no line break, no change of direction."""
    text = terminal.render(told(status_source.full("\x1b[2J\x1b]0;x\x07\r\n\u202e\x9b31m")))
    assert not [c for c in text if c != "\n" and not c.isprintable()]
    assert len(text.splitlines()) == len(terminal.render(told(status_source.full())).splitlines())


AGENT = "o-release-aaaaaa"
HOSTILE = "\x1b[2J\x1b]0;x\x07\r\n\u202e\x9b31m\ud800 " + "f" * 64


@contextlib.asynccontextmanager
async def beside(path, source):
    """A page that proves itself as that of the configuration's broker."""
    settings = loading.load(
        pathlib.Path(path), kinds.classes(), environ={}, secrets=config.Secrets.UNREAD
    )
    source.fingerprint = settings.fingerprint
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    note = page_address.announce(store.FileStore(settings.state_dir), url)
    server.prove = functools.partial(page_address.proof, note.key)
    try:
        yield source, url
    finally:
        await server.aclose()


async def ran(*arguments):
    """Run a command in a thread; return its code and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = await asyncio.to_thread(cli.main, list(arguments))
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    "command", [("plan",), ("sweep",), ("status",), ("events",), ("describe", AGENT)]
)
async def test_what_others_wrote_is_printed_clean(path, command, more):
    """No control character, no turned direction, no half of a pair, no secret: JSON too."""
    async with beside(path, status_source.full(HOSTILE)):
        _, out, err = await ran(*command, *more, "--config", path)
    assert out
    for line in (out + err).split("\n"):
        assert line.isprintable(), repr(line)
        assert not re.search("[0-9a-f]{64}", line)
    (out + err).encode("utf-8")
    if more:
        json.loads(out)


async def test_an_error_that_quotes_others_is_printed_clean(path, capsys, monkeypatch):
    """Also on the way out with an exit code."""

    def refused(_):
        raise exits.Failed(f"controller: {HOSTILE}\nERROR forged")

    monkeypatch.setattr(configuring, "explain", refused)
    assert cli.main(["explain", "x", "--config", path]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()


async def test_plan_and_sweep_ask_the_broker_that_works_here(path):
    """What it says is what is shown; whose word it is stands beside it."""
    async with beside(path, status_source.full()) as (_, url):
        code, out, err = await ran("plan", "--json", "--config", path)
        told = json.loads(out)
        assert (code, told["asked"]) == (0, url)
        assert [a["verb"] for a in told["actions"]]
        assert told["waits"]
        assert err.startswith(f"asked the broker that works here, {url}: it looked 0.5 s ago")
        code, out, err = await ran("sweep", "--config", path)
        assert "asked the broker that works here" in err


async def test_a_file_that_is_not_in_force_is_planned_by_itself(path):
    """Who has edited it wants to know what it would do; the controller is asked for that."""
    async with beside(path, status_source.full()) as (source, _):
        source.fingerprint = "another"
        code, _, err = await ran("plan", "--config", path)
    assert code == 1  # there is no controller in this test
    assert "has another configuration in force: by the file" in err
    assert "controller: unreachable" in err


async def test_doctor_and_status_say_what_the_running_broker_refused(path):
    """And what waits for a restart, as the page does."""
    async with beside(path, status_source.full()) as (source, _):
        source.configuration = config.ConfigurationState(
            refused_at=status_source.NOW, refusal="broker.yaml:3: wrong", waits=("log",)
        )
        _, said, _ = await ran("doctor", "--config", path)
        code, shown, _ = await ran("status", "--config", path)
    assert "it refused the configuration that it read last: broker.yaml:3: wrong" in said
    assert "it waits for a restart, which changes log" in said
    assert code == 0
    assert "one before it works: broker.yaml:3: wrong" in shown


async def test_a_broker_of_another_owner_is_not_asked(path):
    """Two of them may share a state directory one after the other."""
    async with beside(path, status_source.full()) as (source, url):
        source.policy = attrs.evolve(source.policy, owner="other")
        code, _, err = await ran("status", "--config", path)
        assert (code, "is that of owner other, not of o" in err) == (1, True)
        code, _, err = await ran("plan", "--config", path)
        assert (code, "asked" in err) == (1, False)
        code, out, _ = await ran("status", "--url", url, "--config", path)
        assert (code, "owner other" in out) == (0, True)


async def test_status_asks_whoever_listens_where_no_note_leads(path):
    """A note of an earlier life, and a broker in a container whose port is ours."""
    async with beside(path, status_source.full()) as (_, url):
        file = pathlib.Path(path)
        file.write_text(file.read_text().replace('"off"', url.removeprefix("http://").rstrip("/")))
        settings = loading.load(file, kinds.classes(), environ={}, secrets=config.Secrets.UNREAD)
        page_address.announce(store.FileStore(settings.state_dir), "http://127.0.0.1:1/")
        code, out, _ = await ran("status", "--config", path)
        assert (code, out.startswith("owner o, ready")) == (0, True)
        code, _, err = await ran("plan", "--config", path)  # nothing is decided by its word
        assert "asked" not in err
        page_address.withdraw(store.FileStore(settings.state_dir))
        assert page_address.noted(store.ReadOnlyStore(settings.state_dir)) is None
        assert (await ran("status", "--config", path))[0] == 0


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:not-there"])
async def test_what_needs_no_secret_asks_for_none(path, reference):
    """``status``, ``explain``, ``render``; ``plan`` and ``sweep`` where a broker can be asked."""
    file = pathlib.Path(path)
    told = 'controller: {url: "http://127.0.0.1:1/"'
    file.write_text(file.read_text().replace(told, f"{told}, user: u, token: '{reference}'"))
    assert (await ran("explain", "linux", "--config", path))[0] == 0
    code, _, err = await ran("render", "linux", "--config", path)
    assert (code, "have nothing to show" in err) == (2, True)
    code, out, _ = await ran("check-config", "--config", path)
    assert (code, f"warning: {path}:2: controller.token: not here: found {reference}" in out) == (
        0,
        True,
    )
    code, _, err = await ran("check-config", "--strict", "--config", path)
    assert (code, f"not here: found {reference}" in err) == (2, True)
    for command in ("plan", "sweep", "doctor"):
        code, _, err = await ran(command, "--config", path)
        assert (code, reference.partition(":")[2] in err) == (2, True), command
    async with beside(path, status_source.full()):
        for command in ("status", "plan"):
            assert (await ran(command, "--config", path))[0] == 0
        assert (await ran("sweep", "--config", path))[0] in {0, 3}


async def test_describe_says_all_that_is_known_of_one_agent(path):
    """Golden: from the running broker; who it is, why it stays, how its life went, its end."""
    async with beside(path, status_source.full()):
        code, out, err = await ran("describe", AGENT, "--config", path)
        assert (code, "asked the broker that works here" in err) == (0, True)
        golden("describe.txt", out)
        code, out, _ = await ran("describe", AGENT, "--json", "--config", path)
        assert (code, json.loads(out)["death"]["slug"]) == (0, "lost-out-of-memory")
        code, _, err = await ran("describe", "o-release-zzzzzz", "--config", path)
        assert (code, "no agent o-release-zzzzzz is known" in err) == (1, True)
        code, out, _ = await ran("describe", "o-release-cccccc", "--config", path)
        assert (code, "once: it has had its build" in out) == (0, True)


async def test_names_for_scripts(path):
    """One in a line, and nothing else."""
    async with beside(path, status_source.full()):
        assert (0, f"{AGENT}\n", "") == await ran("status", "--names", "--config", path)


async def test_status_asks_the_running_broker(path):
    """Over HTTP, as from anywhere; with --json all four documents."""
    source = status_source.full()
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    try:
        code, out, _ = await ran("status", "--url", url, "--json")
    finally:
        await server.aclose()
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(told(source)))


@pytest.mark.parametrize("command", ["status", "events"])
def test_who_asks_with_a_broken_file_is_told_of_the_address(tmp_path, capsys, command):
    """The broker at work has its former file; the mistakes are told, and how to ask it."""
    path = tmp_path / "broker.yaml"
    path.write_text("owner: [\n")
    assert 2 == cli.main([command, "-c", str(path)])
    wrong, way = capsys.readouterr().err.splitlines()
    assert "not YAML" in wrong
    assert "keeps the configuration that it read last" in way
    assert "hint: --url http://HOST:PORT" in way


def test_every_command_that_comes_later_is_there():
    """Its module is imported when it is called, so a name that is wrong would be seen then only."""
    parsers, later = [cli.parser()], []
    while parsers:
        parser = parsers.pop()
        later.append(parser.get_default("command"))
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    found = [command.resolved() for command in later if isinstance(command, cli.Later)]
    assert len(found) > 20
    assert all(map(callable, found))
