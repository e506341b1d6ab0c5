"""What aiohttp says by itself to whoever sends no request, in our words: for what is served.

No versions, nothing quoted of what was sent, and no traceback in the log because of a stranger.
Refuses to know what is served.
"""

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

from outside import limited_log

LINGER_S = 1.0
"""How long what nobody reads is still taken, so that its sender sees the answer."""


class Handler(RequestHandler):
    """Speaks with one connection; every answer of its own has ``headers``."""

    def __init__(
        self,
        manager: Server,
        *,
        log: limited_log.LimitedLog,
        headers: Mapping[str, str],
        **more: object,
    ) -> None:
        ours: dict[str, object] = {
            "access_log": None,
            "lingering_time": LINGER_S,
            "auto_decompress": False,  # no body is made a thousand times larger
        }
        super().__init__(manager, **ours, **more)  # type: ignore[arg-type]  # its own
        self._log = log
        self._headers = headers

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- it quotes what was sent
    ) -> Response:
        """Answer what is no request; the rest cannot happen, and is told if it does."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc is not None:
            self._log.bug("an answer cannot be made, because of a bug", exc)
        else:
            self._log.info("not an HTTP request", remote=str(request.remote))
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer was sent")
        text = f"{status}: {HTTPStatus(status).phrase}\n"
        answer = Response(text=text, status=status, headers=self._headers)
        answer.force_close()
        return answer

    def log_exception(self, *args: object, **more: object) -> None:
        """Tell what aiohttp would log with a traceback, once in a while."""
        error = more.get("exc_info")
        if isinstance(error, RequestPayloadError):  # a body that is none
            self._log.info("not an HTTP request", remote="")
        elif isinstance(error, BaseException):
            self._log.bug("a connection failed, because of a bug", error)
        else:
            self._log.warning("a connection failed", reason=str(args[0]) if args else "")
