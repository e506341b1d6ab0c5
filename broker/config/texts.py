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
from broker.config.errors import ConfigError
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
    passed_over: tuple[str, ...] = ()  # files that look like ours and are not read

    def digest(self) -> str:
        """Return what tells these texts from others."""
        whole = hashlib.sha256()
        for file in self.files:
            for piece in (file.name.encode(errors="replace"), file.text.encode()):
                whole.update(len(piece).to_bytes(8))
                whole.update(piece)
        return whole.hexdigest()


def read(named: Sequence[pathlib.Path]) -> FileTexts:
    """Read what is named: files, or folders. Raises ``ConfigError`` with all that cannot be."""
    wrong: list[str] = []
    found: list[FileText] = []
    passed_over: list[str] = []
    places = [place for path in named for place in _places(path, wrong, passed_over)]
    for number, (path, team) in enumerate(places):
        if path in {earlier for earlier, _ in places[:number]}:
            wrong.append(f"{path}: named twice; hint: once is enough")
            continue
        try:
            text = files.read(path, limit=tree.MAX_BYTES).decode("utf-8-sig")
        except FileNotFoundError:
            wrong.append(f"{path}: {_not_there(path, team)}")
        except OSError as error:
            wrong.append(f"{path}: cannot be read: {error.strerror or error}")
        except UnicodeDecodeError as error:
            wrong.append(f"{path}: not UTF-8 text, at byte {error.start + 1}")
        else:
            found.append(FileText(name=str(path), text=text, team=team))
    if wrong:
        raise ConfigError(tuple(wrong))
    return FileTexts(files=tuple(found), base=places[0][0].parent, passed_over=tuple(passed_over))


def _not_there(path: pathlib.Path, team: str) -> str:
    if path.is_symlink():
        return "a link to what is not there"
    hint = "" if team else "; hint: agent-broker init writes one"
    return f"there is no such file{hint}"


def _places(
    path: pathlib.Path, wrong: list[str], passed_over: list[str]
) -> Iterator[tuple[pathlib.Path, str]]:
    """Yield the files that are meant by a name, each with its team."""
    try:
        if not paths.is_directory(path):
            yield path, ""
            return
        entries = sorted(one.name for one in path.iterdir())
    except OSError as error:
        wrong.append(f"{path}: cannot be read: {error.strerror or error}")
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
        wrong.append(f"{path}: {counts.told(len(teams), 'file')}; allowed: {_MOST}")
        return
    for team in teams:
        if values.NAME.fullmatch(team):
            yield path / f"{team}{_ENDING}", team
        else:
            wrong.append(
                f"{path / team}{_ENDING}: a team's file is called NAME{_ENDING}; a name has "
                f"{values.NAME_WORDS}"
            )


def digest_of(named: Sequence[pathlib.Path]) -> str:
    """Return what tells the present texts from others, or what is in the way of reading them."""
    try:
        return read(named).digest()
    except ConfigError as error:
        return str(error)
