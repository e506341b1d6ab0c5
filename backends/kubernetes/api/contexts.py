"""What a kubeconfig says, as far as that can be judged without acting: no plugin, no network.

``judge`` is the reader's own rule (``credentials``); ``misfits`` lets ``check-config`` say before
a start what that reader would say after it. Refuses to open what a kubeconfig names, to quote a
value that may be a secret, and to need the official package.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from outside import files, paths, quotes, text

DEFAULT = "~/.kube/config"
_VARIABLE = "KUBECONFIG"
_LARGEST = 256 << 10
"""Bytes of a file that is looked into: a larger one takes a second to read."""
_SHOWN = 5
_TEXTS = frozenset(
    {
        *("as", "as-uid", "certificate-authority", "certificate-authority-data"),
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("cluster", "namespace", "password", "proxy-url", "server", "tls-server-name"),
        *("token", "tokenFile", "user", "username"),
    }
)
_KINDS: dict[str, type] = {
    "as-groups": list,
    "as-user-extra": dict,
    "auth-provider": dict,
    "disable-compression": bool,
    "exec": dict,
    "insecure-skip-tls-verify": bool,
}
_KIND_WORDS = {str: "a text", list: "a list", dict: "a section", bool: "true or false"}
_PARTS = ("clusters", "users", "contexts")
NOT_ONE = "it is not a section with lists of clusters, users and contexts"


@frozen(kw_only=True)
class Misfit:
    """Why a kubeconfig will not do, and what to do about it."""

    text: str
    hint: str = ""


def judge(current: Any, parts: Mapping[str, Sequence[Any]]) -> None:
    """Raise ValueError for the first value of another kind than kubectl takes there.

    The package would stumble over it, or worse: for it the text "false" is true.

    ``parts``: the entries of ``clusters``, ``users`` and ``contexts``.
    """
    _of_kind(current, str, "current-context")
    for part in _PARTS:
        inner = part.removesuffix("s")
        for entry in parts.get(part, ()):
            value = entry if isinstance(entry, dict) else {}
            _of_kind(value.get("name"), str, f"{part}: name")
            where = f"{inner} {str(value.get('name'))[:40]}"
            section = value.get(inner)
            _of_kind(section, dict, where)
            for key, told in (section or {}).items():
                kind = _KINDS.get(str(key), str if str(key) in _TEXTS else None)
                if kind is not None:
                    _of_kind(told, kind, f"{where}: {key}")


def _of_kind(value: Any, kind: type, where: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{where} is not {_KIND_WORDS[kind]}")


def proxy(cluster: Mapping[str, Any]) -> str | None:
    """Return the proxy of a cluster. Raises ValueError for what none can be."""
    url = told(cluster, "proxy-url")
    scheme = url.partition("://")[0] if url is not None else "http"
    if scheme not in {"http", "https"}:
        raise ValueError(
            f"proxy-url: found {scheme[:20]}://; allowed: http://HOST:PORT or https://"
        )
    return url


def told(section: Mapping[str, Any], key: str) -> str | None:
    """Return a text; raises ValueError for what is none."""
    value = section.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise ValueError(f"{key} is not a text")


def check_plugin(user: Mapping[str, Any]) -> None:
    """Raise ValueError for a plugin that asks a person: nobody sits here."""
    plugin = user.get("exec")
    if isinstance(plugin, dict) and plugin.get("interactiveMode") == "Always":
        raise ValueError(
            "its plugin has interactiveMode Always: it asks a person; hint: another user"
        )


def misfits(
    path: str | None, context: str | None, environment: Mapping[str, str] = os.environ
) -> Iterator[Misfit]:
    """Say why a context cannot be used; at most one thing, for the next depends on it.

    ``path``: as in the settings, several with the system's separator; None: as kubectl has it.
    """
    where = path or environment.get(_VARIABLE) or DEFAULT
    found = [one for one in where.split(os.pathsep) if one]
    try:
        there = [one for one in map(_expanded, found) if paths.exists(one)]
        if not there:
            yield Misfit(text=f"{where}: there is no such file here")
            return
        documents = [_document(one) for one in there]
        if all(document is not None for document in documents):
            _check_all([document for document in documents if document], context)
    except OSError as error:
        yield Misfit(text=f"{error.filename or where}: {error.strerror or error}")
    except (ValueError, RuntimeError) as error:
        words, _, hint = str(error).partition("; hint: ")
        yield Misfit(text=f"{where}: {text.clean(words)}", hint=hint)


def _expanded(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser()


def _document(path: pathlib.Path) -> dict[str, Any] | None:
    """Return what a file says; None for one that is not looked into.

    Raises OSError and ValueError.
    """
    import yaml  # noqa: PLC0415 -- only where there is one

    if path.stat().st_size > _LARGEST:
        return None
    try:
        document = yaml.safe_load(files.read(path, limit=_LARGEST))
    except yaml.MarkedYAMLError as error:  # whose words quote the line
        mark = error.problem_mark
        raise ValueError(f"it is not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError("it is not YAML") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if document is None:
        return {}
    lists = isinstance(document, dict) and all(
        isinstance(document.get(part) or [], list) for part in _PARTS
    )
    if not lists:
        raise ValueError(NOT_ONE)
    return dict(document)


def _check_all(documents: Sequence[Mapping[str, Any]], context: str | None) -> None:
    parts = {part: [e for one in documents for e in one.get(part) or ()] for part in _PARTS}
    currents = (one["current-context"] for one in documents if one.get("current-context"))
    check(next(currents, None), parts, context)


def check(current: Any, parts: Mapping[str, Sequence[Any]], context: str | None) -> None:
    """Raise ValueError if a context cannot be used; of entries of one name the first is right.

    ``context``: None for that of ``current-context``; ``parts`` as for ``judge``.
    """
    judge(current, parts)
    name = context or current
    if not name:
        raise ValueError("it has no current-context; hint: `context: NAME`")
    chosen = _named(parts.get("contexts", ()), "context", name)
    if chosen is None:
        names = [
            str(e["name"])
            for e in parts.get("contexts", ())
            if isinstance(e, dict) and "name" in e
        ]
        more = ", ..." if len(names) > _SHOWN else ""
        has = ", ".join(quotes.shown(one) for one in names[:_SHOWN]) + more
        raise ValueError(f"it has no context {quotes.shown(name)}; hint: it has {has or 'none'}")
    used = {}
    for kind in ("cluster", "user"):
        inner = chosen.get(kind)
        if kind == "user" and not inner:
            continue  # as somebody whom nobody knows
        section = _named(parts.get(f"{kind}s", ()), kind, inner)
        if section is None:
            raise ValueError(
                f"context {quotes.shown(name)} names {kind} {quotes.shown(str(inner or ''))}, "
                "which is not in it"
            )
        used[kind] = section
    if not told(used["cluster"], "server"):
        raise ValueError(f"the cluster of context {quotes.shown(name)} has no `server`")
    proxy(used["cluster"])
    check_plugin(used.get("user", {}))


def _named(entries: Sequence[Any], kind: str, name: Any) -> Mapping[str, Any] | None:
    for entry in entries:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry.get(kind) or {}
    return None
