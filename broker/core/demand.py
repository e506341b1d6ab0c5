"""Who waits for what: queue items become wishes, with a label and the templates that serve it.

An item that nothing of ours can serve gets the reason instead.

The label of an item is read, best source first, from: a push hook; the quoted label in ``why``
(also what it said of this item in an earlier cycle: the label of an item never changes, but the
text hides it once a node of the label exists); ``labelExpression``; an earlier cycle; the single
node that the text names. Facts: ``hudson/model/Queue.java`` (``BuildableItem.getCauseOfBlockage``,
2.263 to master), recordings ``queue/*``. The texts are English (``Accept-Language: en``).

Only an item that is buildable and not pending is demand. Waiting ones (quiet period) are
announced, blocked ones come later, flyweights run on the controller itself. Pure; refuses to know
caps, agents' states and what follows from a wish.
"""

import enum
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs
from attrs import frozen

from broker.core import labels, model
from broker.core.model import (
    ItemId,
    KnownLabel,
    LabelSource,
    NodeName,
    QueueItem,
    Stage,
    Template,
    TemplateName,
    Unmet,
    WaitReason,
)

_LABEL_TEXTS = (
    re.compile(r"There are no nodes with the label ‘(?P<name>.+?)’"),
    re.compile(r"All nodes of label ‘(?P<name>.+?)’ are offline"),
    re.compile(r"‘[^’]+’ doesn’t have label ‘(?P<name>.+?)’"),
)
_BUSY = re.compile(r"Waiting for next available executor on ‘(?P<name>.+?)’")
_OFFLINE = re.compile(r"‘(?P<name>[^’]+)’ is offline")
_PINNED = re.compile(r"Must run on (?P<name>\S+) not \S+")
_RESERVED = re.compile(r"‘[^’]+’ is reserved for jobs with matching label expression")
_ANYWHERE = "Waiting for next available executor"
_REASONS = re.compile(r"; (?![^‘]*’)")  # not inside a name
_ORDINARY = re.compile(
    r"Waiting for next available executor.*|There are no nodes with the label ‘.+’"
    r"|All nodes of label ‘.+’ are offline|‘.+’ doesn’t have label ‘.+’|‘[^’]+’ is offline"
    r"|‘[^’]+’ is reserved for jobs with matching label expression|‘[^’]+’ is not accepting tasks"
    r"|Must run on \S+ not \S+|In the quiet period.*|Finished waiting|.*is about to shut down"
)
"""What the controller itself says of an item for which there is no free executor that fits."""
_BUILT_IN = frozenset({"master", "Built-In Node", "Jenkins"})
"""Display names of the controller's own node (renamed in 2.307)."""

_FLYWEIGHTS = (
    ".WorkflowJob",
    ".MatrixProject",
    ".WorkflowMultiBranchProject",
    ".OrganizationFolder",
    ".MultiJobProject",
    ".BuildFlow",
)
_MATRIX_CELL = ".MatrixConfiguration"
_MAX_ATOMS, _MAX_FLIPS = 12, 3


class Kind(enum.Enum):
    """Whether an item needs an agent."""

    NOW = "now"
    ANNOUNCED = "announced"  # in its quiet period
    LATER = "later"  # blocked: more agents do not help
    STARTED = "started"  # already given to an executor
    NOT_DEMAND = "not-demand"  # runs on the controller, without an executor


_KINDS: Mapping[Stage, Kind] = {
    Stage.WAITING: Kind.ANNOUNCED,
    Stage.BLOCKED: Kind.LATER,
    Stage.BUILDABLE: Kind.NOW,
    Stage.PENDING: Kind.STARTED,
}


@frozen(kw_only=True)
class Wish:
    """One item, read. ``unmet`` is set where no agent of ours would help."""

    item: QueueItem
    label: KnownLabel
    kind: Kind
    expression: labels.Expression | None = None  # None: no label, or not readable
    templates: tuple[TemplateName, ...] = ()  # in order of preference
    early: tuple[TemplateName, ...] = ()  # of these, who starts for an announced item
    pinned: NodeName | None = None  # exactly this agent of ours and no other
    unmet: Unmet | None = None


def wishes(
    view: model.ControllerView,
    templates: Sequence[Template],
    ledger: model.Ledger,
    our_nodes: Mapping[NodeName, TemplateName],
) -> tuple[tuple[Wish, ...], Mapping[ItemId, KnownLabel]]:
    """Read every item; return the wishes in the queue's order and the labels to remember."""
    reader = _Reader(
        view=view,
        templates=templates,
        our_nodes=our_nodes,
        names={c.name for c in view.computers} | set(our_nodes) | _BUILT_IN,
        foreign=[c for c in view.computers if c.name not in our_nodes],
        nearest={},
    )
    found = tuple(reader.wish(item, ledger) for item in view.items)
    known = {}
    for wish in found:
        if wish.label.expression is not None:
            # a text that was read once stays what it was, whatever it says later
            kept = ledger.labels.get(wish.item.id)
            is_kept = wish.label.source is LabelSource.REMEMBERED and kept is not None
            known[wish.item.id] = kept if is_kept and kept is not None else wish.label
    return found, known


def could_want(wish: Wish, agent_labels: AbstractSet[str], agent_exclusive: bool) -> bool | None:  # noqa: FBT001 -- two facts about an agent, always given together
    """Return whether the controller might give this item to an agent; None: not known.

    ``agent_labels`` holds the agent's own name, too.
    """
    if wish.kind in {Kind.STARTED, Kind.NOT_DEMAND}:
        return False
    if wish.pinned is not None:
        return wish.pinned in agent_labels
    match wish.label.source:
        case LabelSource.NO_LABEL:
            return not agent_exclusive
        case LabelSource.UNREADABLE:
            return None
        case LabelSource.SINGLE_NODE:
            return True if wish.label.node in agent_labels else None
        case _:
            return None if wish.expression is None else wish.expression.matches(agent_labels)


def veto(why: str) -> str:
    """Return what speaks against a free executor that fits: a plugin's words, or a permission's.

    The controller lists its reasons (``CompositeCauseOfBlockage``, joined by "; ") only while an
    executor of the label is free and accepts tasks: what is none of its own is a refusal.
    """
    said = (part.strip() for part in _REASONS.split(why))
    return "; ".join(part for part in said if part and _ORDINARY.fullmatch(part) is None)


def names_in(wishes: Iterable[Wish]) -> frozenset[str]:
    """Return every word by which a wish could tell one agent from another of its kind."""
    named: set[str] = set()
    for wish in wishes:
        named |= {name for name in (wish.pinned, wish.label.node) if name is not None}
        if wish.expression is not None:
            named |= wish.expression.atoms()
    return frozenset(named)


@frozen(kw_only=True)
class _Reader:
    """Everything that all items of one look share."""

    view: model.ControllerView
    templates: Sequence[Template]
    our_nodes: Mapping[NodeName, TemplateName]
    names: AbstractSet[str]  # of all nodes
    foreign: Sequence[model.Computer]
    nearest: dict[labels.Expression, str]  # many items want the same that nobody has

    def wish(self, item: QueueItem, ledger: model.Ledger) -> Wish:
        kind = _kind(item)
        label = self._label(item, ledger)
        if label.expression is None:
            expression, complaint = None, ""
        else:
            expression, complaint = _read(label.expression, item)
        pinned = self._pinned(item, expression)
        wish = Wish(
            item=item,
            label=label,
            kind=kind,
            expression=expression,
            templates=self._templates(label, expression, pinned),
            pinned=pinned,
        )
        if kind is Kind.ANNOUNCED:
            eager = {t.name for t in self.templates if t.start_early}
            wish = attrs.evolve(wish, early=tuple(n for n in wish.templates if n in eager))
        unmet = self._unmet(wish, complaint)
        return wish if unmet is None else attrs.evolve(wish, unmet=unmet)

    def _label(self, item: QueueItem, ledger: model.Ledger) -> KnownLabel:  # noqa: PLR0911 -- one source, one return: the order is the rule
        if item.id in ledger.hooks:
            pushed = ledger.hooks[item.id]
            source = LabelSource.NO_LABEL if pushed is None else LabelSource.HOOK
            return KnownLabel(source=source, expression=pushed)
        name, node = self._in_text(item.why)
        if name is not None:
            return KnownLabel(source=LabelSource.WHY, expression=name)
        kept = ledger.labels.get(item.id)
        if kept is not None and kept.source in {LabelSource.WHY, LabelSource.HOOK}:
            return attrs.evolve(kept, source=LabelSource.REMEMBERED)
        if item.label_expression is not None:
            return KnownLabel(source=LabelSource.EXPRESSION, expression=item.label_expression)
        if kept is not None:
            return attrs.evolve(kept, source=LabelSource.REMEMBERED)
        if node is not None:
            return KnownLabel(source=LabelSource.SINGLE_NODE, node=node)
        unlabelled = self._has_no_label(item)
        return KnownLabel(source=LabelSource.NO_LABEL if unlabelled else LabelSource.UNREADABLE)

    def _in_text(self, why: str) -> tuple[str | None, NodeName | None]:
        """Return the label that the text names, or else the node."""
        for pattern in _LABEL_TEXTS:
            found = pattern.search(why)
            if found is not None:
                return found["name"], None
        busy = _BUSY.search(why)
        if busy is not None:
            if busy["name"] in self.names:
                return None, NodeName(busy["name"])
            return busy["name"], None
        named = _OFFLINE.search(why) or _PINNED.search(why)
        return None, NodeName(named["name"]) if named is not None else None

    def _has_no_label(self, item: QueueItem) -> bool:
        if _RESERVED.search(item.why) is not None:
            return True
        if item.exports_label and not item.task_class.endswith(_MATRIX_CELL):
            return True
        if not item.why.startswith(_ANYWHERE):
            return False
        if any(computer.name not in _BUILT_IN for computer in self.view.computers):
            return True  # with a node at all, the text would name a label
        return not item.stuck  # a label that nobody serves is stuck from the start

    def _pinned(self, item: QueueItem, expression: labels.Expression | None) -> NodeName | None:
        found = _PINNED.search(item.why)
        if found is not None and found["name"] in self.our_nodes:
            return NodeName(found["name"])
        if expression is None or expression.op is not labels.Op.ATOM:
            return None
        name = NodeName(expression.name)
        return name if name in self.our_nodes else None

    def _templates(
        self, label: KnownLabel, expression: labels.Expression | None, pinned: NodeName | None
    ) -> tuple[TemplateName, ...]:
        node = pinned if pinned is not None else label.node
        if node is not None:
            wanted = self.our_nodes.get(node)
            return tuple(t.name for t in self.templates if t.name == wanted)
        if expression is not None:
            return tuple(t.name for t in self.templates if expression.matches(t.labels))
        if label.source is LabelSource.NO_LABEL:
            return tuple(t.name for t in self.templates if t.takes_unlabelled)
        return ()

    # --- why nothing can be done ---

    def _unmet(self, wish: Wish, complaint: str) -> Unmet | None:
        match wish.kind:
            case Kind.STARTED | Kind.NOT_DEMAND:
                return None
            case Kind.LATER:
                return _unmet(wish, WaitReason.BLOCKED, wish.item.why or "blocked")
            case Kind.ANNOUNCED:
                return _unmet(wish, WaitReason.QUIET_PERIOD, wish.item.why or "quiet period")
            case Kind.NOW:
                pass
        if self.view.quieting_down:
            return _unmet(
                wish, WaitReason.QUIETING_DOWN, "the controller gives out no work: quiet-down"
            )
        if wish.templates:
            return None
        return self._unserved(wish, complaint)

    def _unserved(self, wish: Wish, complaint: str) -> Unmet:
        expression, label = wish.expression, wish.label
        if expression is None:
            return self._unserved_without_label(wish)
        host = self._foreign(expression)
        if host is not None:
            return _unmet(
                wish, WaitReason.NOT_OURS, f"waits for node {host}, which is not the broker's"
            )
        if complaint:
            return _unmet(
                wish,
                WaitReason.BAD_LABEL,
                f"{label.expression!r} is no label expression ({complaint}): the controller "
                "takes it for one odd label, and no template has it",
            )
        if expression not in self.nearest:
            self.nearest[expression] = _nearest(expression, self.templates)
        return _unmet(wish, WaitReason.NO_TEMPLATE, self.nearest[expression])

    def _unserved_without_label(self, wish: Wish) -> Unmet:
        match wish.label.source:
            case LabelSource.NO_LABEL:
                return _unmet(
                    wish,
                    WaitReason.NO_TEMPLATE,
                    "it has no label, and no template takes items without one (takes_unlabelled)",
                )
            case LabelSource.SINGLE_NODE if wish.label.node in self.our_nodes:
                return _unmet(
                    wish,
                    WaitReason.NO_TEMPLATE,
                    f"waits for agent {wish.label.node}, whose template is no longer configured",
                )
            case LabelSource.SINGLE_NODE:
                return _unmet(
                    wish,
                    WaitReason.NOT_OURS,
                    f"waits for node {wish.label.node}, which is not the broker's",
                )
            case _:
                return _unmet(
                    wish,
                    WaitReason.LABEL_UNREADABLE,
                    f"its label cannot be read from {wish.item.why[:120]!r}; hint: a text of "
                    "the controller's own names it while the placeholder node is there and texts "
                    "are English; a plugin's words hide it",
                )

    def _foreign(self, expression: labels.Expression) -> NodeName | None:
        for computer in self.foreign:
            if expression.matches(computer.labels | {computer.name}):
                return computer.name
        return None


def _kind(item: QueueItem) -> Kind:
    if item.task_class.endswith(_FLYWEIGHTS):
        return Kind.NOT_DEMAND
    return _KINDS[item.stage]


def _read(text: str, item: QueueItem) -> tuple[labels.Expression, str]:
    """Parse a label as the controller does; a text that does not parse is one odd label.

    ``why`` shows a single label without its quotes, so what the job says decides what is meant.
    """
    typed = item.label_expression
    if typed is not None and typed != text:
        try:
            told = labels.parse(typed)
        except labels.LabelError:
            pass
        else:
            if told.op is labels.Op.ATOM and told.name == text:
                return told, ""
    try:
        return labels.parse(text), ""
    except labels.LabelError as error:
        return labels.atom(text), str(error)


def _unmet(wish: Wish, reason: WaitReason, text: str) -> Unmet:
    since = wish.item.buildable_since_at
    return Unmet(
        item=wish.item.id,
        reason=reason,
        text=text,
        template=next(iter(wish.templates), None),
        label=wish.label,
        since_at=since if since is not None else wish.item.in_queue_since_at,
    )


def _nearest(expression: labels.Expression, templates: Iterable[Template]) -> str:
    """Say which template comes nearest to an expression, and what would have to change."""
    text = f"no template serves '{expression.canonical()}'"
    best: tuple[int, str] | None = None
    for template in templates:
        flips = _flips(expression, template.labels)
        if flips is None:
            continue
        lacks = sorted(flips - template.labels)
        surplus = sorted(flips & template.labels)
        words = [f"lacks {', '.join(lacks)}"] if lacks else []
        words += [f"must not have {', '.join(surplus)}"] if surplus else []
        near = (len(flips), f"the nearest, {template.name}, {' and '.join(words)}")
        if best is None or near[0] < best[0]:
            best = near
    return text if best is None else f"{text}; {best[1]}"


def _flips(expression: labels.Expression, has: frozenset[str]) -> frozenset[str] | None:
    """Return the smallest set of labels to add or take away so that the expression matches."""
    atoms = sorted(expression.atoms())[:_MAX_ATOMS]
    for size in range(1, _MAX_FLIPS + 1):
        for chosen in itertools.combinations(atoms, size):
            if expression.matches(has ^ frozenset(chosen)):
                return frozenset(chosen)
    return None
