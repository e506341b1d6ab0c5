"""What the simulated controller answers when it does not answer JSON: pages, refusals, its jar.

As recorded (``nodes/02``, ``nodes/06``, ``auth/01``, ``permissions/01``, ``agent/02``): a page of
Jenkins itself carries ``X-Jenkins``, a bare one of the servlet container below it does not. Pure;
refuses to know who asks and what for.
"""

import html

from aiohttp import web

from broker.simulator import inventory, simulation

_IDENTITY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsimulated"
"""The public key that agents pin; nobody checks it here."""
_JAR = b"PK\x05\x06" + bytes(18)
"""An empty archive: the simulation's agents are no Java programs."""
_JAR_DATE = "Tue, 02 Mar 2021 10:00:00 GMT"
_MINIMUM = (((2, 568), "3176"), ((2, 479), "3107"), ((2, 426), "4.13"), ((2, 401), "4.7"))
"""Smallest remoting that a controller talks to, by its version."""


def page(title: str, main: str = "", *, status: int = 200) -> web.Response:
    """Return a page of Jenkins; ``main`` is HTML."""
    return web.Response(
        status=status,
        text=f"<!DOCTYPE html><html><head><title>{html.escape(title)} [Jenkins]</title></head>"
        f"<body>{main}</body></html>",
        content_type="text/html",
        headers={"X-Hudson": "1.395"},
    )


def is_jenkins(answer: web.StreamResponse) -> bool:
    """Return whether an answer carries ``X-Jenkins``: its pages and its JSON do."""
    return answer.content_type == "application/json" or "X-Hudson" in answer.headers


def bare(status: int, text: str) -> web.Response:
    """Return an error page of the servlet container."""
    text = html.escape(text)
    return web.Response(
        status=status,
        text=f"<html>\n<head>\n<title>Error {status} {text}</title>\n</head>\n"
        f"<body><h2>HTTP ERROR {status} {text}</h2>\n</body>\n</html>\n",
        content_type="text/html",
        charset="iso-8859-1",
        headers={"Cache-Control": "must-revalidate,no-cache,no-store"},
    )


def refusal(refused: simulation.SimulatedRefusal) -> web.Response:
    """Return what the controller says to a request that it refuses."""
    status, text = refused.status, html.escape(refused.text)
    if status == 404 or refused.text == inventory.NO_FORM:
        return bare(status, refused.text or "Not Found")
    if status == 400 and not text:
        return web.Response(status=400)
    main = {
        400: f"<h1>Error</h1><p>{' '.join(text.split())}</div>",
        403: f'<h1>Access Denied</h1><p class="error">{text}</div>',
        405: "<h1>This URL requires POST</h1>",
    }
    answer = page("Jenkins", main.get(status, f"<h1>Oops! {status}</h1>"), status=status)
    if status == 400:
        answer.headers["X-Error"] = refused.text
    return answer


def starting(method: str) -> web.Response:
    """Return the page while the controller starts (recording ``controller/02``)."""
    answer = web.Response(
        status=503,
        text="<html><head><title>Starting Jenkins</title></head><body>Please wait</body></html>",
        content_type="text/html",
    )
    if method == "POST":
        answer.headers["X-Hudson"] = "1.395"
    return answer


def jar(request: web.Request) -> web.Response:
    """Return ``agent.jar``, or 304."""
    headers = {
        "Content-Disposition": "attachment; filename=agent.jar",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("If-Modified-Since") == _JAR_DATE:
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=_JAR,
        content_type="application/java-archive",
        headers={**headers, "Last-Modified": _JAR_DATE, "Accept-Ranges": "bytes"},
    )


def listener(version: tuple[int, ...]) -> web.Response:
    """Return ``tcpSlaveAgentListener``: what an agent asks before it connects."""
    minimum = next((text for since, text in _MINIMUM if version >= since), "3.14")
    return web.Response(
        text="\n\n  Jenkins\n",
        content_type="text/plain",
        charset="utf-8",
        headers={
            "X-Hudson-JNLP-Port": "50000",
            "X-Jenkins-JNLP-Port": "50000",
            "X-Instance-Identity": _IDENTITY,
            "X-Jenkins-Agent-Protocols": "JNLP4-connect, Ping",
            "X-Remoting-Minimum-Version": minimum,
        },
    )
