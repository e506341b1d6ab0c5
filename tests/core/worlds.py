"""Short words for worlds: what a test wants to be seen, said in one line each."""

import attrs
from attrs import evolve

from backends import api as backends_api
from broker.core import model
from broker.core.decide import plan
from broker.core.fleet import checks, marks
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, ItemId, Phase, Stage, TemplateName

OWNER = "o"
NOW = 1_000_000.0
B = BackendName("local")


def template(name, *labels, **more):
    """A template on the backend ``local``; labels default to its name."""
    fields = {"backends": (B,), "revision": "r1", **more}
    return model.Template(name=TemplateName(name), labels=frozenset(labels or {name}), **fields)


def policy(*templates, backend=None, **more):
    backends = {name: backend or model.BackendPolicy() for t in templates for name in t.backends}
    return model.Policy(owner=OWNER, templates=templates, backends=backends, **more)


def item(number, label=None, *, why=None, age_s=1.0, stage=Stage.BUILDABLE, **more):
    """A freestyle item; its job says its label."""
    fields = {
        "id": ItemId(number),
        "stage": stage,
        "why": why or f"There are no nodes with the label ‘{label}’" * (label is not None),
        "label_expression": label,
        "exports_label": True,
        "task_class": "hudson.model.FreeStyleProject",
        "in_queue_since_at": NOW - age_s,
        "buildable_since_at": NOW - age_s if stage is Stage.BUILDABLE else None,
    }
    return model.QueueItem(**{**fields, **more})


def trials(templates):
    """What is remembered of templates that have proved themselves wherever they may run."""
    return {
        ledgers.key_of(model.Scope.TEMPLATE, name, t.name): model.Trial(
            revision=t.revision, online=ledgers.ENOUGH_ONLINE
        )
        for t in templates
        for name in t.backends
    }


class Scene:
    """What the sources show; methods add to it and return the agent's name."""

    def __init__(self, *templates, **more):
        self.policy = policy(*templates, **more)
        self.items = []
        self.computers = []
        self.instances = {name: [] for name in self.policy.backends}
        self.ledger = model.Ledger(
            session="s1", session_at=NOW - 3600, trials=trials(self.policy.templates)
        )
        self.version = "2.528.3"
        self.synced = True
        self.dark_backends = set()
        self.hidden = {}  # backend to why a part of it was never seen
        self.quieting_down = False
        self.capacity = {}
        self.now = NOW
        self.count = 0

    def wait(self, *items):
        self.items.extend(items)

    def _name(self, template_name, suffix):
        self.count += 1
        return marks.node_name(OWNER, template_name, suffix or f"a{self.count}")

    def agent(
        self,
        template_name,
        phase,
        *,
        suffix=None,
        backend=B,
        revision="r1",
        age_s=600.0,
        idle_s=60.0,
        builds=0,
        busy=1,
        cordoned=False,
        executors=None,
        known=True,
        exit=None,
        slot=None,
        check=model.Check.READY,  # of one that is being checked
        **remembered,
    ):
        """Put an agent in a phase: node, computer, instance and what is remembered of it."""
        name = self._name(template_name, suffix)
        found = self.policy.template(template_name)
        owned = marks.Marks(
            owner=OWNER,
            template=template_name,
            backend=backend,
            revision=revision,
            created_at=self.now - age_s,
            slot=slot,
        )
        online = phase in {Phase.IDLE, Phase.BUSY, Phase.DRAINED}
        away = cordoned or phase in {Phase.HELD, Phase.DRAINED, Phase.CHECKING}
        words = "agent-broker: once: done" if cordoned or phase is Phase.DRAINED else ""
        if phase is Phase.CHECKING:
            words = checks.due_message(check)
        slots = executors or (found.executors if found else 1)
        if phase is not Phase.ORPHAN:
            self.computers.append(
                model.Computer(
                    name=name,
                    offline=not online or away,
                    temporarily_offline=away,
                    offline_cause=words,
                    idle=phase is not Phase.BUSY,
                    executors=slots,
                    busy_executors=busy if phase is Phase.BUSY else 0,
                    executable_urls=tuple(
                        f"http://c/job/x/{n}/" for n in range(busy if phase is Phase.BUSY else 0)
                    ),
                    labels=(found.labels if found else frozenset()) | {name},
                    description=owned.description(),
                )
            )
        if phase is not Phase.LOST or exit is not None:
            state = backends_api.InstanceState.RUNNING
            if exit is not None:
                state = backends_api.InstanceState.EXITED
            self.instances.setdefault(backend, []).append(
                backends_api.Instance(
                    name=name, state=state, metadata=owned.metadata(name), exit=exit
                )
            )
        if known:
            memory = model.Memory(
                first_seen_at=self.now - age_s,
                created_at=self.now - age_s,
                online_at=self.now - age_s + 1 if phase in {Phase.IDLE, Phase.BUSY} else None,
                online_witnessed=phase in {Phase.IDLE, Phase.BUSY},
                whole=phase in {Phase.IDLE, Phase.BUSY},
                offline_at=self.now - age_s
                if phase in {Phase.CONNECTING, Phase.CHECKING}
                else None,
                idle_at=self.now - idle_s if phase is Phase.IDLE else None,
                busy_session="s1",
                builds=builds,
                executable_urls=self.computers[-1].executable_urls if phase is Phase.BUSY else (),
                template=template_name,
                backend=backend,
                slot=slot,
                phase=phase,
            )
            self.ledger = evolve(
                self.ledger,
                memories={**self.ledger.memories, name: evolve(memory, **remembered)},
            )
        return name

    def backoff(
        self,
        scope,
        template_name=None,
        *,
        backend=B,
        cause=model.Failure.UNAVAILABLE,
        for_s=60.0,
        failures=1,
        at=0.0,
    ):
        key = ledgers.key_of(scope, backend, template_name)
        value = model.Backoff(
            failures=failures, until_at=self.now + for_s, reason="said so", cause=cause, at=at
        )
        self.ledger = evolve(self.ledger, backoffs={**self.ledger.backoffs, key: value})

    def world(self):
        return model.World(
            now=self.now,
            controller=model.ControllerView(
                synced=self.synced,
                read_at=self.now,
                version=self.version,
                session="s1",
                quieting_down=self.quieting_down,
                items=tuple(self.items),
                computers=tuple(self.computers),
            ),
            backends={
                name: model.BackendView(
                    synced=name not in self.dark_backends,
                    read_at=self.now,
                    instances=tuple(instances) if name not in self.dark_backends else (),
                    capacity=self.capacity.get(name),
                    error="no answer" if name in self.dark_backends else "",
                    hidden=self.hidden.get(name, ""),
                )
                for name, instances in self.instances.items()
            },
            ledger=self.ledger,
            fresh_ids=tuple(f"n{n}" for n in range(64)),
        )

    def plan(self):
        made = plan.plan(self.world(), self.policy)
        assert made.overshoot == 0, made.actions
        assert made.illegal == (), made.illegal
        return made

    def __repr__(self):
        """Say what matters when a generated scene fails."""
        agents = [
            (a.name, a.phase.value, a.backend, a.revision, a.memory and a.memory.builds)
            for a in plan.plan(self.world(), self.policy).agents
        ]
        templates = [
            {
                f.name: getattr(t, f.name)
                for f in attrs.fields(type(t))
                if f.name not in {"launch", "connect_deadline_s", "name"}
            }
            for t in self.policy.templates
        ]
        items = [
            (i.id, i.stage.value, i.label_expression, i.in_queue_since_at) for i in self.items
        ]
        limits = (
            self.policy.cap,
            self.policy.max_starting,
            self.policy.draining,
            self.policy.backends,
        )
        return f"{templates}\n{limits}\n{agents}\n{items}\n{self.dark_backends} {self.ledger.backoffs}"


def launches(made):
    """Return templates ordered, with how many."""
    ordered = [a.template for a in made.actions if isinstance(a, model.LaunchAgent)]
    return {name: ordered.count(name) for name in ordered}


def actions(made, kind):
    return {a.name: a for a in made.actions if isinstance(a, kind)}


def reasons(made):
    return {u.item: u.reason for u in made.unmet}


def texts(made):
    return " | ".join(r.text for r in made.refusals)
