"""YAML text to plain data, with the line of every path.

Strict where YAML is not: a key that is given twice is an error, keys are text. Refuses to know
settings.
"""

from typing import Any

import yaml
from attrs import Factory, evolve, frozen

from broker.config import errors

Path = errors.Path

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 40
_MAX_NODES = 200_000


@frozen
class Fault:
    """Something wrong with the text itself."""

    path: Path
    line: int
    text: str
    hint: str = ""


@frozen
class Tree:
    """Data, where each of it stands, and what is wrong with the text."""

    data: Any
    lines: dict[Path, int] = Factory(dict)
    faults: list[Fault] = Factory(list)
    whole: bool = True  # False: it could not be read to its end, ``data`` says nothing

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest one that stands in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str) -> Tree:
    """Read YAML; all faults are collected in the tree."""
    tree = Tree(data={})
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        words = f"not YAML: the character U+{error.character:04X} is not allowed"
        return evolve(tree, faults=[Fault((), line, words)], whole=False)
    try:
        node = loader.get_single_node()
        if node is None:
            return tree
        reader = _Reader(loader, tree)
        data = reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(text for text in (error.context, error.problem) if text)
        tree.faults.append(Fault((), mark.line + 1 if mark else 1, f"not YAML: {words}"))
        return evolve(tree, whole=False)
    except yaml.YAMLError as error:
        tree.faults.append(Fault((), 1, f"not YAML: {str(error)[:200]}"))
        return evolve(tree, whole=False)
    finally:
        loader.dispose()
    return Tree(data=data, lines=tree.lines, faults=tree.faults)


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, tree: Tree) -> None:
        self._loader = loader
        self._tree = tree
        self._nodes = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(path, line)
        self._nodes += 1
        if len(path) > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(part, (*path, n)) for n, part in enumerate(node.value)]
        try:
            return self._loader.construct_object(node, deep=True)
        except ValueError:
            kind = "date" if node.tag.endswith(":timestamp") else "number"
            text = f"looks like a {kind} and is none; hint: put it in quotes"
            self._tree.faults.append(Fault(path, line, text))
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        self._loader.flatten_mapping(node)
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._tree.faults.append(Fault(path, line, "a key that is not plain text"))
                continue
            name = str(key.value)
            where = (*path, name)
            if own.count(name) > 1 and name in data:
                first = self._tree.lines[where]
                self._tree.faults.append(
                    Fault(where, line, f"given twice, first in line {first}", "keep one of them")
                )
                continue
            self._tree.lines[where] = line
            data[name] = self.read(value, where)
        return data
