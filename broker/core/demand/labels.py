"""Jenkins label expressions: parse, evaluate, and write in one canonical form.

Grammar as in ``LabelExpressionLexer.g4`` and ``LabelExpressionParser.g4`` (jenkinsci/jenkins
master). Two older ones of the same language have other tokens (``Grammar``)::

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

import collections
import enum
import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from attrs import define, frozen

from jnlp import version as jnlp_version
from outside import counts, quotes

MAX_LENGTH = 4096
MAX_DEPTH = 50
_REMEMBERED = 65536
"""What was parsed is kept, as much as this many labels, or 32 characters of text for each."""

_PIECE = r"""(?P<blank>[ \t]+)
      | (?P<operator>&&|\|\||<->|->|!|\(|\))
      | (?P<quoted>"(?:\\[btnfr"'\\]|[^\\"\r\n%(beyond)s])*")
      | (?P<atom>%(atom)s)"""
_BEYOND_ASCII = "\x80-\U0010ffff"
_PART = r"""&|!<>()\ \t"'"""
_ATOM = rf"(?:[^{_PART}-]|-(?!>))+"
_QUOTED = re.compile(r'''"(?:\\[btnfr"'\\]|[^\\"\r\n])*"''')
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}
_PLAIN = re.compile(r"(?:[^&|!<>()\s\"'-]|-(?!>))+")


class LabelError(ValueError):
    """A text that is no label expression; the message says where and why."""


class TooLong(LabelError):  # noqa: N818 -- what the text is
    """An expression that is not read for its size; it may be a good one."""


class Grammar(enum.Enum):
    """How a text becomes tokens; the value is that as a pattern.

    Which texts differ was tried with the grammars of core (``tests/oracle/test_grammars.py``).
    """

    GREEDY_DASH = _PIECE % {
        "beyond": _BEYOND_ASCII,
        "atom": rf"[^{_PART}{_BEYOND_ASCII}-][^{_PART}{_BEYOND_ASCII}]*",
    }
    """Before 2.313: a dash belongs to the label before it, so that ``a->b`` is no expression."""
    ASCII = _PIECE % {"beyond": _BEYOND_ASCII, "atom": rf"(?:[^{_PART}{_BEYOND_ASCII}-]|-(?!>))+"}
    """Before 2.376 (ANTLR 2): a letter beyond ASCII is in no expression, in quotes neither."""
    TODAY = _PIECE % {"beyond": "", "atom": _ATOM}

    __hash__ = object.__hash__

    @functools.cached_property
    def token(self) -> re.Pattern[str]:
        """Return the pattern of one token."""
        return re.compile(self.value, re.VERBOSE)

    @classmethod
    def of(cls, version: str) -> "Grammar":
        """Return that of a controller by its version; today's if that cannot be read."""
        if jnlp_version.parse(version) is None or jnlp_version.reads_all_letters(version):
            return cls.TODAY
        return cls.ASCII if jnlp_version.joins_arrows(version) else cls.GREEDY_DASH


class Op(enum.Enum):
    """What an expression does with its parts; the value is how it is written."""

    ATOM = ""
    NOT = "!"
    AND = "&&"
    OR = "||"
    IMPLIES = "->"
    IFF = "<->"


_STRENGTH = {Op.IFF: 0, Op.IMPLIES: 1, Op.OR: 2, Op.AND: 3, Op.NOT: 4, Op.ATOM: 5}


@frozen(slots=False)  # with slots attrs would make every look at a field slow
class Expression:
    """A parsed expression: an atom with a name, or an operator over its parts."""

    op: Op
    name: str = ""
    parts: tuple["Expression", ...] = ()

    @functools.cached_property
    def _sorted(self) -> tuple[frozenset[str], frozenset[str], tuple["Expression", ...]]:
        """Return the parts that are labels, those that are denied labels, and all others.

        Most expressions are nothing but the first two, which sets compare at once.
        """
        named, denied, others = [], [], []
        for part in self.parts:
            if part.op is Op.ATOM:
                named.append(part.name)
            elif part.op is Op.NOT and part.parts[0].op is Op.ATOM:
                denied.append(part.parts[0].name)
            else:
                others.append(part)
        return frozenset(named), frozenset(denied), tuple(others)

    def matches(self, labels: AbstractSet[str]) -> bool:
        """Return whether a node with these labels (its own name among them) fits."""
        match self.op:
            case Op.ATOM:
                return self.name in labels
            case Op.AND:
                named, denied, others = self._sorted
                return (
                    named <= labels
                    and denied.isdisjoint(labels)
                    and all(part.matches(labels) for part in others)
                )
            case Op.OR:
                named, denied, others = self._sorted
                return (
                    not named.isdisjoint(labels)
                    or not denied <= labels
                    or any(part.matches(labels) for part in others)
                )
            case Op.NOT:
                return not self.parts[0].matches(labels)
            case Op.IMPLIES:
                return not self.parts[0].matches(labels) or self.parts[1].matches(labels)
            case Op.IFF:
                return sum(not part.matches(labels) for part in self.parts) % 2 == 0

    def truth(self, asked: Sequence[str], labels: AbstractSet[str]) -> int:
        """Return for which of some labels beside a node's own it fits, as a table of bits.

        Bit ``n`` is set where it matches with each ``asked[i]`` whose bit ``i`` is set in ``n``.
        The expression is gone through once, however many ways there are; ``asked`` are few.
        """
        ways = 1 << len(asked)
        always = (1 << ways) - 1
        columns = {
            name: sum(1 << way for way in range(ways) if way >> place & 1)
            for place, name in enumerate(asked)
        }
        return _table(self, columns, labels, always)

    def atoms(self) -> frozenset[str]:
        """Return every label that is named."""
        return self._atoms

    @functools.cached_property
    def _atoms(self) -> frozenset[str]:
        return frozenset(_names(self))

    def canonical(self) -> str:
        """Return the text without blanks and without parentheses that change nothing."""
        return self._canonical

    @functools.cached_property
    def _canonical(self) -> str:
        return self._written()

    def _written(self) -> str:
        match self.op:
            case Op.ATOM:
                return self.name if _PLAIN.fullmatch(self.name) else _quote(self.name)
            case Op.NOT:
                return f"!{self._wrapped(self.parts[0])}"
            case _:
                return str(self.op.value).join(self._wrapped(part) for part in self.parts)

    def _wrapped(self, part: "Expression") -> str:
        text = part._written()  # noqa: SLF001 -- of its own kind
        return text if _STRENGTH[part.op] > _STRENGTH[self.op] else f"({text})"


def atom(name: str) -> Expression:
    """Return the expression that asks for exactly this label, however odd its text."""
    return Expression(Op.ATOM, name=name)


def _names(expression: Expression) -> Iterator[str]:
    if expression.op is Op.ATOM:
        yield expression.name
    for part in expression.parts:
        yield from _names(part)


def _table(
    expression: Expression, columns: Mapping[str, int], labels: AbstractSet[str], always: int
) -> int:
    tables = (_table(part, columns, labels, always) for part in expression.parts)
    match expression.op:
        case Op.ATOM:
            return columns.get(expression.name, always if expression.name in labels else 0)
        case Op.NOT:
            return always ^ next(tables)
        case Op.AND:
            return functools.reduce(operator.and_, tables)
        case Op.OR:
            return functools.reduce(operator.or_, tables)
        case Op.IMPLIES:
            before, behind = tables
            return (always ^ before) | behind
        case Op.IFF:
            return always ^ functools.reduce(operator.xor, (always ^ table for table in tables))


def size(text: str) -> int:
    """Return about how many labels an expression names, at most; without parsing it."""
    return 1 + text.count("&&") + text.count("||") + text.count("->")


def is_quoted(text: str) -> bool:
    """Return whether a text could be one label in quotes and nothing else."""
    return _QUOTED.fullmatch(text[: MAX_LENGTH + 1].strip(" \t()")) is not None


def parse(text: str, grammar: Grammar = Grammar.TODAY) -> Expression:
    """Parse an expression. Raises ``LabelError``, with the position counted from 1.

    What was parsed last is remembered.
    """
    parsed = _cache.get((text, grammar))
    if parsed is None:
        parsed = _cache.keep((text, grammar), _parsed(text, grammar))
    if isinstance(parsed, LabelError):
        raise parsed.with_traceback(None)
    return parsed


def _parsed(text: str, grammar: Grammar) -> Expression | LabelError:
    if len(text) > MAX_LENGTH:
        return TooLong(f"{counts.told(len(text), 'character')}, {MAX_LENGTH} are read")
    try:
        parser = _Parser(tokens=collections.deque(_tokens(text, grammar)))
        expression = parser.iff(0)
        if parser.tokens:
            raise parser.unexpected("an operator or the end")
    except LabelError as error:
        return error
    return expression


_Asked = tuple[str, Grammar]


class _ParsedExpressions:
    """What was parsed, the latest; the same is asked for in every look."""

    def __init__(self) -> None:
        self._answers: collections.OrderedDict[_Asked, Expression | LabelError]
        self._answers = collections.OrderedDict()
        self._weight = 0

    def get(self, asked: _Asked) -> Expression | LabelError | None:
        answer = self._answers.get(asked)
        if answer is not None:
            self._answers.move_to_end(asked)
        return answer

    def keep(self, asked: _Asked, answer: Expression | LabelError) -> Expression | LabelError:
        if len(asked[0]) <= MAX_LENGTH:
            self._answers[asked] = answer
            self._weight += _weight(asked[0])
        while self._weight > _REMEMBERED:
            self._weight -= _weight(self._answers.popitem(last=False)[0][0])
        return answer


def _weight(text: str) -> int:
    return size(text) + len(text) // 32


_cache = _ParsedExpressions()


@frozen
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str, grammar: Grammar) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        match = grammar.token.match(text, position)
        if match is None:
            raise LabelError(
                f"unexpected {quotes.shown(text[position])} at character {position + 1}"
            )
        if match.lastgroup != "blank":
            yield _Token(match.lastgroup or "", match[0], position + 1)
        position = match.end()


@define
class _Parser:
    """Takes tokens from the front of a list."""

    tokens: collections.deque[_Token]

    def unexpected(self, wanted: str) -> LabelError:
        if not self.tokens:
            return LabelError(f"it ends where {wanted} is expected")
        token = self.tokens[0]
        return LabelError(
            f"{quotes.shown(token.text)} at character {token.at}, expected is {wanted}"
        )

    def takes(self, operator: str) -> bool:
        if self.tokens and self.tokens[0].kind == "operator" and self.tokens[0].text == operator:
            self.tokens.popleft()
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
        token = self.tokens.popleft()
        if token.kind == "atom":
            return atom(token.text)
        return atom(_unescaped(token.text[1:-1]))


def _unescaped(inner: str) -> str:
    """Return what stands between quotes; in whole passes, as it may be thousands of escapes.

    There is no line end in it as it is, so that one can stand for a backslash meanwhile.
    """
    if "\\" not in inner:
        return inner
    text = inner.replace("\\\\", "\n").replace('\\"', '"').replace("\\'", "'")
    for letter, character in _ESCAPES.items():
        if character != "\n":
            text = text.replace(f"\\{letter}", character)
    return "\n".join(part.replace("\n", "\\") for part in text.split("\\n"))


def _quote(name: str) -> str:
    escaped: str = name.replace("\\", "\\\\").replace('"', '\\"')
    for letter, character in _ESCAPES.items():
        escaped = escaped.replace(character, f"\\{letter}")
    return f'"{escaped}"'
