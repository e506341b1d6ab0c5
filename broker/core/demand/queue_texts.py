"""What the controller says of why an item waits, read.

Facts: ``hudson/model/Queue.java`` (``BuildableItem.getCauseOfBlockage``, 2.263 to master),
recordings ``queue/*``. The texts are English (``Accept-Language: en``). Pure; each text is read
once from its front. Refuses to know items, templates and what follows.
"""

import functools
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from broker.core.model import NodeName

_LABEL_TEXTS = (
    ("There are no nodes with the label ‘", "’"),
    ("All nodes of label ‘", "’ are offline"),
    ("’ doesn’t have label ‘", "’"),
)
"""What stands before and after a label."""
_BUSY = "Waiting for next available executor on ‘"
_OFFLINE = "’ is offline"
_PINNED = "Must run on "
_RESERVED = "’ is reserved for jobs with matching label expression"
_ANYWHERE = "Waiting for next available executor"
_ORDINARY = (
    ("Waiting for next available executor", ""),
    ("There are no nodes with the label ‘", "’"),
    ("All nodes of label ‘", "’ are offline"),
    ("Must run on ", ""),
    ("In the quiet period", ""),
    ("Finished waiting", ""),
    ("", "is about to shut down"),
)
_ENGLISH = tuple(begin for begin, _ in _ORDINARY if begin)
_ORDINARY_OF_A_NODE = (
    _OFFLINE,
    _RESERVED,
    "’ is not accepting tasks",
)
"""What the controller itself says of an item for which there is no free executor that fits."""


def label_or_node(why: str, names: AbstractSet[str]) -> tuple[str | None, NodeName | None]:
    """Return the label that the text names, or else the node; ``names`` are those of all nodes."""
    for before, after in _LABEL_TEXTS:
        label = _between(why, before, after)
        if label:
            return label, None
    busy = _between(why, _BUSY, "’")
    if busy:
        if busy in names:
            return None, NodeName(busy)
        return busy, None
    node = _offline_node(why) or pinned_node(why)
    return None, NodeName(node) if node else None


def has_no_label(why: str) -> bool:
    """Return whether the text says that the item has no label; not of every such item it does."""
    return _RESERVED in why


def waits_for_any(why: str) -> bool:
    """Return whether the item waits for an executor, and the text names at most its label."""
    return why.startswith(_ANYWHERE)


def is_english(why: str) -> bool:
    """Return whether a text begins as one of the controller's own, in English."""
    return why.startswith(_ENGLISH)


@functools.lru_cache(maxsize=2048)  # the same few texts at every look
def veto(why: str) -> str:
    """Return what speaks against a free executor that fits: a plugin's words, or a permission's.

    The controller lists its reasons (``CompositeCauseOfBlockage``, joined by "; ") only while an
    executor of the label is free and accepts tasks: what is none of its own is a refusal.
    """
    said = (part.strip() for part in _reasons(why))
    return "; ".join(part for part in said if part and not _is_ordinary(part))


def _reasons(why: str) -> Iterator[str]:
    """Yield the reasons of a composite text; what stands in the quotes of a name divides none."""
    begin = at = opening = closing = 0
    while (at := why.find("; ", at)) >= 0:
        opening = _next(why, "‘", at, opening)
        closing = _next(why, "’", at, closing)
        if closing < 0 or 0 <= opening < closing:
            yield why[begin:at]
            begin = at + 2
        at += 2
    yield why[begin:]


def _next(text: str, mark: str, at: int, known: int) -> int:
    """Return where a mark comes next, -1 for nowhere; ``known`` is the answer of an earlier place.

    Asked for one place after the other it reads each character once.
    """
    return known if known < 0 or known >= at > 0 else text.find(mark, at)


def _is_ordinary(reason: str) -> bool:
    if any(reason.startswith(begin) and _ends(reason, end) for begin, end in _ORDINARY):
        return True
    if not reason.startswith("‘"):
        return False
    if reason.endswith(_ORDINARY_OF_A_NODE):
        return True
    return _LABEL_TEXTS[2][0] in reason and _ends(reason.rpartition("‘")[2], "’")


def _ends(reason: str, end: str) -> bool:
    """Return whether a text ends so, or was too long to be read to its end."""
    return reason.endswith(end) or (end.startswith("’") and "’" not in reason)


def _between(text: str, before: str, after: str) -> str:
    """Return what stands between two texts, or an empty text. Reads each character once."""
    begin = text.find(before)
    if begin < 0:
        return ""
    begin += len(before)
    end = text.find(after, begin + 1)
    return text[begin:end] if end > begin else ""


def _offline_node(why: str) -> str:
    """Return the node that the text says is offline."""
    end = why.find(_OFFLINE)
    while end >= 0:
        begin = why.find("‘", why.rfind("’", 0, end) + 1, end)
        if 0 <= begin < end - 1:
            return why[begin + 1 : end]
        end = why.find(_OFFLINE, end + 1)
    return ""


def pinned_node(why: str) -> str:
    """Return the node of ``Must run on NODE not OTHER``."""
    begin = why.find(_PINNED)
    if begin < 0:
        return ""
    words = why[begin + len(_PINNED) :].split(" ", 3)
    return words[0] if len(words) > 2 and words[1] == "not" and words[2] else ""
