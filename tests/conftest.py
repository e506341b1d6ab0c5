"""What all tests share."""

import asyncio


def pytest_configure() -> None:
    """Say that the main thread has no event loop, before pytest-asyncio asks for it.

    Up to Python 3.13 asking creates one. pytest-asyncio then puts it aside and drops it unclosed,
    which some later, innocent test is failed for as soon as the garbage collector finds it.
    """
    asyncio.set_event_loop(None)
