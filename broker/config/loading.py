"""The way in: a file becomes settings that can be used, or one error with every problem.

Refuses to know what is right: ``building`` and the classes of the shape do.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import attrs

from broker.config import building, raw, tree
from broker.config.errors import ConfigError, Problem
from broker.config.settings import KindClasses, Settings
from outside import files


def load(
    path: pathlib.Path,
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    secrets: bool = True,
) -> Settings:
    """Read a file; without ``secrets`` what it refers to stays unread, and is not missed.

    Raises ``ConfigError`` with every problem at once.
    """
    try:
        raw = files.read(path, limit=tree.MAX_BYTES)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            (f"{path}: there is no such file; hint: agent-broker init writes one",)
        ) from error
    except OSError as error:
        words = error.strerror or str(error)
        raise ConfigError((f"{path}: cannot be read: {words}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: not UTF-8 text, at byte {error.start + 1}",)) from error
    return parse(text, kinds, environ=environ, name=str(path), base=path.parent, secrets=secrets)


def parse(
    text: str,
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    name: str = "broker.yaml",
    base: pathlib.Path = pathlib.Path(),
    secrets: bool = True,
) -> Settings:
    """Read a text; ``name`` stands in messages, relative paths start at ``base``.

    Raises ``ConfigError`` with every problem at once.
    """
    read, remarks = raw.mended(tree.parse(text), kinds)
    problems = [Problem(path=f.path, text=f.text, hint=f.hint, line=f.line) for f in read.faults]
    if read.whole:
        builder = building.Builder(kinds=kinds, environ=environ, base=base, fetches=secrets)
        builder.notes.remarks((), remarks)
        settings = builder.build(read.data)
        if settings is not None and not problems:
            return attrs.evolve(settings, warnings=tuple(_located(builder.notes.warnings, read)))
        told = {problem.path for problem in problems}
        problems += _located((p for p in builder.notes.problems if p.path not in told), read)
    problems.sort(key=lambda problem: problem.line)
    raise ConfigError(tuple(p.line_in(name) for p in problems), tuple(problems))


def _located(problems: Iterable[Problem], read: tree.Tree) -> Iterator[Problem]:
    """Say where each problem or warning stands; one of the defaults is told once, where it is."""
    yielded = set()
    for problem in problems:
        path, default = problem.path, ("defaults", *problem.path[2:])
        if path[:1] == ("templates",) and path not in read.lines and default in read.lines:
            path = default if len(default) > 1 else path
        if (path, problem.text) not in yielded:
            yielded.add((path, problem.text))
            yield attrs.evolve(problem, path=path, line=read.line(path))
