"""The cloud of the docker-swarm plugin: a backend, and a template for each of its own.

Pure. What the plugin means is written down at each field. Refuses to know how services start.
"""

import re
from typing import Any

from broker.importing import docker, hiding, outline, target
from broker.importing.fields import PlainSection
from broker.importing.target import Target

_CLOUD = {
    "name": "the plugin has one cloud, of one name",
    "tunnel": "the plugin wrote it into no agent",
}
_TEMPLATE = {
    "cacheDir": "!the plugin asked a volume driver for a cache of each build; one that the agents "
    "of a node share is swarm: {volumes: [{name: cache, target: ...}]}",
    "baseWorkspaceLocation": "the workspace of freestyle jobs, which the plugin changed in the "
    "jobs; here `remote_fs` says where agents work",
    "email": "of the registry's login; registries do not ask for it",
    "hostNamedPipes": "!named pipes of Windows",
    "osWindows": "!agents on Windows; the broker's are on Linux",
    "portBinds": "!published ports; here swarm: {ports: ['8080'], publish_mode: host or ingress}",
    "windowsCommand": "the command on Windows",
}
_DEFAULT_COMMAND = "DOCKER_SWARM_PLUGIN_JENKINS_AGENT"


def read(cloud: PlainSection, into: Target) -> None:
    """Add a cloud of the docker-swarm plugin."""
    name, section = into.backend(cloud.text("name"), "swarm", "swarm")
    cloud = cloud.to(section)
    host = cloud.section("dockerHost")
    docker.host(
        section, into, name, host.text("uri"), credentials=host.text("credentialsId"),
        setting="managers",
    )  # fmt: skip
    host.rest()
    into.url(cloud, "jenkinsUrl")
    network = cloud.text("swarmNetwork")
    driver = cloud.text("cacheDriverName")
    if driver:
        section.note(f"cacheDriverName {driver}: see cacheDir of the templates")
    idle = cloud.whole("timeoutMinutes") or 1
    for told in cloud.entries("agentTemplates"):
        _template(told, name, into, network, idle)
    cloud.rest(_CLOUD)


def _template(
    told: PlainSection,
    backend: str,
    into: Target,
    network: str,
    idle: int | outline.Written,
) -> None:
    label = str(told.data.get("label") or "")
    name, out = into.template(label)
    fields = told.to(out)
    target.labels(out, fields.text("label"), name)
    out.set("backends", [backend])
    out.set(
        "retention",
        {"once": True, "idle": target.minutes(idle)},
        f"{target.ONCE}; timeoutMinutes is only for agents that get no build",
        loud=True,
    )
    target.image(out, fields.text("image"))
    _command(fields, out)
    environment: dict[str, str] = {}
    for line in fields.lines("envVars"):
        key, _, value = line.partition("=")
        into.variable(environment, fields, key.strip(), value, f"template {name}")
    target.environment(out, environment)
    resources = {
        "cpu_limit": _cores(fields, "limitsNanoCPUs"),
        "memory": _bytes(fields, "limitsMemoryBytes"),
        "cpu_shares": _cores(fields, "reservationsNanoCPUs"),
        "memory_reservation": _bytes(fields, "reservationsMemoryBytes"),
    }
    if any(resources.values()):
        out.set("resources", {key: value for key, value in resources.items() if value})
    section = out.section("swarm")
    section.set("user", fields.text("user") or "image")
    section.note(
        "as there: the engine's own capabilities, and setuid programs (sudo) work. Safer: remove "
        "the next setting"
    )
    section.set("cap_drop", [])
    for key, value in _own(fields, network).items():
        section.set(key, value)
    _login(fields, out, into, name)
    fields.rest(_TEMPLATE)


def _command(fields: PlainSection, out: outline.Section) -> None:
    """Say what changes for agents that fetched agent.jar by a command."""
    command = " ".join(fields.lines("unixCommand"))
    work = fields.text("workingDir")
    if command:
        own = "" if _DEFAULT_COMMAND in command else f" ('{command[:60]}')"
        out.note(
            f"the command{own} fetched agent.jar and started it: here the image's entry point "
            "starts an inbound agent. Into an image that has none `inject` brings Java and "
            "agent.jar, or the template's `command` starts it",
            loud=True,
        )
    if work and work != "/tmp":  # noqa: S108 -- the plugin's default
        out.note(f"workingDir {work}: where the command was run; agents work in `remote_fs`")


def _own(fields: PlainSection, network: str) -> dict[str, Any]:
    """Return what goes into the template's section `swarm`."""
    settings: dict[str, Any] = {}
    if network:
        settings["networks"] = [network]
    constraints = [part.strip() for part in fields.text("placementConstraints").split(";")]
    settings["constraints"] = [part for part in constraints if part]
    system = fields.text("placementOperatingSystem")
    architecture = fields.text("placementArchitecture")
    if system or architecture:
        settings["platforms"] = [
            "/".join(part.lower() for part in (system or "linux", architecture) if part)
        ]
    settings["dns"] = _words(fields, "dnsIps")
    settings["dns_search"] = _words(fields, "dnsSearchDomains")
    settings["extra_hosts"] = [_host(line) for line in fields.lines("hosts")]
    settings["volumes"] = [*_binds(fields), *_tmpfs(fields)]
    for key in ("configs", "secrets"):
        settings[key] = [
            {"name": name, "target": path if path.startswith("/") else f"/run/{key}/{path}"}
            for name, _, path in (word.partition(":") for word in _words(fields, key))
            if name and path
        ]
    pairs = (word.partition("=")[::2] for word in _words(fields, "metadata") if "=" in word)
    settings["labels"] = {key: hiding.cleaned(value) for key, value in pairs}
    return {key: value for key, value in settings.items() if value}


def _words(fields: PlainSection, key: str) -> list[str]:
    return [word for line in fields.lines(key) for word in line.split()]


def _binds(fields: PlainSection) -> list[dict[str, Any]]:
    found = []
    for word in _words(fields, "hostBinds"):
        source, _, path = word.partition(":")
        if source.startswith("/") and path.startswith("/"):
            found.append({"name": source, "target": path.partition(":")[0]})
        else:
            fields.note(f"hostBinds: {hiding.cleaned(word)[:80]}: not imported")
    return found


def _tmpfs(fields: PlainSection) -> list[dict[str, Any]]:
    path = fields.text("tmpfsDir")
    if not path:
        return []
    fields.note(f"the tmpfs at {path} had no limit but the node's memory; it has 64Mi here")
    return [{"target": path, "tmpfs": "64Mi"}]


def _host(line: str) -> str:
    """Return a line of hosts(5) as NAME:ADDRESS."""
    address, _, name = line.partition(" ")
    return f"{name.strip()}:{address}" if name else line


def _cores(fields: PlainSection, key: str) -> float | int | None:
    number = fields.whole(key)
    if not isinstance(number, int) or number <= 0:
        return None
    cores = round(number / 1e9, 3)
    return int(cores) if cores == int(cores) else cores or None


def _bytes(fields: PlainSection, key: str) -> str | int | None:
    number = fields.whole(key)
    if not isinstance(number, int) or number <= 0:
        return None
    return f"{number >> 20}Mi" if number % (1 << 20) == 0 else number


def _login(fields: PlainSection, out: outline.Section, into: Target, name: str) -> None:
    credentials, server = fields.text("pullCredentialsId"), fields.text("serverAddress")
    if credentials:
        at = re.sub(r"^https?://", "", server).partition("/")[0] or "its image's registry"
        out.note(
            f"pullCredentialsId {credentials}: the login at {at}; here `registries` of the "
            "backend: {REGISTRY: {user: ..., password_file: ...}}",
            loud=True,
        )
        into.need(f"a login at {at} for the template {name} (was {credentials})")
