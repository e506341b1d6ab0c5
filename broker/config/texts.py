"""Which files a configuration is made of, and what stands in them.

One file; several, which say different parts of the whole; or a folder, in which ``broker.yaml``
says everything and each other ``NAME.yaml`` is a team's, which has templates alone. Refuses to
know what a text means.
"""

import hashlib
import pathlib
from collections.abc import Iterator, Sequence

from attrs import frozen

from broker.config import tree, values
from broker.config.errors import Problem
from outside import counts, files, paths

MAIN = "broker.yaml"
_ENDING = ".yaml"
_MOST = 1000  # files of a folder


@frozen(kw_only=True)
class FileText:
    """One file."""

    name: str  # as messages name it
    text: str
    team: str = ""  # whose it is; empty: it may say everything


@frozen(kw_only=True)
class FileTexts:
    """All files of a configuration; the first one says where relative paths begin."""

    files: tuple[FileText, ...]
    base: pathlib.Path
    unread: tuple[Problem, ...] = ()  # what is in the way of reading others
    passed_over: tuple[str, ...] = ()  # files that look like ours and are not read

    def digest(self) -> str:
        """Return what tells these texts from others."""
        whole = hashlib.sha256()
        for file in self.files:
            for piece in (file.name.encode(errors="replace"), file.text.encode()):
                whole.update(len(piece).to_bytes(8))
                whole.update(piece)
        for problem in self.unread:
            whole.update(problem.placed().encode(errors="replace"))
        return whole.hexdigest()


def read(named: Sequence[pathlib.Path]) -> FileTexts:
    """Read what is named: files, or folders; what cannot be read is told in ``unread``."""
    wrong: list[Problem] = []
    found: list[FileText] = []
    passed_over: list[str] = []
    places = [place for path in named for place in _places(path, wrong, passed_over)]
    for number, (path, team) in enumerate(places):
        if path in {earlier for earlier, _ in places[:number]}:
            wrong.append(_of(path, "named twice", "once is enough"))
            continue
        try:
            text = files.read(path, limit=tree.MAX_BYTES).decode("utf-8-sig")
        except FileNotFoundError:
            wrong.append(_not_there(path, team))
        except OSError as error:
            wrong.append(_of(path, f"cannot be read: {error.strerror or error}"))
        except UnicodeDecodeError as error:
            wrong.append(_of(path, f"not UTF-8 text, at byte {error.start + 1}"))
        else:
            found.append(FileText(name=str(path), text=text, team=team))
    return FileTexts(
        files=tuple(found),
        base=places[0][0].parent if places else pathlib.Path(),
        unread=tuple(wrong),
        passed_over=tuple(passed_over),
    )


def _of(path: pathlib.Path, text: str, hint: str = "") -> Problem:
    return Problem(path=(), text=text, hint=hint, file=str(path), line=0)


def _not_there(path: pathlib.Path, team: str) -> Problem:
    if path.is_symlink():
        return _of(path, "a link to what is not there")
    return _of(path, "there is no such file", "" if team else "agent-broker init writes one")


def _places(
    path: pathlib.Path, wrong: list[Problem], passed_over: list[str]
) -> Iterator[tuple[pathlib.Path, str]]:
    """Yield the files that are meant by a name, each with its team."""
    try:
        if not paths.is_directory(path):
            yield path, ""
            return
        entries = sorted(one.name for one in path.iterdir())
    except OSError as error:
        wrong.append(_of(path, f"cannot be read: {error.strerror or error}"))
        return
    yield path / MAIN, ""
    teams = []
    for name in entries:
        if name.startswith(".") or name == MAIN:
            continue
        if name.endswith(_ENDING):
            teams.append(name.removesuffix(_ENDING))
        elif name.endswith(".yml"):
            passed_over.append(str(path / name))
    if len(teams) > _MOST:
        wrong.append(_of(path, f"{counts.told(len(teams), 'file')}; allowed: {_MOST}"))
        return
    for team in teams:
        if values.NAME.fullmatch(team):
            yield path / f"{team}{_ENDING}", team
        else:
            text = f"a team's file is called NAME{_ENDING}; a name has {values.NAME_WORDS}"
            wrong.append(_of(path / f"{team}{_ENDING}", text))


def digest_of(named: Sequence[pathlib.Path]) -> str:
    """Return what tells the present texts from others, and from what is in the way of them."""
    return read(named).digest()
