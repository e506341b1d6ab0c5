"""Who waits for what: queue items become wishes, with a label and the templates that serve it.

An item that nothing of ours can serve gets the reason instead.

The label of an item is read, best source first, from: a push hook; the quoted label in ``why``
(also what it said of this item in an earlier cycle: the label of an item never changes, but the
text hides it once a node of the label exists); ``labelExpression``; an earlier cycle; the single
node that the text names (``queue_texts``).

Only an item that is buildable and not pending is demand. Waiting ones (quiet period) are
announced, blocked ones come later, flyweights run on the controller itself. Pure; refuses to know
caps, agents' states and what follows from a wish.
"""

import enum
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs
from attrs import Factory, define, field, frozen

from broker.core import model
from broker.core.demand import jobs, labels, nearest, parameters, queue_texts
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
from outside import quotes
from outside import text as outside_text

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
LOOK_LABELS = 16384
"""Labels in all the different expressions that one look reads, the short ones first."""
_NEAREST = 32  # of those that nobody serves, so many are told who comes nearest, ...
_NEAREST_SIZE = 24  # ... and only if they name no more labels than this
_BARRED = 3  # templates that are told of, which are for other jobs
_TEXT = 1024  # characters of a reason
_QUOTED = 200  # characters of an expression in a reason


class WishKind(enum.Enum):
    """Whether an item needs an agent."""

    NOW = "now"
    ANNOUNCED = "announced"  # in its quiet period
    LATER = "later"  # blocked: more agents do not help
    STARTED = "started"  # already given to an executor
    NOT_DEMAND = "not-demand"  # runs on the controller, without an executor

    __hash__ = object.__hash__  # as of ``Phase``


_KINDS: Mapping[Stage, WishKind] = {
    Stage.WAITING: WishKind.ANNOUNCED,
    Stage.BLOCKED: WishKind.LATER,
    Stage.BUILDABLE: WishKind.NOW,
    Stage.PENDING: WishKind.STARTED,
}


_NOBODY: frozenset[TemplateName] = frozenset()
_NOBODYS = frozenset({WishKind.STARTED, WishKind.NOT_DEMAND})
"""Kinds of wishes that no agent serves any more, or ever."""


def _crowd_of(wish: "Wish") -> Hashable:
    canonical = wish.expression.canonical() if wish.expression is not None else None
    label = wish.label
    return (
        canonical,
        label.source,
        label.node,
        wish.pinned,
        wish.templates,
        wish.early,
        wish.kind,
        wish.barred,
        wish.variants,
    )


@frozen
class Wish:
    """One item, read. ``unmet`` is set where no agent of ours would help."""

    item: QueueItem
    label: KnownLabel
    kind: WishKind
    expression: labels.Expression | None = None  # None: no label, or not readable
    templates: tuple[TemplateName, ...] = ()  # in order of preference
    early: tuple[TemplateName, ...] = ()  # of these, who starts for an announced item
    pinned: NodeName | None = None  # exactly this agent of ours and no other
    unmet: Unmet | None = None
    barred: frozenset[TemplateName] = frozenset()  # templates that are not for its job
    variants: tuple[tuple[TemplateName, frozenset[str]], ...] = ()  # what it asks of which of them
    crowd: Hashable = field(  # wishes of one look that want exactly the same have the same
        eq=False, repr=False, default=Factory(_crowd_of, takes_self=True)
    )


def asked_of(wish: Wish, template: TemplateName | None) -> frozenset[str]:
    """Return which labels beside its own an agent of a template needs to serve a wish."""
    return next((asked for name, asked in wish.variants if name == template), parameters.NONE)


def pinned_to(wish: Wish, name: NodeName) -> Wish:
    """Return a wish that only this agent of ours can serve."""
    return attrs.evolve(wish, pinned=name, crowd=(wish.crowd, name))


def crowds(wishes: Iterable[Wish]) -> dict[Hashable, list[Wish]]:
    """Gather those that want exactly the same, in their order."""
    by_crowd: dict[Hashable, list[Wish]] = {}
    for wish in wishes:
        crowd = by_crowd.get(wish.crowd)
        if crowd is None:
            by_crowd[wish.crowd] = [wish]
        else:
            crowd.append(wish)
    return by_crowd


def by_name(wishes: Iterable[Wish]) -> dict[NodeName, list[Wish]]:
    """Gather the wishes that speak of one node, by its name, in their order."""
    speaking: dict[NodeName, list[Wish]] = {}
    for wish in wishes:
        for name in {wish.pinned, wish.label.node}:
            if name is not None:
                speaking.setdefault(name, []).append(wish)
    return speaking


def wishes(
    view: model.ControllerView,
    templates: Sequence[Template],
    ledger: model.Ledger,
    our_nodes: Mapping[NodeName, TemplateName],
) -> tuple[tuple[Wish, ...], Mapping[ItemId, KnownLabel]]:
    """Read every item; return the wishes in the queue's order and the labels to remember.

    Costs no more than ``LOOK_LABELS`` allow, whatever waits: an expression beyond that is not read
    in this look, and its item is told so. The same expression is read once.
    """
    if not view.items:
        return (), {}
    names = {c.name for c in view.computers} | our_nodes.keys() | _BUILT_IN
    restricted = jobs.restrictions(templates)
    read, alike = _gathered(
        view, ledger, names, _free_node(view, our_nodes) if ledger.english else None, restricted
    )
    reader = _WishReader(
        view=view,
        templates=templates,
        kinds=tuple((t.name, t.labels) for t in templates),
        our_nodes=our_nodes,
        english=ledger.english,
        grammar=labels.Grammar.of(view.version),
        foreign=_Foreign.of(c for c in view.computers if c.name not in our_nodes),
        unread=_beyond(one.label.expression for one in alike if one.label.expression is not None),
    )
    all_wishes: list[Wish] = []
    labels_read = {}
    for item, one in zip(view.items, read, strict=True):
        if one.first is None:
            one.first = wish = reader.wish(item, one.label, one.barred)
        else:
            wish = _alike(one.first, item)
        all_wishes.append(wish)
        if one.kept.expression is not None:
            labels_read[item.id] = one.kept
    return tuple(all_wishes), labels_read


@define(kw_only=True, eq=False)
class _Alike:
    """Items of one look that nothing tells apart but their ids and times."""

    label: KnownLabel
    kept: KnownLabel  # what is remembered: a text that was read once stays what it was
    barred: frozenset[TemplateName]
    first: Wish | None = None  # the wish of the first of them


def _gathered(
    view: model.ControllerView,
    ledger: model.Ledger,
    names: AbstractSet[str],
    free: NodeName | None,
    restricted: tuple[jobs.Restriction, ...],
) -> tuple[list[_Alike], list[_Alike]]:
    """Read the label of every item, once of those that are alike; return one for each, and all."""
    by_key: dict[Hashable, _Alike] = {}
    read = []
    hooks, labels_ = ledger.hooks, ledger.labels
    for item in view.items:
        kept = labels_.get(item.id)
        pushed = (hooks[item.id],) if item.id in hooks else None
        barred = jobs.barred(item.task_url, restricted) if restricted else _NOBODY
        key = (
            item.why,
            item.label_expression,
            item.exports_label,
            item.task_class,
            item.stage,
            item.stuck,
            pushed,
            id(kept),  # it lives as long as the ledger does
            barred,
            bool(barred) and jobs.name_of(item.task_url),  # it is told in the reason
        )
        alike = by_key.get(key)
        if alike is None:
            label = _label_of(item, view, ledger, names, free)
            is_old = kept is not None and label.source is LabelSource.REMEMBERED
            alike = _Alike(
                label=label,
                kept=kept if is_old and kept is not None else label,
                barred=barred,
            )
            by_key[key] = alike
        read.append(alike)
    return read, list(by_key.values())


def could_want(wish: Wish, agent_labels: AbstractSet[str], agent_exclusive: bool) -> bool | None:  # noqa: FBT001 -- two facts about an agent, always given together
    """Return whether the controller might give this item to an agent; None: not known.

    ``agent_labels`` holds the agent's own name, too.
    """
    if wish.kind in _NOBODYS:
        return False
    if wish.pinned is not None:
        return wish.pinned in agent_labels
    if wish.expression is not None:
        return wish.expression.matches(agent_labels)
    match wish.label.source:
        case LabelSource.NO_LABEL:
            return not agent_exclusive
        case LabelSource.SINGLE_NODE:
            return True if wish.label.node in agent_labels else None
        case _:
            return None


def names_in(wishes: Iterable[Wish]) -> frozenset[str]:
    """Return every word by which a wish could tell one agent from another of its kind."""
    named: set[str] = set()
    done: set[Hashable] = set()
    for wish in wishes:
        if wish.crowd in done:
            continue
        done.add(wish.crowd)
        named |= {name for name in (wish.pinned, wish.label.node) if name is not None}
        if wish.expression is not None:
            named |= wish.expression.atoms()
    return frozenset(named)


def _beyond(expressions: Iterable[str]) -> frozenset[str]:
    """Return which expressions this look has no time for: the longest of the different ones."""
    different = dict.fromkeys(expressions)
    left = LOOK_LABELS
    sized = sorted(different, key=labels.size)  # stable: of the same length the first ones
    for number, text in enumerate(sized):
        left -= labels.size(text)
        if left < 0:
            return frozenset(sized[number:])
    return frozenset()


def _label_of(  # noqa: PLR0911 -- one source, one return: the order is the rule
    item: QueueItem,
    view: model.ControllerView,
    ledger: model.Ledger,
    names: AbstractSet[str],
    free: NodeName | None,
) -> KnownLabel:
    if item.id in ledger.hooks:
        pushed = ledger.hooks[item.id]
        source = LabelSource.NO_LABEL if pushed is None else LabelSource.HOOK
        return KnownLabel(source=source, expression=pushed)
    name, node = queue_texts.label_or_node(item.why, names)
    if name is not None:
        return KnownLabel(source=LabelSource.WHY, expression=name)
    kept = ledger.labels.get(item.id)
    if kept is not None and kept.source in {LabelSource.WHY, LabelSource.HOOK}:
        return attrs.evolve(kept, source=LabelSource.REMEMBERED)
    if item.label_expression is not None:
        return KnownLabel(source=LabelSource.EXPRESSION, expression=item.label_expression)
    if kept is not None:
        return attrs.evolve(kept, source=LabelSource.REMEMBERED)
    if node is None and item.stage is Stage.BUILDABLE and queue_texts.veto(item.why):
        node = free
    if node is not None:
        return KnownLabel(source=LabelSource.SINGLE_NODE, node=node)
    unlabelled = _has_no_label(item, view)
    return KnownLabel(source=LabelSource.NO_LABEL if unlabelled else LabelSource.UNREADABLE)


def _free_node(
    view: model.ControllerView, our_nodes: Mapping[NodeName, TemplateName]
) -> NodeName | None:
    """Return one of our nodes that are free, if these are all of one template and no other is.

    The controller names a veto only while an executor of the item's label is free: it is one of
    these, and a plugin's words alone tell no label.
    """
    free = [
        computer.name
        for computer in view.computers
        if not computer.offline and computer.busy_executors < computer.executors
    ]
    templates = {our_nodes.get(name) for name in free}
    return min(free) if len(templates) == 1 and None not in templates else None


def _has_no_label(item: QueueItem, view: model.ControllerView) -> bool:
    if queue_texts.has_no_label(item.why):
        return True
    if item.exports_label and not item.task_class.endswith(_MATRIX_CELL):
        return True
    if not queue_texts.waits_for_any(item.why):
        return False
    if any(computer.name not in _BUILT_IN for computer in view.computers):
        return True  # with a node at all, the text would name a label
    return not item.stuck  # a label that nobody serves is stuck from the start


@frozen(kw_only=True)
class _Foreign:
    """The computers that are not ours: those that an expression cannot tell apart are one."""

    kinds: Mapping[frozenset[str], NodeName]  # labels without the own name -> the first such
    by_name: Mapping[str, model.Computer]

    @classmethod
    def of(cls, computers: Iterable[model.Computer]) -> "_Foreign":
        by_name = {computer.name: computer for computer in computers}
        kinds: dict[frozenset[str], NodeName] = {}
        for name, computer in by_name.items():
            kinds.setdefault(computer.labels - {name}, name)
        return cls(kinds=kinds, by_name={str(name): c for name, c in by_name.items()})

    def host(self, expression: labels.Expression) -> NodeName | None:
        """Return one that an expression asks for."""
        for name in sorted(expression.atoms() & self.by_name.keys()):
            computer = self.by_name[name]
            if expression.matches(computer.labels | {name}):
                return computer.name
        return next((n for kind, n in self.kinds.items() if expression.matches(kind)), None)


@frozen
class _Serving:
    """The templates that serve a label, what it asks of them, and what else it may not ask."""

    templates: tuple[TemplateName, ...] = ()
    variants: tuple[tuple[TemplateName, frozenset[str]], ...] = ()
    complaint: str = ""


@frozen(kw_only=True)
class _WishReader:
    """Everything that all items of one look share."""

    view: model.ControllerView
    templates: Sequence[Template]
    kinds: tuple[tuple[TemplateName, frozenset[str]], ...]  # names and labels of the templates
    our_nodes: Mapping[NodeName, TemplateName]
    foreign: _Foreign
    unread: AbstractSet[str]  # expressions that this look has no time for
    english: bool  # what is not understood is not another language
    grammar: labels.Grammar  # of the controller's version
    # many items want the same: by the canonical text of an expression
    serving: dict[str, _Serving] = Factory(dict)
    hosts: dict[str, NodeName | None] = Factory(dict)
    nearest: dict[str, str] = Factory(dict)
    crowds: dict[Hashable, int] = Factory(dict)

    def wish(
        self, item: QueueItem, label: KnownLabel, barred: frozenset[TemplateName] = _NOBODY
    ) -> Wish:
        """Return what an item wants whose label is known, of templates that are for its job."""
        kind = _kind(item)
        expression, complaint = self._expression(item, label)
        pinned = self._pinned(item, expression)
        offers = self._serving(label, expression, pinned)
        serving = offers.templates
        barred = barred.intersection(serving) if pinned is None else _NOBODY  # it goes on there
        wish = Wish(
            item=item,
            label=label,
            kind=kind,
            expression=expression,
            templates=tuple(n for n in serving if n not in barred) if barred else serving,
            pinned=pinned,
            barred=barred,
            variants=offers.variants,
        )
        if kind is WishKind.ANNOUNCED:
            eager = {t.name for t in self.templates if t.start_early}
            wish = attrs.evolve(wish, early=tuple(n for n in wish.templates if n in eager))
        crowd = self.crowds.setdefault(_crowd_of(wish), len(self.crowds))
        others = serving if not wish.templates else ()
        unmet = self._unmet(wish, complaint, others, offers.complaint)
        return attrs.evolve(wish, unmet=unmet, crowd=crowd)

    def _expression(
        self, item: QueueItem, label: KnownLabel
    ) -> tuple[labels.Expression | None, str]:
        """Return what a label means, if that is known, and what is wrong with it."""
        text = label.expression
        if text is None:
            return None, ""
        if text in self.unread:
            return None, (
                "too many different label expressions wait at once; this one is read when "
                f"others have gone, the short ones first ({LOOK_LABELS} labels at a time)"
            )
        return _read(text, item, self.grammar)

    def _pinned(self, item: QueueItem, expression: labels.Expression | None) -> NodeName | None:
        node = queue_texts.pinned_node(item.why)
        if node and node in self.our_nodes:
            return NodeName(node)
        if expression is None or expression.op is not labels.Op.ATOM:
            return None
        name = NodeName(expression.name)
        return name if name in self.our_nodes else None

    def _serving(
        self, label: KnownLabel, expression: labels.Expression | None, pinned: NodeName | None
    ) -> _Serving:
        node = pinned if pinned is not None else label.node
        if node is not None:
            return self._like(node, is_pinned=pinned is not None)
        if expression is not None:
            text = expression.canonical()
            if text not in self.serving:
                self.serving[text] = self._offers(expression)
            return self.serving[text]
        if label.source is LabelSource.NO_LABEL:
            return _Serving(tuple(t.name for t in self.templates if t.takes_unlabelled))
        return _Serving()

    def _like(self, node: NodeName, *, is_pinned: bool) -> _Serving:
        """Return the template of an agent, and the variant that the agent is.

        Who is pinned to it is ordered no other.
        """
        wanted = self.our_nodes.get(node)
        template = next((t for t in self.templates if t.name == wanted), None)
        if template is None:
            return _Serving()
        kinds = (c.kind for c in self.view.computers if c.name == node)
        asked = parameters.of_agent(frozenset[str]().union(*kinds), template)
        if asked.complaint and not is_pinned:
            return _Serving(complaint=f"{asked.complaint}; agent {node} has it")
        return _Serving((template.name,), ((template.name, asked.labels),) * bool(asked.labels))

    def _offers(self, expression: labels.Expression) -> _Serving:
        names, variants, complaint = [], [], ""
        for template in self.templates:
            asked = parameters.asked(expression, template)
            if asked is None:
                continue
            if asked.complaint:
                complaint = complaint or asked.complaint
                continue
            names.append(template.name)
            if asked.labels:
                variants.append((template.name, asked.labels))
        return _Serving(tuple(names), tuple(variants), complaint)

    # --- why nothing can be done ---

    def _unmet(
        self, wish: Wish, complaint: str, barred: Sequence[TemplateName], refused: str
    ) -> Unmet | None:
        match wish.kind:
            case WishKind.STARTED | WishKind.NOT_DEMAND:
                return None
            case WishKind.LATER:
                return _unmet(wish, WaitReason.BLOCKED, wish.item.why or "blocked")
            case WishKind.ANNOUNCED:
                return _unmet(wish, WaitReason.QUIET_PERIOD, wish.item.why or "quiet period")
            case WishKind.NOW:
                pass
        if self.view.quieting_down:
            return _unmet(
                wish, WaitReason.QUIETING_DOWN, "the controller gives out no work: quiet-down"
            )
        return None if wish.templates else self._refused(wish, complaint, barred, refused)

    def _refused(
        self, wish: Wish, complaint: str, barred: Sequence[TemplateName], refused: str
    ) -> Unmet:
        """Say why no template serves an item: those that could, but for something, come first."""
        if barred:
            return self._not_for_job(wish, barred)
        if refused:
            return _unmet(wish, WaitReason.PARAMETER, refused)
        return self._unserved(wish, complaint)

    def _not_for_job(self, wish: Wish, barred: Sequence[TemplateName]) -> Unmet:
        """Say that templates would serve its label, and are not for its job."""
        job = jobs.name_of(wish.item.task_url)
        by_name = {template.name: template for template in self.templates}
        said = "; ".join(f"{n} is {jobs.words(by_name[n])}" for n in barred[:_BARRED])
        if not job:
            return _unmet(
                wish,
                WaitReason.JOB_UNREADABLE,
                f"the controller does not tell whose job it is, and template {said}; hint: "
                "Pipeline's plugin tells it from 2.38 on (workflow-durable-task-step)",
            )
        return _unmet(
            wish,
            WaitReason.NOT_FOR_JOB,
            f"it is of job {outside_text.clean(job, _QUOTED)}, and template {said}",
        )

    def _unserved(self, wish: Wish, complaint: str) -> Unmet:
        expression, label = wish.expression, wish.label
        if expression is None and complaint:
            return _unmet(
                wish,
                WaitReason.BAD_LABEL,
                f"its label expression {_short(label.expression)} is not read: {complaint}",
            )
        if expression is None:
            return self._unserved_without_label(wish)
        text = expression.canonical()
        if text not in self.hosts:
            self.hosts[text] = self.foreign.host(expression)
        host = self.hosts[text]
        if host is not None:
            return _unmet(
                wish, WaitReason.NOT_OURS, f"waits for node {host}, which is not the broker's"
            )
        if complaint:
            return _unmet(
                wish,
                WaitReason.BAD_LABEL,
                f"{_short(label.expression)} is not a label expression ({complaint}): the "
                "controller takes it for one odd label, and no template has it",
            )
        return _unmet(wish, WaitReason.NO_TEMPLATE, self._nobody(text))

    def _nobody(self, text: str) -> str:
        """Say that nobody serves an expression, and who comes nearest where that is cheap."""
        if text not in self.nearest:
            said = f"no template serves {quotes.shown(text, _QUOTED)}"
            cheap = labels.size(text) <= _NEAREST_SIZE and len(text) <= _TEXT
            if cheap and len(self.nearest) < _NEAREST:
                said += nearest.template(text, self.kinds)
            self.nearest[text] = said
        return self.nearest[text]

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
            case _ if self.english and queue_texts.veto(wish.item.why):
                return _unmet(
                    wish,
                    WaitReason.NOT_GIVEN,
                    "free executors fit, and the controller gives it none: "
                    f"{queue_texts.veto(wish.item.why)[:_QUOTED]}",
                )
            case _:
                return _unmet(
                    wish,
                    WaitReason.LABEL_UNREADABLE,
                    f"its label cannot be read from {quotes.shown(wish.item.why, 120)}; hint: "
                    "a text of the controller's own names it while the placeholder node is there "
                    "and texts are English; a plugin's words hide it",
                )


def _alike(first: Wish, item: QueueItem) -> Wish:
    """Return the wish of an item that nothing tells from the first but its id and times."""
    unmet = first.unmet
    return Wish(
        item,
        first.label,
        first.kind,
        first.expression,
        first.templates,
        first.early,
        first.pinned,
        _of_another(unmet, item) if unmet is not None else None,
        first.barred,
        first.variants,
        first.crowd,
    )


def _kind(item: QueueItem) -> WishKind:
    if item.task_class.endswith(_FLYWEIGHTS):
        return WishKind.NOT_DEMAND
    return _KINDS[item.stage]


def _read(
    text: str, item: QueueItem, grammar: labels.Grammar
) -> tuple[labels.Expression | None, str]:
    """Parse a label as the controller does; a text that does not parse is one odd label.

    ``why`` shows a single label without its quotes, so what the job says decides what is meant.
    It shows an expression without its blanks, also where the controller itself could not read
    that again.
    """
    typed = item.label_expression
    if typed != text and grammar is labels.Grammar.GREEDY_DASH:
        grammar = labels.Grammar.ASCII
    if typed is not None and typed != text and labels.is_quoted(typed):
        try:
            meant = labels.parse(typed)
        except labels.LabelError:
            pass
        else:
            if meant.op is labels.Op.ATOM and meant.name == text:
                return meant, ""
    try:
        return labels.parse(text, grammar), ""
    except labels.TooLong as error:
        return None, str(error)  # it may be a good one, and then no label of this name is meant
    except labels.LabelError as error:
        return labels.atom(text), str(error)


def _since(item: QueueItem) -> float:
    since = item.buildable_since_at
    return since if since is not None else item.in_queue_since_at


def _of_another(unmet: Unmet, item: QueueItem) -> Unmet:
    """Return the same of another item that wants the same."""
    return Unmet(
        item=item.id,
        reason=unmet.reason,
        text=unmet.text,
        template=unmet.template,
        agent=unmet.agent,
        label=unmet.label,
        since_at=_since(item),
    )


def _unmet(wish: Wish, reason: WaitReason, text: str) -> Unmet:
    return Unmet(
        item=wish.item.id,
        reason=reason,
        text=text[:_TEXT],
        template=next(iter(wish.templates), None),
        label=wish.label,
        since_at=_since(wish.item),
    )


def _short(text: str | None) -> str:
    return quotes.shown(text or "", _QUOTED)
