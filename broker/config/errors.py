"""What is wrong with a configuration, as values and as the one error that ends its reading.

Refuses to know how anything is read: who only reports an error need not load a reader.
"""

from attrs import frozen

from outside import text as outside_text

_LINE = 1024  # characters of what is said of one problem

Path = tuple[str | int, ...]
"""Where something stands: keys and positions from the top of the document."""


@frozen(kw_only=True)
class Problem:
    """One thing that is wrong or unwise: where, what was found, what is allowed."""

    path: Path
    text: str
    hint: str = ""
    line: int = 1  # 0: of the file as a whole
    file: str = ""  # as it was named; empty: not of a file

    def where(self) -> str:
        """Return the path as it reads in the file: ``templates.maven.labels[0]``."""
        return dotted(self.path)

    def words(self) -> str:
        """Return one line for people: where, what, and the hint."""
        where = f"{self.where()}: " if self.path else ""
        hint = f"; hint: {self.hint}" if self.hint else ""
        return outside_text.clean(f"{where}{self.text}{hint}", _LINE)

    def placed(self) -> str:
        """Return that line with the file's name and the line in it before."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.words()}"

    def document(self) -> dict[str, str | int]:
        """Return the same for programs."""
        return {
            "file": self.file,
            "line": self.line,
            "setting": self.where(),
            "text": self.text,
            "hint": self.hint,
        }


def dotted(path: Path) -> str:
    """Return a path as text."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


class ConfigError(Exception):
    """The configuration cannot be used; the text has a line for each problem."""

    def __init__(self, lines: tuple[str, ...], problems: tuple[Problem, ...] = ()) -> None:
        """``lines`` are for people, ``problems`` for programs, in the same order."""
        super().__init__("\n".join(lines))
        self.lines = lines
        self.problems = problems

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> "ConfigError":
        """Return the error of problems that have their places."""
        return cls(tuple(problem.placed() for problem in problems), problems)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[object, ...]]:
        return ConfigError, (self.lines, self.problems)

    def documents(self) -> list[dict[str, str | int]]:
        """Return the problems for programs; one without a line is of a file itself."""
        if not self.problems:
            return [{"file": "", "line": 0, "setting": "", "text": str(self), "hint": ""}]
        return [problem.document() for problem in self.problems]
