"""Label expressions as the simulated controller reads them: its own reading, not the broker's.

Held to what a real controller made of six hundred texts (recording ``labels/expressions``), so
that a mistake of the broker's parser is not made on both sides. Older controllers read other texts
(``Era``). Pure.
"""

import enum
import functools
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from attrs import frozen

from jnlp import version as jnlp_version

Test = Callable[[AbstractSet[str]], bool]

_LABEL = r"""(?:[^-"' \t!&|()<>]|-(?!>))+"""
_GREEDY_LABEL = r"""[^-"' \t!&|()<>][^"' \t!&|()<>]*"""
_TOKENS, _GREEDY_TOKENS = (
    re.compile(
        r"""[ \t]*(?:(?P<sign><->|->|\|\||&&|[!()])"""
        r'''|"(?P<quoted>(?:[^"\\\r\n]|\\[btnfr"'\\])*)"'''
        rf"""|(?P<label>{label})|(?P<end>\Z))"""
    )
    for label in (_LABEL, _GREEDY_LABEL)
)
_ODD = re.compile(r"[\x00-\x1f ()?*/\\%!@#$^&|<>\[\]:;]")
"""What makes the controller write a label in quotes."""
_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "\n": r"\n", "\t": r"\t", "\r": r"\r"})
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_LEVELS: tuple[tuple[str, bool], ...] = (("<->", True), ("->", False), ("||", True), ("&&", True))
"""From the weakest to the strongest; whether it may stand again on its own level."""


class Era(enum.Enum):
    """How controllers of different ages read."""

    GREEDY_DASHES = "a dash after a label belongs to it; no letter beyond ASCII"
    ASCII = "no letter beyond ASCII"
    TODAY = "as the newest"

    @classmethod
    def of(cls, version: str) -> "Era":
        """Return that of a version."""
        if not jnlp_version.joins_arrows(version):
            return cls.GREEDY_DASHES
        return cls.TODAY if jnlp_version.reads_all_letters(version) else cls.ASCII


class NoExpression(ValueError):  # noqa: N818 -- what the text is
    """The controller takes such a text for one odd label."""


@frozen
class LabelReading:
    """What an item's text asks for: how the controller writes it, and which labels fit."""

    name: str
    fits: Test


@functools.lru_cache(maxsize=4096)
def of(text: str, era: Era = Era.TODAY) -> LabelReading:
    """Read an item's text.

    What is no expression is one odd label; what begins and ends with a quote is the label between.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return _one(_unescaped(text[1:-1]))
    try:
        return parse(text, era)
    except NoExpression:
        return _one(text)


def parse(text: str, era: Era = Era.TODAY) -> LabelReading:
    """Read an expression. Raises ``NoExpression``.

    Written it has no blanks, the parentheses that it had, and quotes around odd labels; one that
    is a label alone has none.
    """
    if era is not Era.TODAY and not text.isascii():
        raise NoExpression(text)
    tokens = _tokens(text, era)
    if len(tokens) == 2 and tokens[0][0] == "label":
        return _one(tokens[0][1])
    name = "".join(_written(word) if kind == "label" else word for kind, word in tokens)
    return LabelReading(name, _Parsing(tokens).whole())


def _one(label: str) -> LabelReading:
    return LabelReading(label, lambda labels: label in labels)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _CONTROLS.get(found[1], found[1]), text)


def _written(label: str) -> str:
    if label not in {"", ".", ".."} and not _ODD.search(label):
        return label
    return '"' + label.translate(_ESCAPES) + '"'


def _tokens(text: str, era: Era) -> list[tuple[str, str]]:
    pattern = _GREEDY_TOKENS if era is Era.GREEDY_DASHES else _TOKENS
    tokens: list[tuple[str, str]] = []
    at = 0
    while not tokens or tokens[-1][0] != "end":
        found = pattern.match(text, at)
        if found is None or found.lastgroup is None:
            raise NoExpression(text)
        kind, word = found.lastgroup, found[found.lastgroup]
        if kind == "quoted":
            kind, word = "label", _unescaped(word)
        tokens.append((kind, word))
        at = found.end()
    return tokens


class _Parsing:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens[::-1]

    def whole(self) -> Test:
        test = self._level(0)
        if self._tokens[-1][0] != "end":
            raise NoExpression
        return test

    def _takes(self, sign: str) -> bool:
        if self._tokens[-1] != ("sign", sign):
            return False
        self._tokens.pop()
        return True

    def _level(self, level: int) -> Test:
        if level == len(_LEVELS):
            return self._unit()
        sign, again = _LEVELS[level]
        test = self._level(level + 1)
        while self._takes(sign):
            test = _joined(sign, test, self._level(level + 1))
            if not again:
                break
        return test

    def _unit(self) -> Test:
        if self._takes("!"):
            inner = self._inner()
            return lambda labels: not inner(labels)
        return self._inner()

    def _inner(self) -> Test:
        if self._takes("("):
            test = self._level(0)
            if not self._takes(")"):
                raise NoExpression
            return test
        kind, label = self._tokens.pop()
        if kind != "label":
            raise NoExpression
        return _one(label).fits


def _joined(sign: str, one: Test, other: Test) -> Test:
    match sign:
        case "<->":
            return lambda labels: one(labels) == other(labels)
        case "->":
            return lambda labels: not one(labels) or other(labels)
        case "||":
            return lambda labels: one(labels) or other(labels)
        case _:
            return lambda labels: one(labels) and other(labels)
