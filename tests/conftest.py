"""What all tests share."""

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import threading

import hypothesis
import pytest
import pytest_timeout
from hypothesis import strategies as st

from outside import secrets
from tests import forked, leftovers, patience, programs

_LOOK_S = 2.0
_LEFT = pytest.StashKey[list[leftovers.Leftover]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a developer or the CI name real platforms to test on."""
    parser.addoption(
        "--live",
        action="append",
        default=[],
        metavar="KIND[=ADDRESS]",
        help="also run the tests of this backend kind on a real platform, or with a real "
        "controller (jenkins=http://USER:TOKEN@HOST:PORT/); may be repeated",
    )


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as processors: a third of the time tests wait, for processes and sockets."""
    return 2 * (os.cpu_count() or 1)


def pytest_configure() -> None:
    """Begin alike wherever the run was started; say that the main thread has no event loop.

    What is started in the background ignores signals, and hands that on to what it starts: a shell
    there cannot even trap them. The other before pytest-asyncio asks for it. Up to Python 3.13
    asking creates one. pytest-asyncio then puts it aside and drops it unclosed, which some later,
    innocent test is failed for as soon as the garbage collector finds it.
    """
    leftovers.mark_run()
    for number in (signal.SIGQUIT, signal.SIGINT):  # SIGHUP is nohup's
        if signal.getsignal(number) is signal.SIG_IGN:
            ours = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, ours)
    asyncio.set_event_loop(None)


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool | None:
    """Let a test's time limit last longer on a machine that is slow or busy."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None  # pytest-timeout's own way
    pytest_timeout.pytest_timeout_set_timer(item, settings)
    expire, patient = signal.getsignal(signal.SIGALRM), patience.Patience(settings.timeout)

    def look(number: int, frame: object) -> None:
        if patient.is_over():
            expire(number, frame)
        else:
            signal.setitimer(signal.ITIMER_REAL, _LOOK_S)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S)
    return True


def _nothing(_: None) -> None:
    """Be a test of Hypothesis."""


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, not at the tests again and again.

    Before that Hypothesis has to make its own dice: it asks the collector who holds them, and what
    is set aside is not asked.
    """
    hypothesis.settings(max_examples=1, database=None)(hypothesis.given(st.none())(_nothing))()
    _set_aside()
    gc.enable()


def _set_aside() -> None:
    """Collect what nobody holds any more; never look again at what is held."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Set aside what the tests of a file have loaded: schemas alone are a million objects."""
    if nextitem is not None and nextitem.path != item.path:
        _set_aside()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let the collector rest until all tests are there; share what is not compiled yet.

    Each worker begins with files of its own. Else every one of them would compile all, beside the
    others and in the same order.
    """
    if session.config.pluginmanager.has_plugin("dsession"):
        return  # who has workers gathers no tests
    gc.disable()
    worker = getattr(session.config, "workerinput", None)
    if worker is None or sys.dont_write_bytecode:
        return
    folders = [session.config.invocation_params.dir / one for one in session.config.args]
    files = sorted(path for folder in folders for path in folder.rglob("test_*.py"))
    for path in files[int(worker["workerid"][2:]) :: worker["workercount"]]:
        name = ".".join(path.relative_to(session.config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):  # told when it is collected
            importlib.import_module(name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for a process that a test has left; workers have ended by now."""
    forked.end()
    if hasattr(session.config, "workerinput"):
        return
    factory = getattr(session.config, "_tmp_path_factory", None)
    left = leftovers.ended(factory.getbasetemp() if factory is not None else None)
    session.config.stash[_LEFT] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests have left, and what was skipped for want of which program."""
    for one in terminalreporter.config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"left behind, and ended now: {one}", red=True)
    skipped = terminalreporter.stats.get("skipped", [])
    if line := programs.told(str(report.longrepr) for report in skipped):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(autouse=True)
def _log_as_it_was():
    """Take back what a command that ran in this process did to the log."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests():
    """Forget what another test in this process wanted hidden: it may be an ordinary word."""
    secrets.forget()


hypothesis.settings.register_profile(
    "local",
    max_examples=20,  # `make soak` adds more: no test says how many by itself
    deadline=None,  # shared machines are slow at times
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.register_profile(
    "soak", parent=hypothesis.settings.get_profile("local"), max_examples=200
)
hypothesis.settings.register_profile(
    "hunt",
    parent=hypothesis.settings.get_profile("local"),
    phases=[hypothesis.Phase.generate],
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local")
)
