"""A namespace that had no room for a pod: what its quotas say since, asked for seldom.

Nothing is asked before a pod was refused, and nothing some minutes after the last refusal. The
quotas are read every few seconds, and at once when the number of our pods has changed. Without the
right to read them nothing is known, as before. Refuses to know what a quota's numbers mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from attrs import define

from backends import api
from backends.kubernetes.api import rights
from backends.kubernetes.pods import quotas

_EVERY_S = 5.0
_LEAST_S = 0.5
_SETTLES_S = 3.0  # a quota's status follows a deletion within that
_AGAIN_S = 600.0  # after an answer that is none: a right is missing, the server has trouble


class QuotaSource(Protocol):
    """Who can be asked."""

    async def quotas(self) -> Iterable[Mapping[str, Any]]:
        """Return the quotas of the namespace."""


@define(kw_only=True)
class RefusedPod:
    """The last refusal for want of room, and what was seen of the quotas since."""

    pod: Mapping[str, Any]  # the manifest that was refused
    at: float  # POSIX seconds
    right: rights.OptionalRight  # to read the quotas
    before: "RefusedPod | None" = None
    room_at: float | None = None  # when the quotas began to leave room for it
    _room: quotas.QuotaRoom | None = None
    _read_at: float | None = None
    _quiet_until: float = 0.0
    _pods: int = -1
    _changed_at: float = 0.0

    def __attrs_post_init__(self) -> None:
        if self.before is not None:
            self._quiet_until = self.before._quiet_until  # noqa: SLF001 -- of the same class
            self.before = None

    async def capacity(self, asked: QuotaSource, *, pods: int, now: float) -> api.Capacity | None:
        """Return what is known of the room; ``pods`` is how many we have just now."""
        if self._is_due(pods, now):
            try:
                self._take(quotas.room(await asked.quotas(), self.pod), now)
            except api.BackendError as error:
                self.right.lacks(error)
                self._room, self._quiet_until = None, now + _AGAIN_S
            self._read_at = now
        room = self._room
        if room is None:
            return None
        return api.Capacity(free_instances=room.pods, text=room.text, room_at=self.room_at)

    def _is_due(self, pods: int, now: float) -> bool:
        if pods != self._pods:
            self._pods, self._changed_at = pods, now
        if now < self._quiet_until:
            return False
        pause_s = _LEAST_S if now - self._changed_at < _SETTLES_S else _EVERY_S
        return self._read_at is None or now - self._read_at >= pause_s

    def _take(self, room: quotas.QuotaRoom, now: float) -> None:
        """Take what was read; that there is room where there was none is a sign."""
        before, self._room = self._room, room
        was_full = before is not None and before.alike == 0
        if was_full and room.alike is not None and room.alike > 0:
            self.room_at = now
