"""What builds on a node are told in their environment, in the node's ``config.xml``.

Pure. A property of the node holds it (``EnvironmentVariablesNodeProperty``), as XStream writes a
sorted map; variables of other people are left as they are. A build reads it when its executor, or
its ``node`` step, begins. Refuses to know HTTP and what the variables mean.

Facts: recording ``nodes/01-create``. On 2.516.3 and 2.541.3 a POST of ``config.xml`` with another
environment kept the connection of an agent that was connecting, idle or at work, and the builds on
it: some 620 posts on each while 300 builds began on it, none of which failed or was lost. 2.263.4
fails a build that begins in the very instant (measured with labels: 1 of 250).
"""

import html
import re
from collections.abc import Mapping

from jnlp import node
from outside import quotes

_PROPERTY = "hudson.slaves.EnvironmentVariablesNodeProperty"
_COMPARATOR = '<comparator class="hudson.util.CaseInsensitiveComparator"/>'
"""Of all versions: later ones write another class of the same order, and still read this one."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_VALUE = re.compile(r"[\x20-\x7e]{0,512}")
_STRING = re.compile(r"<string>([^<]*)</string>|<string/>")
_COUNT = re.compile(r"<int>(\d{1,6})</int>")
_ORDER = re.compile(r"<comparator\s[^<>]{1,256}/>")


def of(config_xml: str) -> Mapping[str, str]:
    """Return the variables of a node; raises ``ValueError`` for what cannot be read."""
    found, _ = _read(node.properties_of(config_xml))
    return {html.unescape(name): html.unescape(value) for name, value in found.items()}


def with_variables(config_xml: str, wanted: Mapping[str, str], *, ours: re.Pattern[str]) -> str:
    """Replace the variables whose names match ``ours``, leaving every other character as it is.

    Nothing changes if they are there already. Raises ``ValueError`` for a variable that is none,
    and for a text that is no ``config.xml``, or one whose variables cannot be read.
    """
    for name, value in wanted.items():
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value) and ours.fullmatch(name)):
            raise ValueError(f"{quotes.shown(name)} cannot be told to builds")
    there = of(config_xml)
    if wanted == {name: value for name, value in there.items() if ours.fullmatch(name)}:
        return config_xml
    content = node.properties_of(config_xml)
    raw, order = _read(content)
    kept = {name: value for name, value in raw.items() if not ours.fullmatch(html.unescape(name))}
    added = {name: html.escape(value, quote=False) for name, value in wanted.items()}
    start, end = _place(content)
    written = _written({**kept, **added}, order)
    return node.with_properties(config_xml, content[:start] + written + content[end:])


def _written(variables: Mapping[str, str], order: str) -> str:
    """Return the property as XStream reads it: in the map's own order, which it does not check."""
    if not variables:
        return ""
    strings = "".join(
        f"<string>{name}</string><string>{variables[name]}</string>"
        for name in sorted(variables, key=str.lower)
    )
    return (
        f'<{_PROPERTY}><envVars serialization="custom"><unserializable-parents/><tree-map>'
        f"<default>{order}</default><int>{len(variables)}</int>{strings}"
        f"</tree-map></envVars></{_PROPERTY}>"
    )


def _place(content: str) -> tuple[int, int]:
    """Return where the property is among the node's properties; an empty place if it is none."""
    start = content.find(f"<{_PROPERTY}")
    if start < 0:
        return len(content), len(content)
    closing = f"</{_PROPERTY}>"
    end = content.find(closing, start)
    if end < 0 or content.find(f"<{_PROPERTY}", start + 1) >= 0:
        raise ValueError("the environment of the node cannot be read")
    return start, end + len(closing)


def _read(content: str) -> tuple[dict[str, str], str]:
    """Return the variables as they are written, and the order that their map is said to have."""
    start, end = _place(content)
    told = content[start:end]
    if not told:
        return {}, _COMPARATOR
    order, count = _ORDER.search(told), _COUNT.search(told)
    texts = [found[1] or "" for found in _STRING.finditer(told)]
    if order is None or count is None or len(texts) != 2 * int(count[1]):
        raise ValueError("the environment of the node cannot be read")
    return dict(zip(texts[::2], texts[1::2], strict=True)), order[0]
