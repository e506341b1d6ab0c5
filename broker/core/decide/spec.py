"""From a decided launch to what both sides are told: a node definition and an instance spec.

The one place where jnlp and backends meet. Pure: the secret comes in as a value, everything else
from the template. Refuses to know platform options; they pass through as the template holds them.
"""

import enum
import re
from collections.abc import Mapping

import attrs
from attrs import Factory, frozen

from backends import api as backends_api
from backends.kit import names, runtime
from broker.core import model
from broker.core.demand import parameters
from broker.core.fleet import marks
from jnlp import launch as jnlp_launch
from jnlp import node as jnlp_node
from jnlp import proxy as jnlp_proxy
from jnlp import secret as jnlp_secret
from jnlp import truststore as jnlp_truststore

IMAGE_FS = "/home/jenkins/agent"
"""Work directory of the official agent images (jenkinsci/docker-agent, ``AGENT_WORKDIR``)."""
JAR = "agent.jar"
_FIRST_COMPILER = "-XX:TieredStopAtLevel=1"
_SERIAL = "-XX:+UseSerialGC"
_COLLECTOR = re.compile(r"-XX:\+Use\w+GC$")
_HEAP = re.compile(r"-Xmx|-XX:(MaxHeapSize|MaxRAM\w*)=")
_LEAST_HEAP_MIB = 64
"""What remoting needs to load a build's classes; a smaller limit than twice that is a mistake."""


class Style(enum.Enum):
    """How a backend starts an agent (``backends.registry``)."""

    COMMAND = "command"  # we bring the command line and the jar
    ENTRY_POINT = "entry-point"  # the image brings its own


@frozen(kw_only=True)
class Site:
    """What the shell knows about where an agent goes."""

    owner: str
    style: Style
    controller_version: str
    jar_url: str
    work_dir: str | None  # of this instance, if the backend decides it
    authorities: tuple[str, ...] = ()  # certificates that agents are to trust, PEM
    trusted: Mapping[str, bytes] = Factory(dict)  # files for ``LaunchSettings.trust``
    route: backends_api.Route = Factory(backends_api.Route)  # of the jar
    shares: bool = False  # its instances have a directory in common
    now: float


def remote_fs(template: model.Template, site: Site, name: model.NodeName) -> str:
    """Return the node's root directory; it is also the agent's ``-workDir``."""
    return _wanted_fs(template, name) or site.work_dir or IMAGE_FS


def _wanted_fs(template: model.Template, name: model.NodeName) -> str | None:
    root = template.launch.remote_fs
    return None if root is None else str(names.named(root, name))


def definition(
    action: model.LaunchAgent, template: model.Template, site: Site
) -> jnlp_node.NodeDefinition:
    """Return the node to create."""
    return jnlp_node.NodeDefinition(
        name=action.name,
        description=_marks(action, template, site).description(single_use=template.retention.once),
        executors=template.executors,
        remote_fs=remote_fs(template, site, action.name),
        labels=tuple(sorted(template.labels)),
        exclusive=template.exclusive,
        connection=template.launch.connection,
    )


def instance(
    action: model.LaunchAgent,
    template: model.Template,
    site: Site,
    secret: jnlp_secret.Secret,
) -> backends_api.InstanceSpec:
    """Return the instance to launch."""
    launch = template.launch
    command = _command(action, template, site, secret)
    injected = launch.inject if launch.command is None else None
    brings_jar = launch.command is None and injected is None and site.style is Style.COMMAND
    return backends_api.InstanceSpec(
        name=action.name,
        metadata=_marks(action, template, site).metadata(action.name),
        argv=command.argv,
        use_entry_point=site.style is Style.ENTRY_POINT
        and launch.command is None
        and injected is None,
        image=launch.image,
        env={
            **_surroundings(launch),
            **(_brought_environment(template, site, action.name) if injected is not None else {}),
            **command.env,
            **names.named(launch.environment, action.name),
        },
        secret_files=command.secret_files,
        files=(backends_api.RemoteFile(url=site.jar_url, name=JAR, route=site.route),)
        if brings_jar
        else (),
        given_files=site.trusted if launch.trust is not None else {},
        resources=launch.resources,
        work_dir=_wanted_fs(template, action.name),
        options=launch.platform.get(action.backend),
        avoid=action.avoid,
        inherits=launch.inherits,
        side_images=launch.side_images,
        runtime=injected,
        pipelines=launch.docker_pipelines,
        slot=action.slot,
    )


def _surroundings(launch: model.LaunchSettings) -> dict[str, str]:
    """Return what builds are told of the network that they are in."""
    env = {} if launch.proxy is None else jnlp_proxy.environment(launch.proxy)
    own = {name.lower() for name in launch.environment}  # Jenkins would keep either, by chance
    env = {name: value for name, value in env.items() if name not in own}
    if launch.trust is not None:
        env |= jnlp_truststore.environment(launch.trust, backends_api.FILES)
    return env


def _brought_environment(
    template: model.Template, site: Site, name: model.NodeName
) -> dict[str, str]:
    """Return what images that were not made for agents lack: a locale, and a home to write to."""
    return {**runtime.ENVIRONMENT, "HOME": remote_fs(template, site, name)}


def jvm_options(launch: model.LaunchSettings) -> tuple[str, ...]:
    """Return the options of the agent's JVM: what starts it fast, its heap, the template's own.

    An agent moves bytes and loads classes, builds run in their own processes: the first compiler
    and the simplest collector cost a third less processor time (docs/performance.md). Without a
    heap of its own the JVM would take what builds are measured by.
    """
    own = _chosen_options(launch)
    collector = () if any(_COLLECTOR.match(option) for option in own) else (_SERIAL,)
    memory = launch.resources.memory_bytes
    heap: tuple[str, ...] = ()
    if memory is not None and not any(_HEAP.match(option) for option in own):
        heap = (f"-Xmx{max(_LEAST_HEAP_MIB, int(memory * launch.heap_share) >> 20)}m",)
    return (_FIRST_COMPILER, *collector, *heap, *own)


def _chosen_options(launch: model.LaunchSettings) -> tuple[str, ...]:
    """Return the options that do not come from us: of two of one name a JVM takes the last."""
    proxy = jnlp_proxy.jvm_options(launch.proxy) if launch.proxy is not None else ()
    trust = () if launch.trust is None else jnlp_truststore.jvm_options(backends_api.FILES)
    return (*proxy, *trust, *launch.jvm_options)


def variant(action: model.LaunchAgent, template: model.Template) -> model.Template:
    """Return the template as an action wants it: with what was asked for, and its slot, put in."""
    bound = parameters.bound(template, action.asked)
    if action.slot is None:
        return bound
    return attrs.evolve(bound, launch=names.in_slot(bound.launch, action.slot))


def _marks(action: model.LaunchAgent, template: model.Template, site: Site) -> marks.Marks:
    return marks.Marks(
        owner=site.owner,
        template=template.name,
        backend=action.backend,
        revision=template.revision,
        created_at=site.now,
        slot=action.slot,
    )


def _command(
    action: model.LaunchAgent,
    template: model.Template,
    site: Site,
    secret: jnlp_secret.Secret,
) -> jnlp_launch.LaunchCommand:
    launch = template.launch
    inbound = jnlp_launch.Inbound(
        url=launch.agent_url,
        name=action.name,
        secret=secret,
        secrets_dir=backends_api.SECRETS,
        work_dir=remote_fs(template, site, action.name),
        connection=launch.connection,
        authorities=site.authorities,
    )
    style = jnlp_launch.remoting_style(site.controller_version)
    if launch.command is not None:
        return jnlp_launch.own_command(inbound, launch.command)
    if launch.inject is not None:
        return jnlp_launch.java_command(
            inbound,
            jar=runtime.JAR,
            style=style,
            java=runtime.JAVA,
            jvm_options=(*runtime.JVM_OPTIONS, *jvm_options(launch)),
            reconnect_for_s=launch.reconnect_for_s,
        )
    if site.style is Style.ENTRY_POINT:
        # an old image knows JAVA_OPTS only, which every Java tool of a build takes for its own
        old = style is jnlp_launch.OptionStyle.POSITIONAL
        options = _chosen_options(launch) if old else jvm_options(launch)
        return jnlp_launch.image_command(inbound, style=style, jvm_options=options)
    return jnlp_launch.java_command(
        inbound,
        jar=f"{backends_api.FILES}/{JAR}",
        style=style,
        java=launch.java,
        jvm_options=jvm_options(launch),
        reconnect_for_s=launch.reconnect_for_s,
        jar_cache=f"{backends_api.SHARED}/jars" if site.shares else None,
    )
