"""The controller's words: why an item does not run, in English and in German.

Texts and cases as in ``BuildableItem.getCauseOfBlockage`` (``hudson/model/Queue.java``), checked
against the recordings ``queue/*``. Pure; refuses to know HTTP.
"""

from collections.abc import Mapping
from typing import Literal

from broker.simulator import simulation
from broker.simulator.simulation import ItemClass

Language = Literal["en", "de"]

_TEXTS: Mapping[str, tuple[str, str]] = {
    "shutdown": ("Jenkins is about to shut down", "Jenkins fährt gerade herunter"),
    "executor": (
        "Waiting for next available executor",
        "Warte auf den nächsten freien Build-Prozessor",
    ),
    "executor-on": (
        "Waiting for next available executor on ‘{0}’",
        "Warte auf den nächsten freien Build-Prozessor auf {0}",
    ),
    "no-nodes": (
        "There are no nodes with the label ‘{0}’",
        "Es gibt keine Knoten mit dem Label „{0}“",
    ),
    "all-offline": (
        "All nodes of label ‘{0}’ are offline",
        "Alle Knoten des Labels „{0}“ sind offline",
    ),
    "offline": ("‘{0}’ is offline", "{0} ist offline"),
    "no-label": ("‘{0}’ doesn’t have label ‘{1}’", "„{0}“ hat nicht das Label „{1}“"),
    "quiet": ("In the quiet period. Expires in {0}", "In Ruhe-Periode. Endet in {0}"),
    "finished": ("Finished waiting", "Ruhe-Periode abgeschlossen"),
    "blocked": (
        "Build #{0} is already in progress (ETA: N/A)",
        "Build #{0} ist bereits in Arbeit (ETA: nicht verfügbar)",
    ),
}


def why(
    sim: simulation.Simulation, item: simulation.Item, *, now: float, language: Language
) -> str | None:
    """Return the text of an item at ``now``; None for one that has left."""
    match item.stage:
        case ItemClass.LEFT:
            return None
        case ItemClass.WAITING:
            left = item.quiet_until - now
            if left <= 0:
                return _say("finished", language)
            return _say("quiet", language, _span(left, language))
        case ItemClass.BLOCKED:
            return _say("blocked", language, str(item.blocked_by))
        case ItemClass.BUILDABLE | ItemClass.PENDING:
            return _buildable(sim, item, language)


def is_stuck(sim: simulation.Simulation, item: simulation.Item) -> bool:
    """Return whether an item is buildable and its label has no online node."""
    if item.stage not in {ItemClass.BUILDABLE, ItemClass.PENDING} or label_name(item) is None:
        return False
    return not any(node.online and node.slots for node in _matching(sim, item))


def label_name(item: simulation.Item) -> str | None:
    """Return the label's canonical name: a single label stands without its quotes."""
    if item.pinned is not None:
        return item.pinned
    return item.wanted.name if item.wanted is not None else None


def _matching(sim: simulation.Simulation, item: simulation.Item) -> list[simulation.Node]:
    return [n for n in sim.all_nodes() if n.slots and item.fits(n)]


def _buildable(  # noqa: PLR0911 -- one situation, one return
    sim: simulation.Simulation, item: simulation.Item, language: Language
) -> str:
    if sim.quieting_down:
        return _say("shutdown", language)
    label = label_name(item)
    if label is None:
        return _say("executor", language)
    matching = _matching(sim, item)
    if not sim.nodes:
        if sim.built_in.slots and not matching:
            return _say("no-label", language, "Jenkins", label)
        return _say("executor", language)
    if not matching:
        return _say("no-nodes", language, label)
    online = [node for node in matching if node.online]
    if not online:
        if len(matching) == 1:
            return _say("offline", language, matching[0].name)
        return _say("all-offline", language, label)
    return _say("executor-on", language, matching[0].name if len(matching) == 1 else label)


def _say(key: str, language: Language, *words: str) -> str:
    english, german = _TEXTS[key]
    return (german if language == "de" else english).format(*words)


def _span(seconds: float, language: Language) -> str:
    """Return a time span in the controller's way: ``1 min 56 sec``, ``3.9 sec``."""
    minute, second = ("Minute", "Sekunden") if language == "de" else ("min", "sec")
    if seconds >= 60:
        return f"{int(seconds // 60)} {minute} {int(seconds % 60)} {second}"
    if seconds >= 10:
        return f"{int(seconds)} {second}"
    return f"{int(seconds * 10) / 10:g} {second}"
