"""Every pattern of the project, given texts that are made from its own parts (K1).

For each compiled pattern that a module holds: its parts again and again, one after the other and
each repetition alone, behind its beginning, never with its end. So a new pattern is judged before
anybody sends it such a text. ``test_linear`` asks the readers as they are called.
"""

import importlib
import pathlib
import pkgutil
import re
import re._constants as kinds
import re._parser as parser
import time

import pytest

import backends
import broker
import jnlp
import outside

SIZE = 65536
_LIMIT_S = 0.05
CUT = {  # given less by the only callers that there are: how much at most
    "backends.mesos.settings._ADDRESS": 1024,  # of a setting, and only as a whole
    "broker.loop.complaints._CLASS_FILE": 256,  # lines as ``outside.text.last_lines`` cuts them
    "broker.loop.complaints._INNER": 256,
    "broker.loop.complaints._FRAME": 256,
    "broker.loop.complaints._CONNECTED": 256,
    "broker.loop.complaints._ADDRESS": 256,
}


def modules():
    """Yield all of the project but the simulated controller, which nobody is served by."""
    for package in (broker, backends, jnlp, outside):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__") and not found.name.startswith(
                ("broker.demo", "broker.simulator")
            ):
                yield importlib.import_module(found.name)


_METHODS = {
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
    "match": lambda pattern, text: pattern.match(text),
    "search": lambda pattern, text: pattern.search(text),
    "finditer": lambda pattern, text: sum(1 for _ in pattern.finditer(text)),
}
"""By how a pattern is asked; ``split``, ``sub`` and the like look for all that there is."""


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


def pace():
    """Return how much slower than an ordinary machine this one is just now."""
    began = time.thread_time()
    total = 0
    for number in range(250_000):
        total += number & 3
    return max(1.0, (time.thread_time() - began) / 0.0125)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_done_in_50_ms(name):
    """Asked as its module asks it, whatever stands there."""
    pattern, asked = PATTERNS[name]
    for text in worst(pattern, CUT.get(name, SIZE)):
        for method in asked:
            spent = seconds(_METHODS[method], pattern, text)
            for _ in range(3):  # it may be the machine that is slow, or another process
                if spent < _LIMIT_S or spent > 100 * _LIMIT_S:
                    break
                spent = min(seconds(_METHODS[method], pattern, text) for _ in range(2)) / pace()
            assert spent < _LIMIT_S, f"{name}: {text[:80]!r}… takes {spent * 1000:.0f} ms"


def seconds(ask, pattern, text):
    began = time.thread_time()
    ask(pattern, text)
    return time.thread_time() - began


@pytest.mark.parametrize(
    ("source", "small", "large"),
    [
        (r"\[agent-broker ((?:[a-z]+=[^\s\]]+ ?)+)\]", 45, 54),
        (r'<p class="error">(.*?)</(?:p|div)>', 2000, 8000),
        (r"<argument>\s*([^<]*?)\s*</argument>", 100, 400),
        (r"; (?![^‘]*’)", 2000, 8000),
        (r"FATAL tini.*?\]:? (exec .* failed: .*)", 100, 400),
    ],
)
def test_the_patterns_that_there_were_would_be_found(source, small, large):
    """What they take grows faster than the text does."""
    pattern = re.compile(source)

    def spent(size):
        return max(seconds(_METHODS["finditer"], pattern, text) for text in worst(pattern, size))

    least = [min(spent(size) for _ in range(3)) for size in (small, large)]
    assert least[1] / large > 1.5 * least[0] / small
