"""The one place where the docker SDK is met: blocking calls, in few threads, with typed answers.

Why the SDK's low level (``APIClient``): its calls are the Engine's API, so what is sent and what
is answered can be compared with recordings. Refuses to know instances, owners and asyncio tasks;
no object of the SDK leaves this file.

What the SDK does that must not happen here: it takes proxies and CA bundles from the environment
(``trust_env``), it waits for ever on streams (a request without a time-out gets one), and it asks
for the API's version in its constructor, before either can be switched off (see ``_connect``).
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import io
import math
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from backends import api, heap
from backends.docker import answers, container, logins, settings, slim
from outside import text

with slim.without("charset_normalizer", "chardet"):
    import docker
    import requests
    import urllib3
    from docker import auth, constants, errors, tls, utils

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OLDEST = (1, 40)  # HostConfig.Init, Mounts, device requests: what our bodies may hold
_SILENCE_S = 300.0  # of an event stream before it is taken for dead and opened again
_CONNECT_S = 5.0
_EVENTS = ("start", "die", "oom", "kill", "pause", "unpause", "destroy", "create")
_ERROR_MAX = 64 << 10
_REMAPPING = ("selinux", "userns", "rootless")


class Lane(enum.Enum):
    """Who may use how many of the threads, so that slow calls never delay a listing."""

    READ = 3
    START = 8
    END = 12  # a stop blocks for its grace
    PULL = 2


class NoImageError(Exception):
    """The engine does not have the image."""


class NameTakenError(Exception):
    """A container of that name exists."""


class StartError(Exception):
    """The engine could not start a container; ``error`` is what to raise."""

    def __init__(self, error: api.BackendError) -> None:
        super().__init__(str(error))
        self.error = error


_THIS_THREAD = threading.local()  # the SDK lets nobody say how long a pull may be silent


class _Session(docker.APIClient):
    """The SDK's client with a time limit on every request."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send; the SDK asks for endless time on streams, and has none for connecting."""
        silence_s: float = getattr(_THIS_THREAD, "silence_s", _SILENCE_S)
        told = kwargs.get("timeout") or silence_s
        kwargs["timeout"] = (min(_CONNECT_S, told), told)
        return super().request(*args, **kwargs)


class Client:
    """One engine. The methods block; ``call`` runs them in a thread."""

    def __init__(self, host: settings.Host, configured: settings.DockerSettings) -> None:
        self.url = host.url
        self._host = host
        self._settings = configured
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._closing = threading.Event()
        self._closed = False
        heap.share()
        threads = sum(lane.value for lane in Lane)
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, "docker")
        self._lanes = {lane: asyncio.Semaphore(lane.value) for lane in Lane}

    async def begin(
        self, lane: Lane, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]:
        """Begin to run a method in a thread, as soon as its lane is free."""
        free = self._lanes[lane]
        await free.acquire()
        try:
            if lane is Lane.PULL:
                begun = _apart(functools.partial(work, *args, **kwargs))
            else:
                begun = self._threads.submit(work, *args, **kwargs)
        except RuntimeError as error:
            free.release()
            raise api.Unavailable("the backend is closed") from error
        future = asyncio.wrap_future(begun)
        future.add_done_callback(lambda _: free.release())
        return future

    async def call(
        self, lane: Lane, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run a method in a thread; a cancelled call may still come to its end there."""
        return await (await self.begin(lane, work, *args, **kwargs))

    def close(self) -> None:
        """Wait for the calls under way but pulls, let go of threads and connections; blocking."""
        self._closing.set()
        self._threads.shutdown(wait=True)
        with self._lock:
            self._closed = True
            if self._session is not None:
                self._session.close()
                self._session = None

    # --- containers ---

    def list(self, labels: Mapping[str, str]) -> list[answers.Found]:
        """Every container with these labels, in any state."""
        wanted = [f"{key}={text}" for key, text in labels.items()]
        with self._answers("cannot list containers") as session:
            told = session.containers(all=True, filters={"label": wanted})
            return [answers.found(entry) for entry in told]

    def inspect(self, name: str) -> answers.Inspected:
        """Look at one; raises NotFound."""
        with self._answers(f"cannot look at {name!r}") as session:
            return answers.inspected(session.inspect_container(name))

    def create(self, plan: container.Plan) -> str:
        """Return the id of a new container. Raises NoImageError, NameTakenError."""
        with self._answers("cannot create a container") as session:
            try:
                made = session.create_container_from_config(  # type: ignore[no-untyped-call]
                    dict(plan.body), plan.container, plan.platform
                )
            except errors.APIError as error:
                words = _words(error)
                if answers.is_missing_image(error.status_code, words):
                    raise NoImageError(words) from error
                if error.status_code == 409:
                    raise NameTakenError(words) from error
                raise
            return str(made["Id"])

    def put(self, container_id: str, path: str, archive: bytes) -> None:
        """Unpack a tar file in a container."""
        with self._answers("cannot put files into a container") as session:
            session.put_archive(container_id, path, archive)

    def get(self, container_id: str, path: str) -> dict[str, bytes]:
        """Return the files below a path of a container; raises NotFound."""
        with self._answers(f"cannot read {path}") as session:
            chunks, _ = session.get_archive(container_id, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                opened = ((member, tar.extractfile(member)) for member in tar.getmembers())
                return {member.name: file.read() for member, file in opened if file is not None}

    def owner_of(self, container_id: str, path: str) -> int | None:
        """Return the uid of a path of a container; None if it does not exist."""
        with (
            self._answers(f"cannot look at {path}") as session,
            session.get(  # the SDK's own call has no end before that of a folder as large as it is
                f"{session.base_url}/v{session.api_version}/containers/{container_id}/archive",
                params={"path": path},
                headers={"Accept-Encoding": "identity"},
                stream=True,
                timeout=session.timeout,
            ) as answer,
        ):
            if answer.status_code == 404:
                return None
            try:
                answer.raise_for_status()
            except requests.HTTPError as error:
                errors.create_api_error_from_http_exception(error)  # raises it in its own words
            head = answer.raw.read(tarfile.BLOCKSIZE)
            if len(head) < tarfile.BLOCKSIZE:
                raise errors.DockerException("the archive ends early")
            return tarfile.TarInfo.frombuf(head, "utf-8", "replace").uid

    def remaps_files(self) -> bool:
        """Tell whether containers see other owners or labels of files than the host."""
        with self._answers("cannot ask what the engine is") as session:
            told = session.info().get("SecurityOptions") or ()
            return any(word in option for option in told for word in _REMAPPING)

    def start(self, container_id: str, plan: container.Plan) -> None:
        """Join the networks and start; raises StartError when the engine says no."""
        with self._answers("cannot start a container") as session:
            try:
                for network in plan.networks:
                    session.connect_container_to_network(
                        container_id, network, aliases=list(plan.aliases) or None
                    )
                session.start(container_id)
            except errors.APIError as error:
                told = answers.refused_start(error.status_code or 0, _words(error))
                raise StartError(told) from error

    def stop(self, container_id: str, grace_s: int) -> None:
        """Signal, wait, kill; a paused one is let go on first."""
        with self._answers("cannot stop a container") as session:
            with contextlib.suppress(errors.APIError):  # it is mostly not paused
                session.unpause(container_id)
            session.stop(container_id, timeout=grace_s)

    def remove(self, container_id: str) -> None:
        """Kill and remove with its anonymous volumes; raises NotFound."""
        with self._answers("cannot remove a container") as session:
            session.remove_container(container_id, v=True, force=True)

    def logs(self, container_id: str, tail: int) -> str:
        """Return the last lines of output."""
        with self._answers("cannot read the output") as session:
            raw = session.logs(container_id, stdout=True, stderr=True, tail=tail)
            return bytes(raw).decode("utf-8", "replace")

    # --- what belongs to a container ---

    def run_helper(self, name: str, body: Mapping[str, Any], labels: Mapping[str, str]) -> str:
        """Run a container to its end and remove it; return its words if it failed, else nothing.

        One of that name with these labels that runs already is waited for. Raises Unavailable
        when it takes longer than a call may, Rejected when the engine does not start it.
        """
        with self._answers("cannot run a helper") as session:
            self._begin_helper(session, name, body, labels)
            code = session.wait(name, timeout=math.ceil(self._settings.timeout_s))["StatusCode"]
            words = session.logs(name, tail=1).decode("utf-8", "replace") if code else ""
            session.remove_container(name, force=True, v=True)
            return text.clean(words) or f"it ended with {code}" if code else ""

    def _begin_helper(
        self, session: _Session, name: str, body: Mapping[str, Any], labels: Mapping[str, str]
    ) -> None:
        try:
            there = answers.inspected(session.inspect_container(name))
        except errors.NotFound:
            there = None
        if there is not None and not labels.items() <= there.labels.items():
            raise api.Rejected(f"the container {name!r} exists and is not ours")
        if there is not None and there.state == "running":
            return
        if there is not None:
            session.remove_container(name, force=True, v=True)
        try:
            session.create_container_from_config(  # type: ignore[no-untyped-call]
                dict(body), name
            )
            session.start(name)
        except errors.APIError as error:  # whatever it is, the next attempt would say the same
            with contextlib.suppress(errors.APIError):
                session.remove_container(name, force=True, v=True)
            raise api.Rejected(text.clean(_words(error))) from error

    def volumes(self, labels: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        """Return the named volumes with these labels, and all labels of each."""
        wanted = [f"{key}={text}" for key, text in labels.items()]
        with self._answers("cannot list volumes") as session:
            told = session.volumes(filters={"label": wanted})
            return {str(one["Name"]): one.get("Labels") or {} for one in told["Volumes"] or ()}

    def remove_volume(self, name: str) -> None:
        """Remove a volume; raises NotFound, and Rejected while a container has it."""
        with self._answers("cannot remove a volume") as session:
            session.remove_volume(name)

    # --- images ---

    def pull(self, image: str, platform: str | None, tell: Callable[[str], None]) -> None:
        """Pull an image, telling its progress. Raises Rejected, Unauthorized, Unavailable."""
        limit = _THIS_THREAD.silence_s = self._settings.pull_timeout_s
        end = time.monotonic() + limit
        doing = f"cannot pull {image[:80]!r} within {limit:g} s"
        layers: dict[str, str] = {}
        with self._answers(doing, pull=True) as session, contextlib.ExitStack() as stack:
            login = self._login(image)
            lines = session.pull(
                image, stream=True, decode=True, platform=platform, auth_config=login
            )
            stack.callback(lines.close)  # that ends the pull
            for line in lines:
                if "error" in line:
                    raise answers.refused_pull(None, str(line["error"]))
                if "id" in line and "progressDetail" in line:
                    layers[str(line["id"])] = str(line.get("status", ""))
                    done = sum(text in answers.LAYER_DONE for text in layers.values())
                    tell(f"{done} of {len(layers)} layers are here")
                if self._closing.is_set():
                    raise api.Unavailable("the backend is closed")
                if time.monotonic() > end:
                    raise api.Unavailable(f"{doing}: it was still under way")

    def _login(self, image: str) -> dict[str, str]:
        """Return what the settings or the Docker configuration say about the image's registry."""
        repository, _ = utils.parse_repository_tag(image)
        registry, _ = auth.resolve_repository_name(repository)
        login = self._settings.registries.get(registry)
        if login is not None:
            return logins.of_settings(login, registry)
        folder = self._settings.docker_config
        config = auth.load_config(folder and f"{folder}/config.json")
        helper = config.get_credential_store(registry)
        server = auth.INDEX_URL if registry == auth.INDEX_NAME else registry
        found = logins.of_helper(helper, server) if helper else None
        return found or auth.AuthConfig({"auths": config.auths}).resolve_authconfig(registry) or {}

    # --- events ---

    def events(
        self, labels: Mapping[str, str], since: int, begun: Callable[[Callable[[], None]], None]
    ) -> Iterator[answers.Event]:
        """Yield events until the stream ends; ``begun`` is given the way to end it from outside.

        An engine that goes away ends the stream as if it were finished.
        """
        filters = {
            "type": ["container"],
            "event": list(_EVENTS),
            "label": [f"{key}={text}" for key, text in labels.items()],
        }
        with self._answers("cannot follow the events") as session:
            stream = session.events(since=since, filters=filters, decode=True)
            begun(stream.close)
            for told in stream:
                yield answers.event(told)

    # --- connection ---

    @contextlib.contextmanager
    def _answers(self, doing: str, *, pull: bool = False) -> Iterator[_Session]:
        """Give the session; turn what goes wrong into the contract's errors."""
        try:
            yield self._connect()
        except errors.APIError as error:
            if "client version" in _words(error):
                self._forget()  # the engine was replaced: ask again what it speaks
            status, words = error.status_code or 0, _words(error)
            if pull:
                raise answers.refused_pull(status, words) from error
            after = _retry_after(error)
            raise answers.refusal(status, words, retry_after=after) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(self._host, doing, error) from error
        except errors.DockerException as error:
            raise api.Unavailable(f"{doing}: {error}") from error

    def _connect(self) -> _Session:
        with self._lock:
            if self._closed:
                raise api.Unavailable("the backend is closed")
            if self._session is None:
                self._session = self._open()
            return self._session

    def _open(self) -> _Session:
        """Connect with a version that both sides know, whatever the environment says."""
        version = self._settings.api_version
        session = self._make(version or ".".join(map(str, _OLDEST)))
        if version is not None:
            return session
        told = session.version(api_version=False)
        newest, oldest = (
            answers.version(told["ApiVersion"]),
            answers.version(told.get("MinAPIVersion", "1.0")),
        )
        if newest < _OLDEST:
            session.close()
            raise api.Rejected(
                f"the engine at {self.url} speaks API {told['ApiVersion']}; 1.40 is needed "
                "(Docker 19.03)"
            )
        chosen = max(oldest, min(newest, answers.version(constants.DEFAULT_DOCKER_API_VERSION)))
        session.close()
        return self._make(".".join(map(str, chosen)))

    def _make(self, version: str) -> _Session:
        host, config = self._host, None
        if host.tls:
            pair = (host.cert_file, host.key_file) if host.cert_file and host.key_file else None
            try:
                config = tls.TLSConfig(
                    client_cert=pair, ca_cert=host.ca_file, verify=host.ca_file or True
                )
            except errors.TLSParameterError as error:
                raise api.Rejected(f"{host.url}: {error.args[0]}") from error
        session = _Session(
            base_url=host.url,
            version=version,
            timeout=self._settings.timeout_s,  # type: ignore[arg-type]  # requests takes floats
            tls=config,  # type: ignore[arg-type]  # None is its default: no TLS
        )
        session.trust_env = False
        return session

    def _forget(self) -> None:
        with self._lock:
            self._session = None


def _apart(work: Callable[[], _T]) -> concurrent.futures.Future[_T]:
    """Run in a thread that nobody waits for at the end: a registry may be silent for minutes."""
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- as an executor's thread
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="docker-pull", daemon=True).start()
    return future


def _words(error: errors.APIError) -> str:
    """Return the engine's words."""
    text = error.explanation
    return str(text or error)[:_ERROR_MAX]


def _retry_after(error: errors.APIError) -> float | None:
    headers = getattr(error.response, "headers", None) or {}
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdecimal() else None


def _unreachable(host: settings.Host, doing: str, error: Exception) -> api.BackendError:
    words = f"{doing}: {host.url}: {answers.innermost(error)}"
    if isinstance(error, requests.exceptions.SSLError):
        return answers.refused_tls(host.url, answers.innermost(error))
    if "Permission denied" in words:
        return api.Unauthorized(f"{words}; hint: the broker's user needs the socket's group")
    if host.tls:
        cut = any(
            kind in repr(error) for kind in ("ConnectionReset", "BrokenPipe", "Disconnected")
        )
        words += "; perhaps it does not accept our certificate" * cut
    return api.Unavailable(words)
