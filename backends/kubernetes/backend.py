"""Agents as pods: the contract over one namespace of one cluster.

Joins what is made (``pod``), what is seen (``states``, ``reflector``) and what is asked
(``client``). Refuses to know what the agents do.

Theory of operation: the cluster remembers everything, in labels and annotations; we remember
nothing that a list would not tell, but for two minutes the pods that somebody else deleted, so
that their end has a reason. The pod comes first, to take its room, and its secret when it is to
start, owned by the pod: a secret without an owner never exists, so none is ever left over (a
kubelet waits for it). What is interrupted in between is a pod that never starts: the cluster's
events name its secret, and if it is not being started by us it has ended.
"""

import asyncio
import contextlib
import logging
import math
import pathlib
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)

import attrs
from attrs import frozen

from backends import api
from backends.kit import names, sampling, usage
from backends.kubernetes import settings
from backends.kubernetes.api import access, client, errors, reflector, rights
from backends.kubernetes.exec import containers, execution, listener, running
from backends.kubernetes.pods import (
    events,
    kubelet,
    nodes,
    pod,
    refused_pod,
    shared,
    states,
    table,
    used,
)
from outside import quotes

_LOG = logging.getLogger("backends.kubernetes")
_END_MARGIN_S = 15.0  # a kubelet needs 2 to 3 s beyond the grace to report the end
_REFUSED_S, _REFUSED_LONG_S = 5.0, 300.0  # until a deletion that was refused is tried again
_REFUSAL_KEPT_S = 300.0  # the quotas are asked about no longer than that
_MAKING_S = 120.0  # from the pod to its secret: whoever takes longer has given up in between
_NO_SECRET = "reserved"  # noqa: S105 -- stands for one where its text does not matter
_PATCHES = 20  # annotations that are changed at one go
_UNPATCHED_S = 600.0  # until the right to do so is tried again
_FIRST_LOOK_S = 0.05
_LOOK_S = 1.0


def create(
    configured: settings.KubernetesSettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; the cluster remembers
    state_dir: pathlib.Path,  # noqa: ARG001 -- as above
    now: Callable[[], float],
    reading: bool = False,  # noqa: ARG001 -- a listing asks, and that is all, whoever it is for
) -> "KubernetesBackend":
    """Build the backend; nothing is touched before the first call."""
    return KubernetesBackend(configured, owner=owner, now=now)


class KubernetesBackend:
    """The contract over pods; one object per owner and event loop."""

    kind = "kubernetes"

    def __init__(
        self,
        configured: settings.KubernetesSettings,
        *,
        owner: str,
        now: Callable[[], float],
    ) -> None:
        self._settings = configured
        self._owner = owner
        self._now = now
        self._opening = asyncio.Lock()
        self._client: client.ApiServer | None = None
        self._reflector: reflector.Reflector | None = None
        self._inquiry = events.Inquiry()
        self._nodes = nodes.NodeWatch()
        self._metrics = used.PodMetrics()
        self._kubelets = used.Kubelets()
        self._sampler = sampling.Sampler(
            self._sample,
            now=now,
            every_s=used.KUBELETS_EVERY_S if configured.usage == "kubelet" else used.EVERY_S,
            together=True,
        )
        self._places: dict[str, str] = {}  # nodes of those that run, by instance
        self._killed: dict[str, api.Mishap | None] = {}  # in instances that kubelets told of
        self._refused: dict[str, _DeletionRefused] = {}  # by instance
        self._made: dict[str, _WaitingPod] = {}  # pods that have no secret yet, by instance
        self._own: dict[str, float] = {}  # instances that we made just now, and when
        self._refusal: refused_pod.RefusedPod | None = None  # for want of room, the last one
        self._listener: listener.Listener | None = None
        self._executor: execution.CommandExecutor | None = None  # of commands in agents
        self._unpatched_until = -math.inf  # we may not patch pods
        self._to_patch = rights.OptionalRight("idle pods stay spared by node autoscalers")
        self._to_read_logs = rights.OptionalRight("dead agents have no last words")
        self._to_read_quotas = rights.OptionalRight(
            "what full quotas leave is found out by trying"
        )
        self._shared = shared.SharedFiles(
            labels=pod.owner_labels(owner), selector=pod.selector(owner)
        )
        self._closed = False

    # --- the contract ---

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Create the pod, which its node holds back until its secret is there.

        One without a secret would start, and ``in-container`` needs the secret itself in the pod:
        of these it is only asked whether the server would take them.
        """
        with errors.contract():
            blank = {name: content or _NO_SECRET for name, content in spec.secret_files.items()}
            manifests = self._make(attrs.evolve(spec, secret_files=blank))
            asked, _ = await self._open()
            if _is_held_back(spec):
                self._made[spec.name] = await self._create(asked, manifests)
            else:
                with contextlib.suppress(api.AlreadyExists), self._noting_refusals(manifests):
                    await asked.create_pod(manifests.pod, dry_run=True)

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Create the pod, if it is not reserved, and its secret; one that is ours is adopted."""
        with errors.contract():
            manifests = self._make(spec)
            asked, _ = await self._open()
            made = self._made.get(spec.name)
            try:
                if made is None or made.digest != manifests.digest:
                    self._made[spec.name] = made = await self._create(asked, manifests)
                if not pod.has_secret(spec):
                    return
                try:
                    await _give_secret(asked, manifests, made.uid, fresh=made.fresh)
                except api.BackendError as error:
                    # it would wait for its secret for ever
                    error.nothing_left = made.fresh and await self._take_back(manifests, made.uid)
                    raise
            finally:
                self._made.pop(spec.name, None)

    async def list(self) -> Sequence[api.Instance]:
        """All our pods, from the kept picture or from a full list."""
        with errors.contract():
            asked, kept = await self._open()
            picture = await kept.look()
            there = {one.name for one in picture.pods}
            self._refused = {name: why for name, why in self._refused.items() if name in there}
            self._forget_making()
            await self._inquiry.ask(
                asked, picture.pods, now=self._now(), adopted=lambda name: name not in self._own
            )
            if not (picture.odd or any(one.odd for one in picture.pods)):  # who may mount any
                mounted = {one.shared for one in picture.pods}
                await self._shared.tidy(asked, mounted, now=self._now())
            now, patience_s = self._now(), self._settings.start_patience_s
            instances = [
                one.at(now, patience_s=patience_s, told=self._obstacle_of(one))
                for one in picture.pods
            ]
            await self._nodes.ask(asked, (one.place for one in instances), now=now)
            self._places = {
                one.name: one.place
                for one in instances
                if one.state is api.InstanceState.RUNNING and one.place
            }
            self._killed = {name: one for name, one in self._killed.items() if name in there}
            if self._settings.usage != "off":
                self._sampler.look(list(self._places), there=there)
            instances = [
                self._with_mishap(self._with_usage(self._with_node(one), sighting.memory_limit))
                for one, sighting in zip(instances, picture.pods, strict=True)
            ]
            instances = [
                _with_look(one, sighting, asked.namespace)
                for one, sighting in zip(instances, picture.pods, strict=True)
            ]
            found = [*(self._kept_back(one) for one in instances), *picture.departed]
            if picture.odd:
                raise api.Partial(picture.odd, seen=found, odd=True)
            return found

    async def watch(self) -> AsyncIterator[None]:
        """Keep the picture and wake at its changes; ends with an error or when closed."""
        with errors.contract():
            try:
                _, kept = await self._open()
                await self._serve()
                async with contextlib.aclosing(kept.changes()) as changes:
                    async for _ in changes:
                        if self._closed:
                            return
                        yield
            except api.BackendError:
                if not self._closed:
                    raise

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """Delete the pod and its secret, and wait until the kubelet says that it is gone.

        A pod that does not go in time (a finalizer, a node that does not answer) is listed as
        stopping; to call again is safe.
        """
        with errors.contract():
            asked, kept = await self._open()
            sighting = await self._find(name)
            if sighting is None:
                if kept.departed(name):
                    kept.forget(name)
                raise api.NotFound(f"no pod of instance {quotes.shown(name)}")
            if not sighting.uid:
                raise errors.OddAnswer(
                    f"pod {sighting.pod} cannot be deleted safely: its uid cannot be read"
                )
            kept.forget(name)
            self._made.pop(name, None)
            shown = kept.shows(sighting.pod, sighting.uid)
            # with a grace of 0 the object would go at once, whatever still runs
            grace = max(1, math.ceil(grace_s))
            await self._delete(asked, sighting, grace)
            with contextlib.suppress(api.BackendError):  # the cluster collects it, only later
                await asked.delete_secret(sighting.pod)
            await self._gone(name, sighting.uid, within_s=grace + _END_MARGIN_S, shown=shown)

    async def capacity(self) -> api.Capacity | None:
        """Return what quotas leave, for a while after one has refused a pod.

        Else unknown: the scheduler decides, and says why not in the pod's state.
        """
        if self._closed:
            raise api.Unavailable("the backend is closed")
        refusal = self._refusal
        if refusal is None:
            return None
        now = self._now()
        if now - refusal.at >= _REFUSAL_KEPT_S:
            self._refusal = None
            return None
        with errors.contract():
            asked, kept = await self._open()
            return await refusal.capacity(asked, pods=kept.count(), now=now)

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of the agent's container, or of the one that failed before it."""
        with errors.contract():
            asked, _ = await self._open()
            sighting = await self._find(name)
            if sighting is None:
                raise api.NotFound(f"no pod of instance {quotes.shown(name)}")
            if tail <= 0:
                return ""
            try:
                return await asked.log(sighting.pod, container=sighting.speaker, tail=tail)
            except errors.NoRight as error:
                self._to_read_logs.lacks(error)
                raise

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run a command in the agent's container, by the API server."""
        with errors.contract():
            asked, _ = await self._open()
            found = None
            if names.name_problem(name) is None:
                found = await asked.find_pod(pod.pod_name(name))
            if found is None or not states.is_ours(found, self._owner):
                raise api.NotFound(f"no pod of instance {quotes.shown(name)}")
            agent = states.agent_container(found)
            if not containers.is_up(found, agent):
                raise api.NotFound(f"the agent's container of {quotes.shown(name)} does not run")
            return await running.run(
                await self._commands(),
                pod.pod_name(name),
                agent,
                argv,
                within_s=within_s,
            )

    async def tell_idle(self, names: Collection[str]) -> bool:
        """Have node autoscalers spare the pods of all agents but these; True once that is so.

        By annotations, those who are at work first. Without the right to patch pods all are spared
        for as long as they live, which is said once.
        """
        if self._now() < self._unpatched_until:
            return True
        with errors.contract():
            asked, kept = await self._open()
            shown = kept.shown()
            if shown is None:
                return False
            changes = sorted(
                _guard_changes(shown, names), key=lambda change: change[0].name in names
            )
            refusal: api.BackendError | None = None
            for sighting, annotations in changes[:_PATCHES]:
                try:
                    await asked.annotate_pod(
                        sighting.pod, uid=sighting.uid, annotations=annotations
                    )
                except errors.NoRight as error:
                    self._unpatched_until = self._now() + _UNPATCHED_S
                    self._to_patch.lacks(error)
                    return True
                except (api.NotFound, errors.Outdated):
                    continue  # it went, or has changed: the next sight of it tells
                except api.Rejected as error:
                    refusal = error  # of this pod; the others are not to wait for it
            if refusal is not None:
                raise refusal
            return len(changes) <= _PATCHES

    def work_dir(self, name: str) -> str | None:  # noqa: ARG002 -- the same in every pod
        """Leave it to the template: the default of both sides is that of the agent images."""
        return None

    async def aclose(self) -> None:
        """Let go of the connections; pods live on."""
        self._closed = True
        await self._sampler.aclose()
        if self._listener is not None:
            await self._listener.aclose()
        if self._executor is not None:
            await self._executor.aclose()
        if self._client is not None:
            await self._client.aclose()

    # --- inside ---

    def _with_node(self, instance: api.Instance) -> api.Instance:
        """Say that a pod will end with its node, where only that one says so."""
        if instance.state is not api.InstanceState.RUNNING or instance.ends_because:
            return instance
        why = self._nodes.ending_of(instance.place)
        if not why:
            return instance
        return attrs.evolve(instance, ends_because=f"node {instance.place}: {why}"[:256])

    async def _sample(self, names: Collection[str], take: sampling.Take) -> None:
        with errors.contract():
            asked, _ = await self._open()
            by_pod = {pod.pod_name(name): name for name in names}
            if self._settings.usage == "kubelet":
                await self._ask_kubelets(asked, by_pod, take)
                return

            def keep(called: str, sample: usage.Sample) -> None:
                if called in by_pod:
                    take(by_pod[called], sample)

            await self._metrics.ask(asked, pod.selector(self._owner), keep, now=self._now())

    async def _ask_kubelets(
        self, asked: client.ApiServer, by_pod: Mapping[str, str], take: sampling.Take
    ) -> None:
        now = self._now()
        nodes: dict[str, list[str]] = {}
        for called, name in by_pod.items():
            if (place := self._places.get(name)) is not None:
                nodes.setdefault(place, []).append(called)

        def keep(called: str, sample: kubelet.PodSample) -> None:
            name = by_pod[called]
            take(name, sample.used)
            known = self._killed.get(name)
            if sample.kills > (known.times if known is not None else 0):
                known = api.Mishap(
                    slug="out-of-memory",
                    text="a process in it was killed for memory",
                    times=sample.kills,
                    # of the first answer nobody knows when it was
                    at=now if name in self._killed else None,
                )
            self._killed[name] = known

        await self._kubelets.ask(asked, nodes, keep, namespace=asked.namespace, now=now)

    def _with_mishap(self, instance: api.Instance) -> api.Instance:
        """Add that something in it was killed for memory, where nothing else says so."""
        killed = self._killed.get(instance.name)
        if killed is None or instance.mishap is not None:
            return instance
        if instance.exit is not None and instance.exit.slug == killed.slug:
            return instance
        return attrs.evolve(instance, mishap=killed)

    def _with_usage(self, instance: api.Instance, limit: int | None) -> api.Instance:
        used_by_now = self._sampler.of(instance.name)
        if used_by_now is None:
            return instance
        return attrs.evolve(instance, usage=attrs.evolve(used_by_now, memory_limit_bytes=limit))

    def _make(self, spec: api.InstanceSpec) -> pod.Manifests:
        told = self._settings.in_container
        authority = None
        if told is not None and told.ca_file is not None:
            authority = access.read(pathlib.Path(told.ca_file))
        served = pod.serving(self._settings, authority=authority)
        return pod.make(
            spec,
            owner=self._owner,
            fragments=self._settings.pods,
            served=served,
            runtimes=self._settings.runtimes,
        )

    async def _open(self) -> tuple[client.ApiServer, reflector.Reflector]:
        """Find the cluster at the first call; a failure is tried again at the next."""
        async with self._opening:
            if self._closed:
                raise api.Unavailable("the backend is closed")
            if self._client is None or self._reflector is None:
                found = await self._access()
                self._client = client.ApiServer(self._settings, found, again=self._access)
                self._reflector = reflector.Reflector(
                    self._client,
                    owner=self._owner,
                    selector=pod.selector(self._owner),
                    now=self._now,
                )
            return self._client, self._reflector

    async def _access(self) -> access.Access:
        clock = asyncio.get_running_loop().time
        return await access.find(self._settings, clock=clock)

    async def _serve(self) -> None:
        """Answer ``in-container``; who only looks at the cluster, and not watches it, does not."""
        configured = self._settings.in_container
        if configured is None or self._listener is not None:
            return
        asked, _ = await self._open()

        async def find(name: str) -> client.Object | None:
            found = await asked.find_pod(name)
            return found if found is not None and states.is_ours(found, self._owner) else None

        executor = execution.CommandExecutor(
            await self._access(), timeout_s=self._settings.request_timeout_s
        )
        rules = listener.Rules(find=find, patience_s=self._settings.start_patience_s)
        serving = listener.Listener(configured, rules=rules, executor=executor)
        try:
            await serving.start()
        except api.Unauthorized as error:  # no reason not to watch; the next watch tries again
            await executor.aclose()
            _LOG.error("in-container is not served", extra={"reason": error.reason})
        else:
            self._listener = serving

    async def _commands(self) -> execution.CommandExecutor:
        """Return what runs commands in agents, with connections of its own."""
        async with self._opening:
            if self._executor is None:
                self._executor = execution.CommandExecutor(
                    await self._access(), timeout_s=self._settings.request_timeout_s
                )
            return self._executor

    async def _find(self, name: str) -> states.PodSighting | None:
        """Return our pod of that name: from the picture, else asked for alone."""
        if names.name_problem(name) is not None:
            return None
        asked, kept = await self._open()
        sighting = kept.find(pod.pod_name(name))
        if sighting is None:
            # not in the picture proves nothing: it may have been created a moment ago
            found = await asked.find_pod(pod.pod_name(name))
            if found is None or not states.is_ours(found, self._owner):
                return None
            sighting = states.see(found)
        return sighting if sighting.name == name else None

    async def _create(self, asked: client.ApiServer, manifests: pod.Manifests) -> "_WaitingPod":
        """Create the pod, or adopt the one that was made of the same specification."""
        name = str(manifests.pod["metadata"]["annotations"][pod.NAME])
        self._own[name] = self._now()
        if manifests.shared is not None:
            await self._shared.provide(asked, manifests.shared, now=self._now())
        try:
            with self._noting_refusals(manifests):
                uid, fresh = _uid(await asked.create_pod(manifests.pod)), True
        except api.AlreadyExists:
            uid, fresh = await self._adopt(asked, manifests), False
        return _WaitingPod(uid=uid, digest=manifests.digest, fresh=fresh)

    def _forget_making(self) -> None:
        now = self._now()
        self._own = {name: at for name, at in self._own.items() if now - at < _MAKING_S}
        self._made = {name: pod for name, pod in self._made.items() if name in self._own}

    @contextlib.contextmanager
    def _noting_refusals(self, manifests: pod.Manifests) -> Iterator[None]:
        """Remember a pod for which there was no room, so that the quotas can be asked about it."""
        try:
            yield
        except api.NoCapacity:
            self._refusal = refused_pod.RefusedPod(
                pod=manifests.pod,
                at=self._now(),
                right=self._to_read_quotas,
                before=self._refusal,
            )
            raise

    def _obstacle_of(self, sighting: states.PodSighting) -> table.PodObstacle | None:
        """Return why a pod does not run; one that we are making ourselves gets its secret yet."""
        if sighting.name in self._made:
            return None
        obstacle = self._inquiry.obstacle_of(sighting)
        if obstacle is not None and obstacle.slug == "interrupted" and sighting.name in self._own:
            return attrs.evolve(obstacle, slug=None)
        return obstacle

    async def _adopt(self, asked: client.ApiServer, manifests: pod.Manifests) -> str:
        """Return the uid of the pod that has the name, if it is this very order."""
        there = await asked.find_pod(manifests.name)
        if there is None:
            raise api.Unavailable(
                f"pod {quotes.shown(manifests.name)} went away while it was looked at",
                reach=api.Reach.LAUNCH,
            )
        if not states.is_ours(there, self._owner):
            raise api.AlreadyExists(f"pod {quotes.shown(manifests.name)} exists and is not ours")
        annotations = states.part(there, "metadata", "annotations")
        if annotations.get(pod.DIGEST) != manifests.digest:
            raise api.AlreadyExists(
                f"pod {quotes.shown(manifests.name)} exists and was made from another "
                "specification"
            )
        if states.deleting(there):
            raise api.AlreadyExists(
                f"pod {quotes.shown(manifests.name)} of an earlier order is still ending"
            )
        return _uid(there)

    async def _take_back(self, manifests: pod.Manifests, uid: str) -> bool:
        """Delete a pod that was just made, and wait for it; tell whether it is certainly gone."""
        asked, kept = await self._open()
        name = str(manifests.pod["metadata"]["annotations"][pod.NAME])
        kept.forget(name)
        try:
            await asked.delete_pod(manifests.name, uid=uid, grace_s=1)
            return await self._gone(name, uid, within_s=1 + _END_MARGIN_S)
        except api.NotFound:
            return True
        except api.BackendError:
            return False

    async def _delete(
        self, asked: client.ApiServer, sighting: states.PodSighting, grace_s: int
    ) -> None:
        """Delete a pod; that we may not is remembered, so that the listing can say it."""
        try:
            await asked.delete_pod(sighting.pod, uid=sighting.uid, grace_s=grace_s)
        except (api.Unauthorized, api.Rejected) as error:
            old = self._refused.get(sighting.name, _DeletionRefused(at=self._now()))
            new = attrs.evolve(old, why=error.reason, times=old.times + 1)
            self._refused[sighting.name] = new
            error.retry_after = error.retry_after or new.pause_s
            raise
        self._refused.pop(sighting.name, None)

    def _kept_back(self, instance: api.Instance) -> api.Instance:
        """Say of an instance that we were not allowed to remove it."""
        refusal = self._refused.get(instance.name)
        if refusal is None or instance.state is api.InstanceState.STOPPING:
            return instance
        return attrs.evolve(
            instance,
            detail=f"we are not allowed to delete it: {refusal.why}"[:256],
            leaving_at=refusal.at,
            spent=instance.state is api.InstanceState.EXITED,
        )

    async def _gone(self, name: str, uid: str, *, within_s: float, shown: bool = False) -> bool:
        """Wait until the pod is gone, by the picture where it is kept; tell whether it is.

        ``shown``: the picture has shown it, so that it proves something when it no longer does.
        """
        loop = asyncio.get_running_loop()
        end, pause_s = loop.time() + within_s, _FIRST_LOOK_S
        called = pod.pod_name(name)
        while loop.time() < end:
            _, kept = await self._open()
            shown = shown or kept.shows(called, uid)
            if shown and kept.has_lost(called, uid):
                return True
            if not kept.shows(called, uid):
                found = await self._find(name)
                if found is None or found.uid != uid:
                    return True
            await kept.wait(min(pause_s, end - loop.time()))
            pause_s = min(2 * pause_s, _LOOK_S)
        _LOG.warning("pod does not go", extra={"instance": name, "waited_s": within_s})
        return False


def _guard_changes(
    shown: Iterable[states.PodSighting], idle: Collection[str]
) -> Iterator[tuple[states.PodSighting, dict[str, str | None]]]:
    """Yield the pods whose annotations against eviction are not as they should be, and how."""
    for one in shown:
        if one.instance.state in {api.InstanceState.STOPPING, api.InstanceState.EXITED}:
            continue
        if one.name in idle and one.guarded:
            yield one, dict.fromkeys(one.guarded)
        elif one.name not in idle and one.guarded != one.guards:
            yield one, {key: pod.GUARDS[key] for key in one.guards}


async def _give_secret(
    asked: client.ApiServer, manifests: pod.Manifests, uid: str, *, fresh: bool
) -> None:
    """Create the secret, owned by the pod."""
    manifest = manifests.secret(uid)
    try:
        await asked.create_secret(manifest)
    except api.AlreadyExists:
        if not fresh:
            return  # of the first order; one name has one secret
        # of an earlier pod of this name, and about to be collected
        with contextlib.suppress(api.NotFound):
            await asked.delete_secret(manifests.name)
        await asked.create_secret(manifest)


def _is_held_back(spec: api.InstanceSpec) -> bool:
    """Return whether a pod starts only with its secret, and can be made without it."""
    options = spec.options
    in_container = isinstance(options, settings.KubernetesTemplate) and options.in_container
    return pod.has_secret(spec) and not in_container


def _uid(found: client.Object) -> str:
    uid = states.part(found, "metadata").get("uid")
    if not isinstance(uid, str) or not uid:
        raise errors.OddAnswer("the API server shows a pod without a uid")
    return uid


@frozen(kw_only=True)
class _WaitingPod:
    """A pod that has no secret yet; ``fresh``: it was not there before."""

    uid: str
    digest: str
    fresh: bool


@frozen(kw_only=True)
class _DeletionRefused:
    """Why we may not delete a pod, since when, and how often it was tried."""

    why: str = ""
    at: float
    times: int = 0

    @property
    def pause_s(self) -> float:
        """Seconds until it is worth another try: rights come back by a person's hand."""
        return min(_REFUSED_S * 2.0 ** min(self.times - 1, 16), _REFUSED_LONG_S)


def _with_look(
    instance: api.Instance, sighting: states.PodSighting, namespace: str
) -> api.Instance:
    """Say how people see what one that has ended wrote."""
    if instance.state is not api.InstanceState.EXITED:
        return instance
    look = f"kubectl -n {namespace} logs {sighting.pod} -c {sighting.speaker}"
    return attrs.evolve(instance, look=look)
