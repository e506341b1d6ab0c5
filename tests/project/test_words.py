"""The words of the project: one for each idea, and English that says what it means.

``docs/glossary.md`` is the law. What is listed below as not yet renamed may only become shorter.
"""

import ast
import functools
import re

from tests.project import test_house as house

PACKAGES = ("backends", "broker", "jnlp", "outside")

# --- English ---

WRONG = {
    r"\bstop(s|ped)? to (?!the\b)[a-z]+": "stops acting ('stops to act' means: in order to act)",
    r"\b(is|are|be|was|were) (not )?to be had\b|\bto be had\b": "is available, can be found",
    r"\bdo(es)? without\b": "needs no ..., works without ...",
    r"(?<!here )\b(is|are|was|were) no (?!longer\b|more\b|less\b|such\b|reason\b)[a-z]+": "is not a ...",
    r"\b(that|which|answer|and|it) (is|are) none\b": "is not one; say what it is not",
    r"\btells? no\b": "gives no ..., does not say ...",
    r"\bnot to be (understood|found|read|seen|reached)\b": "cannot be ...",
    r"\b(has|have) not (the|a|an|any)\b": "does not have",
    r"\b(not|never|nobody|nothing) (\w+ ){0,2}(nothing|nobody|none)\b": "a double negation",
    r"\b(nothing|nobody|nowhere)\b[^.;:,]* neither\b": "a double negation",
    r"\bdear\b": "costly",
    r"\bever more (seldom|rarely)\b": "less and less often",
    r"\b(?<!standby )since \d+ ?(s|ms|min|h|seconds?|minutes?|hours?)\b": "for 5 s (since needs a time)",
    r"\beventual(ly)? (?!consisten)|\bactual (?!state\b)": "possible, present (a false friend)",
    r"\b(are|is) (not )?(let|given) free\b": "is released",
    r"(^|[.|] )Who (is(?! trusted)|does|has|asks|wants|may|can|knows)\b(?![^.?]*\?)(?= [^|]*$)": "Whoever",
    r"\binformations\b|\badvices\b|\binfos\b": "no plural",
}
"""What a message must not hold, and what to write instead."""


def messages():
    """Yield place and text of every string that could be read by a person: no docstrings."""
    for package in PACKAGES:
        for path in sorted((house.ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            skipped = set(documentation(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    skipped |= {id(part) for part in node.values}
                    text = "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "5"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                if id(node) not in skipped and len(text.split()) > 1:
                    yield f"{path.relative_to(house.ROOT)}:{node.lineno}", text


def documentation(tree):
    """Yield the ids of the strings that say what a module, class or function is for."""
    for node in ast.walk(tree):
        body = getattr(node, "body", ())
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield id(statement.value)


def pages():
    """Yield place and text of every line of the documents, without its code and quotations."""
    for path in house.sources("*.md"):
        if path.name != "glossary.md" and "tests" not in path.relative_to(house.ROOT).parts:
            text = re.sub(
                r"```.*?```",
                lambda found: "\n" * found[0].count("\n"),
                path.read_text(),
                flags=re.S,
            )
            for number, line in enumerate(text.splitlines(), 1):
                yield (
                    f"{path.relative_to(house.ROOT)}:{number}",
                    re.sub(r"`[^`]*`|\*[^*]+\*", "X", line),
                )


@functools.cache
def texts():
    """Return all of them, read when the first test asks."""
    return [*messages(), *pages()]


def test_no_text_for_people_says_the_opposite_of_what_it_means():
    """Messages, log lines, help texts and documents."""
    wrong = {re.compile(pattern): better for pattern, better in WRONG.items()}
    found = [
        f"{place}: {text.strip()[:160]}; write instead: {better}"
        for place, text in texts()
        for pattern, better in wrong.items()
        if pattern.search(text)
    ]
    assert found == []


def test_the_search_finds_what_it_is_for():
    """Each pattern fits a sentence that it is made for, or it would guard nothing."""
    bad = (
        "the leader stops to act",
        "it is not to be had here",
        "a broker in the cluster does without",
        "the answer is no lease",
        "an event that is none",
        "it tells no state",
        "the end is not to be understood",
        "what has not the label",
        "it has never seen nothing",
        "nothing is done, neither of it".replace(",", ""),
        "an archive is dear",
        "it is asked ever more seldom",
        "the controller is away since 5 s",
        "the eventual end",
        "the place is let free",
        "Who does not know it sees an error",
        "informations",
    )
    assert [] == [p for p in WRONG if not any(re.search(p, text) for text in bad)]
    assert len(texts()) > 3000


# --- quotations ---

SPELLED = {
    "backends/kit/interpreter.py": "writes Python",
    "backends/mesos/tasks.py": "a number in a label, read again",
    "backends/process/launching.py": "a digest",
    "broker/config/templating.py": "a digest",
    "broker/config/values.py": "numbers",
    "jnlp/state.py": "numbers",
    "outside/secrets.py": "looks for a secret in this spelling",
}
"""Where a value is spelled as Python does, and nobody reads it as a word; or it is a number."""

BUGS = {"error", "inner"}
"""An exception that is a bug of ours is shown as it is: whoever mends it reads Python."""


def spellings(source):
    """Yield the line of everything that is put into a text as Python spells it."""
    tree = ast.parse(source)
    own = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        match node:
            case ast.FormattedValue(value=value, conversion=114):
                pass
            case ast.Call(func=ast.Name(id="repr"), args=[value]):
                pass
            case _:
                continue
        if id(node) not in own and getattr(value, "id", "") not in BUGS:
            yield node.lineno


def test_no_message_quotes_as_python_does():
    """A text is quoted by ``outside.quotes``: no doubled backslash, the same quotes everywhere."""
    found = {}
    for package in PACKAGES:
        for path in sorted((house.ROOT / package).rglob("*.py")):
            if lines := list(spellings(path.read_text())):
                found[str(path.relative_to(house.ROOT))] = lines
    assert {path: lines for path, lines in found.items() if path not in SPELLED} == {}
    assert set(SPELLED) - set(found) == set(), "take it off the list"


def test_the_search_for_spellings_finds_each_kind():
    """In an f-string and as a call; not in a ``__repr__``, not of a bug."""
    source = """
def one(name):
    return f"no {name!r}", repr(name)
def __repr__(self):
    return f"{self.name!r}"
def bug(error):
    return f"a bug: {error!r}"
"""
    assert list(spellings(source)) == [3, 3]


# --- names ---

SYNONYMS = {
    r"promis|shun|dealt|_deal$|nominee": "nominate",
    r"slave|worker": "agent",
    r"\bjob": "item",
    r"spawn|provision(?!er)": "launch",
    r"destroy|\bkill_instance": "terminate",
    r"blacklist|quarantin|sulk": "set aside",
    r"garbage|cleanup|reaper": "sweep, leftover",
    r"\bscan|snapshot": "look, view",
    r"master(?!s?$)": "controller (Mesos has masters)",
}
"""What a class or function is not called, by the glossary, and the word that it is."""

NOT_YET: set[str] = set()
"""To be renamed: this may only become shorter."""

PLATFORMS = {
    "backends/mesos/transport.py": "Mesos' own masters",
    "backends/process/proc.py": "the kernel's words",
    "backends/process/supervisor.py": "the kernel's words",
    "broker/simulator/controller.py:_job": "Jenkins' path",
    "broker/cli/doctor.py:_jobs": "Jenkins' jobs are what is looked at",
}
"""Where a platform's own word is the right one."""

LAYERS = {
    "Backend": "the section of the file, and the contract",
    "Check": "the section of the file, and which of both it is in the core",
    "Checks": "the section of the file, and the core's value",
    "Choice": "the section of the file, and the core's value",
    "HighAvailability": "the section of the file, and the settings in force",
    "Host": "an engine as the settings name it, and the verbs of the contract on it",
    "NotFound": "the same answer of a platform and of Jenkins",
    "Parameter": "the section of the file, and the core's value",
    "Proxy": "the section of the file, and what builds and the JVM are told",
    "Resources": "the section of the file, and what a platform is told",
    "Retention": "the section of the file, and the core's value",
    "Template": "the section of the file, and the core's value",
    "Unauthorized": "the same answer of a platform and of Jenkins",
    "Volume": "a volume of a template, as Docker and as Mesos have it",
}
"""Class names that are defined twice because one idea has two layers (or two platforms): which."""

TWICE: set[str] = set()
"""Class names of two meanings: there are none, and none may come."""


def definitions():
    """Yield path, name and whether it is a class, of everything that we define."""
    for package in PACKAGES:
        for path in sorted((house.ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield (
                        str(path.relative_to(house.ROOT)),
                        node.name,
                        isinstance(node, ast.ClassDef),
                    )


def test_names_are_the_glossarys():
    """No forbidden synonym in the name of a class or a function, but those that are listed."""
    found = set()
    for path, name, _ in definitions():
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        if path in PLATFORMS or f"{path}:{name}" in PLATFORMS:
            continue
        if any(re.search(pattern, words) for pattern in SYNONYMS):
            found.add(f"{path}:{name}")
    assert found - NOT_YET == set(), SYNONYMS
    assert NOT_YET - found == set(), "renamed: take it off the list"


def test_a_class_name_has_one_meaning():
    """Defined once in the whole product, but for the layers of one idea."""
    places = {}
    for path, name, is_class in definitions():
        if is_class:
            places.setdefault(name.lstrip("_"), set()).add(path)
    twice = {name for name, paths in places.items() if len(paths) > 1}
    unlisted = twice - TWICE - set(LAYERS)
    assert unlisted == set(), {name: places[name] for name in unlisted}
    assert (TWICE | set(LAYERS)) - twice == set(), "unique by now: take it off the list"


def test_every_word_that_steers_is_in_the_glossary():
    """The classes of the core's values are words of it."""
    page = (house.ROOT / "docs" / "glossary.md").read_text().lower()
    for word in ("agent", "item", "computer", "template", "policy", "world", "plan", "expectation",
                 "ledger", "phase", "outcome", "wish", "supply", "verdict", "lease", "nominate"):  # fmt: skip
        assert re.search(rf"^\| [^|]*\b{word}\b[^|]* \|", page, re.M), word
