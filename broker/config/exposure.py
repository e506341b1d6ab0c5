"""Doors that a configuration leaves open, and secrets that travel or lie in the clear: warnings.

What a kind of backend alone can judge it says itself (``backends.kit.remarks``). Refuses to forbid
anything: each of these may be right behind a wall that nobody here can see.
"""

import ipaddress
import os
import pathlib
import stat
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from broker.config import collector, tree
from outside import files

_SECRET_FILES = ("token_file", "secret_file", "password_file", "key_file")
"""Fields of kinds' settings that name a file with a secret, wherever they stand."""


def is_local(host: str) -> bool:
    """Whether a host is this machine itself, by what is written."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def is_any(host: str) -> bool:
    """Whether it stands for every address of this machine, and so for none to ask at."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def check_user(notes: collector.Notes, path: tree.Path, kind: str) -> None:
    """Say when builds would run as root: processes run as whoever the broker is."""
    if kind == "process" and os.geteuid() == 0:
        notes.warn(path, "builds run as the broker's user, and that is root here", "another user")


def check_state_dir(notes: collector.Notes, state_dir: pathlib.Path) -> None:
    """Say when others may change what this broker remembers."""
    try:
        mode = state_dir.stat().st_mode
    except OSError:
        return  # it is made, for its owner alone
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        notes.warn(
            ("state_dir",),
            "others may write to it, and so say what agents there are",
            "chmod go-w",
        )


def check_listen(notes: collector.Notes, listen: tuple[str, int] | None) -> None:
    """Say when others may read the page."""
    if listen is not None and not is_local(listen[0]):
        notes.warn(
            ("listen",),
            "whoever reaches this address may read the page, without a password",
            "127.0.0.1, or a wall before it: a firewall, a NetworkPolicy, a proxy that asks",
        )


def check_control(notes: collector.Notes, listen: tuple[str, int] | None) -> None:
    """Say when tokens travel in the clear, or nobody can bring one."""
    path = ("control", "tokens_file")
    if listen is None:
        notes.warn(path, "nothing can be ordered: listen is off", "listen: 127.0.0.1:8087")
    elif not is_local(listen[0]):
        notes.warn(
            path,
            "not https: tokens travel in the clear to this address",
            "a proxy that speaks TLS before it, and listen on 127.0.0.1",
        )


def check_url(notes: collector.Notes, path: tree.Path, url: str | None, what: str) -> None:
    """Say when ``what`` travels in the clear."""
    parts = urllib.parse.urlsplit(url or "")
    if parts.scheme == "http" and not is_local(parts.hostname or ""):
        notes.warn(path, f"not https: {what} in the clear", "https://…")


def check_secret_file(notes: collector.Notes, path: tree.Path, file: pathlib.Path) -> None:
    """Say when every user of the machine may read a secret."""
    try:
        is_open = files.is_open_to_others(file)
    except OSError:
        return  # whoever needs it says so
    if is_open:
        notes.warn(
            path,
            "every user of this machine may read that file",
            "chmod o-r; of a Kubernetes secret: defaultMode 0440, and fsGroup",
        )


def check_secret_files(notes: collector.Notes, path: tree.Path, settings: Any) -> None:
    """The same for every file with a secret that settings of a kind name."""
    for where, name in _named_files(settings, path):
        check_secret_file(notes, where, pathlib.Path(name))


def _named_files(value: Any, path: tree.Path) -> Iterator[tuple[tree.Path, str]]:
    if attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            inner = getattr(value, attribute.name)
            where = (*path, attribute.name)
            if attribute.name in _SECRET_FILES and isinstance(inner, str):
                yield where, inner
            else:
                yield from _named_files(inner, where)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named_files(part, (*path, str(key)))
    elif isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from _named_files(part, (*path, number))
