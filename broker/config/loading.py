"""The way in: a file becomes settings that can be used, or one error with every problem.

Refuses to know what is right: ``building`` and the classes of the shape do.
"""

import pathlib
from collections.abc import Mapping

from broker.config import building, reading, tree
from broker.config.settings import KindClasses, Settings


class ConfigError(Exception):
    """The configuration cannot be used; the text has a line for each problem."""

    def __init__(self, lines: tuple[str, ...], problems: tuple[reading.Problem, ...] = ()) -> None:
        """``lines`` are for people, ``problems`` for programs, in the same order."""
        super().__init__("\n".join(lines))
        self.problems = problems


def load(
    path: pathlib.Path, kinds: Mapping[str, KindClasses], *, environ: Mapping[str, str]
) -> Settings:
    """Read a file. Raises ``ConfigError`` with every problem at once."""
    try:
        with path.open("rb") as file:
            raw = file.read(tree.MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            (f"{path}: there is no such file; hint: agent-broker init writes one",)
        ) from error
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: not UTF-8 text, at byte {error.start + 1}",)) from error
    if len(raw) > tree.MAX_BYTES:
        raise ConfigError((f"{path}: larger than {tree.MAX_BYTES} bytes",))
    return parse(text, kinds, environ=environ, name=str(path), base=path.parent)


def parse(
    text: str,
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    name: str = "broker.yaml",
    base: pathlib.Path = pathlib.Path(),
) -> Settings:
    """Read a text; ``name`` stands in messages, relative paths start at ``base``.

    Raises ``ConfigError`` with every problem at once.
    """
    read = tree.parse(text)
    if read.faults:
        faults = sorted(read.faults, key=lambda fault: fault.line)
        problems = [reading.Problem(path=f.path, text=f.text, hint=f.hint) for f in faults]
        lines = [fault.line for fault in faults]
    else:
        builder = building.Builder(kinds=kinds, environ=environ, base=base)
        settings = builder.build(read.data)
        if settings is not None:
            return settings
        problems = sorted(builder.problems, key=lambda problem: read.line(problem.path))
        lines = [read.line(problem.path) for problem in problems]
    raise ConfigError(
        tuple(_line(name, line, p) for line, p in zip(lines, problems, strict=True)),
        tuple(problems),
    )


def _line(name: str, line: int, problem: reading.Problem) -> str:
    where = f"{problem.where()}: " if problem.path else ""
    hint = f"; hint: {problem.hint}" if problem.hint else ""
    return f"{name}:{line}: {where}{problem.text}{hint}"
