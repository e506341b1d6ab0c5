"""Log lines that others can cause as often as they like. Refuses to know what they say."""

import logging
import time
from collections.abc import Callable, Mapping


class LimitedLog:
    """Lines that others can cause as often as they like: each at most once in a while.

    The next one says how many were left out. ``what`` is one of few constant texts.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        every_s: float = 60.0,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every_s = every_s
        self._elapsed = elapsed
        self._lines: dict[str, tuple[float, int]] = {}

    def info(self, what: str, **fields: object) -> None:
        """Write a line that says nothing is wrong with us."""
        self._tell(logging.INFO, what, None, fields)

    def warning(self, what: str, **fields: object) -> None:
        """Write a line that somebody should see."""
        self._tell(logging.WARNING, what, None, fields)

    def bug(self, what: str, error: BaseException, **fields: object) -> None:
        """Write a line with a traceback."""
        self._tell(logging.ERROR, what, error, fields)

    def _tell(
        self, level: int, what: str, error: BaseException | None, fields: Mapping[str, object]
    ) -> None:
        now = self._elapsed()
        told_at, left_out = self._lines.get(what, (-self._every_s, 0))
        if now - told_at < self._every_s:
            self._lines[what] = (told_at, left_out + 1)
            return
        self._lines[what] = (now, 0)
        more = {"left_out": left_out} if left_out else {}
        self._logger.log(level, what, exc_info=error, extra={**fields, **more})
