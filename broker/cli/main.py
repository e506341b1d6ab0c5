"""The command line: arguments in, exit codes out.

0 done; 1 failed, said in one line; 2 the configuration or the arguments are wrong, nothing was
started; 3 refused (another broker works here, a sweep without a yes). Refuses to hold the work of
a command: those are in the modules beside it, one for each group.
"""

import argparse
import contextlib
import importlib
import math
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yarl
from attrs import frozen

from broker import config, exits, output
from broker.cli import completion, running, shared, version
from broker.config import reading, rehearsal, samples, values
from broker.hook import script
from broker.status import terminal
from jnlp import version as jnlp_version
from outside import waits

OK, FAILED, BAD_INPUT, REFUSED = 0, 1, 2, 3
_NAME = "agent-broker"
_ONE_OF = " [--template NAME | --backend NAME]"
_JOB_MAX = 2048  # characters: of an address, too

Command = Callable[[argparse.Namespace], None]


@frozen
class Later:
    """A command whose module is imported when it is called: a broker at rest holds none."""

    module: str  # beside this one
    name: str

    def resolved(self) -> Command:
        """Return the function itself."""
        found: Command = getattr(importlib.import_module(f"broker.cli.{self.module}"), self.name)
        return found

    def __call__(self, options: argparse.Namespace) -> None:
        """Run it."""
        self.resolved()(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    try:
        with output.guarded():
            options = parser().parse_args(arguments)
            command: Command = options.command
            with waits.Ungrouped(exits.Failed, output.ReaderGone):
                command(options)
    except config.ConfigError as error:
        return _say(BAD_INPUT, *error.lines)
    except exits.BadInput as error:
        return _say(BAD_INPUT, str(error))
    except exits.Refused as error:
        return _say(REFUSED, str(error))
    except exits.Failed as error:
        return _say(FAILED, str(error))
    except output.ReaderGone:
        pass
    except KeyboardInterrupt:
        return FAILED
    return OK


def _say(code: int, *lines: str) -> int:
    with contextlib.suppress(OSError):  # then the exit code is all that can be said
        for line in lines:  # it may quote what others sent
            print(f"{_NAME}: {terminal.plain(line)}", file=sys.stderr)
    return code


class _Version(argparse.Action):
    """Asked for when it is wanted: the commit may have to be looked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"{_NAME} {version.words()}")
        parser.exit()


class _ArgumentParser(argparse.ArgumentParser):
    """One whose words are the same on every Python: no colours, no guesses.

    What is wrong is said as everywhere, in one line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.color = self.suggest_on_error = False

    def error(self, message: str) -> NoReturn:
        """End with what is wrong with the arguments, and where it is said how they are."""
        raise exits.BadInput(f"{_plain(message)}; hint: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Say what is allowed as everywhere; argparse's words differ from Python to Python."""
        if action.choices is not None and value not in action.choices:
            allowed = [str(choice) for choice in action.choices]
            hint = reading.guess(str(value), allowed)
            raise argparse.ArgumentError(
                action,
                f"found {values.shown(value)}; allowed: {', '.join(allowed)}"
                + (f"; {hint}" if hint else ""),
            )


def _plain(message: str) -> str:
    """Return argparse's words in ours."""
    words = message.removeprefix("argument ")
    for theirs, ours in (
        ("the following arguments are required: ", "missing: "),
        ("unrecognized arguments: ", "unknown: "),
        ("expected one argument", "a value is missing"),
        ("expected at least one argument", "a value is missing"),
    ):
        words = words.replace(theirs, ours)
    return words


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = _ArgumentParser(
        prog=_NAME,
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Starts, keeps warm, reuses and retires the agents of one Jenkins controller.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    subs = top.add_subparsers(
        prog=top.prog, metavar="COMMAND", required=True, help=argparse.SUPPRESS
    )

    run = _command(subs, "run", running.run, "work for the configured controller")
    _config_of(run)
    run.add_argument(
        "--drain",
        nargs="?",
        type=_duration,
        const=math.inf,
        metavar="DURATION",
        help="on SIGTERM let every agent go after its build (default: keep them), for so long at "
        "most: 15m, 1h30m",
    )

    demo = _command(subs, "demo", running.demo, "show it at work on a simulated controller")
    demo.add_argument(
        "--seconds",
        type=_seconds(1, 86_400),
        default=60.0,
        metavar="S",
        help="how long it is to take (default: 60)",
    )
    demo.add_argument(
        "--listen",
        type=_address,
        metavar="HOST:PORT",
        help="status page (default: 127.0.0.1:8087), or the only controller (127.0.0.1:8088)",
    )
    demo.add_argument(
        "--backend",
        default="process",
        choices=("process", "docker"),
        help="where agents run; docker: the engine of DOCKER_HOST (default: process)",
    )
    demo.add_argument("--stay", action="store_true", help="keep the page afterwards, until Ctrl-C")
    demo.add_argument(
        "--controller-only",
        action="store_true",
        help="only serve the simulated controller, to try a configuration against",
    )
    _json_of(demo)

    check = _command(
        subs, "check-config", Later("configuring", "check_config"), "read the configuration, only"
    )
    _config_of(check)
    check.add_argument(
        "--strict", action="store_true", help="a warning is as bad as an error: exit code 2"
    )
    _json_of(check)

    _planning(subs)

    explain = _command(
        subs, "explain", Later("configuring", "explain"), "say which template serves a label"
    )
    explain.add_argument("label", metavar="LABEL", help="a label expression; '' for no label")
    explain.add_argument(
        "--job", metavar="NAME", help="of a build of this job: its full name, as team-a/app"
    )
    _config_of(explain)
    _json_of(explain)

    _showing(subs)
    _watching(subs)
    _orders(subs)

    diff = _command(
        subs,
        "diff",
        Later("differing", "diff"),
        "say what a reload of the running broker would change",
    )
    _config_of(diff)
    _json_of(diff)

    sweep = _command(
        subs,
        "sweep",
        Later("inspection", "sweep"),
        "find, and with --yes remove, what is left over",
    )
    _config_of(sweep)
    sweep.add_argument(
        "--all", action="store_true", help="every agent that does not work, and the placeholder"
    )
    sweep.add_argument(
        "--yes",
        action="store_true",
        help="remove it, where no broker is at work (default: only list it)",
    )
    _json_of(sweep)

    doctor = _command(
        subs,
        "doctor",
        Later("inspection", "doctor"),
        "check the controller, permissions, ports and backends",
    )
    _config_of(doctor)
    doctor.add_argument(
        "--try",
        action="store_true",
        dest="tries",
        help="try what can be tried: make a node for a moment, write the lease, and start an "
        "agent of each template, which takes no build and is removed",
    )
    doctor.add_argument(
        "--read-only", action="store_true", help="change nothing (that is the default)"
    )
    _json_of(doctor)

    init = _command(
        subs, "init", Later("configuring", "init"), "write a configuration with comments"
    )
    init.add_argument("path", nargs="?", type=pathlib.Path, default=shared.CONFIG, metavar="PATH")
    init.add_argument(
        "--backend",
        default="process",
        choices=samples.KINDS,
        help="where agents are to run (default: process)",
    )

    _making(subs)
    _hooking(subs)
    _command(
        subs,
        "schema",
        Later("configuring", "schema"),
        "print the configuration's JSON Schema, for editors",
    )
    complete = _command(subs, "completion", _complete, "print a script that completes in a shell")
    complete.add_argument("shell", choices=completion.NAMES, help="for which shell")

    ends = "Exit codes: 0 done; 1 failed; 2 wrong configuration or arguments; 3 refused."
    top.epilog = f"{_listed(subs)}\n\n{ends}"
    return top


def _showing(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    render = _command(
        subs,
        "render",
        Later("configuring", "render"),
        "show what a backend would create for a template",
    )
    render.add_argument("template", metavar="TEMPLATE", help="name of a template")
    render.add_argument(
        "--label",
        default="",
        metavar="LABEL",
        help="for a build with this label expression: what it asks for by parameters is put in",
    )
    _config_of(render)
    render.add_argument(
        "--controller",
        type=_version,
        default=rehearsal.TODAYS,
        metavar="VERSION",
        help="next to a controller of that version: those before 2.440 get other variables "
        f"(default: {rehearsal.TODAYS}, and all later ones)",
    )


def _hooking(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    hook = subs.add_parser(
        "hook",
        usage="%(prog)s [-h] WAY ...",
        description="The push hook of the controller.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ways = hook.add_subparsers(
        prog=hook.prog, metavar="WAY", required=True, help=argparse.SUPPRESS
    )
    show = _command(ways, "print", Later("hooking", "show"), "print its script, for init.groovy.d")
    _config_of(show)
    show.add_argument(
        "--with-key",
        action="store_true",
        help="with the key in it, which makes it a secret (default: it looks for the key in "
        f"{script.KEY_VARIABLE}, or $JENKINS_HOME/{script.KEY_FILE})",
    )
    for name, command, words in (
        ("install", Later("hooking", "install"), "put it in by the script console"),
        ("remove", Later("hooking", "remove"), "take it out by the script console"),
    ):
        _config_of(_command(ways, name, command, words))
    hook.epilog = _listed(ways)


def _watching(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    status = _command(
        subs, "status", Later("inspection", "status"), "ask the running broker why builds wait"
    )
    _page_of(status)
    status.add_argument(
        "--watch",
        nargs="?",
        type=_seconds(0.5, 3600),
        const=2.0,
        metavar="SECONDS",
        help="again and again (every 2 seconds), until Ctrl-C; on a terminal in its place",
    )
    status.add_argument(
        "--names", action="store_true", help="only the names of the agents, one in a line"
    )
    _json_of(status)

    why = _command(
        subs, "why", Later("waiting", "why"), "say what a build waits for, and waited for so far"
    )
    why.add_argument(
        "what", type=_item_or_job, metavar="ITEM|JOB", help="the number of an item, or a job"
    )
    _page_of(why)
    _json_of(why)

    describe = _command(
        subs, "describe", Later("agents", "describe"), "say all that is known of one agent"
    )
    describe.add_argument("agent", type=_agent, metavar=completion.AGENT, help="its name")
    _config_of(describe)
    _json_of(describe)

    logs = _command(subs, "logs", Later("agents", "logs"), "show what an agent has written")
    logs.add_argument("agent", type=_agent, metavar=completion.AGENT, help="its name")
    _config_of(logs)
    _follow_of(logs, "also what it writes from now on, until it is gone, and of what")
    logs.add_argument(
        "--tail",
        type=_lines,
        default=100,
        metavar="N",
        help=f"so many of its last lines, {shared.LINES_KEPT} at most (default: 100)",
    )
    _json_of(logs)

    events = _command(
        subs,
        "events",
        Later("inspection", "events"),
        "say what the running broker did of late, and why",
    )
    _page_of(events)
    _follow_of(events, "also what it does from now on, until Ctrl-C")
    _json_of(events)


def _orders(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    """Add what a person may order of the broker at work."""
    stops = "start no new agents, until it is taken back; builds go on"
    for name, text in (
        ("pause", stops),
        ("drain", "start no new agents, and let those that are there go after their builds"),
        ("resume", "take back a pause or a drain"),
    ):
        order = _order(subs, name, text)
        more = "[--note WORDS]" if name == "resume" else "--note WORDS [--for DURATION]"
        _one_of(order, more)
        _note_of(order, required=name != "resume")
        if name != "resume":
            _for_of(order, "how long, as 30m or 2h (default: until it is taken back)")

    prewarm = _order(subs, "prewarm", "keep so many agents of a template warm for a while")
    prewarm.add_argument("template", metavar="TEMPLATE", help="name of a template")
    prewarm.add_argument(
        "agents", metavar="N", help="how many, as far as the caps allow; 0 takes it back"
    )
    _for_of(prewarm, "how long, as 30m or 2h (default: 2h)")
    _note_of(prewarm)

    retire = _order(subs, "retire", "let one agent go: after its build, if it has one")
    retire.add_argument("agent", type=_agent, metavar=completion.AGENT, help="its name")
    _note_of(retire)

    hold = _order(subs, "hold", "give one agent no further build, and keep it to be looked at")
    hold.add_argument("agent", type=_agent, metavar=completion.AGENT, help="its name")
    _for_of(hold, "how long, as 30m or 2h (default: 4h)")
    _note_of(hold)

    unhold = _order(subs, "unhold", "take back that an agent is held")
    unhold.add_argument("agent", type=_agent, metavar=completion.AGENT, help="its name")
    _note_of(unhold)

    retry = _order(subs, "retry", "try at once what is set aside or backs off")
    _one_of(retry, "[--note WORDS]")
    _note_of(retry)

    reload = _order(subs, "reload", "have the configuration read again, and say what came of it")
    reload.set_defaults(command=Later("ordering", "reload"))
    _note_of(reload)

    listed = _command(
        subs, "orders", Later("ordering", "show"), "list what people have ordered, and stands"
    )
    _page_of(listed)
    _json_of(listed)


def _order(
    subs: "argparse._SubParsersAction[_ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    sub = _command(subs, name, Later("ordering", "give"), text)
    sub.set_defaults(order=name)
    _config_of(sub)
    _json_of(sub)
    return sub


def _for_of(sub: argparse.ArgumentParser, text: str) -> None:
    sub.add_argument("--for", metavar="DURATION", help=text)


def _one_of(sub: argparse.ArgumentParser, more: str) -> None:
    """Add a template or a backend, not both; its line is ours: Pythons break it differently."""
    sub.usage = f"%(prog)s [-h] [--config FILE] [--json]{_ONE_OF} {more}"
    about = sub.add_mutually_exclusive_group()
    about.add_argument("--template", metavar="NAME", help="of this template alone")
    about.add_argument("--backend", metavar="NAME", help="on this backend alone")


def _note_of(sub: argparse.ArgumentParser, *, required: bool = False) -> None:
    text = "why, for all who look"
    sub.add_argument("--note", metavar="WORDS", required=required, help=text)


def _page_of(sub: argparse.ArgumentParser) -> None:
    _config_of(sub)
    sub.add_argument("--url", type=_page, help="its status page (default: from the configuration)")


def _follow_of(sub: argparse.ArgumentParser, text: str) -> None:
    for name, words in (("--follow", f"or -f: {text}"), ("-f", argparse.SUPPRESS)):
        sub.add_argument(name, dest="follow", action="store_true", help=words)


def _agent(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{1,255}", text) is None:
        raise _wrong(text, "the name of an agent, as agent-broker status --names lists them")
    return text


def _item_or_job(text: str) -> str:
    if not text.strip("/ ") or len(text) > _JOB_MAX:
        raise _wrong(text, "the number of an item or the name of a job, as status shows them")
    return text


def _lines(text: str) -> int:
    number = _number(text)
    if number > shared.LINES_KEPT:
        raise _wrong(text, f"a number from 1 to {shared.LINES_KEPT}")
    return number


def _complete(options: argparse.Namespace) -> None:
    print(completion.script(options.shell, parser()), end="")


def _duration(text: str) -> float:
    """Read a duration as the configuration writes it; argparse says the rest."""
    try:
        return values.duration(text)
    except values.Bad as error:
        hint = f"; hint: {error.hint}" if error.hint else ""
        raise argparse.ArgumentTypeError(f"{error}{hint}") from None


def _making(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    _importing(subs)
    _building(subs)


def _importing(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    imports = _command(
        subs,
        "import",
        Later("importing", "import_clouds"),
        "make a configuration of the clouds of Jenkins' plugins",
    )
    imports.add_argument(
        "path",
        type=pathlib.Path,
        metavar="FILE",
        help="YAML of Configuration as Code, or a controller's config.xml",
    )
    imports.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="a new file (default: standard output)",
    )


def _building(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    runtime = _command(
        subs,
        "runtime",
        Later("runtimes", "runtime"),
        "make the Java that `inject` brings into any image",
    )
    runtime.add_argument("action", choices=("build",), help="make one of this machine's JDK")
    _config_of(runtime)
    runtime.add_argument(
        "--output", type=pathlib.Path, metavar="FILE", help="write a new archive (tar)"
    )
    runtime.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="URL",
        help="bring it to this Docker engine (unix:///PATH, tcp://HOST:PORT, ssh://HOST): into "
        "the volume that agents of a runtime with this archive have; may be given several times",
    )
    runtime.add_argument(
        "--backend",
        metavar="NAME",
        help="bring it to each engine of this backend of the configuration",
    )
    runtime.add_argument(
        "--jar",
        type=pathlib.Path,
        metavar="FILE",
        help="agent.jar (default: that of the configured controller)",
    )
    runtime.add_argument(
        "--jdk", type=pathlib.Path, metavar="PATH", help="a JDK (default: the one of jlink)"
    )
    runtime.add_argument(
        "--docker",
        type=pathlib.Path,
        metavar="FILE",
        help="take along a static command `docker`, for builds with docker_pipelines",
    )
    runtime.add_argument(
        "--image",
        type=_image,
        metavar="NAME:TAG",
        help="make it an image of that name: of FILE, for docker load, and in each engine",
    )
    runtime.add_argument(
        "--platform",
        choices=("linux/amd64", "linux/arm64"),
        help="which one it is to be for (default: that of this machine)",
    )
    _json_of(runtime)


def _image(text: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9._/:-]{0,200}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", text):
        return text
    raise _wrong(text, "NAME:TAG, such as agent-runtime:17")


def _planning(subs: "argparse._SubParsersAction[_ArgumentParser]") -> None:
    plan = _command(
        subs,
        "plan",
        Later("inspection", "plan"),
        "show what would be done now, and why; do nothing",
    )
    _config_of(plan)
    plan.add_argument(
        "--world",
        type=pathlib.Path,
        metavar="FILE",
        help="decide on the last world of a recorded file, without controller and configuration",
    )
    plan.add_argument(
        "--number", type=_number, metavar="N", help="of --world: its N-th world, from 1"
    )
    _json_of(plan)

    record = _command(
        subs,
        "record",
        Later("inspection", "record"),
        "write what is seen to a file, to be replayed",
    )
    record.add_argument("path", type=pathlib.Path, metavar="FILE", help="a new file")
    _config_of(record)
    record.add_argument(
        "--seconds",
        type=_seconds(0, 1e8),
        metavar="S",
        help="how long (default: until Ctrl-C)",
    )
    record.add_argument(
        "--every",
        type=_seconds(0.1, 3600),
        default=5.0,
        metavar="S",
        help="between two looks (default: 5)",
    )
    record.add_argument(
        "--names", action="store_true", help="keep the names of jobs and people (default: hashed)"
    )


def _version(text: str) -> str:
    if jnlp_version.parse(text) is None:
        raise _wrong(text, f"a version of Jenkins, such as {rehearsal.TODAYS}")
    return text


def _seconds(least: float, most: float) -> Callable[[str], float]:
    """Return what reads seconds within limits."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            number = float(text)
            if math.isfinite(number) and least <= number <= most:
                return number
        raise _wrong(text, f"seconds, a number from {least:g} to {most:.0f}")

    return read


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise _wrong(text, "a number from 1 on")


def _address(text: str) -> str:
    if values.address(text) is None:
        raise _wrong(text, "HOST:PORT, such as 127.0.0.1:8087")
    return text


def _page(text: str) -> str:
    with contextlib.suppress(ValueError):
        url = yarl.URL(text)
        if url.scheme in {"http", "https"} and url.host and url.port:
            return text
    raise argparse.ArgumentTypeError(
        f"found {values.shown_url(text)}; allowed: an address such as http://127.0.0.1:8087"
    )


def _wrong(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"found {values.shown(text)}; allowed: {allowed}")


def _listed(subs: "argparse._SubParsersAction[_ArgumentParser]") -> str:
    """Return the commands as a table: argparse makes another one on every Python."""
    texts = {name: str(one.description).rstrip(".") for name, one in subs.choices.items()}
    lines = [f"  {name:13} {text[0].lower()}{text[1:]}" for name, text in texts.items()]
    return "\n".join(["commands:", *lines])


def _command(
    subs: "argparse._SubParsersAction[_ArgumentParser]",
    name: str,
    command: Command,
    text: str,
) -> argparse.ArgumentParser:
    sub = subs.add_parser(name, description=f"{text[0].upper()}{text[1:]}.")
    sub.set_defaults(command=command)
    return sub


def _config_of(sub: argparse.ArgumentParser) -> None:
    text = (
        f"or -c: a file, or a folder with {shared.CONFIG} and a file for each team; may be given "
        f"several times (default: {shared.CONFIG})"
    )
    # each by itself: not every Python shows an option of two names alike
    for name, words in (("--config", text), ("-c", argparse.SUPPRESS)):
        sub.add_argument(
            name, dest="config", type=pathlib.Path, action="append", metavar="FILE", help=words
        )


def _json_of(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="for programs")
