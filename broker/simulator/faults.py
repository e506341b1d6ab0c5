"""What goes wrong with the simulated controller's answers, on demand.

Scripted by path pattern and count; refuses to know what the right answer would be, except for the
one it repeats as a stale read.
"""

import asyncio
import fnmatch
from collections.abc import Mapping
from typing import Literal

from aiohttp import web
from attrs import define, field

Kind = Literal["timeout", "500", "502", "503", "slow", "cut", "stale", "reset"]
_SLOW_S = 0.5


@define(kw_only=True)
class _ScriptedFault:
    pattern: str
    kind: Kind
    times: int
    method: str | None


@define(kw_only=True)
class Faults:
    """Faults that wait for their request."""

    _waiting: list[_ScriptedFault] = field(factory=list)
    _last: dict[str, str] = field(factory=dict)  # JSON by path, for stale reads

    def add(self, pattern: str, kind: Kind, *, times: int, method: str | None) -> None:
        """Let the next requests that fit go wrong."""
        fault = _ScriptedFault(pattern=pattern, kind=kind, times=times, method=method)
        self._waiting.append(fault)

    def remember(self, path: str, answer: web.Response) -> None:
        """Keep an answer as what a stale read will show."""
        self._last[path] = answer.text or ""

    async def strike(
        self, request: web.Request, path: str, headers: Mapping[str, str]
    ) -> web.StreamResponse | None:
        """Return the wrong answer to a request, or None for none."""
        for fault in self._waiting:
            if fault.method not in {None, request.method} or fault.times <= 0:
                continue
            if fnmatch.fnmatchcase(path, fault.pattern):
                fault.times -= 1
                return await self._wrong(fault.kind, request, path, headers)
        return None

    async def _wrong(
        self, kind: Kind, request: web.Request, path: str, headers: Mapping[str, str]
    ) -> web.StreamResponse | None:
        match kind:
            case "timeout":
                await asyncio.Event().wait()
            case "slow":
                await asyncio.sleep(_SLOW_S)
            case "500" | "502" | "503":
                return web.Response(status=int(kind), text=f"<h1>Oops {kind}</h1>")
            case "reset":
                if request.transport is not None:
                    request.transport.close()
                return web.Response()
            case "cut":
                answer = web.StreamResponse(headers={"Content-Length": "100000"})
                await answer.prepare(request)
                await answer.write(b'{"_class":"hudson.model.Queue","items":[{')
                if request.transport is not None:
                    request.transport.close()
                return answer
            case "stale":
                if path in self._last:
                    return web.Response(
                        text=self._last[path], content_type="application/json", headers=headers
                    )
        return None
