"""Clouds in a controller's ``config.xml``, in the words of Configuration as Code.

Read with expat alone: no document type, no entities but those of XML itself, with limits of depth
and number. Pure. Refuses to know what a cloud means.
"""

import codecs
import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

from attrs import define, field

from broker.importing.found import Cloud, Found, NotReadable
from outside import quotes

_MOST = 400_000  # elements; a controller with hundreds of templates has some ten thousand
_DEEPEST = 60
_HEAD = re.compile(r"\A\ufeff?\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(
    rb"""\A(?:\xef\xbb\xbf)?\s*<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z][\w.-]{0,40})["']"""
)
_CONTROL = re.compile(r"&#(x[0-9a-fA-F]{1,6}|[0-9]{1,7});")
_LAST_CONTROL = 0x20
_KINDS = {
    "org.csanchez.jenkins.plugins.kubernetes.KubernetesCloud": "kubernetes",
    "com.nirima.jenkins.plugins.docker.DockerCloud": "docker",
    "com.github.kostyasha.yad.DockerCloud": "yaDocker",
    "org.jenkinsci.plugins.docker.swarm.DockerSwarmCloud": "dockerSwarm",
    "org.jenkinsci.plugins.mesos.MesosCloud": "mesos",
}
_PLAIN = {
    "ContainerTemplate",
    "DockerSlaveTemplate",
    "DockerSwarmAgentTemplate",
    "DockerTemplate",
    "KeyValuePair",
    "MesosAgentSpecTemplate",
    "MesosSlaveInfo",
    "NetworkInfo",
    "Parameter",
    "PodAnnotation",
    "PodImagePullSecret",
    "PodLabel",
    "PodTemplate",
    "PortMapping",
    "URI",
    "Volume",
}
"""Classes of which a list has but one: their entries are not named by their kind."""
_SYMBOLS = {
    "DockerComputerAttachConnector": "attach",
    "DockerComputerIOLauncher": "io",
    "DockerComputerJNLPConnector": "jnlp",
    "DockerComputerJNLPLauncher": "jnlp",
    "DockerComputerSSHConnector": "ssh",
    "DockerComputerSSHLauncher": "ssh",
    "DynamicPVCVolume": "dynamicPVC",
    "DynamicPVCWorkspaceVolume": "dynamicPVC",
    "EnvironmentVariablesNodeProperty": "envVars",
    "GenericEphemeralWorkspaceVolume": "genericEphemeralVolume",
    "KeyValueEnvVar": "envVar",
    "ContainerEnvVar": "envVar",
    "PodEnvVar": "envVar",
    "ToolLocationNodeProperty": "toolLocation",
}
"""As Configuration as Code calls what a class is; others by their own name."""
_VALUES = {"string", "int", "long", "boolean", "double", "null"}


@define
class _XmlElement:
    name: str
    attributes: Mapping[str, str]
    children: list["_XmlElement"] = field(factory=list)
    text: list[str] = field(factory=list)


@define
class _XmlTree:
    """Makes a tree of what expat says; ends at what is odd."""

    stack: list[_XmlElement] = field(factory=lambda: [_XmlElement("", {})])
    count: int = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > _MOST or len(self.stack) > _DEEPEST:
            raise NotReadable(f"more than {_MOST} elements, or nested deeper than {_DEEPEST}")
        element = _XmlElement(name, attributes)
        self.stack[-1].children.append(element)
        self.stack.append(element)

    def end(self, _: str) -> None:
        self.stack.pop()

    def text(self, text: str) -> None:
        self.stack[-1].text.append(text)


def decoded(data: bytes) -> str:
    """Return the text of a file: in the encoding that XML declares, else UTF-8.

    Raises ``NotReadable``.
    """
    declared = _ENCODING.match(data)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        encoding = declared[1].decode("ascii") if declared else "utf-8-sig"
    if encoding.lower() in {"utf-8", "utf8"}:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except LookupError:
        raise NotReadable(f"its encoding is {quotes.shown(encoding)}; allowed: UTF-8") from None
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise NotReadable(f"not {name} text, at byte {error.start + 1}") from None
    except UnicodeError:
        raise NotReadable(f"not {encoding} text") from None


def read(text: str) -> Found:
    """Return the clouds of a file. Raises ``NotReadable``."""
    root = _parsed(text)
    found = Found()
    for element in _named(root, "clouds"):
        for child in element.children:
            value = _value(child)
            fields = value if isinstance(value, dict) else {}
            found.clouds.append(Cloud(_kind(child.name), fields))
    if root.name in _KINDS:  # a cloud alone
        value = _value(root)
        found.clouds.append(Cloud(_kind(root.name), value if isinstance(value, dict) else {}))
    return found


def _parsed(text: str) -> _XmlElement:
    builder = _XmlTree()
    parser = expat.ParserCreate(namespace_separator=None)

    def refused(*_: Any) -> int:
        raise NotReadable("it has a document type or entities of its own, which are not read")

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refused
    parser.ExternalEntityRefHandler = refused
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:  # the controller writes XML 1.1, which expat refuses to read
        parser.Parse(_CONTROL.sub(_shown, _HEAD.sub("", text)).encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        words = expat.ErrorString(error.code)
        raise NotReadable(f"line {error.lineno}: not XML: {words}") from None
    return builder.stack[0].children[0]


def _shown(reference: re.Match[str]) -> str:
    """Return a reference, but for control characters, which only XML 1.1 has."""
    code = int(reference[1][1:], 16) if reference[1][0] == "x" else int(reference[1])
    return (
        "\N{REPLACEMENT CHARACTER}"
        if code < _LAST_CONTROL and code not in {9, 10, 13}
        else (reference[0])
    )


def _named(element: _XmlElement, name: str) -> list[_XmlElement]:
    """Return the elements of that name directly below the top."""
    return [child for child in element.children if child.name == name]


def _kind(name: str) -> str:
    return _KINDS.get(name, _short(name))


def _short(name: str) -> str:
    """Return a class's own name: of a.b.Outer_-Inner it is Inner."""
    return re.split(r"[.$]|_-", name)[-1]


def _symbol(name: str) -> str:
    short = _short(name)
    return _SYMBOLS.get(short, short[:1].lower() + short[1:])


def _value(element: _XmlElement) -> Any:
    """Return what an element holds: a text, a list, a section, or one of a kind."""
    value = _content(element)
    kind = element.attributes.get("class", "")
    if "." in kind and not kind.startswith(("java.", "hudson.util.", "sorted-")):
        return {_symbol(kind): value if isinstance(value, dict) else {}}
    return value


def _content(element: _XmlElement) -> Any:
    if _symbol(element.name) == "envVars" and "." in element.name:
        return {"env": _variables(element)}
    children = [child for child in element.children if "defined-in" not in child.attributes]
    if not children:
        return "".join(element.text).strip()
    names = [child.name for child in children]
    if all(name in _VALUES or "." in name for name in names) or (
        len(names) > 1 and len(set(names)) == 1
    ):
        return [_entry(child) for child in children]
    section: dict[str, Any] = {}
    for child in children:
        section.setdefault(child.name, _value(child))
    return section


def _entry(element: _XmlElement) -> Any:
    """Return an entry of a list, named by its kind where the list may have several."""
    value = _value(element)
    if element.name in _VALUES or "." not in element.name or _short(element.name) in _PLAIN:
        return value
    return {_symbol(element.name): value if isinstance(value, dict | list) else {}}


def _variables(element: _XmlElement) -> list[dict[str, str]]:
    """Return the variables of a node's properties, which are kept as a sorted map."""
    texts: list[str] = []
    waiting = list(element.children)
    while waiting:
        one = waiting.pop(0)
        if one.name == "string":
            texts.append("".join(one.text))
        waiting = one.children + waiting
    return [
        {"key": key, "value": value} for key, value in zip(texts[::2], texts[1::2], strict=False)
    ]
