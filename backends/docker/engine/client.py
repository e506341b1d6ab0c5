"""The Engine's API: blocking calls in threads, with typed answers and the contract's errors.

What is sent and what is answered is in the words of that API, so it can be compared with
recordings. Refuses to know how bytes travel (``wire``), instances, owners and asyncio tasks.
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import io
import json
import os
import pathlib
import ssl
import tarfile
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, BinaryIO, ParamSpec, Protocol, TypeVar

import urllib3

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.docker.engine import answers, bodies, logins, reference, wire
from backends.kit import running, usage
from outside import counts, quotes, text, typed

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OLDEST = (1, 40)  # HostConfig.Init, Mounts, device requests: what our bodies may hold
_NEWEST = (1, 52)  # what was read of the API's changes; an engine may ask for a newer one
_SILENCE_S = 300.0  # of an event stream before it is taken for dead and opened again
_EVENTS = ("start", "die", "oom", "kill", "pause", "unpause", "destroy", "create")
_REMAPPING = ("selinux", "userns", "rootless")
_ARCHIVE_MAX = 1 << 20  # of secrets that are looked at again
_INSPECT_MAX = 4 << 20
_STATS_MAX = 4 << 20  # a number for each processor and each disk
_NO_PAGE = "page not found"  # an engine's words where it knows no such request
_OUTPUT_MAX = 32 << 20
_OUTPUT_KEPT = 64 << 10
_LAYERS_MAX = 1000
_EXEC_ENDS_S = 5.0
_EXEC_LOOK_S, _EXEC_LOOK_MAX_S = 0.05, 1.0
_JSON = {"Content-Type": "application/json"}
_TAR = {"Content-Type": "application/x-tar"}


Sent = Callable[[int, int], None]
"""Called with the bytes of a file that were sent so far, and all of them."""


class Lane(enum.Enum):
    """Who may use how many of the threads, so that slow calls never delay a listing."""

    READ = 3
    USAGE = 4  # each takes a second (20.10), in which the engine does next to nothing
    START = 8
    END = 12  # a stop blocks for its grace
    PULL = 2
    SIZES = 1  # an engine walks through all its volumes
    RUN = 24  # commands in containers, each as long as it takes; most of them wait for something
    KILL = 5  # of those that are out of time: it waits for none that is to be ended itself


class NoImageError(Exception):
    """The engine does not have the image."""

    def __init__(self, words: str, image: str) -> None:
        super().__init__(words)
        self.image = image


class NameTakenError(Exception):
    """A container, or service, of that name exists."""


class OddAnswerError(api.Unavailable):
    """The engine answers what no engine answers; perhaps about this container alone."""


class StartError(Exception):
    """The engine could not start a container; ``error`` is what to raise."""

    def __init__(self, error: api.BackendError) -> None:
        super().__init__(str(error))
        self.error = error


class Configured(Protocol):
    """What of a backend's settings concerns its calls; times in seconds."""

    @property
    def timeout_s(self) -> float:
        """For one call."""

    @property
    def pull_timeout_s(self) -> float:
        """For one image."""

    @property
    def api_version(self) -> str | None:
        """Of the Engine's API; None: the newest that both know."""

    @property
    def registries(self) -> Mapping[str, settings.Registry]:
        """Return logins by registry."""

    @property
    def docker_config(self) -> str | None:
        """Where Docker's own configuration is; None: the usual place."""


class Engine:
    """One engine. The methods block; ``call`` runs them in a thread."""

    def __init__(self, host: settings.Host, configured: Configured, *, refusal: str = "") -> None:
        """``refusal``: why it cannot be spoken to; nobody is asked then."""
        self.url = host.url
        self._host = host
        self._refusal = refusal
        self._settings = configured
        self._lock = threading.Lock()
        self._session: wire.Connections | None = None
        self._sessions: weakref.WeakSet[wire.Connections] = weakref.WeakSet()  # and earlier ones
        self._closing = threading.Event()
        self._closed = False
        self._under_way: set[asyncio.Future[Any]] = set()  # all but the longest
        self._lanes = {lane: asyncio.Semaphore(lane.value) for lane in Lane}

    async def begin(
        self, lane: Lane, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]:
        """Begin to run a method in a thread, as soon as its lane is free."""
        free = self._lanes[lane]
        await free.acquire()
        if self._closing.is_set():
            free.release()
            raise api.Unavailable("the backend is closed")
        future = asyncio.wrap_future(_apart(functools.partial(work, *args, **kwargs)))
        future.add_done_callback(lambda _: free.release())
        if lane not in {Lane.PULL, Lane.SIZES}:
            self._under_way.add(future)
            future.add_done_callback(self._under_way.discard)
        return future

    async def call(
        self, lane: Lane, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run a method in a thread; a cancelled call may still come to its end there."""
        return await (await self.begin(lane, work, *args, **kwargs))

    def leave(self) -> frozenset[asyncio.Future[Any]]:
        """Begin no further call, and give pulls up; return the other calls that are under way."""
        self._closing.set()
        return frozenset(self._under_way)

    def close(self) -> None:
        """Let go of every connection: what is under way fails, however long the engine hangs."""
        self._closing.set()
        with self._lock:
            self._closed = True
            for session in self._sessions:
                session.close()
            self._session = None

    # --- containers ---

    def list(self, labels: Mapping[str, str]) -> tuple[list[answers.Listed], typed.Odd]:
        """Every container with these labels, in any state, and what of the list is none."""
        wanted = [f"{key}={text}" for key, text in labels.items()]
        query = {"all": 1, "filters": json.dumps({"label": wanted})}
        with self._answers("cannot list containers") as session:
            entries = session.ask_json(list, "GET", "/containers/json", query=query)
            return typed.each(entries, answers.listed)

    def inspect(self, name: str) -> answers.Inspected:
        """Look at one; raises NotFound, and OddAnswerError."""
        with self._answers(f"cannot look at {quotes.shown(name)}") as session:
            return answers.inspected(
                session.ask_json(dict, "GET", f"{_place(name)}/json", limit=_INSPECT_MAX)
            )

    def mounting(self, places: Collection[str]) -> tuple[str, ...]:
        """Return the ids of all containers, of anybody, with a mount at one of these paths."""
        query = {"all": 1, "filters": json.dumps({"volume": list(places)})}
        with self._answers("cannot list containers") as session:
            entries = session.ask_json(list, "GET", "/containers/json", query=query)
            listed, _ = typed.each(entries, answers.listed)
            return tuple(one.id for one in listed if one.id)

    def sample(self, container_id: str, *, now: Callable[[], float]) -> usage.Sample | None:
        """Return what a container uses just now; None if it does not run, or is gone.

        It takes a second, until the engine samples again (20.10); engines before do not know
        ``one-shot`` and take two.
        """
        query = {"stream": 0, "one-shot": 1}
        with self._answers("cannot ask what a container uses") as session:
            place = _place(container_id)
            try:
                told = session.ask_json(
                    dict, "GET", f"{place}/stats", query=query, limit=_STATS_MAX
                )
                there = session.ask_json(dict, "GET", f"{place}/json", limit=_INSPECT_MAX)
            except wire.RefusedError as error:
                if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                    return None
                raise
            return answers.sample(told, limit=answers.inspected(there).memory_bytes, at=now())

    def create(self, plan: container.ContainerPlan) -> str:
        """Return the id of a new container. Raises NoImageError, NameTakenError."""
        return self.create_body(plan.container, plan.body, platform=plan.platform)

    def create_body(
        self, name: str, told: Mapping[str, Any], *, platform: str | None = None
    ) -> str:
        """Return the id of a new container, as the API describes it. Raises as ``create``."""
        query = {"name": name}
        if platform is not None:
            query["platform"] = platform
        body = json.dumps(dict(told)).encode()
        with self._answers("cannot create a container") as session:
            try:
                answer = session.ask_json(
                    dict, "POST", "/containers/create", query=query, body=body, headers=_JSON
                )
            except wire.RefusedError as error:
                if answers.is_missing_image(error.status, error.words):
                    raise NoImageError(error.words, str(told.get("Image"))) from error
                if error.status == 409:
                    raise NameTakenError(error.words) from error
                raise answers.refused_launch(error.status, error.words) from error
            return answers.created_id(answer)

    def put(self, container_id: str, path: str, archive: bytes) -> None:
        """Unpack a tar file in a container."""
        with self._answers("cannot put files into a container") as session:
            session.ask(
                "PUT",
                f"{_place(container_id)}/archive",
                query={"path": path},
                body=archive,
                headers=_TAR,
            )

    def put_file(
        self, container_id: str, path: str, archive: str, *, within_s: float,
        tell: Sent | None = None,
    ) -> None:  # fmt: skip
        """Unpack a tar file of this machine in a container; it is never held whole.

        Raises OSError when it cannot be read, before anything is sent.
        """
        with pathlib.Path(archive).open("rb") as file:
            body, size = _sent(file, tell)
            with self._answers("cannot put a runtime into a volume") as session:
                session.ask(
                    "PUT",
                    f"{_place(container_id)}/archive",
                    query={"path": path},
                    body=body,
                    headers={**_TAR, "Content-Length": str(size)},
                    waits=wire.Waits(silence_s=within_s, within_s=within_s),
                )

    def get(self, container_id: str, path: str) -> dict[str, bytes]:
        """Return the files below a path of a container, a megabyte at most; raises NotFound."""
        with self._answers(f"cannot read {path}") as session:
            packed = session.ask(
                "GET",
                f"{_place(container_id)}/archive",
                query={"path": path},
                limit=_ARCHIVE_MAX,
            )
            # nothing is unpacked, nor filled up with zeros, that is larger than what came
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
                return {
                    member.name: file.read(_ARCHIVE_MAX)
                    for member in tar
                    if member.isreg() and member.size <= len(packed) and not member.issparse()
                    if (file := tar.extractfile(member)) is not None
                }

    def owner_of(self, container_id: str, path: str) -> int | None:
        """Return the uid of a path of a container; None if it does not exist."""
        with self._answers(f"cannot look at {path}") as session:
            try:
                with session.stream(  # a folder has no end before that of all that is in it
                    "GET",
                    f"{_place(container_id)}/archive",
                    query={"path": path},
                    waits=self._waits(),
                ) as answer:
                    head = answer.first(tarfile.BLOCKSIZE)
            except wire.RefusedError as error:
                if isinstance(answers.refusal(error.status, error.words), api.NotFound):
                    return None
                raise
            if len(head) < tarfile.BLOCKSIZE:
                raise wire.OddReplyError("the archive ends early")
            return tarfile.TarInfo.frombuf(head, "utf-8", "replace").uid

    def remaps_files(self) -> bool:
        """Tell whether containers see other owners or labels of files than the host."""
        with self._answers("cannot ask what the engine is") as session:
            options = answers.security_options(
                session.ask_json(dict, "GET", "/info", limit=_INSPECT_MAX)
            )
            return any(word in option for option in options for word in _REMAPPING)

    def speaks(self) -> tuple[int, int]:
        """Return the version of the API that is spoken with it."""
        with self._answers("cannot ask what the engine is") as session:
            return answers.version(session.version) or _OLDEST

    def platform(self) -> str:
        """Return what programs it runs, like linux/amd64; empty if it does not say."""
        with self._answers("cannot ask what the engine is") as session:
            return answers.platform(session.ask_json(dict, "GET", "/version", limit=_INSPECT_MAX))

    def identity(self) -> str:
        """Return what tells this engine from another; empty if it does not say."""
        with self._answers("cannot ask what the engine is") as session:
            return answers.identity(session.ask_json(dict, "GET", "/info", limit=_INSPECT_MAX))

    def swarm_node(self) -> str:
        """Return the id of the node that this engine is in its swarm; empty if it is in none."""
        with self._answers("cannot ask which node the engine is") as session:
            info = session.ask_json(dict, "GET", "/info", limit=_INSPECT_MAX)
        return answers.plain_id(bodies.section(info, "Swarm").get("NodeID"))

    def swarm_place(self) -> tuple[str, str]:
        """Return the same id, and the folder where the engine keeps its data (``volumes``)."""
        with self._answers("cannot ask where the engine keeps its data") as session:
            return answers.swarm_place(session.ask_json(dict, "GET", "/info", limit=_INSPECT_MAX))

    def began_at(self) -> float | None:
        """Return since when the engine is up, by its clock; None if it does not show it.

        It makes its default bridge anew at each start, unless containers live on there (20.10; an
        engine without a bridge has none, and some proxies do not show it). Asked over a new
        connection: one that stops goes on to answer over those that are open, and raises
        ``Unavailable`` here.
        """
        with (
            self._answers("cannot ask since when the engine is up") as session,
            contextlib.closing(self._connections()) as anew,
        ):
            anew.version = session.version
            try:
                entry = anew.ask_json(dict, "GET", "/networks/bridge", limit=_INSPECT_MAX)
            except wire.RefusedError:
                return None
            return answers.created_at(entry)

    def start(self, container_id: str, plan: container.ContainerPlan | None = None) -> None:
        """Join the plan's networks and start; raises StartError when the engine says no."""
        networks = () if plan is None else plan.networks
        endpoint = {"Aliases": list(plan.aliases)} if plan is not None and plan.aliases else {}
        with self._answers("cannot start a container") as session:
            try:
                for network in networks:
                    joined = {"Container": container_id, "EndpointConfig": endpoint}
                    session.ask(
                        "POST",
                        f"/networks/{_quoted(network)}/connect",
                        body=json.dumps(joined).encode(),
                        headers=_JSON,
                    )
                session.ask("POST", f"{_place(container_id)}/start")
            except wire.RefusedError as error:
                refused = answers.refused_launch(
                    error.status, error.words, container_id=container_id
                )
                raise StartError(refused) from error

    def stop(self, container_id: str, grace_s: int) -> None:
        """Signal, wait, kill; a paused one is let go on first."""
        waits = self._waits(grace_s)
        with self._answers("cannot stop a container") as session:
            with contextlib.suppress(wire.RefusedError):  # it is mostly not paused
                session.ask("POST", f"{_place(container_id)}/unpause")
            session.ask("POST", f"{_place(container_id)}/stop", query={"t": grace_s}, waits=waits)

    def remove(self, container_id: str) -> None:
        """Kill and remove with its anonymous volumes; raises NotFound."""
        with self._answers("cannot remove a container") as session:
            session.ask("DELETE", _place(container_id), query={"v": 1, "force": 1})

    def logs(self, container_id: str, tail: int, *, has_terminal: bool) -> str:
        """Return the last lines of output: of more than 64 kB the end."""
        with (
            self._answers("cannot read the output") as session,
            session.stream(
                "GET",
                f"{_place(container_id)}/logs",
                query={"stdout": 1, "stderr": 1, "tail": tail},
                waits=self._waits(),
            ) as answer,
        ):
            raw, whole = answer.output(
                multiplexed=not has_terminal, kept=_OUTPUT_KEPT, limit=_OUTPUT_MAX
            )
        # the first line is cut, perhaps amid a secret
        return (raw if whole else raw.partition(b"\n")[2]).decode("utf-8", "replace")

    # --- commands in a container ---

    def run(
        self, container_id: str, argv: Sequence[str], *, mark: str, within_s: float
    ) -> tuple[int | None, running.LastOutput]:
        """Run a command; return its exit status and output. Raises Rejected, NotFound.

        ``mark`` goes into its environment (``NAME=VALUE``), and so into that of all it starts.
        The status of one that is not over in time is None; an engine has no way to end it.
        """
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv), "Env": [mark]}
        output = running.LastOutput()
        end = time.monotonic() + within_s
        with self._answers("cannot run a command in a container") as session:
            place = f"/exec/{self._made_exec(session, container_id, body)}"
            try:
                with session.stream(  # its end comes when all that hold its output have ended
                    "POST",
                    f"{place}/start",
                    body=json.dumps({"Detach": False, "Tty": False}).encode(),
                    headers=_JSON,
                    waits=wire.Waits(silence_s=within_s, within_s=within_s),
                ) as answer:
                    answer.frames(output.take)
            except (urllib3.exceptions.TimeoutError, TimeoutError):
                return self._exec_status(session, place, within_s=0), output
            except wire.RefusedError as error:
                raise answers.refused_exec(error.status, error.words) from error
            # it has no length: where somebody in between cut it, the command runs on
            left_s = max(_EXEC_ENDS_S, end - time.monotonic())
            return self._exec_status(session, place, within_s=left_s), output

    def _made_exec(
        self, session: wire.Connections, container_id: str, body: Mapping[str, Any]
    ) -> str:
        try:
            return answers.created_id(
                session.ask_json(
                    dict,
                    "POST",
                    f"{_place(container_id)}/exec",
                    body=json.dumps(dict(body)).encode(),
                    headers=_JSON,
                )
            )
        except wire.RefusedError as error:
            raise answers.refused_exec(error.status, error.words) from error

    def _exec_status(
        self, session: wire.Connections, place: str, *, within_s: float
    ) -> int | None:
        """Return its exit status; the end of its output comes a moment before it is known."""
        end, pause_s = time.monotonic() + within_s, _EXEC_LOOK_S
        while True:
            told = session.ask_json(dict, "GET", f"{place}/json", limit=_INSPECT_MAX)
            code = answers.exec_status(told)
            if code is not None or time.monotonic() > end:
                return code
            if self._closing.wait(pause_s):
                raise api.Unavailable("the backend is closed")
            pause_s = min(2 * pause_s, _EXEC_LOOK_MAX_S)

    # --- what belongs to a container ---

    def run_helper(self, name: str, body: Mapping[str, Any], labels: Mapping[str, str]) -> str:
        """Run a container to its end and remove it; return its words if it failed, else nothing.

        One of that name with these labels that runs already is waited for. Raises Unavailable
        when it takes longer than a call may, Rejected when the engine does not start it.
        """
        self._begin_helper(name, body, labels)
        with self._answers("cannot run a helper") as session:
            answer = session.ask_json(dict, "POST", f"{_place(name)}/wait")
            code = answers.status_code(answer)
        words = self.logs(name, 1, has_terminal=False) if code else ""
        self.remove(name)
        return text.clean(words) or f"it ended with {code}" if code else ""

    def _begin_helper(self, name: str, body: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        try:
            there = self.inspect(name)
        except api.NotFound:
            there = None
        if there is not None and not labels.items() <= there.labels.items():
            raise api.Rejected(f"the container {quotes.shown(name)} exists and is not ours")
        if there is not None and there.state == "running":
            return
        if there is not None:
            self.remove(name)
        with self._answers("cannot run a helper") as session:
            try:
                session.ask(
                    "POST",
                    "/containers/create",
                    query={"name": name},
                    body=json.dumps(dict(body)).encode(),
                    headers=_JSON,
                )
                session.ask("POST", f"{_place(name)}/start")
            except wire.RefusedError as error:  # whatever it is, it would say the same again
                with contextlib.suppress(wire.RefusedError):
                    session.ask("DELETE", _place(name), query={"v": 1, "force": 1})
                raise api.Rejected(error.words) from error

    def volumes(self, labels: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        """Return the named volumes with these labels, and all labels of each."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        query = {"filters": json.dumps({"label": wanted})}
        with self._answers("cannot list volumes") as session:
            return answers.volumes(session.ask_json(dict, "GET", "/volumes", query=query))

    def volume(self, name: str) -> Mapping[str, str] | None:
        """Return the labels of a volume; None if there is none. Raises as a launch does."""
        with self._answers("cannot look at a volume") as session:
            try:
                return answers.volume_labels(
                    session.ask_json(dict, "GET", f"/volumes/{_quoted(name)}", limit=_INSPECT_MAX)
                )
            except wire.RefusedError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise answers.refused_launch(error.status, error.words) from error

    def create_volume(
        self,
        name: str,
        *,
        driver: str,
        options: Mapping[str, str],
        labels: Mapping[str, str],
        within_s: float,
    ) -> None:
        """Make a volume, unless there is one of that name. Raises as a launch does.

        An engine that is at removing one of that name answers when that is done.
        """
        told = {"Name": name, "Driver": driver, "DriverOpts": {**options}, "Labels": {**labels}}
        with self._answers("cannot make a volume") as session:
            try:
                session.ask(
                    "POST",
                    "/volumes/create",
                    body=json.dumps(told).encode(),
                    headers=_JSON,
                    waits=wire.Waits(silence_s=within_s, within_s=within_s),
                )
            except wire.RefusedError as error:
                raise answers.refused_launch(error.status, error.words) from error

    def volume_sizes(
        self, labels: Mapping[str, str], *, within_s: float
    ) -> dict[str, tuple[Mapping[str, str], int]]:
        """Return labels and bytes of each volume with these labels whose size is known.

        Engines count the bytes of files, of the local driver alone, and walk through all of them:
        1.5 s for 300,000 that the kernel has in memory, 2.7 s for as many on an idle disk
        (20.10). Before API 1.42 containers and images are counted as well, whoever asks.
        """
        limit = wire.Waits(silence_s=within_s, within_s=within_s)
        with self._answers("cannot ask for the sizes of volumes") as session:
            return answers.volume_sizes(
                session.ask_json(
                    dict, "GET", "/system/df", query={"type": "volume", "verbose": 1}, waits=limit
                ),
                labels,
            )

    def remove_volume(self, name: str, *, within_s: float | None = None) -> None:
        """Remove a volume; raises NotFound, and Rejected while a container has it.

        ``within_s``: None: in the time of any call. It takes as long as its files do: 100,000 are
        some seconds, and minutes on a disk that others use.
        """
        limit = self._settings.timeout_s if within_s is None else within_s
        with self._answers("cannot remove a volume") as session:
            session.ask(
                "DELETE",
                f"/volumes/{_quoted(name)}",
                waits=wire.Waits(silence_s=limit, within_s=limit),
            )

    # --- images ---

    def has_image(self, image: str) -> bool:
        """Tell whether an image is there, by its name or digest."""
        with self._answers("cannot look for an image") as session:
            try:
                session.ask("GET", f"/images/{image_path(image)}/json", limit=_INSPECT_MAX)
            except wire.RefusedError as error:
                if error.status == 404:
                    return False
                raise
        return True

    def load(self, archive: BinaryIO, *, within_s: float, tell: Sent | None = None) -> None:
        """Load the images of an archive as ``docker save`` writes it.

        Raises Rejected, Unauthorized, Unavailable.
        """
        body, size = _sent(archive, tell)
        limit = wire.Waits(silence_s=within_s, within_s=within_s)
        with (
            self._answers("cannot load an image") as session,
            session.stream(
                "POST",
                "/images/load",
                query={"quiet": 1},
                body=body,
                headers={**_TAR, "Content-Length": str(size)},
                waits=limit,
            ) as answer,
        ):
            for line in answer.lines():
                if not (line or b"{}").strip():
                    continue
                error, _, _ = answers.progress(wire.read_json(line or b"{}"))
                if error:
                    raise answers.refusal(HTTPStatus.INTERNAL_SERVER_ERROR, error)

    def tags(self, repository: str) -> Sequence[str]:
        """Return the tags of a repository's images that are there. Raises Unavailable."""
        query = {"filters": json.dumps({"reference": [repository]})}
        with self._answers("cannot list images") as session:
            entries = session.ask_json(list, "GET", "/images/json", query=query)
            return answers.tags(entries, repository)

    def remove_image(self, name: str) -> None:
        """Take a name from an image, which goes with its last one.

        Raises NotFound, and Rejected while a container has it.
        """
        with self._answers("cannot remove an image") as session:
            session.ask("DELETE", f"/images/{image_path(name)}", limit=_INSPECT_MAX)

    def import_image(self, name: str, tag: str, archive: bytes) -> None:
        """Make an image of a tar file with what is in it."""
        with self._answers("cannot make an image") as session:
            session.ask(
                "POST",
                "/images/create",
                query={"fromSrc": "-", "repo": name, "tag": tag},
                body=archive,
                headers=_TAR,
            )

    def search_path(self, image: str) -> str | None:
        """Return where an image says that programs are looked for. Raises NoImageError."""
        with self._answers("cannot look at an image") as session:
            try:
                entry = session.ask_json(
                    dict, "GET", f"/images/{image_path(image)}/json", limit=_INSPECT_MAX
                )
            except wire.RefusedError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    raise NoImageError(error.words, image) from error
                raise
            return answers.variable(entry, "PATH")

    def ask_registry(self, image: str) -> str:
        """Have the engine ask an image's registry for its digest; empty if it does not say.

        Raises Rejected, Unauthorized, Unavailable: also of an engine that cannot ask.
        """
        with self._answers("cannot ask the registry") as session:
            try:
                return answers.digest(
                    session.ask_json(
                        dict,
                        "GET",
                        f"/distribution/{image_path(image)}/json",
                        headers=self._login(image),
                        limit=_INSPECT_MAX,
                    )
                )
            except wire.RefusedError as error:
                if error.words.strip().lower() == _NO_PAGE:
                    raise api.Unavailable("this engine does not ask registries") from error
                if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                    words = f"the registry refuses: {error.words}"
                    raise api.Unauthorized(words, reach=api.Reach.TEMPLATE) from error
                raise answers.refused_pull(error.status, error.words) from error

    def pull(self, image: str, platform: str | None, tell: Callable[[str], None]) -> None:
        """Pull an image, telling its progress. Raises Rejected, Unauthorized, Unavailable."""
        limit = self._settings.pull_timeout_s
        doing = f"cannot pull {quotes.shown(image)} within {limit:g} s"
        repository, tag = reference.to_pull(image)
        query = {"fromImage": repository, "tag": tag}
        if platform is not None:
            query["platform"] = platform
        layers: dict[str, str] = {}
        with (
            self._answers(doing, pull=True) as session,
            _in_time(f"{doing}: it was still under way", layers),
            session.stream(  # to let go of the answer ends the pull
                "POST",
                "/images/create",
                query=query,
                headers=self._login(image),
                waits=wire.Waits(silence_s=limit, within_s=limit),
            ) as answer,
        ):
            for line in answer.lines():
                if line is None:
                    raise wire.OddReplyError("a line of its progress is too long")
                if not line.strip():
                    continue
                error, layer, status = answers.progress(wire.read_json(line))
                if error:
                    raise answers.refused_pull(None, error)
                if layer and (layer in layers or len(layers) < _LAYERS_MAX):
                    layers[layer] = status
                    done = sum(word in answers.LAYER_DONE for word in layers.values())
                    tell(f"{done} of {counts.told(len(layers), 'layer is', 'layers are')} here")
                if self._closing.is_set():
                    raise api.Unavailable("the backend is closed")

    def _login(self, image: str) -> dict[str, str]:
        """Return what the settings or the Docker configuration say about the image's registry."""
        registry = reference.registry_of(image)
        login = self._settings.registries.get(registry)
        if login is not None:
            found = logins.of_settings(login, registry)
        else:
            found = logins.of_config(self._settings.docker_config, registry)
        return {"X-Registry-Auth": logins.header(found)} if found else {}

    # --- events ---

    def events(
        self, labels: Mapping[str, str], since: int, begun: Callable[[Callable[[], None]], None]
    ) -> Iterator[answers.ContainerEvent | None]:
        """Yield events until the stream ends, None for one that cannot be read.

        ``begun`` is given the way to end it from outside. An engine that goes away ends the
        stream as if it were finished.
        """
        filters = {
            "type": ["container"],
            "event": list(_EVENTS),
            "label": [f"{key}={text}" for key, text in labels.items()],
        }
        with (
            self._answers("cannot follow the events") as session,
            session.stream(
                "GET",
                "/events",
                query={"since": since, "filters": json.dumps(filters)},
                waits=wire.Waits(silence_s=_SILENCE_S),
            ) as answer,
        ):
            begun(answer.end)
            for line in answer.lines():
                if line is None or line.strip():
                    yield _event(line)

    # --- connection ---

    @contextlib.contextmanager
    def _answers(self, doing: str, *, pull: bool = False) -> Iterator[wire.Connections]:
        """Give the session; turn what goes wrong into the contract's errors."""
        try:
            yield self._connect()
        except wire.RefusedError as error:
            if "client version" in error.words:
                self._forget()  # the engine was replaced: ask again what it speaks
            if pull:
                raise answers.refused_pull(error.status, error.words) from error
            raise answers.refusal(
                error.status, error.words, retry_after=error.retry_after
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if self._host.tls:
                self._forget()  # certificates and authority may have been renewed on the disk
            told = _unreachable(self._host, doing, error)
            if pull and _is_silence(error):
                told.reach = api.Reach.TEMPLATE  # the engine waits for the registry
            raise told from error
        except (wire.OddReplyError, ValueError, tarfile.TarError) as error:
            raise OddAnswerError(f"{doing}: {self.url}: {answers.innermost(error)}") from error

    def _waits(self, more_s: float = 0.0) -> wire.Waits:
        limit = self._settings.timeout_s + more_s
        return wire.Waits(silence_s=limit, within_s=limit)

    def _connect(self) -> wire.Connections:
        with self._lock:
            if self._session is not None and not self._closed:
                return self._session
        made = self._open()  # several at once, perhaps: one that hangs is not to hold up others
        with self._lock:
            if self._session is None:
                self._session = made
            kept = self._session
        if kept is not made:
            made.close()
        return kept

    def _open(self) -> wire.Connections:
        """Connect with a version that both sides know, whatever the environment says."""
        session = self._connections()
        try:
            session.version = self._settings.api_version or self._version(session)
        except BaseException:
            session.close()
            raise
        return session

    def _version(self, session: wire.Connections) -> str:
        """Return the newest version that both know: also of an engine that has no old ones."""
        answer = session.ask_json(dict, "GET", "/version", limit=_INSPECT_MAX)
        newest = answers.version(answer.get("ApiVersion"))
        if newest is None:
            raise wire.OddReplyError("whatever answers there gives no version of the Engine's API")
        oldest = answers.version(answer.get("MinAPIVersion")) or _OLDEST
        if newest < _OLDEST:
            raise api.Unauthorized(
                f"the engine at {self.url} speaks API {newest[0]}.{newest[1]}; 1.40 is needed "
                "(Docker 19.03)"
            )
        major, minor = max(oldest, min(newest, _NEWEST))
        return f"{major}.{minor}"

    def _connections(self) -> wire.Connections:
        if self._refusal:
            raise api.Unauthorized(self._refusal)
        try:
            made = wire.Connections(
                self._host,
                timeout_s=self._settings.timeout_s,
                connections=sum(lane.value for lane in Lane),
            )
        except ssl.SSLError as error:
            raise answers.refused_tls(self.url, answers.innermost(error)) from error
        except OSError as error:
            words = f"{error.filename}: {error.strerror or error}"
            raise api.Unauthorized(
                f"{self.url}: {words}; hint: `ca_file`, `cert_file`, `key_file` of the host"
            ) from error
        with self._lock:
            if self._closed:
                raise api.Unavailable("the backend is closed")
            self._sessions.add(made)
        return made

    def _forget(self) -> None:
        with self._lock:
            self._session = None


def _apart(work: Callable[[], _T]) -> concurrent.futures.Future[_T]:
    """Run in a thread that the end of the process does not wait for.

    A registry, an engine or who knows its address may be silent for minutes. How many there are
    at a time the lanes say.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- as an executor's thread
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="docker", daemon=True).start()
    return future


@contextlib.contextmanager
def _in_time(words: str, layers: Mapping[str, str]) -> Iterator[None]:
    """Say of a pull whose time is over that it was at work, if it was."""
    try:
        yield
    except urllib3.exceptions.TimeoutError as error:
        if not layers:
            raise
        raise api.Unavailable(words, reach=api.Reach.TEMPLATE) from error


def _is_silence(error: Exception) -> bool:
    """Tell whether somebody who took our question does not answer it."""
    timed_out = isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError)
    return timed_out and not isinstance(error, urllib3.exceptions.ConnectTimeoutError)


class _ToldReader(io.BufferedReader):
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, size: int, tell: Sent) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))
        self._size, self._sent, self._tell = size, 0, tell

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._sent += len(piece)
        self._tell(self._sent, self._size)
        return piece


def _sent(file: BinaryIO, tell: Sent | None) -> tuple[BinaryIO, int]:
    """Return what to read a file by while it is sent, and its size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return file if tell is None else _ToldReader(file, size, tell), size


def _place(container_id: str) -> str:
    return f"/containers/{_quoted(container_id)}"


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def image_path(name: str) -> str:
    """Return a reference as it stands in a path: engines route by its slashes."""
    return urllib.parse.quote(name, safe="/:@")


def _event(line: bytes | None) -> answers.ContainerEvent | None:
    """Read one; one that is none costs itself, never the stream."""
    try:
        return None if line is None else answers.event(wire.read_json(line))
    except (wire.OddReplyError, ValueError):
        return None


def _unreachable(host: settings.Host, doing: str, error: Exception) -> api.BackendError:
    inner = answers.innermost(error)
    if isinstance(error, urllib3.exceptions.SSLError | ssl.SSLError):
        return answers.refused_tls(host.url, inner)
    if host.url.startswith("ssh:"):
        return answers.refused_ssh(f"{doing}: {host.url}: {inner}")
    words = f"{doing}: {host.url}: {inner}"
    if "Permission denied" in words:
        return api.Unauthorized(f"{words}; hint: the broker's user needs the socket's group")
    if host.tls:
        cut = any(
            kind in repr(error) for kind in ("ConnectionReset", "BrokenPipe", "Disconnected")
        )
        words += "; perhaps it does not accept our certificate" * cut
    return api.Unavailable(words)
