"""Which engine Docker's own client would speak to: variables, contexts, the local socket.

In its order: ``DOCKER_HOST`` (with ``DOCKER_TLS_VERIFY``, ``DOCKER_TLS``, ``DOCKER_CERT_PATH``),
else the context that ``DOCKER_CONTEXT`` names, else the ``currentContext`` of its ``config.json``,
else the local socket. A context is ``contexts/meta/HASH/meta.json`` in the same folder, with its
certificates in ``contexts/tls/HASH/docker/``. Refuses to speak to an engine, and to do without a
check of its certificate.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from backends import api
from backends.docker import settings
from backends.docker.engine import logins
from outside import paths, quotes, text

_LOCAL = "unix:///var/run/docker.sock"
_LOCAL_TLS = "tcp://localhost:2376"
_PORT = ":2375"
_DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]+")
_CA, _CERT, _KEY = "ca.pem", "cert.pem", "key.pem"


@frozen
class FoundEngine:
    """An engine, and who named it: words for people, empty for the local socket."""

    host: settings.Host
    told_by: str = ""
    complaint: str = ""  # a configuration that cannot be read counts for none, as Docker has it


def engine(folder: str | None, variables: Mapping[str, str] = os.environ) -> FoundEngine:
    """Return the engine of a user of Docker. Raises ValueError that says what is wrong where.

    ``folder``: of Docker's configuration; None: ``DOCKER_CONFIG``, or ``~/.docker``.
    """
    home = pathlib.Path(folder) if folder else logins.folder(variables)
    told = variables.get("DOCKER_HOST", "").strip()
    if told:
        return FoundEngine(_named(told, home, variables, by="DOCKER_HOST"), "DOCKER_HOST")
    name, by, complaint = _context_name(home, variables)
    if name == _DEFAULT:
        secure = _asks_for_tls(variables)
        local = _LOCAL_TLS if secure else _LOCAL
        by = "DOCKER_TLS_VERIFY" if secure else ""
        return FoundEngine(_named(local, home, variables, by=by), by, complaint)
    return FoundEngine(_of_context(name, home, by), f"the context {name}, by {by}")


def _named(
    told: str, home: pathlib.Path, variables: Mapping[str, str], *, by: str
) -> settings.Host:
    """Return the engine at an address, with the certificates that variables name."""
    url = _address(told)
    if not _asks_for_tls(variables) or url.startswith(("unix:", "ssh:")):
        return _host(by, url=url)
    if not variables.get("DOCKER_TLS_VERIFY"):
        raise ValueError(
            "DOCKER_TLS: its certificate would not be checked, so that anybody on the way could "
            "be that engine; hint: DOCKER_TLS_VERIFY=1"
        )
    certificates = variables.get("DOCKER_CERT_PATH", "")
    where = pathlib.Path(certificates).absolute() if certificates else home
    if paths.is_missing(where / _CA):
        raise ValueError(f"DOCKER_TLS_VERIFY: there is no {where / _CA}; hint: DOCKER_CERT_PATH")
    return _host(by, url=url, tls=True, **_files_in(where))


def _asks_for_tls(variables: Mapping[str, str]) -> bool:
    return any(variables.get(name) for name in ("DOCKER_TLS_VERIFY", "DOCKER_TLS"))


def _address(told: str) -> str:
    """Return an address in full, as Docker completes it."""
    scheme, has_scheme, rest = told.partition("://")
    if not has_scheme:
        scheme, rest = "tcp", told
    if scheme == "unix" and not rest:
        return _LOCAL
    if scheme == "tcp":
        place, slash, path = rest.partition("/")
        if not re.search(r":\d+$", place):
            place = f"{place.removesuffix(':') or 'localhost'}{_PORT}"
        elif place.startswith(":"):
            place = f"localhost{place}"
        return f"tcp://{place}{slash}{path}"
    return told


def _host(by: str, **told: Any) -> settings.Host:
    try:
        return settings.Host(**told)
    except ValueError as error:
        raise ValueError(f"{by}: {str(error).removeprefix('url: ')}") from None


def _files_in(folder: pathlib.Path) -> dict[str, str]:
    """Return the certificates of a folder; a certificate without its key counts for nothing."""
    names = (_CA, _CERT, _KEY)
    there = {name: str(folder / name) for name in names if not paths.is_missing(folder / name)}
    files = {"ca_file": there[_CA]} if _CA in there else {}
    if _CERT in there and _KEY in there:
        files |= {"cert_file": there[_CERT], "key_file": there[_KEY]}
    return files


# --- contexts ------------------------------------------------------------------------------------


def _context_name(home: pathlib.Path, variables: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the context that is used, who named it, and why it may be another."""
    if name := variables.get("DOCKER_CONTEXT"):
        return name, "DOCKER_CONTEXT", ""
    path = home / logins.FILE
    try:
        told = _text(_read(path), "currentContext", path)
    except ValueError as error:
        return _DEFAULT, "", str(error)
    return told or _DEFAULT, f"currentContext in {path}", ""


def _of_context(name: str, home: pathlib.Path, by: str) -> settings.Host:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{by}: found {quotes.shown(text.clean(name, 80))}, which is not a name of a context"
        )
    number = hashlib.sha256(name.encode()).hexdigest()
    path = home / "contexts" / "meta" / number / "meta.json"
    if paths.is_missing(path):
        raise ValueError(f"{by}: there is no context {quotes.shown(name)} in {home / 'contexts'}")
    endpoint = _entry(_entry(_read(path), "Endpoints"), "docker")
    if endpoint is None:
        raise ValueError(
            f"{path}: the context {quotes.shown(name)} names no engine (Endpoints.docker)"
        )
    told = _text(endpoint, "Host", path) or _LOCAL
    where = f"context {quotes.shown(name)}"
    if told.startswith(("unix:", "ssh:", "npipe:", "fd:")):
        return _host(where, url=told)
    if _entry(endpoint, "SkipTLSVerify"):
        raise ValueError(
            f"{where}: SkipTLSVerify is not obeyed: anybody on the way could be that engine; "
            "hint: its ca.pem in the context"
        )
    certificates = home / "contexts" / "tls" / number / "docker"
    return _host(
        where, url=told, tls=not paths.is_missing(certificates), **_files_in(certificates)
    )


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        return logins.section(logins.read(path), path, "")
    except api.Unauthorized as error:
        raise ValueError(str(error)) from None


def _text(told: Any, key: str, path: pathlib.Path) -> str:
    """Return an entry that is a text; empty without one."""
    entry = _entry(told, key)
    if entry is None or isinstance(entry, str):
        return entry or ""
    raise ValueError(f"{path}: {key}: found no text")


def _entry(told: Any, key: str) -> Any:
    """Return an entry of a section, in whatever letters it is written; None without one."""
    if not isinstance(told, Mapping):
        return None
    return next((value for name, value in told.items() if name.lower() == key.lower()), None)
