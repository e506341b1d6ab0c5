"""Puts the hook into the controller through its script console, and takes it out again.

For users with Overall/Administer; all others lay the script into ``init.groovy.d``. Refuses to
know when that is to be done.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from broker.hook import script
from jnlp import errors as jnlp_errors
from outside import text

_LOG = logging.getLogger("broker.hook")
_PATH = "scriptText"
AGAIN_S = 60.0
"""Pause between two attempts for one start of the controller."""


class ScriptConsole(Protocol):
    """The controller, as far as scripts are concerned."""

    async def post_text(self, path: str, form: dict[str, str]) -> str:
        """POST a form, and return the text of the answer. Raises any ``JenkinsError``."""


class NotInstalled(Exception):  # noqa: N818 -- an answer
    """The console did not do it; the text quotes what it said."""


async def install(console: ScriptConsole, owner: str, url: str, key: str) -> None:
    """Put the hook in, in place of one that is there. Raises ``JenkinsError``, NotInstalled."""
    answer = await console.post_text(_PATH, {"script": script.install(owner, url, key=key)})
    if not script.is_installed(answer):
        raise NotInstalled(f"the script console says: {text.clean(answer, 256)}")


async def remove(console: ScriptConsole, owner: str) -> int:
    """Take the hook out; return how many were there. Raises ``JenkinsError``, NotInstalled."""
    answer = await console.post_text(_PATH, {"script": script.remove(owner)})
    removed = script.removed(answer)
    if removed is None:
        raise NotInstalled(f"the script console says: {text.clean(answer, 256)}")
    return removed


@define(kw_only=True)
class HookKeeper:
    """Puts the hook in where it is missing: after each start of the controller, at most once.

    A start is told by the controller's session. What fails is tried again after ``AGAIN_S``.
    """

    console: ScriptConsole
    owner: str
    now: Callable[[], float]
    _session: str = ""  # of the start for which it was put in
    _tried_at: float | None = None
    trouble: str = field(default="", init=False)  # why it could not be put in, the last time

    def is_due(self, *, session: str, heard: bool) -> bool:
        """Whether it is to be put in now; ``session``: the controller's, "": not known."""
        if not session or heard:
            return False
        if session != self._session:
            return True
        return self._tried_at is None or self.now() - self._tried_at >= AGAIN_S

    async def put_in(self, *, session: str, url: str, key: str) -> None:
        """Put it in, and say in the log whether that went well."""
        self._session, self._tried_at = session, self.now()
        try:
            await install(self.console, self.owner, url, key)
        except (jnlp_errors.JenkinsError, NotInstalled) as error:
            words = str(error)
            if isinstance(error, jnlp_errors.Forbidden):
                words = f"{words}; the script console is for Overall/Administer"
            self.trouble = words
            _LOG.warning("the hook is not put in", extra={"reason": words})
        else:
            self.trouble = ""
            _LOG.info("the hook is put in")
