"""The way in: files become settings that can be used, or one error with every problem.

Refuses to know what is right: ``building`` and the classes of the shape do.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from broker.config import building, concealing, merging, raw, texts, tree, variables
from broker.config.errors import ConfigError, Path, Problem
from broker.config.settings import KindClasses, Secrets, Settings


def load(
    named: pathlib.Path | Sequence[pathlib.Path],
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    secrets: Secrets = Secrets.NEEDED,
) -> Settings:
    """Read a file, several, or a folder (``texts``).

    Raises ``ConfigError`` with every problem at once.
    """
    files = texts.read([named] if isinstance(named, pathlib.Path) else named)
    settings = _settings(files, kinds, environ=environ, secrets=secrets)
    passed_over = (
        Problem(path=(), text="not read: a team's file ends in .yaml", file=name)
        for name in files.passed_over
    )
    return attrs.evolve(
        settings, warnings=(*settings.warnings, *passed_over), digest=files.digest()
    )


def parse(
    text: str,
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    name: str = "broker.yaml",
    base: pathlib.Path = pathlib.Path(),
    secrets: Secrets = Secrets.NEEDED,
) -> Settings:
    """Read a text; ``name`` stands in messages, relative paths start at ``base``.

    Raises ``ConfigError`` with every problem at once.
    """
    only = texts.FileTexts(files=(texts.FileText(name=name, text=text),), base=base)
    return _settings(only, kinds, environ=environ, secrets=secrets)


def _settings(
    files: texts.FileTexts,
    kinds: Mapping[str, KindClasses],
    *,
    environ: Mapping[str, str],
    secrets: Secrets,
) -> Settings:
    stays = variables.kept(kinds)
    parts, used = [], []
    inserted: list[concealing.Inserted] = []
    said: dict[bool, list[Problem]] = {True: [], False: []}  # wrong, and only odd
    for file in files.files:
        given = variables.Variables(environ=environ, stays=stays, of_team=bool(file.team))
        read, remarks = raw.mended(tree.parse(file.text, given.insert), kinds)
        part = merging.Part(name=file.name, team=file.team, tree=read)
        parts.append(part)
        used += given.used
        inserted += given.inserted
        for one in remarks:
            said[one.wrong].append(merging.at(part, one.path, one.text, one.hint))
    whole = [part for part in parts if part.tree.whole]
    problems = [*files.unread, *(_of_text(p, fault) for p in parts for fault in p.tree.faults)]
    problems += said[True]
    if whole:
        document = merging.merged(whole)
        problems += document.problems
        problems += (document.located(p) for p in _secrets_shown(used, document.data))
        builder = building.Builder(kinds=kinds, environ=environ, base=files.base, secrets=secrets)
        if len(whole) == len(parts) and not files.unread:
            settings = builder.build(document.data)
            if settings is not None and not problems:
                odd = [*said[False], *map(document.located, builder.notes.warnings)]
                warnings = _once(concealing.concealed(one, inserted) for one in odd)
                return attrs.evolve(settings, warnings=tuple(warnings))
        else:  # what is missed may stand where nothing can be read
            builder.check_values(document.data)
            builder.notes.keep(document.has)
        told = {problem.path for problem in problems}
        found = (p for p in builder.notes.problems if p.path not in told)
        problems += _once(map(document.located, found))
    order = {part.name: number for number, part in enumerate(parts)}
    problems.sort(key=lambda problem: (order.get(problem.file, -1), problem.line))
    raise ConfigError.of(tuple(concealing.concealed(one, inserted) for one in problems))


def _of_text(part: merging.Part, fault: tree.TextProblem) -> Problem:
    return Problem(
        path=fault.path, text=fault.text, hint=fault.hint, line=fault.line, file=part.name
    )


def _secrets_shown(used: Iterable[tuple[str, Path]], data: Any) -> Iterator[Problem]:
    """Yield where a variable is put in that the same files name as a secret's."""
    secrets = set(_names_of_secrets(data))
    for name, path in used:
        if name in secrets:
            text = f"the variable {name} holds a secret (env:{name}), which would be shown here"
            yield Problem(path=path, text=text, hint="another variable")


def _names_of_secrets(data: Any) -> Iterator[str]:
    """Yield the variables that are named as secrets: ``env:NAME``, ``password_env: NAME``."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            name = one.get("password_env")
            if isinstance(name, str):
                yield name
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and one.startswith("env:"):
            yield one.removeprefix("env:")


def _once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Leave out what was said already: one of the defaults is told once, where it is."""
    yielded = set()
    for problem in problems:
        if problem not in yielded:
            yielded.add(problem)
            yield problem
