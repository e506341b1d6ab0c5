"""The command line and environment that start an inbound agent.

Pure. Knows agent.jar in its two styles, the entry script of the agent images, and the variables
for a program of one's own; refuses to know containers, where files lie and how things are started:
paths are parameters, and callers pass whatever their backend replaces later.

Rules:

* The secret travels in a file. agent.jar reads it by ``@FILE``: its option parser (args4j 2.33 in
  remoting 4.5, 2.37 today, never configured otherwise) replaces every such argument by the lines
  of the file, positional or not. So neither a process list nor an environment shows it. The entry
  script of the images passes ``JENKINS_SECRET`` on unchanged, so ``@FILE`` works there too.
* Old style: ``java -cp agent.jar hudson.remoting.jnlp.Main -headless ... @FILE NAME``. Preferred
  to ``-jnlpUrl``, which asks the controller for everything: the agent would use the controller's
  own idea of its URL, ignore our tunnel and WebSocket settings, and try again for ever when the
  node is gone (recording ``agent/22-no-such-node``). The class still exists today with a warning,
  so this style is also the answer for a version that cannot be read.
* New style: ``java -jar agent.jar -url ... -secret @FILE -name NAME`` from remoting 3176 on, first
  bundled for certain with 2.440 (LTS 2.440.1 has 3206). An older agent.jar prints its usage at
  this and ends with **0** (recording ``agent/10-connect-tcp``).
* ``-noReconnectAfter`` from remoting 3241 on, bundled with 2.462 (3248). Where it is not known the
  agent reconnects for ever and the broker ends it by its own deadline.
"""

import enum
import posixpath
from collections.abc import Mapping

from attrs import Factory, field, frozen

from jnlp import secret as jnlp_secret
from jnlp import tunnel, version

SECRET_FILE = "agent-secret"  # noqa: S105 - the name of a file, not a secret
"""Name of the file, inside the directory of secrets, that holds the agent's secret."""


class OptionStyle(enum.Enum):
    """Which options an agent.jar knows."""

    POSITIONAL = "positional"  # hudson.remoting.jnlp.Main SECRET NAME
    NAMED = "named"  # -secret and -name with -url
    NAMED_WITH_LIMIT = "named-with-limit"  # and -noReconnectAfter


@frozen(kw_only=True)
class LaunchCommand:
    """What to run; for an image's own entry point its arguments."""

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = Factory(dict)
    secret_files: Mapping[str, str] = field(factory=dict, repr=False)  # file name to content


@frozen(kw_only=True)
class Inbound:
    """Who the agent is and where it connects."""

    url: str  # the controller's, as the agent sees it
    name: str
    secret: jnlp_secret.Secret
    secrets_dir: str  # where ``secret_files`` will lie for the agent
    work_dir: str
    connection: tunnel.Connection = Factory(tunnel.Connection)
    authorities: tuple[str, ...] = ()  # PEM texts (``trust``) for an https controller

    @property
    def secret_path(self) -> str:
        """Path of the secret's file as the agent sees it."""
        return posixpath.join(self.secrets_dir, SECRET_FILE)

    @property
    def secret_files(self) -> dict[str, str]:
        """The file and its content, for the backend."""
        return {SECRET_FILE: self.secret.reveal()}


VARIABLES: Mapping[str, str] = {
    "JENKINS_URL": "controller.agent_url",
    "JENKINS_AGENT_NAME": "",
    "JENKINS_NAME": "",
    "JENKINS_SECRET": "",
    "JENKINS_SECRET_FILE": "",
    "JENKINS_AGENT_WORKDIR": "remote_fs",
    "JENKINS_TUNNEL": "connect.tunnel",
    "JENKINS_CA_CERTIFICATES": "controller.ca_file",
    "JENKINS_WEB_SOCKET": "connect.mode: websocket",
    "JENKINS_DIRECT_CONNECTION": "connect.direct",
    "JENKINS_INSTANCE_IDENTITY": "connect.instance_identity",
    "JENKINS_PROTOCOLS": "connect.protocols",
    "JENKINS_JAVA_OPTS": "jvm_options",
}
"""What agents are told by us, or read as if it were from us: the setting that is meant instead.

Empty: there is none, each agent has its own. ``JAVA_OPTS`` is not among them: only old images read
it, and builds' tools have a use for it.
"""


def remoting_style(controller_version: str) -> OptionStyle:
    """Tell what the agent.jar of a controller knows, from the header ``X-Jenkins``."""
    if version.at_least(controller_version, (2, 462), (2, 462, 1)):
        return OptionStyle.NAMED_WITH_LIMIT
    if version.at_least(controller_version, (2, 440), (2, 440, 1)):
        return OptionStyle.NAMED
    return OptionStyle.POSITIONAL


def java_command(
    inbound: Inbound,
    *,
    jar: str,
    style: OptionStyle,
    java: str = "java",
    jvm_options: tuple[str, ...] = (),
    reconnect_for_s: float | None = None,
    jar_cache: str | None = None,
) -> LaunchCommand:
    """Run agent.jar with a Java of our own.

    ``reconnect_for_s``: how long the agent tries to come back, in seconds; 0 never, None for ever.
    ``jar_cache``: a directory for the jars that it gets from the controller (16 to 25 MB, half the
    time until a new agent is online); agents may share it, but it must be writable (recordings of
    2.263.4; docs/performance.md). None: within the work directory.
    """
    options = (
        *_connection_options(inbound),
        "-workDir",
        inbound.work_dir,
        *_reconnect_options(style, reconnect_for_s),
        *_trust_options(inbound, style),
        *(("-jar-cache", jar_cache) if jar_cache is not None else ()),
    )
    secret = f"@{inbound.secret_path}"
    if style is OptionStyle.POSITIONAL:
        main = ("-cp", jar, "hudson.remoting.jnlp.Main", "-headless")
        arguments = (*main, *options, secret, inbound.name)
    else:
        arguments = ("-jar", jar, *options, "-secret", secret, "-name", inbound.name)
    return LaunchCommand(
        argv=(java, *jvm_options, *arguments),
        secret_files=inbound.secret_files,
    )


def image_command(
    inbound: Inbound, *, style: OptionStyle, jvm_options: tuple[str, ...] = ()
) -> LaunchCommand:
    """Let the entry point of an agent image do it (``jenkins/inbound-agent`` and its kin).

    The script hands its arguments on to agent.jar, each as it is; its variables it splits at
    blanks, so no certificate could be among them.
    """
    return LaunchCommand(
        argv=_trust_options(inbound, style),
        env=image_environment(inbound, style=style, jvm_options=jvm_options),
        secret_files=inbound.secret_files,
    )


def own_command(inbound: Inbound, argv: tuple[str, ...]) -> LaunchCommand:
    """Run a template's own program, told by variables."""
    return LaunchCommand(
        argv=argv, env=command_environment(inbound), secret_files=inbound.secret_files
    )


def image_environment(
    inbound: Inbound, *, style: OptionStyle, jvm_options: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the variables that the entry scripts of old and new agent images share.

    ``JAVA_OPTS`` only next to old controllers, whose images know nothing else: builds inherit it,
    and tools such as Gradle take it for theirs.
    """
    env = {
        **_shared_environment(inbound),
        "JENKINS_SECRET": f"@{inbound.secret_path}",
        # old scripts know no other name, and many pods have it among the agent's arguments
        "JENKINS_NAME": inbound.name,
    }
    if inbound.connection.transport is tunnel.Transport.DIRECT:
        del env["JENKINS_URL"]  # the script would make ``-url`` of it, which excludes ``-direct``
        if inbound.connection.protocols:
            # the option takes one name; the script splits its value at blanks into arguments
            env["JENKINS_PROTOCOLS"] = " -protocols ".join(inbound.connection.protocols)
    if jvm_options:
        env["JENKINS_JAVA_OPTS"] = " ".join(jvm_options)
        if style is OptionStyle.POSITIONAL:
            env["JAVA_OPTS"] = " ".join(jvm_options)
    return env


def command_environment(inbound: Inbound) -> dict[str, str]:
    """Return the variables for a template's own program; the secret only as a path."""
    env = {**_shared_environment(inbound), "JENKINS_SECRET_FILE": inbound.secret_path}
    if inbound.authorities:
        env["JENKINS_CA_CERTIFICATES"] = "\n".join(inbound.authorities)
    return env


def _shared_environment(inbound: Inbound) -> dict[str, str]:
    connection = inbound.connection
    env = {
        "JENKINS_URL": inbound.url,
        "JENKINS_AGENT_NAME": inbound.name,
        "JENKINS_AGENT_WORKDIR": inbound.work_dir,
    }
    match connection.transport:
        case tunnel.Transport.TCP:
            if connection.tunnel:
                env["JENKINS_TUNNEL"] = connection.tunnel
        case tunnel.Transport.WEBSOCKET:
            env["JENKINS_WEB_SOCKET"] = "true"
        case tunnel.Transport.DIRECT:
            env["JENKINS_DIRECT_CONNECTION"] = connection.direct or ""
            env["JENKINS_INSTANCE_IDENTITY"] = connection.instance_identity or ""
            if connection.protocols:
                env["JENKINS_PROTOCOLS"] = ",".join(connection.protocols)
    return env


def _connection_options(inbound: Inbound) -> tuple[str, ...]:
    connection = inbound.connection
    match connection.transport:
        case tunnel.Transport.TCP:
            through = ("-tunnel", connection.tunnel) if connection.tunnel else ()
            return ("-url", inbound.url, *through)
        case tunnel.Transport.WEBSOCKET:
            return ("-url", inbound.url, "-webSocket")
        case tunnel.Transport.DIRECT:
            identity = connection.instance_identity or ""
            protocols = (part for name in connection.protocols for part in ("-protocols", name))
            direct = ("-direct", connection.direct or "")
            return (*direct, "-instanceIdentity", identity, *protocols)


def _trust_options(inbound: Inbound, style: OptionStyle) -> tuple[str, ...]:
    """Return the options for a private authority, where there is a question that they are for."""
    transport = inbound.connection.transport
    if not inbound.url.startswith("https:") or transport is tunnel.Transport.DIRECT:
        return ()
    if style is OptionStyle.POSITIONAL and transport is tunnel.Transport.WEBSOCKET:
        return ()  # refused beside it: such an agent trusts what its Java trusts
    return tuple(part for text in inbound.authorities for part in ("-cert", text))


def _reconnect_options(style: OptionStyle, reconnect_for_s: float | None) -> tuple[str, ...]:
    if reconnect_for_s is None:
        return ()
    if reconnect_for_s <= 0:
        # the spelling that every version of both classes takes
        return ("-noreconnect",)
    if style is OptionStyle.NAMED_WITH_LIMIT:
        return ("-noReconnectAfter", f"{max(1, round(reconnect_for_s))}s")
    return ()
