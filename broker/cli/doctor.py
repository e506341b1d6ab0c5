"""Checks from outside whether this configuration can work, with what is to be done if not.

Asks like a stranger, one thing after the other, and names the permission that is missing.
python-jenkins is asked the same once more, as a second opinion that shares none of our code; it
is imported here only. Refuses to be needed by ``run`` and to decide anything.
"""

import asyncio
import importlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import aiohttp
import attrs
import yarl

from backends import api as backends_api
from backends import lease as leases
from backends import registry
from backends.kit import finding
from broker import config, page_address, store
from broker.cli import rendering
from broker.config import exposure
from broker.controller import reading
from broker.core import model
from broker.core.fleet import marks, neighbours
from jnlp import client as jnlp_client
from jnlp import errors, http, node, tunnel
from jnlp import version as jnlp_version
from outside import connect_errors, counts, text, tls, waits

_LIMIT_S = 15.0
_SKEW_BAD_S = 300.0
_OLDEST = (2, 263)
_PROTOCOL = "JNLP4-connect"
_QUEUE_WIDGET = "widget/BuildQueueWidget/ajax"
_READ_ONLY = "agent-broker doctor --try tries it"
_USER_HINT = "create an API token for controller.user, and give it as controller.token"


async def examine(
    settings: config.Settings,
    backends: Mapping[model.BackendName, backends_api.Backend],
    *,
    now: Callable[[], float],
    probe: str | None,
    lease: leases.Lease | None = None,
) -> AsyncIterator[finding.Finding]:
    """Yield what is found, as it is found; ``probe`` names a node that may be made and removed."""
    async with http.ControllerSession(settings.controller.session()) as session:
        reached = False
        async for one in _controller(settings, session, now):
            yield one
            reached = reached or (one.check == "controller" and one.verdict is finding.Grade.OK)
        if reached:
            async for one in _permissions(session, probe, settings.owner):
                yield one
            yield await _jobs(session)
            if _gives_up(settings):
                yield await _cancelling(session)
            async for one in _neighbours(session, settings.owner, now):
                yield one
            yield await _second_opinion(settings, session)
    async for one in _ways_in(settings):
        yield one
    for name, backend in backends.items():
        yield await _backend(name, backend)
        async for one in _beyond(settings, name, now):
            yield attrs.evolve(one, check=f"{name}: {one.check}")
    if lease is not None:
        yield await _lease(lease, tries=probe is not None)


async def running(
    settings: config.Settings, files: store.FileStore
) -> AsyncIterator[finding.Finding]:
    """Say what the broker says of itself that works with this state directory."""
    check, note = "running broker", page_address.noted(files)
    if note is None:
        return  # none has ever served a page from this state directory
    try:
        plan = (await page_address.ask(note.url, ("plan",), note=note))["plan"]
    except page_address.NoAnswer:
        yield finding.ok(check, f"none answers at {note.url}: everything is asked from here")
        return
    if plan.get("owner") != settings.owner:
        yield finding.warn(
            check,
            f"{note.url} is that of owner {plan.get('owner')}",
            "one state_dir for each owner; a change of the owner needs a restart",
        )
        return
    for one in _what_it_says(plan, note.url, settings):
        yield one


def _what_it_says(
    plan: Mapping[str, Any], url: str, settings: config.Settings
) -> Iterator[finding.Finding]:
    check = "running broker"
    if plan.get("ready"):
        yield finding.ok(check, f"{url} says that it is ready")
    else:
        yield finding.warn(check, f"{url} is not ready: {plan.get('ready_text')}")
    for source in plan.get("sources", ()):
        if not source.get("synced") or source.get("error"):
            name = source.get("backend") or "controller"
            yield finding.warn(check, f"it does not read all of {name}: {source.get('error')}")
    yield from _hook(plan.get("hook"), settings.owner)
    if refusal := plan.get("configuration_refusal"):
        yield finding.warn(check, f"it refused the configuration that it read last: {refusal}")
    if waits := plan.get("configuration_waits"):
        yield finding.warn(check, f"it waits for a restart, which changes {', '.join(waits)}")
    if plan.get("configuration") != settings.fingerprint:
        yield finding.warn(
            check, "it works by another configuration than this file", "SIGHUP, or a restart"
        )


def _hook(hook: Mapping[str, Any] | None, owner: str) -> Iterator[finding.Finding]:
    """Say how it stands with the push hook, as the broker at work has it; nothing without one."""
    check = "push hook"
    if hook is None:
        return
    if not hook.get("silent"):
        lost = hook.get("lost")
        words = f", and {counts.told(int(lost), 'event')} dropped" if lost else ""
        yield finding.ok(check, f"version {hook.get('version')} is heard{words}")
        return
    trouble = hook.get("trouble")
    words = "it was heard once" if hook.get("heard_at") else "it was never heard"
    yield finding.warn(
        check,
        f"it is silent, so the queue is polled alone: {trouble or words}",
        f"agent-broker hook install, or the file of agent-broker hook print; is there one of "
        f"{owner} on the controller, and can that reach control.hook.url?",
    )


# --- the controller ----------------------------------------------------------------------------


async def _controller(
    settings: config.Settings, session: http.ControllerSession, now: Callable[[], float]
) -> AsyncIterator[finding.Finding]:
    asked = now()
    try:
        answer = await session.get_list("queue/api/json", "items", {"tree": "items[id]"})
    except errors.JenkinsError as error:
        yield finding.fail("controller", error.text, _what_to_do(error))
        return
    answered = now()
    seconds = answered - asked
    yield finding.ok("controller", f"{session.url} answers in {seconds:.2f} s")
    numbers = jnlp_version.parse(answer.version)
    if numbers is None:
        yield finding.warn(
            "version",
            "the controller does not tell its version (X-Jenkins)",
            "let the proxy before it pass that header; until then the safer, slower way is taken",
        )
    elif numbers < _OLDEST:
        yield finding.warn(
            "version", f"{answer.version} is older than 2.263", "upgrade the controller"
        )
    else:
        yield finding.ok("version", f"Jenkins {answer.version}")
    ahead = reading.skew(answer.date, asked=asked, answered=answered)
    if abs(ahead) > _SKEW_BAD_S:
        way = "ahead of" if ahead > 0 else "behind"
        words = f"the controller's is {abs(ahead):.0f} s {way} ours"
        yield finding.warn("clock", words, "keep both clocks by NTP")
    else:
        yield finding.ok("clock", f"the controller's differs from ours by {abs(ahead):.0f} s")
    yield await _who(settings, session)


def _what_to_do(error: errors.JenkinsError) -> str:
    match error:
        case errors.Unauthorized():
            return _USER_HINT
        case errors.Forbidden():
            return f"give the user {error.permission or 'Overall/Read'}"
        case errors.Unreachable():
            return "check controller.url, ca_file and proxy from this very machine"
        case errors.Starting():
            return "wait until it has started"
        case _:
            return "is controller.url the controller's own address, with its path?"


async def _who(settings: config.Settings, session: http.ControllerSession) -> finding.Finding:
    try:
        whoever = (await session.get_json("whoAmI/api/json")).json
    except errors.JenkinsError as error:
        return finding.warn("credentials", f"whoAmI: {error.text}")
    name = text.clean(str(whoever.get("name", "")), 80) if isinstance(whoever, dict) else ""
    anonymous = bool(whoever.get("anonymous")) if isinstance(whoever, dict) else True
    given = settings.controller.credentials
    if given is None:
        return finding.warn(
            "credentials", f"none are configured: we work as {name or 'nobody'}", _USER_HINT
        )
    if anonymous:
        return finding.fail("credentials", "the controller takes us for anonymous", _USER_HINT)
    kind = "password" if given.is_password else "API token"
    return finding.ok("credentials", f"we work as {name}, by {kind}")


# --- permissions -------------------------------------------------------------------------------


async def _permissions(
    session: http.ControllerSession, probe: str | None, owner: str
) -> AsyncIterator[finding.Finding]:
    """Try each on a node of our own, made for it and removed again; not without that right."""
    if probe is None:
        yield finding.warn(
            "permissions", "whether nodes may be made and removed was not tried", _READ_ONLY
        )
        return
    nodes = jnlp_client.NodeClient(session)
    lacking = await _cannot_remove(nodes, owner)
    if lacking is not None:
        yield lacking
        yield finding.warn("permissions", "the others were not tried: the node would stay behind")
        return
    creation = await _tried(
        "Agent/Create",
        lambda: nodes.create(
            node.NodeDefinition(
                name=probe,
                remote_fs="/tmp",  # noqa: S108 -- no agent ever connects
                labels=(),
                exclusive=True,
                description="agent-broker doctor; removed at once",
            )
        ),
    )
    yield creation
    if creation.verdict is not finding.Grade.OK:
        yield finding.warn("permissions", "the others cannot be tried without a node")
        return
    try:
        if await nodes.may_delete(probe) is False:
            yield finding.warn("permissions", "the others were not tried: Agent/Delete is missing")
        else:
            async for one in _on_a_node(nodes, session, probe):
                yield one
    finally:
        gone = await _tried("Agent/Delete", lambda: nodes.delete(probe))
    if gone.verdict is finding.Grade.FAIL:
        yield finding.fail(gone.check, gone.text, f"{gone.hint}; remove node {probe} by hand")
    else:
        yield gone


async def _on_a_node(
    nodes: jnlp_client.NodeClient, session: http.ControllerSession, probe: str
) -> AsyncIterator[finding.Finding]:
    """Try on a node what the broker does with its nodes, short of deleting it."""
    yield await _tried("Agent/Connect", lambda: nodes.secret(probe))
    yield await _tried("Agent/Disconnect", lambda: nodes.cordon(probe, "agent-broker doctor"))
    configured = await _tried(
        "Agent/Configure", lambda: nodes.seal(probe, model.RETIRED_LABEL, busy=True)
    )
    safe = jnlp_version.safe_to_retire_by_offline(session.version)
    if configured.verdict is finding.Grade.FAIL and safe:
        hint = "without it a Pipeline whose agent died goes on after five minutes, not at once"
        yield finding.warn(configured.check, configured.text, hint)
    else:
        yield configured
    yield await _kept(session, probe)


async def _cannot_remove(nodes: jnlp_client.NodeClient, owner: str) -> finding.Finding | None:
    """Say that a node could not be removed again, or that nothing tells; None: nothing against it.

    The owner's placeholder is asked, if it is there. Before a broker's first run it is not: then
    the controller's own computer tells whether such a question is answered at all. It has no
    entry for its deletion, whoever asks, so only the node that is made can tell the rest.
    """
    check = "Agent/Delete"
    try:
        allowed = await nodes.may_delete(marks.placeholder_name(owner))
        if allowed is None and await nodes.may_delete() is not None:
            return None
    except errors.JenkinsError as error:
        return finding.fail(check, error.text, _what_to_do(error))
    if allowed is None:
        return finding.warn(
            check,
            "the controller does not tell whether a node may be removed again",
            "let the proxy before it pass computer/(master)/contextMenu, and make sure of it",
        )
    if not allowed:
        return finding.fail(
            check,
            "missing: the controller offers us no removal of nodes",
            f"give the user {check}; where rights hang on the names of nodes, the broker's "
            f"begin with {owner}-",
        )
    return None


async def _kept(session: http.ControllerSession, probe: str) -> finding.Finding:
    """Look whether a reload of Configuration as Code leaves our nodes alone.

    It deletes every node that its YAML does not list, if that lists any (``jnlp.node``).
    """
    check = "nodes and JCasC"
    try:
        config = (await session.get_text(f"computer/{probe}/config.xml")).text
        if node.is_kept(config):
            return finding.ok(check, "a reload of Configuration as Code keeps the broker's nodes")
        await session.get_text("configuration-as-code/")
    except errors.NotFound:
        return finding.ok(check, "Configuration as Code is not installed")
    except errors.Forbidden as error:
        if error.permission in {"Agent/Configure", "Agent/ExtendedRead"}:
            return finding.warn(check, f"not looked at: {error.text}")
    except (errors.JenkinsError, ValueError) as error:
        return finding.warn(check, f"not looked at: {error}"[:256])
    return finding.warn(
        check,
        "the installed Configuration as Code knows no node that is to be kept: loading a YAML "
        "with jenkins.nodes deletes the broker's nodes, with the builds on them",
        "upgrade the plugin to 2080 or later, or keep jenkins.nodes out of the YAML",
    )


async def _tried(permission: str, call: Callable[[], Awaitable[object]]) -> finding.Finding:
    try:
        await call()
    except errors.Forbidden as error:
        missing = error.permission or permission
        return finding.fail(permission, f"missing: {error.text}", f"give the user {missing}")
    except errors.JenkinsError as error:
        return finding.fail(permission, error.text, _what_to_do(error))
    return finding.ok(permission, "granted")


async def _jobs(session: http.ControllerSession) -> finding.Finding:
    """Without Job/Read a full queue looks empty: tell that apart."""
    try:
        jobs = await _count(session, "api/json", "jobs", "jobs[name]")
        items = await _count(session, "queue/api/json", "items", "items[id]")
        wanted = {"tree": "discoverableItems[_class]"}
        queue = (await session.get_json("queue/api/json", wanted)).json
    except errors.JenkinsError as error:
        return finding.fail("Job/Read", error.text, _what_to_do(error))
    if isinstance(queue, dict) and queue.get("discoverableItems"):
        return finding.fail(
            "Job/Read",
            "items wait that the user may discover, but not read",
            "give the user Job/Read on all jobs: what it cannot read gets no agent",
        )
    if not jobs and not items:
        return finding.warn(
            "Job/Read",
            "no job is visible: there is none, or the user is not allowed to read any",
            "if there are jobs, give the user Job/Read: to it a full queue looks empty",
        )
    return finding.ok(
        "Job/Read",
        f"{counts.told(jobs, 'job')} visible at the top, {counts.told(items, 'item')} in the "
        "queue",
    )


async def _neighbours(
    session: http.ControllerSession, owner: str, now: Callable[[], float]
) -> AsyncIterator[finding.Finding]:
    """Say who else starts agents on this controller, by the marks of nodes."""
    try:
        view = await reading.Reader(session).read(now)
    except errors.JenkinsError:
        return  # what is wrong was said
    for other in neighbours.seen(view.computers, owner, now=now()).owners:
        first, second = sorted((owner, other))
        yield finding.warn(
            f"owner {other}",
            "a broker of another owner works on this controller as well, or has left its nodes",
            f"where both serve one label, {first} orders first and {second} a look later; labels "
            "of their own spare that, and agent-broker sweep by its configuration what is left",
        )


def _gives_up(settings: config.Settings) -> bool:
    own = any(template.give_up_s is not None for template in settings.templates)
    return own or settings.limits.give_up_s is not None


async def _cancelling(session: http.ControllerSession) -> finding.Finding:
    """Ask for Job/Cancel: the queue's widget has a link for each item that we may cancel.

    Nothing on REST says so (measured on 2.516.3 and 2.541.3).
    """
    needed = "it is needed for give_up"
    hint = "give the user Job/Cancel on all jobs, or leave give_up out"
    try:
        items = await _count(session, "queue/api/json", "items", "items[id]")
        shown = (await session.get_text(_QUEUE_WIDGET)).text
    except (errors.NotFound, errors.BadRequest):
        return finding.warn("Job/Cancel", f"the controller does not tell; {needed}", hint)
    except errors.JenkinsError as error:
        return finding.fail("Job/Cancel", error.text, _what_to_do(error))
    if "cancelItem?id=" in shown:
        return finding.ok("Job/Cancel", "granted")
    if items:
        return finding.fail("Job/Cancel", f"missing: {needed}", hint)
    words = "is told only while something waits"
    return finding.warn("Job/Cancel", f"whether it is granted {words}; {needed}", hint)


async def _count(session: http.ControllerSession, path: str, key: str, tree: str) -> int:
    """Count the entries of a list. Raises any ``JenkinsError``."""
    answer = await session.get_list(path, key, {"tree": tree})
    try:
        return sum(1 for _ in answer.entries)
    except ValueError as error:
        raise errors.Unexpected(f"GET {path}: {error}") from None


# --- the way of the agents ---------------------------------------------------------------------


async def _ways_in(settings: config.Settings) -> AsyncIterator[finding.Finding]:
    """Try, from here, what agents will try: listener, port or WebSocket."""
    url = settings.controller.agent_url
    context: ssl.SSLContext | bool = settings.controller.verify
    if settings.controller.verify and settings.controller.ca_file is not None:
        context = tls.trusting(settings.controller.ca_file)
    ways = dict.fromkeys(t.launch.connection for t in settings.templates if not t.launch.command)
    if not ways:
        yield finding.ok("agents", "every template brings a program of its own: nothing to try")
        return
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as client:
        for way in ways:
            try:
                async with waits.timeout(_LIMIT_S):
                    yield await _way_in(client, url, way)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                yield finding.fail(
                    "agents",
                    f"tried from here by {way.transport.value}: {connect_errors.words(error)}",
                    "check controller.agent_url, the tunnel and firewalls; agents may stand "
                    "elsewhere in the network than this machine",
                    fault="configuration",
                )


async def _way_in(
    client: aiohttp.ClientSession, url: str, way: tunnel.Connection
) -> finding.Finding:
    if way.transport is tunnel.Transport.DIRECT:
        where = tunnel.parse_tunnel(way.direct or "")
        return await _port(where.host or "", where.port or 0, "direct")
    if way.transport is tunnel.Transport.WEBSOCKET:
        return await _websocket(client, url)
    async with client.get(f"{url}tcpSlaveAgentListener/", allow_redirects=False) as answer:
        status, headers = answer.status, answer.headers
    return _elsewhere(url, status, {200}) or await _agent_port(url, headers, way)


async def _websocket(client: aiohttp.ClientSession, url: str) -> finding.Finding:
    """Ask without an upgrade: the controller answers 400 and says what the endpoint is for."""
    async with client.get(f"{url}wsagents/", allow_redirects=False) as answer:
        status = answer.status
    elsewhere = _elsewhere(url, status, {200, 400, 404, 426})
    if status == 404:
        hint = "is controller.agent_url right, path and all? else use mode tcp, or upgrade"
        return finding.fail("agents", f"websocket: {url}wsagents/ is not there", hint)
    return elsewhere or finding.ok("agents", f"websocket: {url}wsagents/ answers")


def _elsewhere(url: str, status: int, expected: AbstractSet[int]) -> finding.Finding | None:
    """Object if it is no controller that answers: what agents ask needs no login."""
    if status in expected:
        return None
    return finding.fail(
        "agents",
        f"{url} answers {status} to what agents ask without a login",
        "is controller.agent_url the controller's own address, with its path? a proxy with a "
        "login must let tcpSlaveAgentListener/, wsagents/ and jnlpJars/ pass",
    )


async def _agent_port(
    url: str, headers: Mapping[str, str], way: tunnel.Connection
) -> finding.Finding:
    """Try the port that the controller announces, or the tunnel in its place."""
    number = headers.get("X-Jenkins-JNLP-Port", "")
    if not (number.isascii() and number.isdecimal() and len(number) <= 5):
        return finding.fail(
            "agents",
            "the controller announces no agent port",
            "Manage Jenkins, Security: TCP port for inbound agents; or connect.mode websocket",
            fault="operator",
        )
    protocols = headers.get("X-Jenkins-Agent-Protocols")
    if protocols is not None and _PROTOCOL not in {one.strip() for one in protocols.split(",")}:
        told = text.clean(protocols, 128) or "none"
        return finding.fail(
            "agents",
            f"the controller speaks {told} at its agent port, and agents need {_PROTOCOL}",
            "Manage Jenkins, Security, Agent protocols: enable it; or connect.mode websocket",
            fault="operator",
        )
    if not headers.get("X-Instance-Identity"):
        return finding.fail(
            "agents",
            "the controller has no instance identity: agents by TCP cannot connect",
            "install the plugin instance-identity, which 2.577 and later no longer bring along; "
            "or connect.mode websocket, which needs none",
            fault="operator",
        )
    through = tunnel.parse_tunnel(way.tunnel) if way.tunnel is not None else None
    named = text.name(
        headers.get("X-Jenkins-JNLP-Host", "")
    )  # hudson.TcpSlaveAgentListener.hostName
    host = (through.host if through else None) or named or yarl.URL(url).host or ""
    port = (through.port if through else None) or int(number)
    if not (through and through.host) and named and exposure.is_local(named):
        told = yarl.URL(url).host or ""
        if not exposure.is_local(told):
            return finding.warn(
                "agents",
                f"the controller tells agents to connect to {named}, which is their own machine "
                f"wherever they run: they know it as {told}",
                f"connect.tunnel: {told}:{port}, or -Dhudson.TcpSlaveAgentListener.hostName of "
                "the controller; or connect.mode websocket",
            )
    return await _port(host, port, "through the tunnel" if through else "agent port")


async def _port(host: str, port: int, words: str) -> finding.Finding:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return finding.fail(
            "agents",
            f"{words}: no connection to {host}:{port} from here: {connect_errors.words(error)}",
            "the controller names that port: is it open in every firewall on the way, and is "
            "`connect.tunnel` or `connect.direct` right where one is set? or connect.mode "
            "websocket, which needs no port of its own",
            fault="operator",
        )
    writer.close()
    return finding.ok("agents", f"{words}: {host}:{port} takes connections")


async def _backend(name: model.BackendName, backend: backends_api.Backend) -> finding.Finding:
    check = f"backend {name}"
    try:
        async with waits.timeout(_LIMIT_S):
            instances = await backend.list()
            room = await backend.capacity()
    except backends_api.BackendError as error:
        return finding.fail(check, error.reason, finding.whose(error.fault), fault=error.fault)
    except TimeoutError:
        return finding.fail(
            check,
            f"no answer within {_LIMIT_S:.0f} s",
            "is it reachable from here?",
            fault="platform",
        )
    more = f"; {room.text}" if room is not None and room.text else ""
    return finding.ok(
        check,
        f"answers (kind {backend.kind}), {counts.told(len(instances), 'instance')} of ours{more}",
    )


async def _beyond(
    settings: config.Settings, name: model.BackendName, now: Callable[[], float]
) -> AsyncIterator[finding.Finding]:
    """Look at what only the kind of a backend knows of, such as rights and quotas."""
    entry = settings.backends[name]
    if registry.kind(entry.kind).examiner is None:
        return
    orders: dict[str, backends_api.InstanceSpec] = {}
    for template in config.policy(settings, wall_now=now()).templates:
        if name in template.backends:
            orders[template.name] = rendering.order(settings, template, name, now())
    async for one in registry.examine(
        entry.kind, entry.settings, owner=settings.owner, orders=orders, now=now
    ):
        yield one


async def _lease(lease: leases.Lease, *, tries: bool) -> finding.Finding:
    """Try each right without changing who leads: make what is there, write what it says."""
    right = "get"
    try:
        async with waits.timeout(_LIMIT_S):
            record = await lease.read()
            if not tries:
                return finding.warn(
                    "lease",
                    f"{_held(lease, record)}; whether it may be written was not tried",
                    _READ_ONLY,
                )
            right = "create"
            nobody = leases.Record(holder="", lease_s=1, acquired="", renewed="", transitions=0)
            created = await lease.write(nobody, over=None)
            right = "update"
            present = created or record
            if present is not None:  # what leads may be faster: that proves the right as well
                await lease.write(present.record, over=present)
    except backends_api.BackendError as error:
        hint = f"{right} leases in group coordination.k8s.io: docs/backends/kubernetes.md, rights"
        return finding.fail("lease", error.reason, hint)
    except TimeoutError:
        return finding.fail(
            "lease", f"no answer within {_LIMIT_S:.0f} s", "is it reachable from here?"
        )
    return finding.ok("lease", f"{_held(lease, record)}; may be read, made and written")


def _held(lease: leases.Lease, present: leases.SeenRecord | None) -> str:
    if present is None:
        return f"{lease.where} is not there yet"
    holder = present.record.holder
    return f"{lease.where} is held by {holder}" if holder else f"{lease.where} is free"


# --- the second opinion ------------------------------------------------------------------------


async def _second_opinion(
    settings: config.Settings, session: http.ControllerSession
) -> finding.Finding:
    """Ask with python-jenkins what we asked ourselves; compare what does not change by the way."""
    check = "second opinion"
    try:
        stranger = importlib.import_module("jenkins")
    except ImportError:
        return finding.warn(check, "python-jenkins is not installed", "pip install python-jenkins")
    try:
        ours = len(await jnlp_client.NodeClient(session).node_names())
        async with waits.timeout(2 * _LIMIT_S):
            version, theirs = await asyncio.to_thread(_ask_stranger, stranger, settings)
    except errors.JenkinsError as error:
        return finding.warn(check, error.text)
    except Exception as error:  # noqa: BLE001 -- it passes on whatever its HTTP library raises
        return finding.warn(
            check, f"python-jenkins: {type(error).__name__}", "proxies or redirects in between?"
        )
    if (version, theirs) != (session.version, ours):
        return finding.warn(
            check,
            f"python-jenkins sees {version} with {counts.told(theirs, 'node')}, we "
            f"{session.version} with {ours}",
            "does every request reach the same controller?",
        )
    return finding.ok(check, f"python-jenkins agrees: {version}, {counts.told(theirs, 'node')}")


def _ask_stranger(stranger: Any, settings: config.Settings) -> tuple[str, int]:
    """Runs in a thread: that library waits."""
    controller = settings.controller
    given = controller.credentials
    server = stranger.Jenkins(
        controller.url,
        username=given.user if given else None,
        password=given.secret.reveal() if given else None,
        timeout=int(_LIMIT_S),
    )
    server._session.verify = controller.ca_file or controller.verify  # noqa: SLF001 -- it offers no other way
    if controller.proxy is not None:
        server._session.proxies = {"http": controller.proxy, "https": controller.proxy}  # noqa: SLF001 -- as above
    names = [one["name"] for one in server.get_nodes()]
    own = {"(built-in)", "(master)", "Built-In Node", "master"}
    return str(server.get_version()), sum(name not in own for name in names)
