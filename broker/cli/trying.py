"""``doctor --try``: an agent of each template is started, watched until it is online, and removed.

It is nobody's: its owner is another one, so no broker counts, uses or sweeps it, and its node has
no label and takes no build. Refuses to know platforms, and to do anything unless it is asked.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

import attrs

from backends import api as backends_api
from backends.kit import finding, runtime
from broker import app
from broker.core import model
from broker.loop import execute
from jnlp import client as jnlp_client
from jnlp import errors as jnlp_errors
from outside import text, waits

OWNER = "{}-try"
_LOOK_S = 0.25
_LEAVE_S = 30.0
_LINES = 200
_SAID = "agent-broker lacks: "
PROBE = f"""\
for tool in sh nohup; do
  found=; IFS=:
  for folder in $PATH; do
    test "$folder" = {runtime.TOOLS} || ! test -x "$folder/$tool" || found=1
  done
  test "$found" || echo "{_SAID}$tool"
done
test -w /tmp || echo "{_SAID}a /tmp that it may write"
test -w "${{HOME:-/}}" || echo "{_SAID}a HOME that it may write"
test -d /usr/lib/locale/C.utf8 || test -d /usr/lib/locale/C.UTF-8 ||
  test -s /usr/lib/locale/locale-archive || test -e /lib/ld-musl-x86_64.so.1 ||
  test -e /lib/ld-musl-aarch64.so.1 || echo "{_SAID}a locale for names beyond ASCII"
exit 0
"""


class _Unwell(Exception):  # noqa: N818 -- a result, not an error of ours
    """It did not come online; the text says why."""


async def tries(broker: app.Broker) -> AsyncIterator[finding.Finding]:
    """Yield how an agent of each template fares on its first backend; everything made is removed.

    ``broker``: one that does not run, of an owner of its own (``OWNER``).
    """
    for template in broker.policy.templates:
        check = f"try {template.name}"
        if template.paused or not template.backends:
            yield finding.warn(check, "not tried: it is paused")
            continue
        backend = template.backends[0]
        action = model.LaunchAgent(
            name=model.NodeName(f"{broker.settings.owner}-{secrets.token_hex(3)}"),
            template=template.name,
            backend=backend,
            reason="doctor --try",
        )
        try:
            yield await _one(
                broker, template, action, broker.reconciler.executor.order(action), check
            )
        except (backends_api.BackendError, jnlp_errors.JenkinsError) as error:
            yield _refused(check, error)
            continue
        if template.launch.image is not None:
            yield await _lacking(
                broker, template, action, broker.reconciler.executor.order(action)
            )


async def _one(
    broker: app.Broker,
    template: model.Template,
    action: model.LaunchAgent,
    order: execute.Order,
    check: str,
) -> finding.Finding:
    """Start one, wait until it is online, and remove it."""
    nodes, backend = jnlp_client.NodeClient(broker.session), broker.backends[action.backend]
    definition = attrs.evolve(
        order.definition,
        labels=(),
        exclusive=True,
        description="agent-broker doctor --try; removed at once",
    )
    begun = broker.watch.now()
    phases: list[str] = []

    def passed(phase: str) -> None:
        phases.append(f"{phase} {broker.watch.now() - begun:.1f} s")

    try:
        await nodes.create(definition)
        secret = await nodes.secret(action.name)
        passed("node")
        await backend.reserve(order.reservation())
        await backend.launch(order.spec_with(secret))
        passed("launched")
        async with waits.timeout(template.connect_deadline_s):
            await _online(nodes, backend, action.name, passed)
        return finding.ok(check, f"online on {action.backend}: {', '.join(phases)}")
    except (_Unwell, TimeoutError) as error:
        reason = str(error) or f"not online within {template.connect_deadline_s:.0f} s"
        said = await _last_words(backend, action.name)
        words = f"{reason} on {action.backend} ({', '.join(phases)})"
        return finding.fail(check, words, f"its last words: {said}" if said else "")
    finally:
        with contextlib.suppress(backends_api.BackendError):
            await backend.terminate(action.name, grace_s=0.0)
        with contextlib.suppress(jnlp_errors.JenkinsError):
            await nodes.delete(action.name)


async def _online(
    nodes: jnlp_client.NodeClient,
    backend: backends_api.Backend,
    name: str,
    passed: Callable[[str], None],
) -> None:
    """Wait until it is online. Raises _Unwell when its instance has ended."""
    runs = seen = False
    while True:
        instance = await _instance(backend, name)
        if instance is None and not seen:  # a listing may lag behind what is created
            await asyncio.sleep(_LOOK_S)
            continue
        seen = True
        if instance is None or instance.state is backends_api.InstanceState.EXITED:
            told = instance.exit if instance is not None else None
            words = f"{told.slug}: {told.message}" if told is not None else "it is gone"
            raise _Unwell(f"it ended before it was online: {words}")
        if not runs and instance.state is backends_api.InstanceState.RUNNING:
            runs = True
            passed("running")
        if not (await nodes.read(name)).offline:
            passed("online")
            return
        await asyncio.sleep(_LOOK_S)


async def _lacking(
    broker: app.Broker, template: model.Template, action: model.LaunchAgent, order: execute.Order
) -> finding.Finding:
    """Say what the image has not, by a shell in it; the agent is not started."""
    check, backend = f"image of {template.name}", broker.backends[action.backend]
    shell = f"{runtime.TOOLS}/sh" if template.launch.inject is not None else "/bin/sh"
    wanted = order.reservation()
    name = model.NodeName(f"{broker.settings.owner}-{secrets.token_hex(3)}")
    spec = attrs.evolve(
        wanted,
        name=name,
        argv=(shell, "-c", PROBE),
        use_entry_point=False,
        secret_files={},
        files=(),
    )
    try:
        await backend.launch(spec)
        async with waits.timeout(template.connect_deadline_s):
            instance, seen = await _instance(backend, name), False
            while not (seen and instance is None):
                seen = seen or instance is not None
                if instance is not None and instance.state is backends_api.InstanceState.EXITED:
                    break
                await asyncio.sleep(_LOOK_S)
                instance = await _instance(backend, name)
        if instance is None or instance.exit is None or instance.exit.code != 0:
            words = instance.exit.message if instance is not None and instance.exit else ""
            return finding.warn(check, f"no {shell} that runs: {words}", "inject: true brings one")
        said = await backend.logs(name, tail=_LINES)
    except backends_api.BackendError as error:
        return finding.warn(check, f"no {shell} that runs: {error.reason}", "inject: true")
    except TimeoutError:
        return finding.warn(check, "what it lacks could not be seen in time")
    finally:
        with contextlib.suppress(backends_api.BackendError):
            await backend.terminate(name, grace_s=0.0)
    lacks = lacking(said)
    if not lacks:
        return finding.ok(check, "it has sh, nohup, /tmp, HOME and a locale")
    supplied = " (inject supplies sh, nohup and the locale)" if template.launch.inject else ""
    return finding.warn(check, f"it lacks {', '.join(lacks)}{supplied}")


def lacking(said: str) -> list[str]:
    """Return what the shell in an image did not find, of what it wrote."""
    lines = (line.partition(_SAID) for line in text.last_lines(said, _LINES))
    return [what.strip() for _, found, what in lines if found]


async def _instance(backend: backends_api.Backend, name: str) -> backends_api.Instance | None:
    return next((one for one in await backend.list() if one.name == name), None)


async def _last_words(backend: backends_api.Backend, name: str) -> str:
    with contextlib.suppress(backends_api.BackendError):
        return " / ".join(text.last_lines(await backend.logs(name, tail=_LINES), 3))
    return ""


def _refused(check: str, error: Exception) -> finding.Finding:
    words = getattr(error, "reason", None) or getattr(error, "text", "") or str(error)
    return finding.fail(check, f"not started: {words}", fault=str(getattr(error, "fault", "")))
