"""Agents as services of a Docker swarm: the contract over its managers.

Why: a swarm finds the node, keeps the secret and holds the dead task until somebody has read why.
Keeps callers of one name apart, resolves images, reads certificates and looks after what is left;
docs/backends/swarm.md tells an operator the rest. Refuses to know what the agents do.

Theory of operation: a service is the instance; its one task says how it is. A swarm tells nothing
of tasks on its own, so the watch looks (``look_s``, and when an engine that can be reached tells
of a container) and wakes when one has changed. Removing a
service is an order, not an end: its task is listed as stopping until its node has obeyed.
"""

import asyncio
import contextlib
import logging
import pathlib
import re
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import attrs

from backends import api
from backends.docker.containers import commands
from backends.docker.engine import client, reference
from backends.docker.swarm import (
    folders,
    manager,
    managers,
    node_folders,
    nodes,
    runtimes,
    service,
    settings,
    states,
)
from backends.kit import names, runtime
from outside import quotes, text, waits

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

_CLOSE_S = 5.0
_GONE_S = 30.0  # beyond the grace, until a removed task has to be gone
_LOOKS_S = (0.1, 1.0)  # pauses while it goes: the first, the longest
_SOON_S = 0.3
_NO_TASK_S = 60.0  # seen without a task: a manager makes it at once, a new leader soon
_CONFIGS_S = 900.0  # between two looks at our configs: a list of them has all contents
_CALLS = 4  # of one launch, at most: until then somebody may be about to make a secret's service
_WORDS = 3  # last lines of output in a certificate
_SHORTEST_SECRET = 8
_BLANK = "(secret)"
_SECRET = re.compile(r"\b[0-9a-f]{64}\b")
"""What controllers give agents; a swarm shows no secret again, so it is known by its looks."""


def create(
    configured: settings.SwarmSettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; the swarm remembers all there is
    state_dir: pathlib.Path,  # noqa: ARG001 -- as above
    now: Callable[[], float],
    reading: bool = False,
) -> "SwarmBackend":
    """Build the backend; nothing is asked before the first call."""
    return SwarmBackend(configured, owner=owner, now=now, reading=reading)


class SwarmBackend:
    """The contract over a swarm; one object per owner and event loop."""

    kind = "swarm"

    def __init__(
        self,
        configured: settings.SwarmSettings,
        *,
        owner: str,
        now: Callable[[], float],
        reading: bool = False,
    ) -> None:
        self._settings = configured
        self._owner = service.owner_labels(owner)
        self._whose = owner
        self._now = now
        self._reading = reading
        made = [manager.Manager(host, configured) for host in configured.managers]
        self._managers = managers.Managers(made)
        self._nodes = nodes.NodeEngines(
            [*made, *(client.Engine(host, configured) for host in configured.engines)],
            self._owner,
            now,
        )
        self._runtimes = runtimes.SwarmRuntimes(
            configured,
            owner=owner,
            ask=self._ask,
            resolve=self._resolve,
            engines=self._nodes.all,
        )
        self._folders = node_folders.NodeFolders(self._nodes.all, self._owner)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._preparing: dict[str, api.Instance] = {}
        self._working: dict[str, asyncio.Future[None]] = {}
        self._certificates: dict[str, api.Exit] = {}  # by task
        self._resolved: dict[tuple[str, str], tuple[str, float]] = {}  # and until when
        self._bare: dict[str, float] = {}  # services without a task, and since when; by our clock
        self._spare: dict[str, float] = {}  # secrets that nobody needs, likewise
        self._idle: dict[str, float] = {}  # configs of ours that no service has, likewise
        self._wanted: dict[str, float] = {}  # configs of launches, by name: when
        self._tidy_at = now() + _CONFIGS_S
        self._given: dict[str, tuple[str, ...]] = {}  # secrets, by instance, to blank them out
        self._closing = asyncio.Event()

    # --- the contract ---

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Refuse what a swarm would refuse; it holds no room back."""
        self._planned(spec)
        self._begin()

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Start an instance; idempotent by name, also across brokers and restarts."""
        plan = self._planned(spec)
        self._begin()

        def tell(words: str) -> None:
            self._preparing[spec.name] = attrs.evolve(self._preparing[spec.name], detail=words)

        async with self._turn(spec.name):
            self._preparing[spec.name] = api.Instance(
                name=spec.name,
                state=api.InstanceState.STARTING,
                metadata=dict(spec.metadata),
                created_at=self._now(),
                detail="its service is being made",
            )
            self._wanted |= {one.name: self._now() for one in plan.given}
            try:
                if not await self._is_there(plan):
                    plan = await self._runtimes.brought(plan, tell)
                    if plan.engine_root:
                        machines = tuple((await self._machines()).values())
                        without = await self._folders.placed(
                            machines, plan.placement, plan.engine_root
                        )
                        plan = plan.kept_from(without)
                    if plan.caches:
                        await self._nodes.clear(plan.caches, plan.service)
                        plan = plan.with_caches(self._now())
                    await self._make(plan, await self._resolve(plan.image, plan.resolve))
                self._given[spec.name] = tuple(plan.secrets.values())
            finally:
                if spec.name not in self._working:
                    self._preparing.pop(spec.name, None)

    async def list(self) -> Sequence[api.Instance]:
        """All instances of this owner, those that are being made or end on their node, too."""
        self._begin()
        preparing = dict(self._preparing)
        view = await self._managers.view(self._owner)
        services, tasks = view.services, view.tasks
        named = {name: one for one in services if (name := self._name(one.labels))}
        nameless = [one.name for one in services if not self._name(one.labels)]
        by_service: dict[str, states.SwarmTask] = {}
        for task in tasks:
            known = by_service.get(task.service)
            if known is None or (known.created_at or 0) < (task.created_at or 0):
                by_service[task.service] = task
        self._certificates = {
            key: end for key, end in self._certificates.items() if key in {t.id for t in tasks}
        }
        bare = (one.id for one in services if one.id not in by_service)
        self._bare = _first_seen(self._bare, bare, self._now())
        if not self._reading:
            running = [one.container for one in by_service.values() if _still_runs(one, None)]
            self._nodes.look(
                [one for one in running if one], there={task.container for task in tasks}
            )
        damaged: set[str] = set()
        instances = await asyncio.gather(
            *(
                self._instance(name, one, by_service.get(one.id), view.nodes, damaged)
                for name, one in named.items()
            )
        )
        going = self._going(tasks, {one.id for one in services}, view.nodes)
        found = [*instances, *(one for one in going if one.name not in named)]
        listed = {one.name for one in found}
        everything = [*found, *(one for name, one in preparing.items() if name not in listed)]
        odd = [entries.words(what) for what, entries in view.odd.items() if entries]
        whole = not (odd or nameless or damaged)
        if not whole:
            reasons = [
                *odd,
                f"the labels of {', '.join([*nameless, *sorted(damaged)][:3])} are damaged"
                if nameless or damaged
                else "",
            ]
            words = text.clean("; ".join(reason for reason in reasons if reason))
            raise api.Partial(words, seen=everything, odd=True)
        if not self._reading:
            await self._sweep(listed | self._preparing.keys())
            self._folders.look(listed | self._preparing.keys())
            used = [one.labels for one in services]
            used += [task.labels for task in tasks if _still_runs(task, None)]
            with contextlib.suppress(api.BackendError):  # another time
                await self._runtimes.sweep({told.get(service.RUNTIME, "") for told in used})
            with contextlib.suppress(api.BackendError):  # likewise
                await self._tidy({name for one in services for name in one.configs})
        return everything

    async def watch(self) -> AsyncIterator[None]:
        """Wake when a task or a node has changed; ends when it is closed."""
        seen: object = None
        changed = self._nodes.follow()
        pause_s = self._settings.look_s
        while not self._closing.is_set():
            changed.clear()
            with contextlib.suppress(api.BackendError):
                picture = await self._picture()
                if seen is not None and picture != seen:
                    yield
                seen = picture
            try:
                async with waits.timeout(pause_s):
                    await changed.wait()
            except TimeoutError:
                pause_s = self._settings.look_s
            else:  # a manager knows somewhat later what an engine tells
                pause_s = min(_SOON_S, self._settings.look_s)

    async def terminate(self, name: str, *, grace_s: float) -> None:  # noqa: ARG002 -- it is fixed
        """Remove the service and wait until its task is gone from its node."""
        self._begin()
        if names.name_problem(name) is not None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        async with self._turn(name):
            marks, folder = {**self._owner, service.NAME: name}, ""
            try:
                there = await self._own(name)
                folder = there.labels.get(folders.VOLUME, "")
                await self._ask(client.Lane.END, manager.Manager.remove_service, there.id)
            except api.NotFound:
                if not await self._goes(marks):
                    raise
            await self._remove_secrets(
                await self._ask(client.Lane.END, manager.Manager.own_secrets, marks)
            )
            self._given.pop(name, None)
            await self._gone(marks)
            if folder:
                await self._folders.remove(name, folder)

    async def capacity(self) -> api.Capacity | None:
        """Which nodes take tasks; how much room there is only the scheduler knows."""
        self._begin()
        nodes = await self._machines()
        places = sorted(node.name for node in nodes.values() if node.takes_tasks)
        return api.Capacity(places=tuple(places))

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the instance wrote, its secrets blanked out."""
        self._begin()
        try:
            there = await self._own(name)
        except api.NotFound:
            if name in self._preparing:
                return ""
            raise
        if tail <= 0:
            return ""
        tasks, _ = await self._read(manager.Manager.tasks, {**self._owner, service.NAME: name})
        ours = [task for task in tasks if task.service == there.id and task.container]
        if not ours:
            return ""
        return await self._output(name, ours[-1], tail)

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run a command in its container, by the engine of its node, which managers cannot."""
        self._begin()
        there = await self._own(name)
        tasks, _ = await self._read(manager.Manager.tasks, {**self._owner, service.NAME: name})
        running = [
            task
            for task in tasks
            if task.service == there.id and task.container and _still_runs(task, None)
        ]
        if not running:
            raise api.NotFound(f"{quotes.shown(name)} does not run")
        container = running[-1].container
        engine = await self._nodes.engine_of(container)
        secrets = self._given.get(name, ())
        lines = {line.strip() for secret in secrets for line in secret.splitlines()}
        return await commands.run(
            engine,
            container,
            argv,
            within_s=within_s,
            hide={line for line in lines if len(line) >= _SHORTEST_SECRET},
        )

    def work_dir(self, name: str) -> str | None:  # noqa: ARG002 -- the same in every container
        """Return None: the image decides, or the template's ``remote_fs``."""
        return None

    async def aclose(self) -> None:
        """Wait for calls under way, but for none that hangs, and let go; instances live on."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._folders.leave()
        under_way = self._managers.leave() | self._nodes.leave()
        if under_way:
            await asyncio.wait(under_way, timeout=_CLOSE_S)
        await asyncio.to_thread(self._nodes.close)
        if left := [future for future in under_way if not future.done()]:
            await asyncio.wait(left, timeout=_CLOSE_S)  # what was cut off knows it at once

    # --- launching ---

    async def _is_there(self, plan: service.ServicePlan) -> bool:
        """Tell whether it is made already; raises AlreadyExists for another of that name."""
        try:
            there = await self._read(manager.Manager.find_service, plan.service)
        except api.NotFound:
            return False
        if self._is_own(there, plan.name) and there.labels.get(service.DIGEST) == plan.digest:
            return True
        raise api.AlreadyExists(
            f"the service {quotes.shown(plan.service)} exists, "
            + ("of another specification" if self._is_own(there, plan.name) else "and is not ours")
        )

    def _planned(self, spec: api.InstanceSpec) -> service.ServicePlan:
        configured = self._settings
        return service.plan(
            spec,
            owner=self._whose,
            prefix=configured.name_prefix,
            runtimes=configured.runtimes,
        )

    async def _make(self, plan: service.ServicePlan, image: str) -> None:
        """Create the service; a cancelled call leaves nothing or a listed instance."""
        made: asyncio.Future[None] = asyncio.ensure_future(  # noqa: TID251 -- it outlives a cancelled call
            self._ask(client.Lane.START, manager.Manager.launch, plan, image)
        )
        self._working[plan.name] = made

        def over(ended: asyncio.Future[None]) -> None:
            self._working.pop(plan.name, None)
            if not ended.cancelled() and ended.exception() is not None:
                _LOG.debug("launch ended", extra={"reason": str(ended.exception())})

        made.add_done_callback(over)
        try:
            await asyncio.shield(made)
        except client.NameTakenError as error:  # by another broker, or by us before a time-out
            if not await self._is_there(plan):
                raise api.Unavailable(f"the name is taken, and is not: {error}") from error
        except asyncio.CancelledError:
            made.add_done_callback(lambda _: self._preparing.pop(plan.name, None))
            raise

    async def _resolve(self, image: str, how: str) -> str:
        """Return what the nodes are told for an image: a digest or an id does not move."""
        if how == "tag" or not reference.moves(image):
            return image
        key = (how, image)
        known, until = self._resolved.get(key, ("", 0.0))
        if known and self._now() < until:
            return known
        if how == "id":
            told = await self._read(manager.Manager.image_id, image)
        else:
            digest = await self._read(manager.Manager.ask_registry, image)
            told = reference.with_digest(image, digest) if digest else image
        now = self._now()  # builds name as many images as they like
        self._resolved = {one: kept for one, kept in self._resolved.items() if now < kept[1]}
        self._resolved[key] = (told, now + self._settings.resolved_s)
        return told

    # --- listing ---

    async def _instance(
        self,
        name: str,
        there: manager.Service,
        task: states.SwarmTask | None,
        nodes: Mapping[str, states.SwarmNode],
        damaged: set[str],
    ) -> api.Instance:
        try:
            metadata = {} if there.flawed else service.read_metadata(there.labels)
        except ValueError:
            metadata = {}
        if not metadata:
            damaged.add(name)
        instance = api.Instance(
            name=name,
            state=api.InstanceState.STARTING,
            metadata=metadata,
            created_at=there.created_at,
            detail="its task is being made",
        )
        if task is None:
            if self._now() - self._bare.get(there.id, self._now()) < _NO_TASK_S:
                return instance
            end = api.Exit(slug="platform-lost", message="the swarm has no task of it any more")
            return attrs.evolve(instance, state=api.InstanceState.EXITED, exit=end, detail="")
        where = nodes.get(task.node)
        state = states.state_of(task, where)
        starting = state is api.InstanceState.STARTING
        return attrs.evolve(
            instance,
            state=state,
            place=where.name if where is not None else "",
            host=where.address if where is not None else "",
            ports=(*task.ports, *there.ports) if state is api.InstanceState.RUNNING else (),
            detail=states.waits_for(task) if starting else "",
            fetching=task.state == "preparing",  # before all by its node, of its image
            exit=await self._certificate(name, task, where),
            mishap=self._nodes.mishap(task.container)
            if state is api.InstanceState.RUNNING
            else None,
            usage=self._nodes.usage(task.container),
        )

    async def _certificate(
        self, name: str, task: states.SwarmTask, where: states.SwarmNode | None
    ) -> api.Exit | None:
        """Return how it ended, with all that can be known while its service is there."""
        end = states.exit_of(task, where)
        if end is None or states.state_of(task, where) is not api.InstanceState.EXITED:
            return end
        if task.id in self._certificates:
            return self._certificates[task.id]
        if not end.witnessed:
            return end  # its node may come back
        if end.slug == "image":
            end = attrs.evolve(end, message=await self._why_no_image(task, end.message))
        elif end.slug in {"exited", "killed"} and task.container:
            end = states.as_engine_tells(end, await self._nodes.certificate(task.container))
            with contextlib.suppress(api.BackendError):
                words = text.clean(await self._output(name, task, _WORDS))
                end = states.with_last_words(end, words)
        # the engine's own words, or by now those of the init in the container
        if end.slug == "command" and (volume := task.labels.get(service.RUNTIME)):
            end = await self._without_java(end, volume)
        self._certificates[task.id] = end
        return end

    async def _why_no_image(self, task: states.SwarmTask, words: str) -> str:
        """Ask the registry: of a node every failure reads the same."""
        image = task.image.partition("@")[0] if "@" in task.image else task.image
        try:
            await self._read(manager.Manager.ask_registry, image)
        except api.BackendError as error:
            return text.clean(f"{words}; {error.reason}", 256)
        return words

    async def _without_java(self, end: api.Exit, volume: str) -> api.Exit:
        """Return how one ended whose command was not there: its node may have joined just now."""
        if runtime.ROOT not in end.message:
            return end
        with contextlib.suppress(api.BackendError):
            await self._runtimes.fill_anew(volume)
        words = f"its Java was not on its node: {end.message}"
        return attrs.evolve(end, slug="platform-lost", message=text.clean(words, 256))

    def _going(
        self,
        tasks: Sequence[states.SwarmTask],
        there: Collection[str],
        nodes: Mapping[str, states.SwarmNode],
    ) -> Sequence[api.Instance]:
        """Return what ends on its node though its service is gone; a dead node ends nothing."""
        found = {}
        for task in tasks:
            where = nodes.get(task.node)
            name = self._name(task.labels)
            if not name or task.service in there or not _still_runs(task, where):
                continue
            with contextlib.suppress(ValueError):
                found[name] = api.Instance(
                    name=name,
                    state=api.InstanceState.STOPPING,
                    metadata=service.read_metadata(task.labels),
                    created_at=task.created_at,
                    place=where.name if where is not None else "",
                )
        return tuple(found.values())

    async def _picture(self) -> object:
        """Return what changes whenever something has changed."""
        (tasks, _), nodes = await asyncio.gather(
            self._read(manager.Manager.tasks, self._owner), self._machines()
        )
        return sorted((task.id, task.version) for task in tasks), sorted(
            (node.id, node.is_down, node.takes_tasks) for node in nodes.values()
        )

    async def _machines(self) -> dict[str, states.SwarmNode]:
        return {node.id: node for node in await self._read(manager.Manager.nodes)}

    # --- the end ---

    async def _goes(self, marks: Mapping[str, str]) -> bool:
        """Tell whether a node may still have to end a task; one that is down does not obey."""
        (tasks, _), nodes = await asyncio.gather(
            self._read(manager.Manager.tasks, marks), self._machines()
        )
        return any(_still_runs(task, nodes.get(task.node)) for task in tasks)

    async def _gone(self, marks: Mapping[str, str]) -> None:
        """Wait until it is gone from its node; if it takes too long it is listed as stopping."""
        pause, longest = _LOOKS_S
        with contextlib.suppress(TimeoutError):
            async with waits.timeout(self._settings.timeout_s + _GONE_S):
                while await self._goes(marks):
                    await asyncio.sleep(pause)
                    pause = min(longest, pause * 1.5)

    async def _sweep(self, needed: Collection[str]) -> None:
        """Remove secrets that nobody's service has, once nobody can be about to make one."""
        found = await self._read(manager.Manager.own_secrets, self._owner)
        spare = {one.id: one for one in found if self._name(one.labels) not in needed}
        self._spare = _first_seen(self._spare, spare, self._now())
        stale_s = _CALLS * self._settings.timeout_s
        await self._remove_secrets(
            [one for key, one in spare.items() if self._now() - self._spare[key] > stale_s]
        )

    async def _tidy(self, used: Collection[str]) -> None:
        """Remove configs of ours that no service has had since the last look; seldom."""
        now = self._now()
        if now < self._tidy_at:
            return
        self._tidy_at = now + _CONFIGS_S
        found = await self._read(manager.Manager.own_configs, self._owner)
        stale_s = _CALLS * self._settings.timeout_s
        self._wanted = {key: at for key, at in self._wanted.items() if now - at <= stale_s}
        idle = {one.id: one for one in found if one.name not in {*used, *self._wanted}}
        known, self._idle = self._idle, _first_seen(self._idle, idle, now)
        for key in [one for one in idle if one in known and now - known[one] > stale_s]:
            with contextlib.suppress(api.NotFound, api.Rejected):  # another service has it
                await self._ask(client.Lane.END, manager.Manager.remove_config, key)

    async def _remove_secrets(self, found: Sequence[manager.SwarmSecret]) -> None:
        for one in found:
            with contextlib.suppress(api.NotFound, api.Rejected):  # another service has it
                await self._ask(client.Lane.END, manager.Manager.remove_secret, one.id)

    # --- inside ---

    async def _read(
        self,
        question: Callable[Concatenate[manager.Manager, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        return await self._ask(client.Lane.READ, question, *args, **kwargs)

    async def _ask(
        self,
        lane: client.Lane,
        question: Callable[Concatenate[manager.Manager, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        self._begin()
        return await self._managers.ask(lane, question, *args, **kwargs)

    async def _output(self, name: str, task: states.SwarmTask, tail: int) -> str:
        said = await self._read(manager.Manager.output, task.id, tail)
        for secret in self._given.get(name, ()):
            for line in secret.splitlines():
                if len(line.strip()) >= _SHORTEST_SECRET:
                    said = said.replace(line.strip(), _BLANK)
        return "\n".join(text.last_lines(_SECRET.sub(_BLANK, said), tail))

    async def _own(self, name: str) -> manager.Service:
        if names.name_problem(name) is None:
            called = service.service_name(name, prefix=self._settings.name_prefix)
            there = await self._read(manager.Manager.find_service, called)
            if self._is_own(there, name):
                return there
        raise api.NotFound(f"no instance {quotes.shown(name)}")

    def _is_own(self, there: manager.Service, name: str) -> bool:
        return {**self._owner, service.NAME: name}.items() <= there.labels.items()

    def _name(self, labels: Mapping[str, str]) -> str:
        name = labels.get(service.NAME, "")
        return name if names.name_problem(name) is None else ""

    def _begin(self) -> None:
        if self._closing.is_set():
            raise api.Unavailable("the backend is closed")

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One call at a time per name; work that outlives a cancelled call counts too."""
        lock = self._turns.setdefault(name, asyncio.Lock())
        async with lock:
            while (left_over := self._working.get(name)) is not None:
                await asyncio.wait([left_over])
            yield


def _first_seen(before: Mapping[str, float], there: Iterable[str], now: float) -> dict[str, float]:
    """Return since when each has been seen."""
    return {key: before.get(key, now) for key in there}


def _still_runs(task: states.SwarmTask, where: states.SwarmNode | None) -> bool:
    """Tell whether a node may still have to end a task that nobody wants."""
    if where is not None and where.is_down:
        return False
    return task.stage in {states.TaskStage.BEFORE, states.TaskStage.RUNS}
