"""What the commands share: the configuration that is read, and how things are printed.

Refuses to know a command.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from broker import config, exits, store
from broker.config import kinds, loading
from broker.status import terminal

CONFIG = pathlib.Path("broker.yaml")
LINES_KEPT = 2000
"""Lines of an agent's output that a command looks at, at most."""


def files_of(options: argparse.Namespace) -> Sequence[pathlib.Path]:
    """Return the files and folders that the configuration is in."""
    return options.config or (CONFIG,)


def settings_of(
    options: argparse.Namespace, *, secrets: config.Secrets = config.Secrets.NEEDED
) -> config.Settings:
    """Read the configuration. Raises ``ConfigError``."""
    return loading.load(files_of(options), kinds.classes(), environ=os.environ, secrets=secrets)


def print_json(value: object, *, as_line: bool = False) -> None:
    """Print a document for programs; its texts are harmless to a terminal all the same.

    ``as_line``: one of many, each in a line of its own.
    """
    indent = None if as_line else 2
    print(
        json.dumps(terminal.cleaned(value), indent=indent, ensure_ascii=False, default=str),
        flush=as_line,
    )


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people."""
    print(terminal.table(rows, width=width()))


def width() -> int | None:
    """Return how many columns the terminal has that is printed to; None for no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextlib.contextmanager
def state_dir(settings: config.Settings, *, busy: str = "") -> Iterator[store.FileStore]:
    """Hold it; ``busy`` says what it means that a broker does."""
    try:
        files = store.FileStore(settings.state_dir)
        held = files.locked()
        held.__enter__()
    except store.StateDirTaken as error:
        raise exits.Refused(busy or str(error)) from error
    except OSError as error:
        raise exits.BadInput(
            f"state_dir {settings.state_dir}: {error.strerror or error}; hint: a directory of "
            f"user {os.geteuid()}"
        ) from error
    try:
        yield files
    finally:
        held.__exit__(None, None, None)


def new_file(path: pathlib.Path, *, mode: int) -> TextIO:
    """Open a new file to write text to; the umask may take from ``mode``.

    Raises Refused where there is one, and BadInput.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise exits.Refused(f"{path} exists; hint: name another file") from None
    except FileNotFoundError:
        raise exits.BadInput(f"{path}: there is no folder {path.parent}; hint: make it") from None
    except OSError as error:
        raise exits.BadInput(f"{path}: cannot be written: {error.strerror}") from error
    return os.fdopen(handle, "w", encoding="utf-8")


def note(text: str) -> None:
    """Say something beside the output."""
    print(terminal.plain(text), file=sys.stderr)
