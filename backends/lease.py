"""The contract with a platform that keeps one small record for several brokers to agree on.

Whoever holds the record leads. The platform has to offer one thing: a write succeeds only over the
version that the writer has seen. What follows from a record is decided elsewhere
(``broker.core.election``); this file refuses to know clocks, platforms and SDKs.
"""

from typing import Any, Protocol

from attrs import field, frozen


@frozen(kw_only=True)
class Record:
    """What is agreed on. The two times are for people: nobody may conclude anything from them."""

    holder: str  # empty: released
    lease_s: int  # the holder has stopped when the record has not changed for so long
    acquired: str  # ISO 8601
    renewed: str
    transitions: int  # how often another holder took it


@frozen(kw_only=True)
class SeenRecord:
    """A record as it was at one version."""

    record: Record
    version: str
    uid: str  # of this very record; another one after it was deleted and made anew
    raw: Any = field(default=None, eq=False, repr=False)  # the platform's own form, kept whole


class Lease(Protocol):
    """One record on one platform. All calls raise ``backends.api.BackendError``."""

    where: str
    """The record, in words for people."""

    async def read(self) -> SeenRecord | None:
        """Return the record as it is now, never an older one; None if there is none."""

    async def write(self, record: Record, *, over: SeenRecord | None) -> SeenRecord | None:
        """Write over what was seen (None: make it); None: somebody else was faster, read again.

        After an error the record may have been written.
        """

    async def aclose(self) -> None:
        """Let go of the connections; idempotent."""
