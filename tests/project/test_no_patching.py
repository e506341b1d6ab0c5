"""Libraries are used as they are: nothing of theirs is replaced, hidden or switched off."""

import ast
import pathlib

from tests.each import each

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = [
    path
    for package in ("broker", "backends", "jnlp", "outside")
    for path in sorted((ROOT / package).rglob("*.py"))
]
CHANGERS = {"update", "setdefault", "pop", "popitem", "clear", "putenv", "unsetenv"}
OURS_TO_SET = {"sys.stdout"}  # Python says that a program may
SHARED = {"sys.modules", "sys.meta_path", "sys.path_hooks", "os.environ"}


def imported(tree):
    """Names that stand for something of somebody else's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name).partition(".")[0]


def targets(node):
    match node:
        case ast.Assign(targets=found) | ast.Delete(targets=found):
            yield from found
        case ast.AugAssign(target=found) | ast.AnnAssign(target=found):
            yield found


def root(node):
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _may_change(called):
    """Tell whether a call's name alone may be one of those below: to write one down takes a while."""
    if isinstance(called, ast.Attribute):
        return called.attr in CHANGERS
    return isinstance(called, ast.Name) and called.id in {"setattr", "delattr"}


def patches(source):
    """Lines that change what is imported, a class of an object, modules or the environment."""
    tree = ast.parse(source)
    theirs = set(imported(tree))
    for node in ast.walk(tree):
        for target in targets(node):
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                changed = isinstance(one, ast.Attribute | ast.Subscript) and root(one) in theirs
                changed = changed and ast.unparse(one) not in OURS_TO_SET
                if changed or (isinstance(one, ast.Attribute) and one.attr == "__class__"):
                    yield node.lineno
        if isinstance(node, ast.Call) and _may_change(node.func):
            called = ast.unparse(node.func)
            owner, _, verb = called.rpartition(".")
            if verb in CHANGERS and (owner in SHARED or owner == "os"):
                yield node.lineno
            if called in {"setattr", "delattr"} and root(node.args[0]) in theirs:
                yield node.lineno


@each("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_a_library_is_changed(path):
    assert [] == list(patches(path.read_text()))


@each(
    "trick",
    [
        "import ssl\nssl.create_default_context = late",
        "import ssl\nmade = ssl.create_default_context()\nmade.__class__ = Late",
        "import sys\nsys.modules.update(charset_normalizer=None)",
        "import sys\nsys.modules['chardet'] = None",
        "import sys\ndel sys.modules['chardet']",
        "import os\nos.environ['FROZENLIST_NO_EXTENSIONS'] = '1'",
        "import os\nos.environ.setdefault('A', '1')",
        "import os\nos.putenv('A', '1')",
        "from aiohttp import web\nweb.Server.pre_shutdown = None",
        "import aiohttp.web as w\nsetattr(w.Response, 'x', 1)",
        "import mimetypes\nmimetypes.knownfiles += ['x']",
        "import gc, ssl\na, ssl.x = 1, 2",
    ],
)
def test_the_tricks_are_seen(trick):
    assert list(patches(trick))


def test_our_own_is_ours_to_change():
    assert [] == list(patches("import sys\nmade = sys.modules\nself.x = 1\nfound['x'] = sys.path"))
