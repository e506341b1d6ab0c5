"""YAML text to plain data, with the line of every path.

Strict where YAML is not: a key that is given twice is an error, keys are text. Refuses to know
settings.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml
from attrs import Factory, evolve, frozen

from broker.config import errors

Path = errors.Path
Insert = Callable[[str, Path], str]
"""Puts variables into what is written at a place; raises ``NotInserted``."""

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 40
_MAX_NODES = 20_000
"""A hundred templates have some two thousand."""
_MAX_NUMBER = 64  # characters of a number, a date or a truth value
_SHORT = {
    "int": "number",
    "float": "number",
    "bool": "truth value",
    "timestamp": "date",
    "null": "nothing",
}
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_OF_OCTAL = re.compile(r"(?i)(mode|umask)$")  # what everybody writes so
_MERGE = "tag:yaml.org,2002:merge"
_SIGNS = frozenset({_MERGE, "tag:yaml.org,2002:value"})  # `<<` and `=`, texts where a value is
_UNFIT = re.compile("[\x00\ud800-\udfff]")  # no path, variable or output can have them


@frozen
class TextProblem:
    """Something wrong with the text itself."""

    path: Path
    line: int
    text: str
    hint: str = ""


class NotInserted(ValueError):  # noqa: N818 -- what it is
    """What is written cannot be the value: what was found, and a hint."""

    def __init__(self, text: str, hint: str = "") -> None:
        """``text`` names a variable, never what it holds."""
        super().__init__(text)
        self.text = text
        self.hint = hint


@frozen
class Tree:
    """Data, where each of it stands, and what is wrong with the text."""

    data: Any
    lines: dict[Path, int] = Factory(dict)
    written: dict[Path, str] = Factory(dict)  # numbers, truth values, dates: as they stand there
    faults: list[TextProblem] = Factory(list)
    whole: bool = True  # False: it could not be read to its end, ``data`` says nothing

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest one that stands in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str, insert: Insert | None = None) -> Tree:
    """Read YAML; all faults are collected in the tree.

    ``insert`` is given each single value as it is written. What it makes of an unquoted one is
    read as if it stood in the text: a number, a truth value; what is quoted stays text.
    """
    tree = Tree(data={})
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        words = f"not YAML: the character U+{error.character:04X} is not allowed"
        return evolve(tree, faults=[TextProblem((), line, words)], whole=False)
    try:
        node = loader.get_single_node()
        if node is None:
            return tree
        reader = _TreeBuilder(loader, tree, insert)
        data = reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(text for text in (error.context, error.problem) if text)
        at = text[: mark.index + 1][-2:] if mark else ""
        hint = "between [ ] or { } put it in quotes" if at == "${" else ""
        line = mark.line + 1 if mark else 1
        tree.faults.append(TextProblem((), line, f"not YAML: {words}", hint))
        return evolve(tree, whole=False)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a character of more than 21 bits
        line = loader.line + 1
        tree.faults.append(TextProblem((), line, f"not YAML: {str(error)[:200]}"))
        return evolve(tree, whole=False)
    finally:
        loader.dispose()
    return Tree(data=data, lines=tree.lines, written=tree.written, faults=tree.faults)


def _fault_of(value: Any, written: str, path: Path, line: int) -> TextProblem | None:
    """Return what is wrong with a single value that YAML takes for good."""
    if isinstance(value, str):
        found = _UNFIT.search(value)
        text = f"the character U+{ord(found[0]):04X} is not allowed" if found else ""
        return TextProblem(path, line, text) if found else None
    if type(value) is int and _is_another(written, value, path):
        text = f"{written} is read as {value}, the octal number"
        return TextProblem(path, line, text, "without the 0 before it, or put it in quotes")
    return None


def _is_another(written: str, value: int, path: Path) -> bool:
    """Return whether a number is another one than people and newer YAML read."""
    if not _OCTAL.fullmatch(written) or (path and _OF_OCTAL.search(str(path[-1]))):
        return False
    return not written.strip("-+0_").isdecimal() or int(written.replace("_", "")) != value


class _Loader(yaml.SafeLoader):
    """Gives up early: no depth of a text ends in the interpreter's own limit, no width takes long.

    The time of reading is that of the nodes, some 20 microseconds each.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, if there are not too many around it."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.depth += 1
        self.nodes += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        if self.nodes > _MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_NODES} values", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TreeBuilder:
    def __init__(self, loader: _Loader, tree: Tree, insert: Insert | None) -> None:
        self._loader = loader
        self._tree = tree
        self._insert = insert
        self._nodes = self._depth = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(path, line)
        self._tree.written.pop(path, None)  # of what was merged into a section, and is replaced
        self._nodes += 1
        if self._depth > _MAX_DEPTH or self._nodes > _MAX_NODES:  # aliases make more of less
            is_deep = self._depth > _MAX_DEPTH
            problem = "nested too deeply" if is_deep else f"more than {_MAX_NODES} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        self._depth += 1
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.read(part, (*path, n)) for n, part in enumerate(node.value)]
            return self._scalar(node, path, line)
        finally:
            self._depth -= 1

    def _inserted(self, node: yaml.Node, path: Path) -> yaml.Node:
        """Return the node as if its variables had been written out."""
        kind = node.tag.rpartition(":")[2]
        if self._insert is None or not isinstance(node, yaml.ScalarNode) or kind != "str":
            return node
        text = self._insert(node.value, path)
        if text == node.value:
            return node
        tag = node.tag if node.style else self._implicit(text)
        return yaml.ScalarNode(tag, text, node.start_mark, node.end_mark, node.style)

    def _implicit(self, text: str) -> str:
        """Return the tag of a text that stands without quotes; most are text."""
        resolve: Callable[..., str] = self._loader.resolve
        tag = resolve(yaml.ScalarNode, text, (True, False))
        return tag if tag.rpartition(":")[2] in _SHORT else "tag:yaml.org,2002:str"

    def _scalar(self, node: yaml.Node, path: Path, line: int) -> Any:
        try:
            node = self._inserted(node, path)
        except NotInserted as error:
            self._tree.faults.append(TextProblem(path, line, error.text, error.hint))
            return None
        kind = node.tag.rpartition(":")[2]
        if kind in _SHORT and len(node.value) > _MAX_NUMBER:
            self._tree.faults.append(
                TextProblem(path, line, f"too long for a {_SHORT[kind]}; hint: put it in quotes")
            )
            return None
        if kind in _SHORT and kind != "null":
            self._tree.written[path] = node.value
        try:
            is_sign = node.tag in _SIGNS
            value = node.value if is_sign else self._loader.construct_object(node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception:  # noqa: BLE001 -- its constructors raise what comes to their mind
            what = _SHORT.get(kind, kind)
            text = f"looks like a {what} and is not one; hint: put it in quotes"
            self._tree.faults.append(TextProblem(path, line, text))
            return None
        if kind in {"int", "float"} and ":" in node.value:
            value = node.value  # to the base of sixty, which nobody means: a time of day
        fault = _fault_of(value, node.value, path, line)
        if fault is not None:
            self._tree.faults.append(fault)
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        pairs = []
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in self._sources(node, value):
                    data |= self.read(source, path)
            else:
                pairs.append((key, value))
        own: set[str] = set()
        for key, value in pairs:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._tree.faults.append(TextProblem(path, line, "a key that is not plain text"))
                continue
            name = str(key.value)
            where = (*path, name)
            if _UNFIT.search(name):
                self._tree.faults.append(TextProblem(path, line, "a key with an odd character"))
                continue
            if name in own:
                first = self._tree.lines[where]
                self._tree.faults.append(
                    TextProblem(
                        where, line, f"given twice, first in line {first}", "keep one of them"
                    )
                )
                continue
            own.add(name)
            self._tree.lines[where] = line
            data[name] = self.read(value, where)
        return data

    def _sources(self, node: yaml.MappingNode, told: yaml.Node) -> list[yaml.MappingNode]:
        """Return what is merged into a mapping, the weakest first."""
        parts: list[Any] = told.value[::-1] if isinstance(told, yaml.SequenceNode) else [told]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping",
                    node.start_mark,
                    f"expected a mapping or list of mappings for merging, but found {part.id}",
                    part.start_mark,
                )
        return parts
