"""What all tests share."""

import asyncio
import logging
import os

import hypothesis
import pytest

from outside import secrets


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
    """Half as many more than processors: the longest tests mostly wait for processes."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


def pytest_configure() -> None:
    """Say that the main thread has no event loop, before pytest-asyncio asks for it.

    Up to Python 3.13 asking creates one. pytest-asyncio then puts it aside and drops it unclosed,
    which some later, innocent test is failed for as soon as the garbage collector finds it.
    """
    asyncio.set_event_loop(None)


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
    deadline=None,  # shared machines are slow at times
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.register_profile(
    "hunt",
    parent=hypothesis.settings.get_profile("local"),
    phases=[hypothesis.Phase.generate],
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local")
)
