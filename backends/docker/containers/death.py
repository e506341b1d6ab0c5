"""Who died of what: the truth table over an inspect and the events. Pure.

Why a table: ``OOMKilled`` alone lies both ways. It is true after any process of the container was
killed for memory, with the true exit code beside it, and it is false while the container still
runs (recordings ``container-oom-child-exit0``, ``container-oom-pid1``). So the exit code is read
together with *when* the kernel killed for memory, and who sent a signal.

Rules, first match wins:

1. It never ran: the words on the start, the engine's or its init's, say why (command, network).
2. The engine went away while it ran, and it ended at that time: platform-lost. So is one that was
   ended by a signal, not for memory, before the engine was started anew: an engine that stops ends
   its containers one after the other, through itself, and answers nobody meanwhile, while whatever
   else ends has its certificate from us long before that start.
3. SIGKILL within seconds of an out-of-memory event: out-of-memory. With no event at all (we did
   not listen) the engine's flag has to do.
4. SIGKILL or SIGTERM otherwise: killed; by whom is told where the engine knows.
5. Everything else is an exit; a process that was killed for memory before is mentioned.
"""

import re
import signal

from attrs import Factory, field, frozen

from backends import api
from outside import text

OOM_WINDOW_S = 10.0
"""The kernel kills, the engine notices; on a swapping host seconds lie between."""
_SIGNAL_WINDOW_S = 60.0  # of grace between SIGTERM and the end
_AWAY_MARGIN_S = 3.0
_WORDS = 5  # lines of output
_COMMAND = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
    r"|not a directory|is a directory",
    re.IGNORECASE,
)
_NETWORK = re.compile(r"network \S+ not found|could not attach to network", re.IGNORECASE)


@frozen(kw_only=True)
class EventTrace:
    """What the events told of one container while we listened; POSIX seconds."""

    oom_at: tuple[float, ...] = ()
    signals: tuple[tuple[float, int], ...] = ()  # sent through the engine by anybody


@frozen(kw_only=True)
class Ended:
    """What an inspect shows of a container that does not run any more."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""
    last_words: str = ""  # of its output, where they may say why
    started: bool = True
    finished_at: float | None = None
    memory_bytes: int | None = None
    seen: EventTrace = Factory(EventTrace)
    by_us: bool = False
    away: tuple[tuple[float, float], ...] = field(default=())  # the engine did not answer
    engine_began_at: float | None = None  # its present life, by its own clock


def certificate(ended: Ended) -> api.Exit:
    """Say what it died of."""
    slug, code, message = _cause(ended)
    return api.Exit(slug=slug, code=code, message=text.clean(message), at=ended.finished_at)


_INIT = "[FATAL tini ("
_EXEC = " exec "


def refused_by_init(last_words: str) -> str:
    """Return what the engine's own init says of a program that it cannot start; else empty.

    Without an init the engine itself refuses such a start. ``last_words`` are a build's text:
    they are cut first, and nothing is looked for twice.
    """
    for line in text.last_lines(last_words, _WORDS):
        _, init, rest = line.partition(_INIT)
        _, exec_, words = rest.partition(_EXEC)
        if init and exec_ and " failed: " in words:
            return f"exec {words}"
    return ""


def slug_of_start(words: str) -> api.ExitSlug:
    """Tell whether a start failed for the command, the network or the platform."""
    if _NETWORK.search(words):
        return "network"
    return "command" if _COMMAND.search(words) else "unknown"


def mishap(seen: EventTrace, memory_bytes: int | None) -> api.Mishap | None:
    """Return that a process was killed for memory in a container that lives on, if one was."""
    if not seen.oom_at:
        return None
    return api.Mishap(
        slug="out-of-memory",
        text=f"a process in it was killed for memory{_limit(memory_bytes)}",
        times=len(seen.oom_at),
        at=seen.oom_at[-1],
    )


def _cause(ended: Ended) -> tuple[api.ExitSlug, int | None, str]:
    code, number = ended.exit_code, ended.exit_code - 128
    if not ended.started:
        words = ended.error or "it was never started"
        return slug_of_start(words), None, words
    refused = refused_by_init(ended.last_words) if code in {126, 127} else ""
    if refused:
        return "command", code, refused
    if _while_away(ended) or _ended_with_engine(ended):
        return (
            "platform-lost",
            exit_status(code),
            "it ended when its engine stopped or was restarted",
        )
    if number == signal.SIGKILL and _out_of_memory(ended):
        return (
            "out-of-memory",
            -number,
            f"the kernel killed its main process for memory{_limit(ended.memory_bytes)}",
        )
    before = _oom_before(ended)
    if number in {signal.SIGKILL, signal.SIGTERM}:
        return "killed", -number, f"{_killer(ended, number)}{before}"
    name = _signal_name(number)
    words = f"it crashed with {name}" if name else ended.error
    return "exited", exit_status(code), f"{words}{before}".lstrip("; ")


def _while_away(ended: Ended) -> bool:
    at = ended.finished_at
    return (
        at is not None
        and not ended.by_us
        and any(gone - _AWAY_MARGIN_S <= at <= back + _AWAY_MARGIN_S for gone, back in ended.away)
    )


def _ended_with_engine(ended: Ended) -> bool:
    at, began_at = ended.finished_at, ended.engine_began_at
    if at is None or began_at is None or at > began_at or ended.by_us:
        return False
    if ended.exit_code - 128 == signal.SIGKILL and _out_of_memory(ended):
        return False
    return may_be_of_engine(ended.exit_code, ended.seen, at)


def may_be_of_engine(exit_code: int, seen: EventTrace, at: float | None) -> bool:
    """Tell whether an end is one that a stop of the engine would bring about."""
    if exit_code - 128 in {signal.SIGKILL, signal.SIGTERM}:
        return True
    return _sent(seen, signal.SIGTERM, at)


def _out_of_memory(ended: Ended) -> bool:
    if ended.by_us or _sent(ended.seen, signal.SIGKILL, ended.finished_at):
        return False
    if not ended.seen.oom_at:
        return ended.oom_killed
    at = ended.finished_at
    return at is None or any(abs(at - oom) <= OOM_WINDOW_S for oom in ended.seen.oom_at)


def _oom_before(ended: Ended) -> str:
    if ended.seen.oom_at and ended.finished_at is not None:
        ago = max(0.0, ended.finished_at - ended.seen.oom_at[-1])
        return f"; a process in it had been killed for memory {_span(ago)} before"
    if ended.oom_killed:
        return "; a process in it had been killed for memory"
    return ""


def _span(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _killer(ended: Ended, number: int) -> str:
    name = signal.Signals(number).name
    if ended.by_us:
        return f"the broker ended it ({name})"
    if _sent(ended.seen, number, ended.finished_at):
        return f"somebody ended it through the engine ({name}), not this broker"
    return f"it was ended with {name} from outside the engine, or ended itself so"


def _sent(seen: EventTrace, number: int, at: float | None) -> bool:
    return any(
        sent == number and (at is None or at - _SIGNAL_WINDOW_S <= when <= at + 1.0)
        for when, sent in seen.signals
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def exit_status(code: int) -> int:
    """Return minus the signal's number for what a shell and the engine write as 128 + it."""
    return -(code - 128) if code > 128 and _signal_name(code - 128) else code


def _limit(memory_bytes: int | None) -> str:
    return f" (limit {memory_bytes / (1 << 20):.0f} MiB)" if memory_bytes else ""
