"""Jenkins label expressions: parse, evaluate, and write in one canonical form.

Grammar as in ``LabelExpressionLexer.g4`` and ``LabelExpressionParser.g4`` (jenkinsci/jenkins
master; older controllers use an ANTLR 2 grammar of the same language)::

    iff     = implies { "<->" implies }          binds weakest, from the left
    implies = or [ "->" or ]                     not chained: a->b->c is an error
    or      = and { "||" and }
    and     = not { "&&" not }
    not     = [ "!" ] unit                       one only: !!a is an error
    unit    = "(" iff ")" | ATOM | "quoted text"

An atom is any run of characters but ``& | ! < > ( ) " '``, blank and tab; a ``-`` belongs to it
unless ``>`` follows. Whether a text that is no expression means one odd label (the controller
does so, ``Jenkins.getLabel``) is decided by the caller. Pure; refuses to know templates and items.
"""

import enum
import functools
import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from attrs import define, frozen

MAX_LENGTH = 4096
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)
      | (?P<operator>&&|\|\||<->|->|!|\(|\))
      | (?P<quoted>"(?:\\[btnfr"'\\]|[^\\"\r\n])*")
      | (?P<atom>(?:[^&|!<>()\ \t"'-]|-(?!>))+)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}
_PLAIN = re.compile(r"(?:[^&|!<>()\s\"'-]|-(?!>))+")


class LabelError(ValueError):
    """A text that is no label expression; the message says where and why."""


class Op(enum.Enum):
    """What an expression does with its parts; the value is how it is written."""

    ATOM = ""
    NOT = "!"
    AND = "&&"
    OR = "||"
    IMPLIES = "->"
    IFF = "<->"


_STRENGTH = {Op.IFF: 0, Op.IMPLIES: 1, Op.OR: 2, Op.AND: 3, Op.NOT: 4, Op.ATOM: 5}


@frozen
class Expression:
    """A parsed expression: an atom with a name, or an operator over its parts."""

    op: Op
    name: str = ""
    parts: tuple["Expression", ...] = ()

    def matches(self, labels: AbstractSet[str]) -> bool:
        """Return whether a node with these labels (its own name among them) fits."""
        match self.op:
            case Op.ATOM:
                return self.name in labels
            case Op.NOT:
                return not self.parts[0].matches(labels)
            case Op.AND:
                return all(part.matches(labels) for part in self.parts)
            case Op.OR:
                return any(part.matches(labels) for part in self.parts)
            case Op.IMPLIES:
                return not self.parts[0].matches(labels) or self.parts[1].matches(labels)
            case Op.IFF:
                return sum(not part.matches(labels) for part in self.parts) % 2 == 0

    def atoms(self) -> frozenset[str]:
        """Return every label that is named."""
        if self.op is Op.ATOM:
            return frozenset({self.name})
        return frozenset().union(*(part.atoms() for part in self.parts))

    def canonical(self) -> str:
        """Return the text without blanks and without parentheses that change nothing."""
        match self.op:
            case Op.ATOM:
                return self.name if _PLAIN.fullmatch(self.name) else _quote(self.name)
            case Op.NOT:
                return f"!{self._wrapped(self.parts[0])}"
            case _:
                return str(self.op.value).join(self._wrapped(part) for part in self.parts)

    def _wrapped(self, part: "Expression") -> str:
        text = part.canonical()
        return text if _STRENGTH[part.op] > _STRENGTH[self.op] else f"({text})"


def atom(name: str) -> Expression:
    """Return the expression that asks for exactly this label, however odd its text."""
    return Expression(Op.ATOM, name=name)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Parse an expression. Raises ``LabelError``, with the position counted from 1."""
    if len(text) > MAX_LENGTH:
        raise LabelError(f"{len(text)} characters, {MAX_LENGTH} are read")
    parser = _Parser(tokens=list(_tokens(text)))
    found = parser.iff(0)
    if parser.tokens:
        raise parser.unexpected("an operator or the end")
    return found


@frozen
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise LabelError(f"unexpected {text[position]!r} at character {position + 1}")
        if found.lastgroup != "blank":
            yield _Token(found.lastgroup or "", found[0], position + 1)
        position = found.end()


@define
class _Parser:
    """Takes tokens from the front of a list."""

    tokens: list[_Token]

    def unexpected(self, wanted: str) -> LabelError:
        if not self.tokens:
            return LabelError(f"it ends where {wanted} is expected")
        token = self.tokens[0]
        return LabelError(f"{token.text!r} at character {token.at}, expected is {wanted}")

    def takes(self, operator: str) -> bool:
        if self.tokens and self.tokens[0].kind == "operator" and self.tokens[0].text == operator:
            self.tokens.pop(0)
            return True
        return False

    def iff(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise LabelError(f"more than {MAX_DEPTH} parentheses inside each other")
        return self.chain(Op.IFF, self.implies, depth)

    def implies(self, depth: int) -> Expression:
        left = self.either(depth)
        if not self.takes(Op.IMPLIES.value):
            return left
        return Expression(Op.IMPLIES, parts=(left, self.either(depth)))

    def either(self, depth: int) -> Expression:
        return self.chain(Op.OR, self.both, depth)

    def both(self, depth: int) -> Expression:
        return self.chain(Op.AND, self.negated, depth)

    def chain(self, op: Op, part: Callable[[int], Expression], depth: int) -> Expression:
        parts = [part(depth)]
        while self.takes(op.value):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else Expression(op, parts=tuple(parts))

    def negated(self, depth: int) -> Expression:
        if self.takes(Op.NOT.value):
            return Expression(Op.NOT, parts=(self.unit(depth),))
        return self.unit(depth)

    def unit(self, depth: int) -> Expression:
        if self.takes("("):
            inner = self.iff(depth + 1)
            if not self.takes(")"):
                raise self.unexpected("')'")
            return inner
        if not self.tokens or self.tokens[0].kind == "operator":
            raise self.unexpected("a label or '('")
        token = self.tokens.pop(0)
        if token.kind == "atom":
            return atom(token.text)
        return atom(_ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), token.text[1:-1]))


def _quote(name: str) -> str:
    escaped: str = name.replace("\\", "\\\\").replace('"', '\\"')
    for letter, character in _ESCAPES.items():
        escaped = escaped.replace(character, f"\\{letter}")
    return f'"{escaped}"'
