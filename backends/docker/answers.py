"""What an engine answers, as values, and whose fault its refusals are. Pure.

Every rule on a status or on words was seen on a real engine: tests/docker holds the recordings of
20.10. Refuses to know the SDK; what cannot be told from an answer is the platform's fault.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import Factory, frozen

from backends import api


@frozen(kw_only=True)
class Found:
    """A container in a listing."""

    id: str
    labels: Mapping[str, str]
    state: str  # the engine's word
    created_at: float | None
    ports: tuple[str, ...] = ()


@frozen(kw_only=True)
class Inspected:
    """A container looked at."""

    id: str
    labels: Mapping[str, str]
    state: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started: bool = False
    finished_at: float | None = None
    memory_bytes: int | None = None
    image: str = ""  # its id
    mounts: tuple[str, ...] = ()  # where


@frozen(kw_only=True)
class Event:
    """What happened to a container; ``at`` is the engine's clock, POSIX seconds."""

    id: str
    action: str
    at: float
    attributes: Mapping[str, str] = Factory(dict)


# --- reading answers ---------------------------------------------------------------------------

LAYER_DONE = frozenset({"Pull complete", "Already exists", "Download complete"})
_PULL_DENIED = re.compile(r"unauthorized|authentication required|no basic auth", re.IGNORECASE)
_PULL_WRONG = re.compile(
    r"not found|manifest unknown|access denied|does not exist|invalid reference|no matching",
    re.IGNORECASE,
)
_PULL_AWAY = re.compile(r"dial tcp|no such host|refused|timeout|toomanyrequests", re.IGNORECASE)
_CONFIGURED_WRONG = re.compile(
    r"cannot unmarshal|error while mounting volume|failed to mount|unable to apply caps"
    r"|error gathering device information|invalid mount|mount denied|read-only"
)


def version(text: str) -> tuple[int, ...]:
    """Read a version of the API."""
    return tuple(int(part) for part in text.split("."))


def _stamp(text: str | None) -> float | None:
    """Read the engine's time, RFC 3339 with nanoseconds; year 1 is never."""
    if not text or text.startswith("0001-"):
        return None
    parts = re.fullmatch(r"(.{19})(\.\d+)?(.*)", text)
    if parts is None:
        return None
    whole, fraction, zone = parts.groups()
    moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp()
    return moment + float(fraction or 0)


def found(entry: Mapping[str, Any]) -> Found:
    """Read an entry of a listing."""
    published = [
        (":" in port.get("IP", ""), f"->{port['PrivatePort']}/{port['Type']}", port["PublicPort"])
        for port in entry.get("Ports") or ()
        if "PublicPort" in port
    ]
    ipv4 = {inside for is_ipv6, inside, _ in published if not is_ipv6}
    ports = sorted(  # a random port is another one on IPv6: the usual one is enough
        f"{public}{inside}"
        for is_ipv6, inside, public in published
        if not is_ipv6 or inside not in ipv4
    )
    return Found(
        id=str(entry["Id"]),
        labels=entry.get("Labels") or {},
        state=str(entry.get("State", "")),
        created_at=float(entry["Created"]) if "Created" in entry else None,
        ports=tuple(dict.fromkeys(ports)),
    )


def inspected(entry: Mapping[str, Any]) -> Inspected:
    """Read an inspect."""
    state, host = entry["State"], entry.get("HostConfig") or {}
    return Inspected(
        id=str(entry["Id"]),
        labels=entry["Config"].get("Labels") or {},
        state=str(state["Status"]),
        exit_code=int(state.get("ExitCode", 0)),
        oom_killed=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        started=_stamp(state.get("StartedAt")) is not None,
        finished_at=_stamp(state.get("FinishedAt")),
        memory_bytes=host.get("Memory") or None,
        image=str(entry.get("Image", "")),
        mounts=tuple(str(mount.get("Destination", "")) for mount in entry.get("Mounts") or ()),
    )


def event(told: Mapping[str, Any]) -> Event:
    """Read an event."""
    actor = told.get("Actor") or {}
    return Event(
        id=str(actor.get("ID", "")),
        action=str(told.get("Action", "")),
        at=int(told.get("timeNano", 0)) / 1e9,
        attributes=actor.get("Attributes") or {},
    )


# --- errors ------------------------------------------------------------------------------------


def refusal(status: int, words: str, *, retry_after: float | None = None) -> api.BackendError:
    """Map an answer of the engine that is no success."""
    if status in {401, 403}:
        return api.Unauthorized(f"the engine says {status}: {words}")
    if status == 404:
        return api.NotFound(words)
    if "port is already allocated" in words or "address already in use" in words:
        return api.NoCapacity(f"a published port is taken: {words}")
    if "HTTP request to an HTTPS server" in words:
        return api.Rejected("the engine speaks TLS; hint: `tls: true` of the host")
    if status in {400, 409} or _CONFIGURED_WRONG.search(words):
        return api.Rejected(f"the engine refuses: {words}")
    return api.Unavailable(f"the engine says {status}: {words}", retry_after=retry_after)


def refused_start(status: int, words: str) -> api.BackendError:
    """As ``refusal``; what is missing at the start is configured wrongly: a network, a program."""
    if status == 404 and "container" not in words.lower():
        return api.Rejected(f"the engine refuses: {words}; hint: `network` of the template")
    return refusal(status, words)


def refused_pull(status: int | None, words: str) -> api.BackendError:
    """Map what a registry says, by way of the engine; it hides the registry's status."""
    if _PULL_AWAY.search(words):
        return api.Unavailable(f"the registry cannot be reached: {words}")
    if _PULL_DENIED.search(words) and not _PULL_WRONG.search(words):
        return api.Unauthorized(f"the registry refuses: {words}; hint: `registries`")
    if _PULL_WRONG.search(words) or status in {400, 404}:
        return api.Rejected(f"the image cannot be pulled: {words}")
    return api.Unavailable(f"the image cannot be pulled: {words}")


_TLS = (
    (r"WRONG_VERSION|wrong version|UNKNOWN_PROTOCOL|HTTP_REQUEST",
     "no TLS is spoken there; hint: its port, or `tls: false`"),
    (r"mismatch, certificate|doesn't match",
     "its certificate is for another name; hint: a name of the certificate in `url`"),
    (r"verify failed.*expired", "its certificate has expired; hint: that host needs a new one"),
    (r"verify failed.*not yet valid", "its certificate is not valid yet; hint: both clocks"),
    (r"verify failed", "its certificate is signed by somebody else; hint: `ca_file`"),
    (r"VALUES_MISMATCH", "our key is not that of our certificate; hint: `key_file`"),
    (r"alert|violation of protocol",
     "it does not accept our certificate, or that we have none; hint: `cert_file`"),
)  # fmt: skip


def refused_tls(url: str, words: str) -> api.Unauthorized:
    """Say whose certificate is wrong, from the words of OpenSSL."""
    for pattern, meaning in _TLS:
        if re.search(pattern, words, re.IGNORECASE):
            return api.Unauthorized(f"{url}: {meaning} ({words})")
    return api.Unauthorized(f"{url}: {words}; hint: `ca_file`, `cert_file` of the host")


def is_missing_image(status: int | None, words: str) -> bool:
    """Tell whether a creation failed for its image alone."""
    return status == 404 and "image" in words.lower()


def innermost(error: BaseException) -> str:
    """Return the last cause's words: libraries wrap the operating system's three times."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return str(seen) or type(seen).__name__
