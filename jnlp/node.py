"""A Jenkins node for an inbound agent: its definition, its creation form, its labels in XML.

Pure. Knows what the controller accepts silently and what breaks us or the controller then;
refuses to know HTTP or when a node is wanted.

Facts: recordings ``nodes/01-create``, ``nodes/02-create-errors``, ``nodes/08-zero-executors``.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import Factory, field, frozen

from jnlp import tunnel
from outside import counts, quotes

NAME_LENGTH = 63
"""Longest name: it must also serve as a container, pod and host name."""

KEEP_PROPERTY = "io.jenkins.plugins.casc.core.CascKeepNode"
"""A node with it stays when Configuration as Code is loaded again (plugin 2080 and later).

Without it every node that is not in the YAML's ``jenkins.nodes`` goes, with what it builds
(``JenkinsConfigurator.shouldKeepNode``). A controller that does not know the class leaves the
property out without a word: stapler, ``RequestImpl``, "ignore unrecognized element" (tried with
2.541.3 both ways).
"""
_TYPE = "hudson.slaves.DumbSlave"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RESERVED = frozenset({"master", "built-in", "(master)", "(built-in)"})
_LABEL_BREAKS = re.compile(r"""[\s!&|<>()"'\\]|[^\x21-\x7e\u00a1-\U0010ffff]""")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\[^\\]")


def _tuple(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(labels)


@frozen(kw_only=True)
class NodeDefinition:
    """What a node is to be. ``problems`` says whether it may be sent."""

    name: str
    description: str = ""
    executors: int = 1
    remote_fs: str
    labels: tuple[str, ...] = field(default=(), converter=_tuple)
    exclusive: bool = True  # only builds whose label expression matches
    connection: tunnel.Connection = Factory(tunnel.Connection)


def problems(definition: NodeDefinition) -> tuple[str, ...]:
    """Everything that the controller would take without a word and that breaks later.

    Each text says what was found, what is allowed and why. Empty: the definition may be sent.
    """
    return (
        *_name_problems(definition.name),
        *_executor_problems(definition.executors),
        *_remote_fs_problems(definition.remote_fs),
        *(text for label in definition.labels for text in label_problems(label)),
        *_description_problems(definition.description),
    )


def _name_problems(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield (
            f"name {quotes.shown(name)}: allowed are A-Z a-z 0-9 _ -, beginning with a letter "
            "or digit (it goes into URLs, label expressions and command lines)"
        )
    if len(name) > NAME_LENGTH:
        yield (
            f"name of {counts.told(len(name), 'character')}: at most {NAME_LENGTH} are allowed "
            "(containers and pods carry the same name)"
        )
    if name.lower() in _RESERVED:
        yield f"name {quotes.shown(name)} is reserved for the controller's own node"


def _executor_problems(executors: object) -> Iterator[str]:
    # Zero, negative or odd: a node without a computer that nobody can delete over REST.
    if not isinstance(executors, int) or isinstance(executors, bool) or executors < 1:
        yield (
            f"executors {str(executors)[:80]}: a whole number from 1 is allowed (the "
            "controller takes others and then holds a node that cannot be listed or deleted)"
        )


def _remote_fs_problems(remote_fs: str) -> Iterator[str]:
    if not _ABSOLUTE.match(remote_fs) or _CONTROL.search(remote_fs):
        yield (
            f"remote file system root {quotes.shown(remote_fs)}: an absolute path is allowed "
            "(a relative one depends on where the agent happens to start)"
        )


def _description_problems(description: str) -> Iterator[str]:
    if _CONTROL.search(description):
        yield "description: control characters and line breaks are not allowed"


def label_problems(label: str) -> tuple[str, ...]:
    """Why a text cannot be one label: blanks separate labels, operators make expressions."""
    if not label:
        return ("label '' is empty",)
    found = _LABEL_BREAKS.search(label)
    if found:
        text = (
            f"label {quotes.shown(label)}: {quotes.shown(found[0])} is not allowed "
            "(no blanks, quotes, backslashes or operators such as ! & | < > ( ))"
        )
        return (text,)
    return ()


def creation_form(definition: NodeDefinition) -> dict[str, str]:
    """Form fields of ``POST computer/doCreateItem``, the same from 2.263 to today.

    ``tunnel`` and ``webSocket`` of the launcher only feed the JNLP file and the node's page, but
    they tell people and other clients how the agent is meant to connect. Retention is ``Always``:
    ``Demand`` disconnects idle inbound agents (recording ``agent/26``). An empty tunnel is left
    out: 2.440 keeps it as one, and its JNLP file then tells agents ``-tunnel ""``.
    """
    websocket = definition.connection.transport is tunnel.Transport.WEBSOCKET
    through = definition.connection.tunnel
    launcher = {
        **_described("hudson.slaves.JNLPLauncher"),
        "workDirSettings": {
            "disabled": False,
            "workDirPath": "",
            "internalDir": "remoting",
            "failIfWorkDirIsMissing": False,
        },
        "webSocket": websocket,
        **({"tunnel": through} if through else {}),
    }
    node = {
        "name": definition.name,
        "nodeDescription": definition.description,
        "numExecutors": str(definition.executors),
        "remoteFS": definition.remote_fs,
        "labelString": " ".join(definition.labels),
        "mode": "EXCLUSIVE" if definition.exclusive else "NORMAL",
        "type": _TYPE,
        "launcher": launcher,
        "retentionStrategy": _described("hudson.slaves.RetentionStrategy$Always"),
        "nodeProperties": {"stapler-class-bag": "true", KEEP_PROPERTY.replace(".", "-"): {}},
    }
    return {"name": definition.name, "type": _TYPE, "json": json.dumps(node)}


def _described(name: str) -> dict[str, object]:
    # 2.263 binds by ``stapler-class``, later versions by ``$class`` as well
    return {"stapler-class": name, "$class": name}


def is_kept(config_xml: str) -> bool:
    """True when Configuration as Code leaves the node alone."""
    element = _children(config_xml)[0].get("nodeProperties")
    return element is not None and f"<{KEEP_PROPERTY}" in element.content


# --- config.xml --------------------------------------------------------------------------------
#
# A text transformation, not a parser: the controller writes XML 1.1, which Python's parsers
# refuse, and everything else in the file (launcher, properties of unknown plugins, the offline
# state) must go back byte for byte.

_MAX_CONFIG, _MAX_TAGS = 1024 * 1024, 8192
_CLOSINGS = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">"))
_NO_TEXT = re.compile("[\"'<>]")  # in a tag
_NAME_END = re.compile(r"[\s/]")


@frozen(kw_only=True)
class _Element:
    """A direct child of the root: where it stands and what is between its tags."""

    start: int
    end: int
    content: str


def labels_of(config_xml: str) -> tuple[str, ...]:
    """Return the labels in a node's ``config.xml``; raises ``ValueError`` if it is none."""
    element = _children(config_xml)[0].get("label")
    return () if element is None else tuple(html.unescape(element.content).split())


def properties_of(config_xml: str) -> str:
    """Return the XML of a node's properties, "" without any; raises as ``labels_of``."""
    element = _children(config_xml)[0].get("nodeProperties")
    return "" if element is None else element.content


def with_properties(config_xml: str, content: str) -> str:
    """Replace the XML of a node's properties, leaving every other character as it is."""
    return _replaced(config_xml, {"nodeProperties": f"<nodeProperties>{content}</nodeProperties>"})


def is_exclusive(config_xml: str) -> bool:
    """True when the node takes only builds that ask for one of its labels."""
    element = _children(config_xml)[0].get("mode")
    return element is not None and element.content.strip() == "EXCLUSIVE"


def name_of(config_xml: str) -> str:
    """Return the node's name in its ``config.xml``, or an empty text."""
    element = _children(config_xml)[0].get("name")
    return "" if element is None else html.unescape(element.content).strip()


def with_labels(config_xml: str, labels: tuple[str, ...], *, exclusive: bool = True) -> str:
    """Replace labels and mode, leaving every other character as it is.

    Raises ``ValueError`` for a label that is none, and for a text that is no ``config.xml``.
    """
    wrong = [text for label in labels for text in label_problems(label)]
    if wrong:
        raise ValueError("; ".join(wrong))
    mode = "EXCLUSIVE" if exclusive else "NORMAL"
    text = html.escape(" ".join(labels), quote=False)
    return _replaced(
        config_xml, {"label": f"<label>{text}</label>", "mode": f"<mode>{mode}</mode>"}
    )


_ALWAYS = '<retentionStrategy class="hudson.slaves.RetentionStrategy$Always"/>'
_NEVER = (
    '<retentionStrategy class="hudson.slaves.SimpleScheduledRetentionStrategy">'
    "<startTimeSpec>0 0 31 2 *</startTimeSpec><upTimeMins>1</upTimeMins>"
    "<keepUpWhenActive>true</keepUpWhenActive></retentionStrategy>"
)


def accepting(config_xml: str, *, tasks: bool) -> str:
    """Let a node take items or not; what it has been given goes on.

    The one switch for this that REST reaches without administrator rights: a schedule that never
    comes. What it does besides depends on the version (``version.schedule_only_refuses``).
    """
    if is_accepting(config_xml) == tasks:
        return config_xml
    return _replaced(config_xml, {"retentionStrategy": _ALWAYS if tasks else _NEVER})


def is_accepting(config_xml: str) -> bool:
    """True unless ``accepting`` took the node out of service."""
    element = _children(config_xml)[0].get("retentionStrategy")
    return element is None or "<startTimeSpec>0 0 31 2 *</startTimeSpec>" not in element.content


_SINGLE_USE = "org.jenkinsci.plugins.durabletask.executors.OnceRetentionStrategy"


def as_single_use(config_xml: str) -> str:
    """Mark a node so that Pipeline ends the steps on it at once when it is deleted.

    The strategy is of the plugin durable-task and for agents of clouds: to be written just before
    the deletion and at no other time. **A controller that is started with a node of ours that has
    it does not start at all** (2.541.3: ClassCastException in "Loading global config"), unless the
    node has no executors: then it makes no computer, and so never asks the strategy.
    """
    strategy = f'<retentionStrategy class="{_SINGLE_USE}"><idleMinutes>10</idleMinutes>'
    return _replaced(
        config_xml,
        {
            "numExecutors": "<numExecutors>0</numExecutors>",
            "retentionStrategy": f"{strategy}</retentionStrategy>",
        },
    )


def is_single_use(config_xml: str) -> bool:
    """True when the controller has kept what ``as_single_use`` wrote."""
    start = re.search(r"<retentionStrategy\s[^>]{0,512}>", config_xml)
    return start is not None and f'"{_SINGLE_USE}"' in start[0]


def _replaced(config_xml: str, wanted: Mapping[str, str]) -> str:
    """Replace direct children of the root, by tag; those that are missing are added."""
    children, end_of_root = _children(config_xml)
    edits = []
    for tag, new in wanted.items():
        element = children.get(tag)
        if element is None:
            edits.append((end_of_root, end_of_root, f"  {new}\n"))
        else:
            edits.append((element.start, element.end, new))
    result = config_xml
    for start, end, new in sorted(edits, reverse=True):
        result = result[:start] + new + result[end:]
    return result


def _children(config_xml: str) -> tuple[dict[str, _Element], int]:
    """Return the first direct child of the root by tag, and where the root's closing tag begins.

    Only direct children: a launcher or a property of a plugin may have a ``label`` of its own.
    """
    elements: dict[str, _Element] = {}
    open_tags: list[tuple[str, int, int]] = []
    for tag in _tags(config_xml):
        if tag.closes:
            if not open_tags or open_tags[-1][0] != tag.name:
                raise ValueError(f"{_NOT_ONE}: </{tag.name[:80]}> closes nothing")
            _, start, content = open_tags.pop()
            if not open_tags:
                return elements, tag.start
        elif tag.is_empty:
            start, content = tag.start, tag.start
        else:
            open_tags.append((tag.name, tag.start, tag.end))
            continue
        if len(open_tags) == 1:
            text = "" if tag.is_empty else config_xml[content : tag.start]
            elements.setdefault(tag.name, _Element(start=start, end=tag.end, content=text))
    raise ValueError(f"{_NOT_ONE}: no root element that is closed")


_NOT_ONE = "not a node's config.xml"


@frozen(kw_only=True)
class _Tag:
    name: str
    start: int
    end: int
    closes: bool
    is_empty: bool


def _tags(xml: str) -> Iterator[_Tag]:
    """Yield every tag; reads each character once. Raises ``ValueError`` for what never ends."""
    if len(xml) > _MAX_CONFIG:
        raise ValueError(
            f"{_NOT_ONE}: {counts.told(len(xml), 'character')}, {_MAX_CONFIG} are read"
        )
    at = number = 0
    while (start := xml.find("<", at)) >= 0:
        number += 1
        if number > _MAX_TAGS:
            raise ValueError(f"{_NOT_ONE}: more than {_MAX_TAGS} tags")
        closing = None
        if xml[start + 1 : start + 2] in {"!", "?"}:
            closing = next((c for o, c in _CLOSINGS if xml.startswith(o, start)), None)
        if closing is None:
            at = _end_of_tag(xml, start)
            closes = xml.startswith("</", start)
            inner = xml[start + 1 + closes : at - 1]
            is_empty = inner.endswith("/")
            name = _NAME_END.split(inner, maxsplit=1)[0]
            if not name:
                raise ValueError(f"{_NOT_ONE}: a tag without a name")
            yield _Tag(name=name, start=start, end=at, closes=closes, is_empty=is_empty)
            continue
        at = xml.find(closing, start)
        if at < 0:
            raise ValueError(f"{_NOT_ONE}: {xml[start : start + 9]} without {closing}")
        at += len(closing)


def _end_of_tag(xml: str, start: int) -> int:
    """Return where a tag ends; in quotes everything is text."""
    at = start + 1
    while (mark := _NO_TEXT.search(xml, at)) is not None:
        if mark[0] == ">":
            return mark.end()
        at = xml.find(mark[0], mark.end()) + 1
        if mark[0] == "<" or at == 0:
            break
    raise ValueError(f"{_NOT_ONE}: a tag that does not end")
