"""Why nobody was reached, in our words: an HTTP library's are made for whoever wrote it.

Refuses to know who was to be reached, and what follows.
"""

import os
import ssl

import aiohttp

from outside import text


def words(error: BaseException, limit: int = 200) -> str:
    """Return one clean line: where, and what the system said (``Connection refused``).

    Of a certificate, what is wrong with it. Any other error keeps its own words.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        said = getattr(inner, "verify_message", None) or str(inner)
        return text.clean(f"the certificate of {_place(error)} is not trusted: {said}", limit)
    if not isinstance(error, aiohttp.ClientConnectorError):
        return text.clean(_plain(error), limit)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return text.clean(
            f"{_place(error)} does not speak TLS as we do: {_said(error.os_error)}; "
            "hint: http:// or https://?",
            limit,
        )
    return text.clean(f"cannot connect to {_place(error)}: {_said(error.os_error)}", limit)


def _plain(error: BaseException) -> str:
    if type(error) is aiohttp.ClientResponseError:  # of the parser: nobody here raises by status
        return "the answer is not HTTP"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return _said(error)
    return str(error) or type(error).__name__


def _place(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    if isinstance(error, aiohttp.client_exceptions.UnixClientConnectorError):
        return error.path
    host = f"[{error.host}]" if ":" in str(error.host) else error.host
    kind = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    return f"{kind}{host}:{error.port}"


def _said(error: OSError) -> str:
    """Say it as the system does; loops and TLS put words and numbers of their own there."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
