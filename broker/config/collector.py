"""What is wrong with a configuration and what is odd about it, collected while it is read.

Refuses to know any setting.
"""

from collections.abc import Callable, Iterable

from attrs import define, field

from backends.kit import remarks
from broker.config import errors, tree


@define(kw_only=True)
class Notes:
    """Problems end the reading, warnings do not."""

    problems: list[errors.Problem] = field(factory=list)
    warnings: list[errors.Problem] = field(factory=list)

    def bad(self, path: tree.Path, text: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(errors.Problem(path=path, text=text, hint=hint))

    def warn(self, path: tree.Path, text: str, hint: str = "") -> None:
        """Note what works and is unwise; said once, however often it is noted."""
        told = errors.Problem(path=path, text=text, hint=hint)
        if told not in self.warnings:
            self.warnings.append(told)

    def keep(self, applies: Callable[[tree.Path], bool]) -> None:
        """Forget the problems of paths that are not meant."""
        self.problems = [problem for problem in self.problems if applies(problem.path)]

    def remarks(self, path: tree.Path, found: Iterable[remarks.Remark]) -> None:
        """Note what the settings of a kind say about themselves; ``path`` is their section."""
        for remark in found:
            where = (*path, *remark.path)
            if remark.wrong:
                self.bad(where, remark.text, remark.hint)
            else:
                self.warn(where, remark.text, remark.hint)
