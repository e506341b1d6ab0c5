"""The child that reads a kubeconfig: the official package in, one JSON document out.

Why that package: contexts, client certificates, exec plugins and token files are its business, and
people expect exactly what kubectl does. Why a child: it is large, and what it finds is small
(docs/decisions/0030-kubernetes-client.md). The document goes through a pipe to our parent and
nowhere else, secrets and all. Every file that the package would open is looked at before: it would
wait for a FIFO, and read a device without end. Refuses to make requests, and to decide when to be
asked again.
"""

import datetime as dt
import json
import logging
import os
import pathlib
import resource
import urllib.parse
from collections.abc import Iterator
from typing import Any

from backends.kubernetes.api import contexts
from outside import files, paths, secrets, text

_FILE_BYTES = 4 << 20
_MEMORY = 512 << 20
"""Bytes for this child, and for each of its plugins: the package keeps all that they say."""
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_PLACES = ("BearerToken", "authorization")  # where its releases of today and before keep it


def tell(path: str, context: str) -> None:
    """Write what a context of a kubeconfig says, or why it cannot be read."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    bound = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, most))
    # plugins and the package may print whatever they like: only we write to the parent
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as parent:
        os.dup2(2, 1)
        json.dump(read(path or None, context or None), parent)


def read(path: str | None, context: str | None) -> dict[str, Any]:
    """Return ``error``, or ``server``, ``namespace``, ``token`` and so on: see ``kubeconfig``.

    In either case ``secrets``: what nobody must be shown, also not by a plugin's words.
    """
    import yaml  # noqa: PLC0415 -- as below
    from kubernetes import config  # noqa: PLC0415 -- large

    said, hidden = _Answered(), set[str]()
    logging.basicConfig(handlers=[said], level=logging.ERROR)
    try:
        document = _read(path, context, hidden)
        if document["token"] is None and document["certificate"] is None and said.words:
            document = {"error": _shown(said.words[-1]), "plugin": True}
    except yaml.YAMLError:  # whose words quote the line
        document = {"error": "it is not YAML"}
    except RecursionError:
        document = {"error": "it is nested too deeply"}
    except OSError as error:
        document = {
            "error": f"{error.filename}: {error.strerror}" if error.filename else str(error)
        }
    except (config.ConfigException, ValueError) as error:
        document = {"error": _shown(str(error)), "plugin": True}
    return {**document, "secrets": sorted(hidden)}


def _read(path: str | None, context: str | None, hidden: set[str]) -> dict[str, Any]:
    from kubernetes import client, config  # noqa: PLC0415 -- large
    from kubernetes.config import kube_config  # noqa: PLC0415 -- as above

    configuration: Any = client.Configuration()
    paths = path or str(config.KUBE_CONFIG_DEFAULT_LOCATION)
    for one in paths.split(os.pathsep):
        _check(pathlib.Path(one).expanduser())
    merged: Any = _merged(kube_config.KubeConfigMerger, paths)
    if merged.config is None:
        return {"error": "there is no such file", "token": "", "certificate": None}
    hidden |= _look_at(merged.config.value)
    secrets.register(*hidden)
    _check_context(merged.config.value, context)
    loader: Any = kube_config.KubeConfigLoader(
        config_dict=merged.config, active_context=context, config_base_path=None
    )
    user = _section(merged.config.value, "user", loader.current_context)
    cluster = _section(merged.config.value, "cluster", loader.current_context)
    contexts.check_plugin(user)
    more: dict[str, Any] = {
        "server_name": contexts.told(cluster, "tls-server-name"),
        "proxy": contexts.proxy(cluster),
        "acts_as": [_header(name, value) for name, value in _acts_as(user)],
    }
    loader.load_and_set(configuration)
    document = more | {
        "server": configuration.host,
        "namespace": loader.current_context["context"].get("namespace"),
        "token": _token(configuration),
        "left_s": _left(getattr(loader, "expiry", None)),
        "verify": bool(configuration.verify_ssl),
        "authority": _text(configuration.ssl_ca_cert),
        "certificate": _text(configuration.cert_file),
        "key": _text(configuration.key_file),
    }
    hidden |= {document[key] for key in ("token", "key") if document[key]}
    return document


def _merged(merger: Any, told: str) -> Any:
    """Return the files as one. Raises ValueError for what the package stumbles over."""
    try:
        return merger(told)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(contexts.NOT_ONE) from None


def _check_context(merged: Any, context: str | None) -> None:
    """Raise ValueError, in our words, for what the package would stumble over."""
    parts = ("clusters", "users", "contexts")  # the package's own nodes: a value, and its file
    entries = {part: [entry.value for entry in merged.get(part) or ()] for part in parts}
    contexts.check(merged.get("current-context"), entries, context)


def _section(merged: Any, kind: str, context: Any) -> dict[str, Any]:
    """Return what the context's user or cluster says, as it stands in the file."""
    name = context["context"].get(kind)
    for entry in merged.get(f"{kind}s") or ():
        value = entry.value
        if isinstance(value, dict) and value.get("name") == name:
            found = value.get(kind)
            return found if isinstance(found, dict) else {}
    return {}


def _acts_as(user: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the headers that say on whose behalf a request is made, as kubectl sends them."""
    for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        value = contexts.told(user, key)
        if value is not None:
            yield header, value
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", str(group)
    for key, words in (user.get("as-user-extra") or {}).items():
        name = urllib.parse.quote(str(key).lower(), safe="")
        for word in words or ():
            yield f"Impersonate-Extra-{name}", str(word)


def _header(name: str, value: str) -> tuple[str, str]:
    """Return a header; raises ValueError for a value that none can have."""
    if not value.isprintable():
        raise ValueError(f"{name}: its value has a character that no header may have")
    return name, value


def _check(path: pathlib.Path) -> None:
    """Raise OSError for what is there and should not be opened."""
    if paths.exists(path):
        files.read(path, limit=_FILE_BYTES)


def _look_at(merged: Any) -> set[str]:
    """Check the files that a kubeconfig names; return what in it must not be shown."""
    hidden: set[str] = set()
    for kind, inner in (("users", "user"), ("clusters", "cluster")):
        for entry in merged.get(kind) or ():  # the package's own nodes: a value, and its file
            section = entry.value.get(inner) if isinstance(entry.value, dict) else None
            if not isinstance(section, dict):
                continue
            folder = pathlib.Path(entry.path).parent
            for key in _FILES:
                if isinstance(section.get(key), str):
                    _check(folder / section[key])
            for url in (section.get("server"), section.get("proxy-url")):
                password = urllib.parse.urlsplit(url).password if isinstance(url, str) else None
                hidden |= {password, urllib.parse.unquote(password)} if password else set()
            if kind == "users":
                hidden |= set(_texts(section))
    return hidden


_OPEN = frozenset({*_FILES, "username", "command", "apiVersion", "args", "name", "installHint"})
_LEAST = 6  # characters of what is taken for a secret where no key says so


def _texts(node: Any, key: str = "") -> Iterator[str]:
    """Yield every text of a user's entry that may be a secret."""
    if isinstance(node, dict):
        for name, value in node.items():
            # of an environment the values are what nobody should see
            if name not in _OPEN:
                yield from _texts(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str) and len(node) >= _LEAST and not key.endswith("Mode"):
        yield node


class _Answered(logging.Handler):
    """Keeps what the package only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the words."""
        self.words.append(record.getMessage())


def _shown(words: str) -> str:
    """Leave out what the package quotes: whole entries, with their secrets."""
    shown = text.clean(words.partition("{")[0].rstrip(" /'"))
    return shown or f"its plugin failed without a word; allowed: {_MEMORY >> 20} MiB of memory"


def _token(made: Any) -> str | None:
    for place in _PLACES:
        header = made.get_api_key_with_prefix(place)
        if header:
            return str(header).removeprefix("Bearer ")
    return None


def _left(expiry: dt.datetime | None) -> float | None:
    """Return for how many seconds a token is good, or None where nobody says so."""
    if expiry is None:
        return None
    return (expiry - dt.datetime.now(dt.UTC)).total_seconds()  # noqa: TID251 -- a wall-clock date, turned into a duration here


def _text(path: str | None) -> str | None:
    return files.read(path, limit=_FILE_BYTES).decode("utf-8") if path else None
