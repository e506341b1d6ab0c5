"""Every pattern of the project, given texts that are made from its own parts (K1).

For each compiled pattern that a module holds: its parts again and again, one after the other and
each repetition alone, behind its beginning, never with its end. So a new pattern is judged before
anybody sends it such a text. What is counted are the steps of ``backtracking``, never the time.
``test_linear`` asks the readers as they are called.
"""

import importlib
import pathlib
import pkgutil
import re
import re._constants as kinds
import re._parser as parser

import pytest

import backends
import broker
import jnlp
import outside
from tests.each import each
from tests.project import backtracking

SIZE = 512
_MOST = 48
"""Steps for each character of a text: the dearest takes 41 (up to 253 characters are a quota's
name), one that goes back over all that it has read, or begins anew within it, hundreds."""


def modules():
    """Yield all of the project but the simulated controller, which nobody is served by."""
    for package in (broker, backends, jnlp, outside):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__") and not found.name.startswith(
                ("broker.demo", "broker.simulator")
            ):
                yield importlib.import_module(found.name)


_METHODS = frozenset({"fullmatch", "match", "search", "finditer"})
"""How a pattern is asked; ``split``, ``sub`` and the like look for all that there is."""


def patterns():
    """Yield every compiled pattern of the project with its name, and how it is asked."""
    for module in modules():
        calls = set(re.findall(r"\b(\w+)\.(\w+)\(", pathlib.Path(module.__file__).read_text()))
        for name, value in vars(module).items():
            values = value if isinstance(value, tuple | list) else (value,)
            used = {m for n, m in calls if n == name} if values is not value else set()
            asked = {m if m in _METHODS else "finditer" for m in used} or {"finditer", "fullmatch"}
            for number, one in enumerate(values):
                if isinstance(one, re.Pattern):
                    where = f"{module.__name__}.{name}" + f"[{number}]" * (values is value)
                    yield where, (one, sorted(asked))


PATTERNS = dict(patterns())


def character(options):
    """Return a character of a set."""
    is_negated = options[0][0] is kinds.NEGATE
    for kind, value in () if is_negated else options:
        if kind is kinds.LITERAL:
            return chr(value)
        if kind is kinds.RANGE:
            return chr(value[0])
        if kind is kinds.CATEGORY:
            return {"SPACE": " ", "DIGIT": "7"}.get(str(value).rpartition("_")[2], "a")
    taken = {value for kind, value in options if kind is kinds.LITERAL}
    return next(c for c in "a b7-" if ord(c) not in taken)


def sample(parsed, loops, before="", least=1):
    """Return a text that a part of a pattern takes.

    ``loops`` gets what its repetitions take, each behind what has to stand ``before`` it. What
    may be left out is there ``least`` times.
    """
    text = ""
    for kind, value in parsed:
        match kind:
            case kinds.LITERAL:
                text += chr(value)
            case kinds.NOT_LITERAL:
                text += "a" if value != ord("a") else "b"
            case kinds.ANY:
                text += "a"
            case kinds.IN:
                text += character(value)
            case kinds.BRANCH:
                branches = [sample(branch, loops, before + text, least) for branch in value[1]]
                loops += [(before + text, branch) for branch in branches]
                text += branches[0]
            case kinds.SUBPATTERN:
                text += sample(value[3], loops, before + text, least)
            case kinds.ATOMIC_GROUP:
                text += sample(value, loops, before + text, least)
            case kinds.MAX_REPEAT | kinds.MIN_REPEAT | kinds.POSSESSIVE_REPEAT:
                low, _, inner = value
                body = sample(inner, loops, before + text, least)
                loops.append((before + text, body))
                text += body * max(low, least)
    return text


def worst(pattern, size):
    """Yield texts of a size, made from a pattern."""
    loops = []
    source = pattern.pattern
    is_bytes = isinstance(source, bytes)
    parsed = parser.parse(source, pattern.flags & ~re.LOCALE)
    bits = []
    for least in (1, 0):
        whole = sample(parsed, loops, least=least)
        bits += [("", whole), ("", whole[:-1])]
    bits += [*loops, *(("", a + b) for a, b in loops)]
    bits += [("", " "), ("", "a"), ("", "a "), ("", "7"), ("", "\n"), ("", "‘"), ("", '"')]
    for before, again in dict.fromkeys(bits):
        if again:
            text = (before + again * (size // len(again) + 1))[:size]
            text += "\x00"  # which ends no match
            yield text.encode("utf-8", "replace") if is_bytes else text


def ends(found):
    """Return where matches end, however a pattern was asked."""
    if found is None:
        return None
    return found.end() if isinstance(found, re.Match) else [match.end() for match in found]


def steps(pattern, asked):
    """Return how many steps for each character the dearest text takes, and which one that is."""
    matcher = backtracking.Matcher(pattern=pattern, size=SIZE)
    worst_of_all = (0.0, "")
    for text in worst(pattern, SIZE):
        for method in asked:
            counted = backtracking.Steps(most=8 * _MOST * SIZE)
            try:
                found = getattr(matcher, method)(text, counted)
                found = list(found) if method == "finditer" else found
            except backtracking.TooMuchError:
                pass  # it is far too dear: nobody waits for what it finds
            else:  # or the steps would be of something else
                assert ends(getattr(pattern, method)(text)) == found, (method, text[:80])
            worst_of_all = max(worst_of_all, (counted.taken / len(text), f"{text[:80]!r}"))
    return worst_of_all


@each("name", PATTERNS)
def test_a_pattern_takes_some_steps_for_each_character(name):
    """Asked as its module asks it, whatever stands there."""
    taken, text = steps(*PATTERNS[name])
    assert taken <= _MOST, f"{name} takes {taken:.0f} steps for each character of {text}…"


@pytest.mark.parametrize(
    "source",
    [
        r"\[agent-broker ((?:[a-z]+=[^\s\]]+ ?)+)\]",  # this and four more there were here once
        r'<p class="error">(.*?)</(?:p|div)>',
        r"<argument>\s*([^<]*?)\s*</argument>",
        r"; (?![^‘]*’)",
        r"FATAL tini.*?\]:? (exec .* failed: .*)",
        r"\w{0,80}X",  # begins in the midst of a word, and so did two of an agent's last lines
        r"[\w.]+Error: ",
        r"\s+$",
        r"(a|aa)+$",
        r"\$\(([^)]{1,64})\)",
    ],
)
def test_patterns_that_begin_anew_in_what_they_have_read_are_found(source):
    """What they take grows faster than the text does, or by many times a text's length."""
    taken, _ = steps(re.compile(source), ["finditer"])
    assert taken > _MOST


@pytest.mark.parametrize(
    "source", [r"\bword: \S{1,200}$", r"(?:[^\"]++|\"[^\"]*+\")*+,", r"a*b*c"]
)
def test_patterns_that_go_on_where_they_are_pass(source):
    """Long as what they read may be."""
    taken, _ = steps(re.compile(source), ["match"])
    assert taken <= _MOST
