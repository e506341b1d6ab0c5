"""One fixed moment of a broker for the status pages: every field filled, half of it hostile."""

from attrs import define, field

from backends import api as backends_api
from broker import config
from broker.core import model
from broker.core.fleet import death, ledger
from broker.core.fleet import hour as hours
from broker.hook import inbox
from broker.leading import leadership as leaderships

NOW = 1_780_000_000.0
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\x00\u202e"
RELEASE = model.Template(
    name=model.TemplateName("release"),
    labels=frozenset({"release", "linux"}),
    backends=(model.BackendName("local"), model.BackendName("far")),
    revision="abc",
    cap=2,
    min_idle=1,
    retention=model.Retention(once=True, idle_s=None),
)


POLICY = model.Policy(
    owner="o",
    templates=(RELEASE,),
    backends={name: model.BackendPolicy() for name in RELEASE.backends},
)


@define
class FixedSource:
    version: str = "1.2.3"
    fingerprint: str = "f00d"
    policy: model.Policy = POLICY
    world: model.World | None = None
    as_of: dict[str, float] = field(factory=dict)
    unread_since: dict[str, float] = field(factory=dict)
    plan: model.Plan | None = None
    last_read: tuple[model.World, model.Plan] | None = None
    waits: model.WaitBook = field(factory=model.WaitBook)
    outcomes: list[ledger.Outcome] = field(factory=list)
    deaths: list[death.Death] = field(factory=list)
    is_ready: tuple[bool, str] = (True, "ok")
    is_alive: tuple[bool, str] = (True, "ok")
    configuration: config.ConfigurationState = field(factory=config.ConfigurationState)
    hooked: inbox.HookState | None = None
    hour: hours.Hour = field(factory=hours.Hour)
    leadership: leaderships.LeadershipState = field(factory=leaderships.LeadershipState)

    def now(self):
        return NOW

    def ready(self):
        return self.is_ready

    def alive(self):
        return self.is_alive


def full(text: str = "some words") -> FixedSource:
    """Everything at once; ``text`` stands wherever a remote text can stand."""
    local, far = RELEASE.backends
    name = model.NodeName("o-release-aaaaaa")
    item = model.QueueItem(
        id=model.ItemId(7),
        stage=model.Stage.BUILDABLE,
        why=text,
        task_name=text,
        task_url=f"javascript:{text}",
        in_queue_since_at=NOW - 90,
        buildable_since_at=NOW - 75,
        stuck=True,
    )
    quiet = model.QueueItem(
        id=model.ItemId(8),
        stage=model.Stage.WAITING,
        task_name="quiet",
        task_url="https://c/job/quiet/",
        in_queue_since_at=NOW - 2,
        quiet_until_at=NOW + 3,
    )
    computer = model.Computer(
        name=name,
        idle=False,
        busy_executors=1,
        executable_urls=(f"https://c/job/{text}/1/",),
        offline_cause=text,
        description="secret-of-nobody",
    )
    usage = backends_api.Usage(
        at=NOW - 3,
        memory_bytes=300 << 20,
        memory_peak_bytes=412 << 20,
        memory_limit_bytes=2 << 30,
        cpu_s=31.25,
        cpu_peak_cores=1.5,
        throttled_s=2.5,
    )
    instance = backends_api.Instance(
        name=name,
        state=backends_api.InstanceState.EXITED,
        usage=usage,
        metadata={"m": "secret-of-nobody"},
        created_at=NOW - 60,
        detail=text,
        place=text,
        mishap=backends_api.Mishap(slug="out-of-memory", text=text, times=3, at=NOW - 2),
        exit=backends_api.Exit(slug="out-of-memory", code=137, message=text, at=NOW - 1),
    )
    flight = model.Expectation(
        verb=model.Verb.RETIRE,
        name=name,
        template=RELEASE.name,
        backend=local,
        since_at=NOW - 1,
        expires_at=NOW + 60,
        reason=text,
    )
    agent = model.Agent(
        name=name,
        phase=model.Phase.BUSY,
        template=RELEASE.name,
        backend=local,
        revision="abc",
        created_at=NOW - 60,
        computer=computer,
        instance=instance,
        expectation=flight,
        cordoned=True,
        memory=model.Memory(first_seen_at=NOW - 60, online_at=NOW - 55, builds=1),
    )
    backoff = model.Backoff(
        failures=3, until_at=NOW + 120, reason=text, cause=model.Failure.REJECTED
    )
    launch = model.LaunchAgent(
        name=model.NodeName("o-release-bbbbbb"),
        template=RELEASE.name,
        backend=far,
        reason=text,
        item=item.id,
    )
    label = model.KnownLabel(source=model.LabelSource.WHY, expression=text)
    plan = model.Plan(
        actions=(launch,),
        unmet=(
            model.Unmet(
                item=item.id,
                reason=model.WaitReason.NO_TEMPLATE,
                text=text,
                label=label,
                since_at=NOW - 75,
            ),
            model.Unmet(
                item=quiet.id,
                reason=model.WaitReason.QUIET_PERIOD,
                text="quiet",
                template=RELEASE.name,
            ),
        ),
        refusals=(model.Refusal(subject=text, text=text),),
        agents=(agent,),
        counts={
            RELEASE.name: model.TemplateCount(
                demand=1, warm_target=1, busy=1, agents=1, launches=1
            )
        },
        wake_at=NOW + 5,
        active=True,
        ledger=model.Ledger(
            cycle=42,
            backoffs={
                model.BackoffKey(
                    scope=model.Scope.TEMPLATE, backend=far, template=RELEASE.name
                ): backoff
            },
        ),
    )
    world = model.World(
        now=NOW - 0.5,
        controller=model.ControllerView(
            synced=True,
            read_at=NOW - 0.5,
            version="2.528.3",
            items=(item, quiet),
            computers=(computer,),
        ),
        backends={
            local: model.BackendView(
                synced=True,
                read_at=NOW - 0.5,
                instances=(instance,),
                capacity=backends_api.Capacity(free_instances=3, text="room for 3"),
            ),
            far: model.BackendView(synced=False, error=text),
        },
    )
    waits = model.WaitBook(
        open={
            item.id: model.Account(
                item.id,
                NOW - 90,
                model.WaitReason.NO_TEMPLATE,
                NOW - 70,
                None,
                {model.WaitReason.QUIET_PERIOD: 15.0, model.WaitStep.UNSEEN: 5.0},
            ),
            quiet.id: model.Account(
                quiet.id, NOW - 2, model.WaitReason.QUIET_PERIOD, NOW - 2, RELEASE.name
            ),
        },
        closed=(
            model.ClosedAccount(
                item=model.ItemId(6),
                task_url="https://c/job/folder/job/app/",
                task_name=text,
                label=text,
                template=RELEASE.name,
                agent=name,
                end=model.WaitEnd.STARTED,
                since_at=NOW - 100,
                ended_at=NOW - 40,
                spent={
                    model.WaitReason.CAP_TEMPLATE: 12.5,
                    model.WaitStep.IMAGE: 41.25,
                    model.WaitStep.CONNECTING: 6.25,
                },
                text=text,
            ),
        ),
        looked_at=NOW - 0.5,
    )
    return FixedSource(
        waits=waits,
        world=world,
        as_of={"controller": NOW - 0.5, "backend local": NOW - 0.5, f"backend {far}": NOW - 70},
        unread_since={f"backend {far}": NOW - 60},
        plan=plan,
        outcomes=[
            ledger.Outcome(action=launch, at=NOW - 4, failure=model.Failure.REJECTED, text=text)
        ],
        deaths=[
            death.Death(
                name=name,
                template=RELEASE.name,
                backend=local,
                at=NOW - 30,
                phase=model.Phase.BUSY,
                cause=model.Cause.LOST_MEMORY,
                text=text,
                exit_code=137,
                last_lines=("one", text),
            ),
            death.Death(
                name=model.NodeName("o-release-cccccc"),
                template=RELEASE.name,
                backend=local,
                at=NOW - 20,
                phase=model.Phase.IDLE,
                cause=model.Cause.ONCE,
                text="it has had its build",
            ),
        ],
    )
