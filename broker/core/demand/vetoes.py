"""Vetoes: free executors that fit, and the controller gives an item to none of them.

A plugin or a permission stands in the way, and at best ``why`` tells. Rules: what is refused by
agents that have nothing to do, the next agent would refuse as well; that is learnt for a label and
a task, with how many builds of the task were running: so many may be (throttling). It is forgotten
when more of them run, or when none ran and one has left the queue. Till then one agent for all
that is refused of a label tries again from time to time: so neither is nothing ordered for ever,
nor one agent a minute. An agent that works and refuses says nothing of another one (a plugin may
allow one build of a kind on each node). Pure; refuses to know agents.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

import attrs

from broker.core import model
from broker.core.demand import queue_texts
from broker.core.demand import wishes as demand
from broker.core.model import ItemId, Veto, VetoKey

_RUN = re.compile(r"/\d+/?$")
_PLACEHOLDER = "PlaceholderTask"


def is_vetoed(wish: demand.Wish) -> bool:
    """Return whether the controller says that something speaks against executors that are free."""
    is_now = wish.kind is demand.WishKind.NOW and wish.unmet is None
    return is_now and bool(queue_texts.veto(wish.item.why))


def key_of(wish: demand.Wish) -> VetoKey:
    """Return what a veto is learnt for: the label, and the task without the number of its run."""
    item = wish.item
    label = wish.expression.canonical() if wish.expression is not None else wish.label.node or ""
    task = item.task_url or item.task_name
    if item.task_class.endswith(_PLACEHOLDER):  # it has its run's address
        task = _RUN.sub("", task)
    return VetoKey(label=label, task=task.rstrip("/"))


def running(view: model.ControllerView) -> Counter[str]:
    """Count the builds by their task: those at work, and those about to begin."""
    urls = [url for computer in view.computers for url in computer.executable_urls]
    urls += [item.task_url for item in view.items if item.stage is model.Stage.PENDING]
    return Counter(_task(url) for url in urls)


def _task(url: str) -> str:
    return _RUN.sub("", url).rstrip("/")


def seen(
    ledger: model.Ledger,
    wishes: Collection[demand.Wish],
    view: model.ControllerView,
    *,
    now: float,
) -> model.Ledger:
    """Note since when items are vetoed; forget what is over."""
    vetoed = {w.item.id: ledger.vetoed.get(w.item.id, now) for w in wishes if is_vetoed(w)}
    english = ledger.english or any(queue_texts.is_english(w.item.why) for w in wishes)
    vetoes = ledger.vetoes
    if vetoes:
        present, at_work = {wish.item.id for wish in wishes}, running(view)
        vetoes = {
            key: veto for key, veto in vetoes.items() if _holds(veto, present, at_work[key.task])
        }
    if (vetoed, vetoes, english) == (ledger.vetoed, ledger.vetoes, ledger.english):
        return ledger
    return attrs.evolve(ledger, vetoed=vetoed, vetoes=vetoes, english=english)


def _holds(veto: Veto, present: Collection[ItemId], at_work: int) -> bool:
    """Return whether nothing speaks against it yet."""
    if veto.running == 0:
        return at_work == 0 and veto.items <= set(present)
    return at_work <= veto.running and not veto.items.isdisjoint(present)


def learnt(
    ledger: model.Ledger,
    refused: Mapping[VetoKey, frozenset[ItemId]],
    at_work: Mapping[str, int],
    *,
    until_at: float,
) -> model.Ledger:
    """Remember that idle agents are not given these; ``at_work``: the builds, by their task."""
    if not refused:
        return ledger
    vetoes = {
        key: Veto(items=items, until_at=until_at, running=at_work.get(key.task, 0))
        for key, items in sorted(refused.items())
    }
    return attrs.evolve(ledger, vetoes={**ledger.vetoes, **vetoes})
