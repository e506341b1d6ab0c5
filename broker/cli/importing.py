"""``import``: clouds of Jenkins' plugins become a configuration with comments.

Refuses to know what is mapped to what.
"""

import argparse
import pathlib
import shlex

from broker import exits
from broker import importing as imports
from broker.cli import shared
from broker.config import kinds
from outside import files

_MOST = 4 << 20
"""Bytes of a controller's own file; one with hundreds of templates has some hundred thousand."""


def import_clouds(options: argparse.Namespace) -> None:
    """Print a configuration, or write it into a new file; say what matters beside it."""
    path: pathlib.Path = options.path
    try:
        data = files.read(path, limit=_MOST)
    except OSError as error:
        raise exits.BadInput(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        made = imports.convert(imports.decoded(data), kinds.classes())
    except imports.NotReadable as error:
        raise exits.BadInput(f"{path}: {error}") from error
    if options.output is None:
        print(made.text, end="")
    else:
        try:
            with shared.new_file(options.output, mode=0o666) as file:
                file.write(made.text)
        except OSError as error:
            raise exits.Failed(f"{options.output}: cannot be written: {error.strerror}") from error
    for remark in made.remarks:
        shared.note(f"!! {remark}")
    shared.note("to be made:")
    for one in made.create:
        shared.note(f"   {one}")
    if options.output is not None:
        check = ["agent-broker", "check-config", "--config", str(options.output)]
        shared.note(f"{options.output} written; next: read its comments, then {shlex.join(check)}")
