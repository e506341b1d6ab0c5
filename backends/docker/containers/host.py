"""One engine with our containers on it: launch, list, terminate, logs.

Joins the SDK's calls (``client``), the pure description (``container``), the events (``follow``)
and the truth table (``death``). Refuses to know that there may be other engines.

Theory of operation: a container's name is the instance's name, so the engine itself makes launches
idempotent; its labels say whose it is. Creation, secret and start are one piece of blocking work
that a cancelled call asks to stop: it then takes back what it made, so nothing half made is left.

An archive is put in only where it has to be, because it is dear (``handover`` says why): for a
secret that cannot be mounted, for fetched files, and for folders that the image does not have.
"""

import asyncio
import contextlib
import math
import pathlib
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from backends import api
from backends.docker import settings
from backends.docker.containers import (
    belongings,
    commands,
    container,
    death,
    engines,
    handover,
    host_paths,
    renewal,
    runtimes,
)
from backends.docker.engine import answers, client, events
from backends.kit import names, sampling
from outside import counts, quotes, text

_GONE_S = 60.0  # for a removal that somebody else has begun
_LOOK_S = 0.1
_NAME_S = 10.0
_MAKING_S = 600.0  # between the creation of a container and its start
_EVENTS_S = 1.0
_EVERYBODY = stat.S_IROTH | stat.S_IWOTH
_SIGKILLED = 137
_LAST_WORDS = 5
_SHELL_CODES = (126, 127)  # what tini and shells answer for a program that is none
_BLANK = "****"
_SHORTEST_SECRET = 8

_STATES = {
    "created": api.InstanceState.STARTING,
    "restarting": api.InstanceState.STARTING,
    "running": api.InstanceState.RUNNING,
    "paused": api.InstanceState.RUNNING,
    "removing": api.InstanceState.STOPPING,
    "exited": api.InstanceState.EXITED,
    "dead": api.InstanceState.EXITED,
}
"""Every state of the engine (20.10 to 29); an unknown one is taken for running: never an end."""
_AT_WORK = frozenset(word for word, state in _STATES.items() if state is api.InstanceState.RUNNING)


@frozen(kw_only=True)
class Listing:
    """What an engine has of ours; ``odd``: why nothing is known of what is not in it."""

    instances: tuple[api.Instance, ...]
    odd: str = ""


class Host:
    """The verbs of the contract on one engine."""

    def __init__(
        self,
        host: settings.Host,
        configured: settings.DockerSettings,
        *,
        owner: str,
        wake: Callable[[], None],
        now: Callable[[], float],
        reading: bool = False,
        refusal: str = "",
    ) -> None:
        """``reading``: nothing is followed, cleared away or made; ``refusal``: nobody is asked."""
        self._reading = reading
        self.url = host.url
        self.place = text.clean(host.url)
        self._reached = text.clean(urllib.parse.urlsplit(host.url).hostname or "", 253)
        self.max_instances = host.max_instances
        self._owner = container.owner_labels(owner)
        self._prefix = configured.name_prefix
        self._making_s = max(_MAKING_S, 3 * configured.timeout_s)
        self._now = now
        self.client = client.Engine(host, configured, refusal=refusal)
        self._runtimes = runtimes.Runtimes(self.client, configured, owner=owner)
        self._engines = engines.Engines(self.client, owner=owner)
        self._caches = renewal.Caches(self.client, owner=self._owner, now=now, place=self.place)
        self._engined: frozenset[str] = frozenset()  # which of those listed have one
        self._follower = events.Follower(self.client, self._owner, wake=wake, now=now)
        self._sampler = sampling.Sampler(self._sample, now=now)
        self._handover = handover.SecretFolders(owner, host.url)
        # whether the engine sees our files; None: only a launch can tell
        self._shares = None if host.url.startswith("unix:") else False
        self._provided: dict[tuple[str, str], bool] = {}
        self._certificates: dict[str, api.Exit] = {}
        self._memory_limits: dict[str, int | None] = {}
        self._making: set[str] = set()
        self._ending: set[str] = set()
        self._swept = False

    def follow(self) -> None:
        """Begin to listen to the events."""
        if not self._reading:
            self._follower.start()

    def stream(self) -> int:
        """Return the number of the open stream of events; 0: none, the engine is away."""
        return self._follower.stream()

    async def identity(self) -> str:
        """Return what tells its engine from another; empty if it does not say."""
        self.follow()
        return await self.client.call(client.Lane.READ, self.client.identity)

    # --- launch ---

    def make(
        self, plan: container.ContainerPlan, files: Mapping[str, bytes], cancelled: threading.Event
    ) -> None:
        """Create, put secrets and files in, start; blocking. Adopts one of the same digest.

        Raises ``client.NoImageError`` and the contract's errors; what failed is removed.
        """
        self.follow()  # before there is anything to miss
        plan = self._runtimes.planned(self._with_socket(plan))
        name = plan.body["Labels"][container.NAME]
        self._making.add(name)
        try:
            self._caches.renew(plan)
            folder = self._folder_for(name, plan)
            if folder is None or not self._make_with(folder, plan, files, cancelled):
                there = self._make(plan, files, cancelled, mounted=False)
                if folder is not None and there and self._shares is None:
                    self._shares = False  # all else was the same
        finally:
            self._making.discard(name)

    def _with_socket(self, plan: container.ContainerPlan) -> container.ContainerPlan:
        """Mount the socket where this engine has it, for whom may use it. Raises Rejected."""
        if not plan.wants_socket:
            return plan
        path = self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""
        try:
            socket = pathlib.Path(path).stat() if path else None
        except OSError:
            socket = None
        if socket is None:  # elsewhere: the template's `groups` tell
            if plan.needs_group and plan.ids[0] != 0:
                raise api.Rejected(
                    f"docker_pipelines: which group may use the socket of {self.url[:80]} is not "
                    "seen from here; hint: `groups`: its number there (stat -c %g "
                    f"{path or container.SOCKET})"
                )
            return plan.with_socket(path or container.SOCKET, None)
        if plan.ids[0] in {0, socket.st_uid} or socket.st_mode & _EVERYBODY == _EVERYBODY:
            return plan.with_socket(path, None)
        if not socket.st_mode & stat.S_IWGRP:
            raise api.Rejected(
                f"the engine's socket {path} may be used by its owner alone, user "
                f"{socket.st_uid}; hint: chmod g+rw, and a group for it"
            )
        return plan.with_socket(path, socket.st_gid)

    def _folder_for(self, name: str, plan: container.ContainerPlan) -> str | None:
        """Return a folder with the secrets that the engine sees, perhaps; None: it does not."""
        if not plan.secrets or plan.hands_on:
            return None
        if self._shares is None and self.client.remaps_files():
            self._shares = False
        if self._shares is False:
            return None
        return self._handover.give(name, plan.secrets, plan.ids)

    def _make_with(
        self, folder: str, plan: container.ContainerPlan, files: Mapping[str, bytes],
        cancelled: threading.Event,
    ) -> bool:  # fmt: skip
        """Make it with a mount for the secrets; False if perhaps that was what failed."""
        try:
            if self._make(plan.with_secrets(folder), files, cancelled, mounted=True):
                self._shares = True
                return True
        except (api.BackendError, client.NoImageError) as error:
            self._take_if_gone(plan)
            if self._shares is None and isinstance(error, api.BackendError):
                return False
            raise
        self._take_if_gone(plan)
        return True

    def _take_if_gone(self, plan: container.ContainerPlan) -> None:
        """Remove the secrets of a container that surely is not there; others may yet start."""
        try:
            self.client.inspect(plan.container)
        except api.NotFound:
            self._handover.take(plan.body["Labels"][container.NAME])
        except api.BackendError:
            pass  # what nobody needs in a while goes by itself

    def _make(
        self, plan: container.ContainerPlan, files: Mapping[str, bytes],
        cancelled: threading.Event,
        *, mounted: bool,
    ) -> bool:  # fmt: skip
        """Return whether it runs now: a cancelled one was taken back."""
        created_id = self._created_or_there(plan, mounted=mounted)
        if created_id is None:
            return True
        started = False
        try:
            self._runtimes.provide(created_id, plan)
            self._put(created_id, plan, files, mounted=mounted)
            self._engines.provide(plan, cancelled)
            if not cancelled.is_set():
                self.client.start(created_id, plan)
                started = True
        except client.StartError as failed:
            raise failed.error from failed
        finally:
            if not started:
                self._take_back(created_id)
        return started

    def _put(
        self,
        container_id: str,
        plan: container.ContainerPlan,
        files: Mapping[str, bytes],
        *,
        mounted: bool,
    ) -> None:
        """Put in what neither a mount nor the image provides."""
        needed = bool(plan.folders) and (
            plan.fresh_folders or not self._provides(container_id, plan)
        )
        for at, archive in container.archives(plan, files, secrets=not mounted, folders=needed):
            self.client.put(container_id, at, archive)

    def _provides(self, made: str, plan: container.ContainerPlan) -> bool:
        """Tell whether the image has the folders, for that user; it is looked at once."""
        key = (self.client.inspect(made).image, plan.kin)
        if key not in self._provided:
            owners = [self.client.owner_of(made, path) for path in plan.folders]
            self._provided[key] = all(owner == plan.ids[0] for owner in owners)
        return self._provided[key]

    def _created_or_there(self, plan: container.ContainerPlan, *, mounted: bool) -> str | None:
        """Return the id of a container that has to be started; None if it runs already.

        The engine reserves a name before it shows its container, and frees it after.
        """
        end = time.monotonic() + _NAME_S
        while True:
            try:
                return self.client.create(plan)
            except client.NameTakenError as taken:
                there = self._taken_by(plan, taken)
                if there is not None and there.state != "created":
                    return None
                as_ours = there is not None and (container.SECRETS in there.mounts) == mounted
                if there is not None and as_ours and not plan.networks:
                    return there.id
                if time.monotonic() > end:
                    raise api.Unavailable(
                        f"{taken}, and it cannot be removed", reach=api.Reach.LAUNCH
                    ) from taken
                if there is not None:
                    self._take_back(there.id)  # other ways of secrets, or networks joined half
                time.sleep(_LOOK_S)

    def _taken_by(
        self, plan: container.ContainerPlan, taken: client.NameTakenError
    ) -> answers.Inspected | None:
        """Return the container that has the name, if it is seen; raises AlreadyExists."""
        try:
            there = self.client.inspect(plan.container)
        except api.NotFound:
            return None
        wanted = {container.DIGEST: plan.body["Labels"][container.DIGEST]}
        if not _has(there.labels, self._owner | wanted):
            raise api.AlreadyExists(
                f"the container {quotes.shown(plan.container)} exists and is not ours, or was "
                "made from another specification"
            ) from taken
        return there

    def _take_back(self, made: str) -> None:
        with contextlib.suppress(api.BackendError):  # what is left is listed and swept
            there = self.client.inspect(made)
            if self._places(there):
                self.client.stop(made, 0)
                self._remove_folders(there)
            self.client.remove(made)
            self._remove_engine(there)
            self._remove_volumes(there)

    # --- list ---

    async def list(self) -> Listing:
        """All containers of the owner that can be read, or an error."""
        self.follow()
        try:
            listing = await self._listed()
        except api.Unavailable:
            self._follower.silent()
            raise
        self._follower.answered()
        return listing

    async def _listed(self) -> Listing:
        found, odd = await self.client.call(client.Lane.READ, self.client.list, self._owner)
        named, nameless = self._named(found)
        ids = {one.id for one in named.values()}
        # of one that cannot be read secrets and volumes may still be needed
        if not self._reading and not odd and not nameless:
            needed = {*named, *self._making}
            self._handover.keep(needed, now=self._now())
            engined = frozenset(n for n, one in named.items() if container.ENGINE in one.labels)
            if not self._swept or self._engined - named.keys():
                await self._sweep(needed)
            self._engined = engined
            with contextlib.suppress(api.BackendError):  # another time
                await self.client.call(client.Lane.END, self._runtimes.sweep)
        self._certificates = {k: v for k, v in self._certificates.items() if k in ids}
        self._memory_limits = {k: v for k, v in self._memory_limits.items() if k in ids}
        if not self._reading:
            running = [one.id for one in named.values() if one.state == "running"]
            self._sampler.look(running, there=ids)
            self._caches.look()
        instances = await asyncio.gather(
            *(self._instance(name, one) for name, one in named.items())
        )
        damaged = [name for name, one in named.items() if _metadata(one) is None]
        reasons = [
            odd.words("container"),
            f"{counts.told(nameless, 'container of ours has', 'containers of ours have')} no name"
            if nameless
            else "",
            f"the labels of {', '.join(damaged[:3])} are damaged" if damaged else "",
        ]
        return Listing(
            instances=tuple(instance for instance in instances if instance is not None),
            odd=text.clean("; ".join(f"{self.url}: {reason}" for reason in reasons if reason)),
        )

    async def _sample(self, ids: Collection[str], take: sampling.Take) -> None:
        """Ask some at the same time, because an answer takes a second (``client.Lane``)."""

        async def one(container_id: str) -> None:
            with contextlib.suppress(api.BackendError):  # the others may be told
                sample = await self.client.call(
                    client.Lane.USAGE, self.client.sample, container_id, now=self._now
                )
                if sample is not None:
                    take(container_id, sample)

        await asyncio.gather(*map(one, ids))

    def _named(self, listed: Sequence[answers.Listed]) -> tuple[dict[str, answers.Listed], int]:
        """Return ours by the instance's name, and of how many the name cannot be told.

        An image that was made of an agent's container has its labels, and so has whatever runs
        from it: of several the one that is called so is the agent.
        """
        named: dict[str, answers.Listed] = {}
        nameless = 0
        for one in listed:
            if not one.flawed and not _has(one.labels, self._owner):
                continue  # the engine does not know the filter
            name = container.name_of(one.labels, one.names, prefix=self._prefix)
            if not name:
                nameless += 1
            elif name not in named or self._is_called(one, name):
                called = container.container_name(name, prefix=self._prefix)
                named[name] = one if one.id else attrs.evolve(one, id=called)
        return named, nameless

    def _is_called(self, one: answers.Listed, name: str) -> bool:
        return container.container_name(name, prefix=self._prefix) in one.names

    async def _instance(self, name: str, listed: answers.Listed) -> api.Instance | None:
        """Return what a listing shows of a container; None if it has just gone."""
        state = _STATES.get(listed.state, api.InstanceState.RUNNING)
        instance = api.Instance(
            name=name,
            state=state,
            metadata=_metadata(listed) or {},
            created_at=listed.created_at,
            place=self.place,
            host=self._reached,
            usage=self._sampler.of(listed.id),
        )
        if name in self._ending:
            return attrs.evolve(instance, state=api.InstanceState.STOPPING)
        if state is api.InstanceState.RUNNING and not self._follower.heard_of_end(listed.id):
            mishap = await self._mishap(listed.id)
            detail = "somebody paused it" if listed.state == "paused" else ""
            return attrs.evolve(instance, detail=detail, ports=listed.ports, mishap=mishap)
        failed = listed.state == "created" and name not in self._making
        # an engine tells of an end some time before it lists it, and tells nothing when it does
        if failed or state in {api.InstanceState.EXITED, api.InstanceState.RUNNING}:
            return await self._ended(instance, listed)
        return instance

    async def _mishap(self, container_id: str) -> api.Mishap | None:
        """Return what has befallen a container that runs."""
        trace = self._follower.seen(container_id)
        if trace.oom_at and container_id not in self._memory_limits:
            with contextlib.suppress(api.NotFound, client.OddAnswerError):
                there = await self._inspect(container_id)
                self._memory_limits[container_id] = there.memory_bytes
        return death.mishap(trace, self._memory_limits.get(container_id))

    async def _ended(self, instance: api.Instance, listed: answers.Listed) -> api.Instance | None:
        """Add how it ended, if it has: the inspect knows.

        A created one has ended only if its start failed, or never comes; of a running one the end
        may not be listed yet.
        """
        is_listed = instance.state is not api.InstanceState.RUNNING
        if not is_listed or listed.id not in self._certificates:
            try:
                there = await self._inspect(listed.id)
            except api.NotFound:
                return None
            except client.OddAnswerError as error:
                if instance.state is not api.InstanceState.EXITED:
                    return instance
                end = api.Exit(slug="unknown", message=error.reason)
                return attrs.evolve(instance, exit=end)
            if there.state == "created" and not there.error and not self._is_left(instance):
                return instance
            if there.state in {"running", "restarting", "paused"}:
                return attrs.evolve(instance, state=_STATES[there.state])
            await self._heard(there)
            seen = self._follower.seen(listed.id)
            self._certificates[listed.id] = death.certificate(
                death.Ended(
                    exit_code=there.exit_code,
                    oom_killed=there.oom_killed,
                    error=there.error,
                    last_words=await self._last_words(there),
                    started=there.started,
                    finished_at=there.finished_at,
                    memory_bytes=there.memory_bytes,
                    seen=seen,
                    away=self._follower.away(),
                    engine_began_at=await self._engine_began_at(there, seen),
                )
            )
        return attrs.evolve(
            instance, state=api.InstanceState.EXITED, exit=self._certificates[listed.id]
        )

    async def _engine_began_at(
        self, there: answers.Inspected, seen: death.EventTrace
    ) -> float | None:
        """Return since when the engine is up, where that may say what a container ended of.

        Raises ``Unavailable`` while it stops: what it has ended is told when it is back.
        """
        if death.may_be_of_engine(there.exit_code, seen, there.finished_at):
            with contextlib.suppress(client.OddAnswerError):
                return await self.client.call(client.Lane.READ, self.client.began_at)
        return None

    def _is_left(self, instance: api.Instance) -> bool:
        """Tell whether a created container is of a broker that ended before it started it."""
        born = instance.created_at
        return born is not None and self._now() - born > self._making_s

    async def _last_words(self, there: answers.Inspected) -> str:
        """Return the end of the output where it may say why the program did not start."""
        if there.exit_code not in _SHELL_CODES:
            return ""
        with contextlib.suppress(api.NotFound, client.OddAnswerError):
            return await self._output(there, _LAST_WORDS)
        return ""

    async def _output(self, there: answers.Inspected, tail: int) -> str:
        return await self.client.call(
            client.Lane.READ,
            self.client.logs,
            there.id,
            tail,
            has_terminal=there.has_terminal,
        )

    async def _heard(self, there: answers.Inspected) -> None:
        """Wait for the events of an end that was a moment ago: they say what it was.

        Of a kill for memory the ``oom`` may come after the ``die``, and the flag with it.
        """

        def told() -> bool:
            trace = self._follower.seen(there.id)
            why = there.exit_code != _SIGKILLED or trace.oom_at or trace.signals
            return bool(why) and self._follower.heard_of_end(there.id)

        ended_at = there.finished_at
        while (  # noqa: ASYNC110 -- the events come from a thread, one second at most
            ended_at is not None and 0 <= self._now() - ended_at < _EVENTS_S and not told()
        ):
            await asyncio.sleep(_LOOK_S / 2)

    # --- terminate and logs ---

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """Stop and remove; raises NotFound."""
        there = await self._own(name)
        self._ending.add(name)
        try:
            with contextlib.suppress(api.NotFound):
                runs = there.state in {"running", "paused", "restarting"}
                folders = self._places(there).folders
                if runs and (grace_s > 0 or folders):  # no folder is removed under a build
                    grace = max(0, math.ceil(grace_s))
                    await self.client.call(client.Lane.END, self.client.stop, there.id, grace)
                if folders:
                    await self.client.call(client.Lane.END, self._remove_folders, there)
                await self._remove(there.id)
            if container.ENGINE in there.labels:
                await self._end_engine(there)
            if self._places(there).volumes:
                await self._end_volumes(there)
            self._handover.take(name)
        finally:
            self._ending.discard(name)

    async def _end_engine(self, there: answers.Inspected) -> None:
        try:
            await self.client.call(client.Lane.END, self._remove_engine, there)
        except api.BackendError:
            self._swept = False  # as below

    async def _end_volumes(self, there: answers.Inspected) -> None:
        try:
            await self.client.call(client.Lane.END, self._remove_volumes, there)
        except api.BackendError:
            self._swept = False  # the container is gone: a listing looks after them

    async def _sweep(self, needed: set[str]) -> None:
        """Remove what was left between the end of a container and that of what belongs to it."""
        self._swept = True
        try:
            await self.client.call(client.Lane.END, self._engines.sweep, needed)
            await self.client.call(
                client.Lane.END,
                belongings.sweep_volumes,
                self.client,
                marks=self._owner,
                needed=needed,
            )
        except api.BackendError:
            self._swept = False

    def _places(self, there: answers.Inspected) -> host_paths.Belongings:
        return host_paths.read(there.labels, there.labels.get(container.NAME, ""))

    def _remove_folders(self, there: answers.Inspected) -> None:
        called = container.container_name(there.labels[container.NAME], prefix=self._prefix)
        belongings.remove_heirs(self.client, agent=there, called=called)
        belongings.remove_folders(
            self.client, labels=there.labels, image=there.image, called=called
        )

    def _remove_engine(self, there: answers.Inspected) -> None:
        if container.ENGINE in there.labels:
            called = container.container_name(there.labels[container.NAME], prefix=self._prefix)
            self._engines.remove(called)

    def _remove_volumes(self, there: answers.Inspected) -> None:
        belongings.remove_volumes(self.client, labels=there.labels, marks=self._owner)

    async def _remove(self, container_id: str) -> None:
        """Remove until it is gone: somebody else may be at it (409)."""
        end = asyncio.get_running_loop().time() + _GONE_S
        while True:
            try:
                await self.client.call(client.Lane.END, self.client.remove, container_id)
            except api.NotFound:
                return
            except api.Rejected as error:
                if asyncio.get_running_loop().time() > end:
                    raise api.Unavailable(str(error)) from error
                await asyncio.sleep(_LOOK_S)
            else:
                return

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of output, the secrets blanked out; raises NotFound."""
        there = await self._own(name)
        if tail <= 0:
            return ""
        said = await self._output(there, tail)
        secrets = self._handover.held(name)
        if not secrets:
            with contextlib.suppress(api.NotFound, client.OddAnswerError):
                secrets = await self.client.call(
                    client.Lane.READ, self.client.get, there.id, container.SECRETS
                )
        return "\n".join(text.last_lines(_blanked(said, secrets), tail))

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run a command in it; one that does not end is killed with what it started."""
        there = await self._own(name)
        if there.state not in _AT_WORK:
            raise api.NotFound(f"{quotes.shown(name)} does not run: it is {there.state}")
        secrets = self._handover.held(name)
        return await commands.run(
            self.client, there.id, argv, within_s=within_s, hide=_texts(secrets)
        )

    async def has(self, name: str) -> bool:
        """Tell whether the owner has a container for that instance here."""
        try:
            await self._own(name)
        except api.NotFound:
            return False
        return True

    async def _own(self, name: str) -> answers.Inspected:
        if names.name_problem(name) is None:
            there = await self._inspect(container.container_name(name, prefix=self._prefix))
            if _has(there.labels, self._owner):
                return there
        raise api.NotFound(f"no instance {quotes.shown(name)}")

    async def _inspect(self, name: str) -> answers.Inspected:
        return await self.client.call(client.Lane.READ, self.client.inspect, name)

    def leave(self) -> frozenset[asyncio.Future[Any]]:
        """Begin nothing more; return the calls that are under way."""
        self._follower.leave()
        self._caches.leave()
        return self.client.leave() | self._sampler.leave()

    def close(self) -> None:
        """Let go of every connection, and of the thread that reads the events; blocking."""
        self.client.close()
        self._follower.close()


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == text for key, text in wanted.items())


def _metadata(found: answers.Listed) -> dict[str, str] | None:
    """Return what we wrote on a container; None if it is damaged, or only a part can be read."""
    try:
        return None if found.flawed else container.read_metadata(found.labels)
    except ValueError:
        return None


def _texts(secrets: Mapping[str, bytes]) -> frozenset[str]:
    """Return what of the secrets must not be shown: each line."""
    lines = (
        line.strip()
        for content in secrets.values()
        for line in content.decode("utf-8", "replace").splitlines()
    )
    return frozenset(line for line in lines if len(line) >= _SHORTEST_SECRET)


def _blanked(said: str, secrets: Mapping[str, bytes]) -> str:
    """Agents print their arguments when they fail; these logs go into pages and records."""
    for line in _texts(secrets):
        said = said.replace(line, _BLANK)
    return said
