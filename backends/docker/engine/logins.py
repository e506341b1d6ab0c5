"""Who we are at a registry: from the settings, Docker's own configuration, credential helpers.

Why not the SDK's own way: it takes a configuration that it cannot read for an empty one, fails for
all registries where one entry is bad, and waits for ever for a helper, which asks clouds and key
rings. Read at each pull, so that a renewed password needs no restart. Refuses to know the SDK, and
to say a password to anybody but the engine: what is read here is shown nowhere. Whatever is wrong
here concerns only those whose image has to be pulled from that registry.
"""

import base64
import binascii
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from backends import api
from backends.docker import settings
from backends.docker.engine import reference
from outside import files, odd_json, programs, secrets, text

FILE = "config.json"
_HELPER_S = 30.0
_HELPER_MAX = 1 << 20
_CONFIG_MAX = 1 << 20
_PASSWORD_MAX = 64 << 10
_TOKEN_USER = "<token>"  # noqa: S105 -- of the helpers' protocol: the secret is an identity token
_NOT_THERE = "credentials not found"
_VARIABLE = "DOCKER_AUTH_CONFIG"
"""Docker's client looks there first: a ``config.json`` with nothing but ``auths``."""
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PUBLIC_URL = f"https://index.{reference.PUBLIC}/v1/"
"""What the public registry is called in configurations and by helpers."""


def header(login: Mapping[str, str]) -> str:
    """Return a login as the engine wants it in ``X-Registry-Auth``."""
    told = base64.urlsafe_b64encode(json.dumps(dict(login)).encode()).decode()
    secrets.register(told)
    return told


def of_settings(login: settings.Registry, registry: str) -> dict[str, str]:
    """Return user and password of the backend's settings. Raises Unauthorized."""
    try:
        password = (
            os.environ[login.password_env]
            if login.password_env is not None
            else files.secret(str(login.password_file), limit=_PASSWORD_MAX)
        )
    except (OSError, KeyError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise api.Unauthorized(
            f"the password for registry {registry} cannot be read: {why}; "
            "hint: `registries` of the backend",
            reach=api.Reach.TEMPLATE,
        ) from None  # a decoder's error quotes what it could not decode
    secrets.register(password)
    return {"username": login.user, "password": password}


def of_config(folder_told: str | None, registry: str) -> dict[str, str]:
    """Return what Docker's ``config.json`` says about a registry; empty: nothing.

    ``folder_told`` None: that of ``DOCKER_CONFIG``, or ``~/.docker``; what ``DOCKER_AUTH_CONFIG``
    says of the registry comes first. Raises Unauthorized with the file and the entry for what
    cannot be read, if it is about this registry.
    """
    server = _PUBLIC_URL if registry == reference.PUBLIC else registry
    told = os.environ.get(_VARIABLE, "") if folder_told is None else ""
    variable = pathlib.Path(_VARIABLE)
    from_variable = _of_auths(_parsed(told.encode(), variable), variable, registry, server)
    if from_variable:
        return from_variable
    path = (pathlib.Path(folder_told) if folder_told else folder(os.environ)) / FILE
    config = section(read(path), path, "")
    helpers = section(config.get("credHelpers", {}), path, "credHelpers")
    key = next((key for key in (server, registry) if key in helpers), None)
    where, helper = (
        ("credsStore", config.get("credsStore"))
        if key is None
        else (f"credHelpers.{text.clean(key, 80)}", helpers[key])
    )
    if helper:
        if not isinstance(helper, str) or not _PROGRAM.fullmatch(helper):
            raise _odd(path, where, "found no name of a helper")
        login = of_helper(helper, server, told_by=f"{path}: {where}")
        if login is not None:
            return login
    return _of_auths(config, path, registry, server)


def _of_auths(told: Any, path: pathlib.Path, registry: str, server: str) -> dict[str, str]:
    """Return what the section ``auths`` says of a registry; empty: nothing."""
    entries = section(section(told, path, "").get("auths", {}), path, "auths")
    for key in (registry, server, *entries):
        if key in entries and _host(key) == registry:
            login = _entry(entries[key], path, key, registry)
            if login:
                return login
    return {}


def of_helper(name: str, server: str, *, told_by: str = "") -> dict[str, str] | None:
    """Ask a credential helper of Docker; None if it knows nothing. Raises Unauthorized.

    ``told_by``: file and entry that name it, for the error.
    """
    whose = f" ({told_by})" if told_by else ""
    program = f"registry {server}{whose}: docker-credential-{name}"
    try:
        output = programs.ask(
            [f"docker-credential-{name}", "get"],
            server.encode(),
            limit=_HELPER_MAX,
            within_s=_HELPER_S,
        )
        if output.code != 0:
            words = (output.printed + output.complained).decode("utf-8", "replace")
            if _NOT_THERE in words:
                return None
            raise _refused(program, text.clean(words, 120) or f"exit code {output.code}")
        login = json.loads(output.printed)
    except TimeoutError:
        raise _refused(program, f"no answer within {_HELPER_S:g} s") from None
    except programs.TooMuch as error:
        raise _refused(program, f"its answer has {error}") from None
    except OSError as error:
        raise _refused(program, error.strerror or "it cannot be run") from error
    except (ValueError, RecursionError) as error:  # its text is not shown: it may hold the secret
        words = f"its answer cannot be understood: {odd_json.words(error)}"
        raise _refused(program, words) from None
    user, secret = (
        login.get(key) if isinstance(login, dict) else None for key in ("Username", "Secret")
    )
    if not isinstance(user, str) or not isinstance(secret, str):
        words = "its answer cannot be understood: found no texts Username and Secret"
        raise _refused(program, words)
    if not user and not secret:
        return None
    secrets.register(secret)
    if user == _TOKEN_USER:
        return {"serveraddress": server, "identitytoken": secret}
    return {"serveraddress": server, "username": user, "password": secret}


# --- Docker's configuration ----------------------------------------------------------------------


def folder(variables: Mapping[str, str]) -> pathlib.Path:
    """Return where Docker's configuration of this user is."""
    told = variables.get("DOCKER_CONFIG")
    return pathlib.Path(told) if told else pathlib.Path("~/.docker").expanduser()


def read(path: pathlib.Path) -> Any:
    """Return what a file of Docker's says; {} for one that is not there. Raises Unauthorized."""
    try:
        raw = files.read(path, limit=_CONFIG_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _odd(path, "", error.strerror or "it cannot be read") from error
    return _parsed(raw, path)


def _parsed(raw: bytes, path: pathlib.Path) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig")) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _odd(path, "", odd_json.words(error)) from None


def section(told: Any, path: pathlib.Path, where: str) -> Mapping[str, Any]:
    """Return a section of a file; empty for none. Raises Unauthorized."""
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise _odd(path, where, "found no section; allowed: names with their values")
    return told


def _entry(told: Any, path: pathlib.Path, key: str, registry: str) -> dict[str, str]:
    """Read one entry of ``auths``; empty: it says nothing."""
    where = f"auths.{text.clean(key, 80)}"
    entry = section(told, path, where)
    texts = {name: value for name, value in entry.items() if isinstance(value, str) and value}
    secrets.register(*(texts.get(name) for name in ("auth", "identitytoken", "password")))
    if "identitytoken" in texts:
        return {"serveraddress": registry, "identitytoken": texts["identitytoken"]}
    if "auth" in texts:
        user, password = _decoded(texts["auth"], path, where)
    elif "username" in texts and "password" in texts:
        user, password = texts["username"], texts["password"]
    elif set(entry) & {"auth", "identitytoken"} and any(entry.values()):
        raise _odd(path, where, "found no text; allowed: base64 of USER:PASSWORD")
    else:
        return {}
    secrets.register(password)
    return {"serveraddress": registry, "username": user, "password": password}


def _decoded(auth: str, path: pathlib.Path, where: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        user, colon, password = "", "", ""
    if not colon or not user:
        raise _odd(path, where, "auth is not base64 of USER:PASSWORD")
    return user, password.strip("\0")


def _host(key: str) -> str:
    """Return the registry that an entry is for; old ones are whole URLs."""
    host = key.removeprefix("http://").removeprefix("https://").partition("/")[0]
    return reference.PUBLIC if host == f"index.{reference.PUBLIC}" else host


def _odd(path: pathlib.Path, where: str, words: str) -> api.Unauthorized:
    place = f"{path}: {where}: " if where else f"{path}: "
    return api.Unauthorized(
        f"the Docker configuration cannot be read: {place}{words}; hint: `docker_config`",
        reach=api.Reach.TEMPLATE,
    )


def _refused(program: str, words: str) -> api.Unauthorized:
    hint = "hint: the credential helper of the Docker configuration, in the broker's PATH"
    return api.Unauthorized(f"{program}: {words[:120]}; {hint}", reach=api.Reach.TEMPLATE)
