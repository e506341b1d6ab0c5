"""Composition root: builds a broker and everything in it from the settings.

Refuses to run anything: nothing is touched before the broker is told to begin.
"""

import contextlib
import logging
import random
import secrets
import socket

import broker
from backends import api as backends_api
from backends import lease, registry
from broker import app, clock, config, metrics, store, tries, trying
from broker.config import trusting
from broker.control import orders
from broker.controller import placeholder, reading
from broker.core import model
from broker.core.decide import judge, spec
from broker.hook import inbox
from broker.leading import identity, leadership
from broker.loop import black_box, execute, pace, reconcile, state
from jnlp import client as jnlp_client
from jnlp import http as jnlp_http
from jnlp import secret as jnlp_secret
from jnlp import version as jnlp_version
from outside import counts

_LOG = logging.getLogger("broker.assembly")
_SUFFIX = "abcdefghijklmnopqrstuvwxyz0123456789"
_SUFFIX_LENGTH = 6


def build(
    settings: config.Settings,
    files: store.FileStore,
    *,
    watch: clock.Clock,
    leads: leadership.Leadership | None = None,
    reads_only: bool = False,
) -> app.Broker:
    """Put a broker together; it acts while it ``leads``, always by default.

    One that ``reads_only`` can look, and changes nothing anywhere, beside a broker at work too.

    Raises ValueError for what only the modules can judge.
    """
    if leads is None:
        leads = leadership.Onlooker() if reads_only else leadership.Always()
    policy = config.policy(settings, wall_now=watch.wall())
    recorder = metrics.PrometheusRecorder(policy, version=broker.__version__)
    session = jnlp_http.ControllerSession(settings.controller.session())
    reader = metrics.MeteredReader(reading.Reader(session), recorder)
    nodes = metrics.MeteredNodes(jnlp_client.NodeClient(session), recorder)
    made_backends = make_backends(settings, files, watch=watch, reads_only=reads_only)
    backends = {
        name: metrics.metered(backend, name, recorder) for name, backend in made_backends.items()
    }
    builds = store.Builds(files)
    reconciler: reconcile.Reconciler  # the three below need each other, once they run
    assembled: app.Broker

    async def look() -> judge.SecondLook:
        return await reconciler.look()

    async def before_end(action: model.Removal) -> None:
        await reconciler.before_end(action)

    def released() -> None:
        reconciler.hint()

    executor = execute.Executor(
        nodes=nodes,
        backends=backends,
        order=lambda action: _order(action, assembled),
        look=look,
        retires_by_offline=lambda: jnlp_version.safe_to_retire_by_offline(session.version),
        now=watch.now,
        before_end=before_end,
        released=released,
        leads=lambda: leads.leading,
        check_command=lambda action: _check_command(action, assembled),
        time_limit_s=policy.launch_timeout_s,
    )
    reconciler = reconcile.Reconciler(
        reader=reader,
        backends=backends,
        executor=executor,
        place=_place(settings, files, nodes, watch, leads) if policy.placeholder else None,
        policy=lambda: assembled.policy,
        recorder=recorder,
        watch=watch,
        roll=random.random,
        new_id=_new_id,
        pace=pace.Pace(busy_s=settings.poll.busy_s, idle_s=settings.poll.idle_s),
        persist=lambda ledger: assembled.keep(ledger, builds),
        box=black_box.BlackBox(save=files.save),
        ask_item=reader.ask_item,
        cancel_item=reader.cancel_item,
        ask_result=reader.ask_result,
        ask_at_work=reader.at_work,
        leads=lambda: leads.leading,
        environments=nodes,
        state=state.State.fresh(_restored(builds)),
    )
    assembled = app.Broker(
        settings=settings,
        files=files,
        session=session,
        backends=backends,
        reconciler=reconciler,
        recorder=recorder,
        watch=watch,
        leads=leads,
    )
    assembled.orders = orders.Orders(
        files=files,
        now=watch.now,
        policy=lambda: assembled.policy,
        plan=lambda: assembled.plan,
        world=lambda: assembled.world,
        obstacle=lambda led: _unordered(assembled, led=led),
        changed=reconciler.hint,
        retry=lambda template, backend: reconciler.ask_again(template=template, backend=backend),
    )
    end = _inbox(assembled)
    reconciler.executor.hook = assembled.hook = end
    reconciler.ends_steps = lambda: end.state.is_heard(watch.now())
    assembled.tried = tries.Tries(
        trier=trier(assembled, nodes, is_marked=True),
        policy=lambda: assembled.policy,
        obstacle=lambda: _untried(assembled),
        full=lambda backend: _full(assembled, backend),
        owner=settings.owner,
        now=watch.now,
    )
    return assembled


def _inbox(broker: app.Broker) -> inbox.Inbox:
    """Return the broker's end of the push hook, which is deaf where there is to be none."""

    def key() -> str | None:
        told = broker.settings.hook
        return None if told is None else told.key.reveal() or None

    def tells_builds() -> bool:
        told = broker.settings.hook
        return told is not None and told.tells_builds

    def session() -> str:
        world = broker.world
        return world.controller.session if world is not None else ""

    return inbox.Inbox(
        owner=broker.settings.owner,
        key=key,
        now=broker.watch.now,
        session=session,
        take=broker.reconciler.push,
        seen=lambda: (broker.world, broker.plan),
        tells_builds=tells_builds,
        recorder=broker.recorder,
        leads=lambda: broker.leads.leading,
    )


def trier(
    broker: app.Broker, nodes: execute.Nodes | None = None, *, is_marked: bool = False
) -> trying.Trier:
    """Return what tries agents with the backends of a broker; ``is_marked``: which is at work."""
    made = trying.Trier(
        owner=broker.settings.owner,
        nodes=nodes or jnlp_client.NodeClient(broker.session),
        backends=broker.backends,
        order=broker.reconciler.executor.order,
        now=broker.watch.now,
        is_marked=is_marked,
    )
    if is_marked:
        made.fleet, made.leads = broker.reconciler, lambda: broker.leads.leading
    return made


def _unordered(broker: app.Broker, *, led: bool) -> str:
    """Say why nothing may be ordered of a broker just now; empty: it may.

    ``led``: only the one that leads can do it.
    """
    if led and not broker.leads.leading:
        return "this broker is a standby: ask the one that leads"
    return "this broker is stopping" if broker.reconciler.is_stopping else ""


def _untried(broker: app.Broker) -> str:
    """Say why no agent may be tried just now; empty: one may."""
    if not broker.leads.leading:
        return "this broker is a standby: ask the one that leads"
    if broker.draining:
        return "this broker lets all agents go"
    good, words = broker.ready()
    return "" if good else f"this broker is not ready: {words}"


def _full(broker: app.Broker, backend: model.BackendName) -> str:
    """Say why there is no room for an agent more on a backend; empty: there is."""
    policy, agents = broker.policy, broker.plan.agents if broker.plan is not None else ()
    limits = policy.backends.get(backend, model.BackendPolicy())
    here = [agent for agent in agents if agent.backend == backend]
    if policy.cap is not None and len(agents) >= policy.cap:
        return f"limits.agents: {counts.told(policy.cap, 'agent')}, and so many are there"
    if limits.cap is not None and len(here) >= limits.cap:
        return f"its cap: {counts.told(limits.cap, 'agent')}, and so many are there"
    return ""


def elect(settings: config.Settings, *, watch: clock.Clock) -> leadership.Leadership:
    """Return who says whether this broker acts: nobody, or a lease that it shares with others."""
    told = settings.high_availability
    if told is None:
        return leadership.Always()
    # two replicas have one configuration, and a host may be started anew: never the same name
    me = f"{told.identity or socket.gethostname()}_{secrets.token_hex(4)}"
    return leadership.Elected(lease=make_lease(told), me=me, terms=told.terms, watch=watch)


def make_lease(told: config.HighAvailability) -> lease.Lease:
    """Build the lease that brokers share; nothing is touched before the first call."""
    return registry.create_lease(told.kind, told.settings, called=told.name)


def make_backends(
    settings: config.Settings,
    files: store.FileStore,
    *,
    watch: clock.Clock,
    reads_only: bool = False,
) -> dict[model.BackendName, backends_api.Backend]:
    """Build every configured backend; nothing is touched before the first call."""
    return {
        name: registry.create(
            entry.kind,
            entry.settings,
            owner=settings.owner,
            store=files,
            state_dir=settings.state_dir,
            now=watch.now,
            reads_only=reads_only,
        )
        for name, entry in settings.backends.items()
    }


def _new_id() -> str:
    """Return a suffix that no agent ever had (36^6, and checked against those that exist)."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))


def _order(action: model.LaunchAgent, broker: app.Broker) -> execute.Order:
    template = broker.policy.template(action.template)
    if template is None:
        raise backends_api.Rejected(f"template {action.template} is no longer configured")
    template = spec.variant(action, template)
    kind = registry.kind(broker.settings.backends[action.backend].kind)
    controller = broker.settings.controller
    try:
        authorities = controller.authorities()
    except (OSError, ValueError) as error:
        raise backends_api.Rejected(f"controller.ca_file: {error}"[:256]) from error
    try:
        trusted = trusting.handed(template.launch.trust)
    except (OSError, ValueError) as error:
        raise backends_api.Rejected(f"trust.public_file: {error}"[:256]) from error
    site = spec.Site(
        owner=broker.settings.owner,
        style=spec.Style(kind.launch_style),
        shares=kind.shares,
        controller_version=broker.session.version,
        jar_url=f"{template.launch.agent_url}jnlpJars/agent.jar",
        work_dir=broker.backends[action.backend].work_dir(action.name),
        now=broker.watch.now(),
        route=controller.route(),
        authorities=authorities,
        trusted=trusted,
    )

    def with_secret(secret: jnlp_secret.Secret) -> backends_api.InstanceSpec:
        return spec.instance(action, template, site, secret)

    return execute.Order(definition=spec.definition(action, template, site), spec_with=with_secret)


def _check_command(action: model.CheckAgent, broker: app.Broker) -> model.CheckCommand | None:
    template = broker.policy.template(action.template)
    return template.checks.of(action.check) if template is not None else None


def _place(
    settings: config.Settings,
    files: store.FileStore,
    nodes: placeholder.PlaceholderNodes,
    watch: clock.Clock,
    leads: leadership.Leadership,
) -> placeholder.Placeholder:
    holder = secrets.token_hex(6)
    previous: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        previous = tuple((files.load(app.HOLDER) or "").split())
    return placeholder.Placeholder(
        nodes=nodes,
        owner=settings.owner,
        standing=identity.Standing(
            mine=identity.Claim(holder=holder, since=int(watch.now())), previous=previous
        ),
        challenge_s=placeholder.challenge_s(settings.poll.idle_s),
        leads=lambda: leads.leading,
    )


def _restored(builds: store.Builds) -> model.Ledger:
    try:
        return builds.restore()
    except OSError as error:
        _LOG.warning("state directory not read", extra={"reason": str(error)})
        return model.Ledger()
