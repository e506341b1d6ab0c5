"""Whether the images of the templates can be had, asked of each engine without starting anything.

What is there already is looked for by its name; of the rest the engine asks the registry what a
pull would begin with, with the logins of the configuration. Refuses to pull, and to be needed by
a broker at work.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping

from attrs import frozen

from backends import api
from backends.docker import settings
from backends.docker.containers import runtimes
from backends.docker.engine import client, environment
from backends.kit import finding

_NEVER = "docker pull IMAGE there, or another `pull` of the template"
_NOT_THERE = "`image` of the template; a private one: `registries` of the backend"


async def examine(
    configured: settings.DockerSettings,
    *,
    owner: str,  # noqa: ARG001 -- the shape of all examiners
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- likewise
) -> AsyncIterator[finding.Finding]:
    """Yield one finding for each image on each engine; ``orders`` by template."""
    for found in runtimes.examined(configured.runtimes, orders):
        yield found
    wanted: dict[_Image, list[str]] = defaultdict(list)
    for template, order in orders.items():
        if order.image is not None:
            wanted[_Image.of(order, order.image)].append(template)
    try:
        hosts = configured.hosts or (environment.engine(configured.docker_config).host,)
    except ValueError:
        return  # the backend itself says why there is no engine
    for host in hosts:
        engine = client.Engine(host, configured)
        where = f" on {host.url}" if len(hosts) > 1 else ""
        try:
            for image, templates in wanted.items():
                check = f"image{where}"
                yield await _looked_for(engine, image, check, ", ".join(templates))
        finally:
            engine.close()


@frozen
class _Image:
    name: str
    pull: str

    @classmethod
    def of(cls, order: api.InstanceSpec, name: str) -> "_Image":
        options = order.options
        pull = options.pull if isinstance(options, settings.DockerTemplate) else "if-missing"
        return cls(name, pull)


async def _looked_for(
    engine: client.Engine, image: _Image, check: str, templates: str
) -> finding.Finding:
    words = f"{image.name} (template {templates})"
    try:
        there = await engine.call(client.Lane.READ, engine.has_image, image.name)
        if image.pull == "never" and not there:
            return finding.fail(
                check, f"{words} is not there, and it is never pulled", _NEVER,
                fault="configuration",
            )  # fmt: skip
        if there and image.pull != "always":
            return finding.ok(check, f"{words} is there")
    except api.BackendError as error:
        return finding.fail(check, f"{words}: {error.reason}", fault=error.fault)
    try:
        await engine.call(client.Lane.READ, engine.ask_registry, image.name)
    except api.Unavailable as error:
        return finding.warn(
            check,
            f"{words} is {'to be pulled anew' if there else 'not there'}, and whether it can be "
            f"pulled is not known: {error.reason}",
            fault=error.fault,
        )
    except api.BackendError as error:
        return finding.fail(
            check, f"{words} cannot be pulled: {error.reason}", _NOT_THERE, fault=error.fault
        )
    return finding.ok(check, f"{words} can be pulled")
