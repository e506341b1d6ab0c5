"""The contract over one Mesos framework: joins the session, the wire and the broker's wishes.

Theory of operation. A verb of the contract puts a wish into the session and waits until the
session's facts show it, or tells why not within seconds. All tasks of the framework are ours.
After a restart the stream tells which tasks there are, and the master's page what their labels
are. Refuses to know the stream (``driver``), the protocol (``session``) and shells (``tasks``).
"""

import asyncio
import contextlib
import pathlib
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Sequence

import attrs

from backends import api
from backends.kit import sampling
from backends.mesos import (
    cluster,
    containers,
    death,
    driver,
    handover,
    instances,
    offers,
    reader,
    records,
    session,
    settings,
    tasks,
    used,
)
from outside import counts, files, quotes, secrets, text, typed

_RESERVED_S = 150.0  # from a reservation to its launch: whoever takes longer has given up
_CONFIRM_S = 1.0  # for the master's or the agent's first word against a task, after it has it
_KILL_S = 30.0  # beyond the grace
_TURNS = 6  # of ``offer_timeout_s``, while there is room that others are offered before us
_LOGIN_MAX = 60_000  # bytes: it travels with each task
_BLANK, _SECRET_MIN = "********", 8  # shorter ones would blank out ordinary words


def create(
    configured: settings.MesosSettings,
    *,
    owner: str,
    store: api.Store,
    state_dir: pathlib.Path,  # noqa: ARG001 -- part of every factory; the store is all we need
    now: Callable[[], float],
    reading: bool = False,
) -> "MesosBackend | reader.ClusterReader":
    """Build the backend; nothing is asked before the first call."""
    if reading:
        key = driver.key_of(owner, configured)
        return reader.ClusterReader(configured, identity=lambda: store.load(key) or None)
    driven = driver.Driver(configured, owner=owner, store=store, now=now)
    return MesosBackend(configured, driver=driven, now=now)


class MesosBackend:
    """The contract over one framework; one object per owner and event loop."""

    kind = "mesos"

    def __init__(
        self,
        configured: settings.MesosSettings,
        *,
        driver: driver.Driver,
        now: Callable[[], float],
    ) -> None:
        self._settings = configured
        self._driver = driver
        self._cluster = driver.cluster
        told = configured.handover
        self._door = None if told is None else handover.HandoverDoor(told, now=now)
        self._now = now
        self._sampler = sampling.Sampler(
            self._sample, now=now, every_s=used.EVERY_S, together=True
        )
        self._reserved: dict[str, tuple[float, offers.Need]] = {}  # by name; when, in loop time
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    # --- the contract ---

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Ask the master whether an agent has as much free; nothing is held, nor wanted yet.

        An offer that is held is one that nobody else can use, and its agent may be offered next to
        another framework anyway: so what is free of each agent counts, and what was reserved or is
        wanted already. Where the master's pages may not be read offers tell, at the launch.
        """
        need = tasks.need(spec)
        machine = await self._driver.ready(whole=False)
        if spec.name in machine.tasks:
            return
        now = asyncio.get_running_loop().time()
        self._reserved = {
            name: (at, other)
            for name, (at, other) in self._reserved.items()
            if now - at < _RESERVED_S and name not in machine.tasks and name != spec.name
        }
        before = {name: other for name, (_, other) in self._reserved.items()}
        before |= {name: want.need for name, want in machine.wants.items() if name != spec.name}
        beside = records.placed(machine.tasks).get(need.group, ())
        self._reserved[spec.name] = (now, need)  # also while the master is asked
        full = await self._cluster.full(need, beside, before=tuple(before.values()))
        if full is not None:
            self._reserved.pop(spec.name, None)
            raise full

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Hold the specification until an offer fits; idempotent by name."""
        need = tasks.need(spec)
        async with self._turns.setdefault(spec.name, asyncio.Lock()):
            machine = await self._driver.ready(whole=False)
            await self._learn(machine)
            if spec.name in machine.tasks:
                await self._same(machine, machine.tasks[spec.name], spec)
                return
            if machine.may_come_back(spec.name):
                raise api.AlreadyExists(
                    f"an earlier task {quotes.shown(spec.name)} is on an agent that does not "
                    "answer"
                )
            if machine.was_used(spec.name):
                raise api.AlreadyExists(
                    f"a task {quotes.shown(spec.name)} was there before; an id is used once, "
                    "since its executor may still live, and its agent would abort"
                )
            given = await self._give(spec)
            info = tasks.info(
                spec,
                configured=self._settings,
                created_at=self._now(),
                handed=await self._hand_over(spec),
                given=given,
                login=_login(spec),
            )
            secrets = tuple(spec.secret_files.values())
            want = records.Want(need=need, info=info, secrets=secrets)
            self._driver.say(machine.want([want]))
            try:
                await self._launched(machine, want)
            finally:
                if machine.wants.get(spec.name) is want:
                    self._driver.say(machine.unwant(spec.name))
                if self._door is not None and spec.name not in machine.tasks:
                    self._door.withdraw(spec.name)

    async def list(self) -> Sequence[api.Instance]:
        """All tasks of the framework; ``Partial`` while the master waits for agents of ours."""
        machine = await self._driver.ready(whole=False)
        unread = await self._learn(machine)
        mute = [task for task in machine.tasks.values() if _is_mute(task)]
        await asyncio.gather(*(self._hear(task, machine) for task in mute))
        if not unread:  # of whatever came up meanwhile
            unread = await self._learn(machine)
        known = [task for task in machine.tasks.values() if task.labels is not None]
        if len(known) < len(machine.tasks):
            unread = unread or "the labels of some tasks are not known yet"
        self._sampler.look(
            [task.name for task in known if task.state == "TASK_RUNNING" and task.final is None],
            there=machine.tasks,
        )
        leaving = machine.leaving(self._now())
        warned = {agent: machine.maintenance[agent] for agent in leaving}
        read, odd = typed.each(
            known,
            lambda task: attrs.evolve(
                instances.instance(task, maintenance_at=warned.get(task.agent_id or "")),
                usage=self._sampler.of(task.name),
            ),
        )
        waits = "" if machine.synced else await self._driver.awaited(machine)
        if reason := odd.words("task") or unread or _unheard(machine) or waits:
            raise api.Partial(reason, seen=read, odd=True)
        return read

    async def watch(self) -> AsyncIterator[None]:
        """Wake with every update of a task; ends when the backend is closed."""
        self._driver.start()
        version = self._driver.changes
        with self._driver.listening() as waker:
            while not self._driver.closed:
                await waker.wait()
                waker.clear()
                if self._driver.changes != version and not self._driver.closed:
                    version = self._driver.changes
                    yield

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` later SIGKILL; Mesos removes the sandbox in its own time."""
        self._reserved.pop(name, None)
        machine = await self._driver.ready()
        if name in machine.wants:
            self._driver.say(machine.unwant(name))
            self._driver.notify()
            return
        if name not in machine.tasks:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        self._driver.say(machine.kill(name, grace_s=max(0.0, grace_s), now=self._now()))

        def ended() -> bool:
            task = machine.tasks.get(name)
            return task is None or task.final is not None or task.is_away

        if not await self._driver.until(ended, within_s=max(0.0, grace_s) + _KILL_S):
            raise api.Unavailable(
                f"Mesos has not ended {quotes.shown(name)} yet; it will be told again"
            )
        if name in machine.tasks:
            self._driver.say(machine.forget(name))
        if self._door is not None:
            self._door.withdraw(name)
        await self._driver.spoken_out()

    async def capacity(self) -> api.Capacity | None:
        """Unknown: what is free is told by offers, and nobody asks for those without a need."""
        if self._driver.closed:
            raise api.Unavailable("the backend is closed")
        return None

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the agent wrote, read from its sandbox, its secrets blanked out."""
        machine = await self._driver.ready()
        task = machine.tasks.get(name)
        if task is None:
            if name in machine.wants:
                return ""
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        output = await self._output(task, machine)
        return "\n".join(text.last_lines(output, tail)) if tail > 0 else ""

    def work_dir(self, name: str) -> str | None:
        """Return the link into the sandbox that the task makes before the agent starts."""
        return tasks.work_dir(self._settings, name)

    async def depart(self) -> None:
        """End the framework, which the master would keep for ``failover_timeout``.

        Raises Unavailable while any task of it is there, or cannot be seen.
        """
        left = [instance.name for instance in await self.list()]
        machine = await self._driver.ready()
        left += await self._cluster.living(machine.framework.id)
        if left or machine.wants:
            raise api.Unavailable(
                f"our framework is left as it is: "
                f"{quotes.shown((left or list(machine.wants))[0])} is there"
            )
        await self._driver.depart(machine)

    async def aclose(self) -> None:
        """Leave the framework to its failover time-out; its tasks run on."""
        await self._sampler.aclose()
        if self._door is not None:
            await self._door.aclose()
        await self._driver.aclose()

    async def _sample(self, names: Collection[str], take: sampling.Take) -> None:
        """Ask each agent that runs tasks of ours; those that do not answer are left out."""
        machine = await self._driver.ready(whole=False)
        by_agent = {
            task.agent_id: task for name in names if (task := machine.tasks.get(name)) is not None
        }
        for task in by_agent.values():
            with contextlib.suppress(api.BackendError):
                page = await self._cluster.containers(task)
                now, framework = self._now(), machine.framework.id
                for name, sample in used.read(page, framework=framework, now=now):
                    take(name, sample)

    # --- launching ---

    async def _hand_over(self, spec: api.InstanceSpec) -> dict[str, str]:
        """Leave the secrets at the door, if they are to be fetched; file name to URL."""
        if self._door is None or tasks.way(spec, self._settings) != "fetch":
            return {}
        await self._door.open()
        return {
            name: self._door.leave(spec.name, content)
            for name, content in spec.secret_files.items()
        }

    async def _give(self, spec: api.InstanceSpec) -> dict[str, str]:
        """Leave the files of ours at the door; file name to URL. Raises Rejected without one."""
        if not spec.given_files:
            return {}
        if self._door is None:
            raise api.Rejected(
                f"no way for the file {next(iter(spec.given_files))} to its task; hint: "
                "`handover` of the backend"
            )
        await self._door.open()
        return {
            name: self._door.give(spec.name, content) for name, content in spec.given_files.items()
        }

    async def _launched(self, machine: session.Session, want: records.Want) -> None:
        name = want.need.name
        for turn in range(_TURNS):
            if await self._driver.until(
                lambda: name not in machine.wants, within_s=self._settings.offer_timeout_s
            ):
                break
            await self._driver.ready()  # a lost master is the better reason
            beside = records.placed(machine.tasks).get(want.need.group, ())
            if turn + 1 == _TURNS or not await self._cluster.has_room(
                want.need, beside, leaving=machine.leaving(self._now())
            ):
                raise await self._cluster.why_not(want)

        def decided() -> bool:  # dropped, it waits for an offer again
            task = machine.tasks.get(name)
            return task.confirmed if task is not None else name not in machine.wants

        confirmed = await self._driver.until(decided, within_s=self._settings.request_timeout_s)
        task = machine.tasks.get(name)
        if name in machine.wants:
            raise await self._cluster.why_not(want)
        if not confirmed:
            # the agent that was chosen may hang; the master answers
            raise api.Unavailable(
                f"the master has not confirmed the task {quotes.shown(name)} yet",
                reach=api.Reach.LAUNCH,
            )
        if task is None:
            raise api.NoCapacity(f"{quotes.shown(name)} was terminated before an offer came")
        await self._driver.until(
            lambda: task.started or task.final is not None, within_s=_CONFIRM_S
        )
        if task.final is not None and not task.started:
            refusal = _refusal(task)
            if refusal is not None and machine.tasks.get(name) is task:
                self._driver.say(machine.forget(name))
                raise refusal

    async def _same(
        self, machine: session.Session, task: records.Task, spec: api.InstanceSpec
    ) -> None:
        """Raise AlreadyExists unless the task was made from this specification."""
        await self._learn(machine)
        if tasks.digest_of(task.labels or {}) != tasks.digest(spec):
            raise api.AlreadyExists(
                f"{quotes.shown(spec.name)} exists and was made from another specification"
            )

    async def _learn(self, machine: session.Session) -> str:
        """Ask for what no update tells of an earlier life: labels, tasks of silent agents.

        Returns what of the answer could not be read, if that may be about a task of ours.
        """
        unknown = {name for name, task in machine.tasks.items() if task.labels is None}
        if not unknown and not self._driver.inherits:
            return ""
        by_name, odd = await self._cluster.tasks(machine.framework.id)
        silent = {
            name: str(task["slave_id"])
            for name, task in by_name.items()
            if task["state"] == "TASK_UNREACHABLE" and "slave_id" in task
        }
        self._driver.say(machine.adopt(silent, self._now()))
        machine.note_used(by_name)
        self._driver.inherits = bool(odd)
        lacking = False
        for name in unknown | set(silent):
            task = machine.tasks.get(name)
            if task is None:
                continue
            if name not in by_name and not odd:
                raise api.Unauthorized(
                    f"the master's page /tasks does not show our task {quotes.shown(name)}; "
                    "hint: the ACLs view_frameworks and view_tasks"
                )
            read, damaged = typed.each([by_name.get(name)], tasks.labels_of)
            lacking = lacking or bool(damaged)
            for labels in read:
                task.labels = labels
                task.traits, task.group = tasks.traits_of(labels), tasks.group_of(labels)
        reason = odd.words("task of the master's page", "tasks of the master's page")
        return reason or ("labels of tasks cannot be read" if lacking else "")

    async def _hear(self, task: records.Task, machine: session.Session) -> None:
        """Read why a program could not be executed or launched: the status tells little."""
        task.last_words = ""  # asked once
        with contextlib.suppress(api.BackendError):
            lines = text.last_lines(await self._output(task, machine), 1)
            if lines:
                task.last_words = lines[0]
                return
            said = await self._cluster.output(
                task, framework=machine.framework.id, file=cluster.MESOS_OUTPUT
            )
            task.last_words = death.telling(said)

    async def _output(self, task: records.Task, machine: session.Session) -> str:
        output = await self._cluster.output(task, framework=machine.framework.id)
        for secret in task.secrets:
            output = output.replace(secret, _BLANK) if len(secret) >= _SECRET_MIN else output
        return output


def _is_mute(task: records.Task) -> bool:
    final = task.final
    return final is not None and task.last_words is None and death.is_told_elsewhere(final)


def _login(spec: api.InstanceSpec) -> bytes | None:
    """Return what is sent with the image's name to log in at its registry. Raises Rejected."""
    path = tasks.check(spec).image_login_file
    if path is None:
        return None
    try:
        login = files.read(path, limit=_LOGIN_MAX)
    except OSError as error:
        raise api.Rejected(
            f"image_login_file {quotes.shown(path)} cannot be read: {error.strerror}"
        ) from error
    try:
        secrets.register(*containers.login_secrets(login))
    except ValueError as error:
        raise api.Rejected(
            f"image_login_file {quotes.shown(path)} is not a config.json of Docker: {error}"
        ) from error
    return login


def _unheard(machine: session.Session) -> str:
    """Say of which tasks, not known to us, the master's last word could not be read."""
    if not machine.odd:
        return ""
    name, reason = next(iter(machine.odd.items()))
    return text.clean(
        f"updates of {counts.told(len(machine.odd), 'task')} cannot be read, such as {name}: "
        f"{reason}"
    )


def _refusal(task: records.Task) -> api.BackendError | None:
    """Return the error that a launch raises for a task that the master would not take.

    Who may run what is a matter of the template's user, and of no other template.
    """
    reason = (task.final or {}).get("reason", "")
    words = text.clean((task.final or {}).get("message", ""), 160)
    if "UNAUTHORIZED" in reason:
        return api.Rejected(f"{words}; hint: `user` of the template, the ACL run_tasks")
    if "duplicate ID" in words:
        return api.AlreadyExists(words)
    if reason.endswith("_INVALID"):
        return api.Rejected(words)
    return None
