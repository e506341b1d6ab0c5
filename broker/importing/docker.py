"""Clouds of the docker plugin and of yet-another-docker: a backend each, a template each.

Pure. What the plugins mean is written down at each field. Refuses to know how containers start.
"""

import re
from collections.abc import Mapping
from typing import Any

from broker.importing import hiding, outline, target
from broker.importing.fields import PlainSection
from broker.importing.target import Target

_WORK = "/home/jenkins/agent"
_SOCKET = "/var/run/docker.sock"
_NOT_INBOUND = {
    "jenkins/agent",
    "jenkins/slave",
    "jenkins/ssh-agent",
    "jenkins/ssh-slave",
    "jenkinsci/slave",
    "jenkinsci/ssh-slave",
}
"""Official images whose entry point does not connect to a controller."""
_ENDPOINT = (
    "the Docker host was set in the environment of agents (exposeDockerHost); set DOCKER_HOST in "
    "`environment` if builds need it"
)
_CLOUD = {
    "_isTriton": "the plugin's own mark",
    "apiVersion": "the version of the engine's API; here the newest that both know",
    "connectTimeout": "time for a connection to the engine; here `timeout`, 60s for one call",
    "connectorType": "the plugin's own library",
    "disabled": "!whether the cloud was switched off; here `paused: true` in each template",
    "dockerHostname": "the host that SSH went to; not needed by inbound agents",
    "errorDuration": "seconds for which a broken template was left alone; here the broker backs "
    "off by itself",
    "exposeDockerHost": f"!{_ENDPOINT}",
    "provisionedImages": "the plugin's own count",
    "readTimeout": "time for an answer of the engine; here `timeout`, 60s for one call",
    "version": "the version of the engine's API; here the newest that both know",
}
_TEMPLATE = {
    "configVersion": "the plugin's own number",
    "disabled": "whether the template was switched off",
    "id": "the plugin's own number",
    "osType": "the system of the image; Linux here",
}
_BASE = {
    "bindAllPorts": "published every port of the image; name them in `ports`",
    "cgroupParent": "the cgroup above; docker: {docker: {HostConfig: {CgroupParent: ...}}}",
    "cpuPeriod": "see cpuQuota",
    "links": "!links to other containers; use a network of your own (`network`)",
    "macAddress": "the container's address; docker: {docker: {MacAddress: ...}} (another one for "
    "each agent is impossible)",
    "restartPolicy": "an agent is never restarted here: the broker starts another one",
    "tty": "a terminal; agents need none",
}


def read(cloud: PlainSection, into: Target) -> None:
    """Add a cloud of the docker plugin."""
    name, section = into.backend(cloud.text("name"), "docker", "docker")
    cloud = cloud.to(section)
    cap = cloud.limit("containerCap", "containerCapStr")
    section.set("cap", cap if cap is not None else 100)
    api = cloud.section("dockerApi")
    endpoint = api.section("dockerHost")
    url = endpoint.text("uri") or cloud.text("serverUrl")
    credentials = endpoint.text("credentialsId") or cloud.text("credentialsId")
    host(section, into, name, url, credentials=credentials)
    api.rest({**_CLOUD, "hostname": "the host that SSH went to; not needed by inbound agents"})
    endpoint.rest()
    off = _disabled(cloud)
    for told in cloud.entries("templates"):
        _template(told, name, into, off=off)
    cloud.rest(_CLOUD)


def read_other(cloud: PlainSection, into: Target) -> None:
    """Add a cloud of yet-another-docker."""
    name, section = into.backend(cloud.text("name"), "docker", "docker")
    cloud = cloud.to(section)
    cap = cloud.limit("containerCap")
    section.set("cap", cap if cap is not None else 50)
    connector = cloud.section("connector")
    credentials = connector.text("credentialsId")
    url = connector.text("serverUrl")
    tls = connector.truth("tlsVerify") or bool(credentials)
    host(section, into, name, url, tls=tls, credentials=credentials)
    connector.rest(_CLOUD)
    for told in cloud.entries("templates"):
        _other_template(told, name, into)
    cloud.rest(_CLOUD)


def _disabled(fields: PlainSection) -> bool:
    told = fields.data.get("disabled")
    fields.skip("disabled")
    inner = told.get("disabledByChoice") if isinstance(told, Mapping) else told
    return str(inner).strip().lower() == "true"


def host(
    section: outline.Section,
    into: Target,
    name: str,
    url: str,
    *,
    credentials: str,
    tls: bool = False,
    setting: str = "hosts",
) -> None:
    """Write which engine it is; one with credentials has TLS."""
    tls = tls or bool(credentials)
    if not url:
        return
    url = re.sub(r"^https?://", "tcp://", url.rstrip("/"))
    written: dict[str, Any] = {"url": url}
    if url.startswith("npipe://"):
        written = {"url": f"unix://{_SOCKET}"}
        section.note(
            f"the engine {url}: unix://, tcp:// and ssh:// are spoken here; the local socket is "
            "written instead",
            loud=True,
        )
    elif url.startswith("ssh://"):
        section.note("its user, keys and known hosts are those of the broker's user", loud=True)
    elif tls and not url.startswith("unix:"):
        where = f"{target.SECRETS}/{name}"
        written |= {
            "tls": True,
            "ca_file": f"{where}-ca.pem",
            "cert_file": f"{where}-cert.pem",
            "key_file": f"{where}-key.pem",
        }
        named = f"credentialsId {credentials}" if credentials else "TLS without credentials"
        was = f" (was {credentials})" if credentials else ""
        section.note(f"{named}: the files of an engine's TLS")
        into.need(f"{where}-ca.pem, -cert.pem, -key.pem: TLS of the engine{was}")
    section.set(setting, [written])


# --- templates of the docker plugin --------------------------------------------------------------


def _template(told: PlainSection, backend: str, into: Target, *, off: bool) -> None:
    label = str(told.data.get("labelString") or "")
    name, out = into.template(str(told.data.get("name") or ""), label)
    fields = told.to(out)
    target.labels(out, fields.text("labelString"), name)
    out.set("backends", [backend])
    fields.skip("name")
    target.mode(out, fields.text("mode"))
    if off or _disabled(fields):
        out.set("paused", True, "disabled there")
    cap = fields.limit("instanceCap", "instanceCapStr")
    if cap is not None:
        out.set("cap", cap)
    _, strategy = fields.kind("retentionStrategy")
    strategy.where = "retentionStrategy."
    idle = strategy.whole("idleMinutes") or 10
    strategy.skip("terminateOnceDone", "numberOfTasksInProgress")
    strategy.rest()
    _single(out, idle)
    base = fields.section("dockerTemplateBase")
    base.where = ""
    work = fields.text("remoteFs")
    settings, environment = _container(base, into, name, out)
    environment |= target.node_properties(into, fields, f"template {name}")
    user = _connector(fields, out, into)
    if not settings.get("user") and user:
        settings["user"] = user
    _policy(fields, out, settings)
    if "removeVolumes" in fields.data and not fields.truth("removeVolumes"):
        out.note("removeVolumes false: anonymous volumes were kept; here they go with the agent")
    stop = fields.whole("stopTimeout")
    if stop is not None and stop != 10:
        out.note(f"stopTimeout {stop}: seconds for an end; the broker ends agents by itself")
    _finish(out, base, settings, environment, work)
    base.rest(_BASE)
    fields.rest(_TEMPLATE)


def _single(out: outline.Section, idle: int | outline.Written) -> None:
    out.set(
        "retention",
        {"once": True, "idle": target.minutes(idle)},
        f"{target.ONCE}; idleMinutes is only for agents that get no build",
        loud=True,
    )


def _policy(fields: PlainSection, out: outline.Section, settings: dict[str, Any]) -> None:
    policy = fields.text("pullStrategy") or "PULL_ALWAYS"
    settings["pull"] = {"PULL_NEVER": "never", "PULL_ONCE": "if-missing"}.get(policy, "always")
    seconds = fields.whole("pullTimeout")
    if seconds is not None and seconds != 0:
        out.note(f"pullTimeout {seconds}: seconds for a pull; here `pull_timeout` of the backend")


def _connector(fields: PlainSection, out: outline.Section, into: Target) -> str:
    """Say what changes for agents that were not inbound ones; return their user."""
    kind, one = fields.kind("connector")
    if not kind and ("user" in one.data or "jenkinsUrl" in one.data):
        kind = "jnlp" if "jenkinsUrl" in one.data else "attach"
    one.where = f"connector {kind}: "
    user = ""
    if kind in {"attach", "dockerComputerAttachConnector"}:
        user = one.text("user")
        out.note(
            "connector attach: the plugin put agent.jar into the container and spoke to it "
            "through the engine. Here agents connect to the controller: the image needs an entry "
            "point that starts an inbound agent, and the container needs a way to the "
            "controller's URL and agent port",
            loud=True,
        )
        _inbound(out)
    elif kind in {"ssh", "dockerComputerSSHConnector"}:
        out.note(
            "connector ssh: the controller logged in to an SSH server in the container. Here "
            "agents connect to the controller: the image needs an entry point that starts an "
            "inbound agent; no SSH key is needed",
            loud=True,
        )
        _inbound(out)
        one.skip("sshKeyStrategy", "port", "launchTimeoutSeconds", "maxNumRetries")
        one.skip(
            "retryWaitTime", "credentialsId", "jdkInstaller", "sshHostKeyVerificationStrategy"
        )
    elif kind:
        user = one.text("user")
        into.url(one, "jenkinsUrl")
    target.java_options(out, one.lines("jvmArgs", "jvmArgsString") or one.words("jvmOptions"))
    java = one.text("javaExe", "javaPath")
    if java and java != "java":
        out.note(f"javaPath {java}: the entry point of the image starts Java here")
    arguments = one.lines("entryPointArguments", "entryPointArgumentsString", "entryPointCmd")
    arguments += one.lines("entryPointCmdString")
    if arguments:
        out.note(
            f"arguments of the entry point ({len(arguments)}): the broker tells agents all by "
            "variables; an entry point of one's own goes into docker: {entry_point: [...]}",
            loud=True,
        )
    one.rest(
        {
            "prefixStartSlaveCmd": "stood before the agent's command",
            "suffixStartSlaveCmd": "stood behind the agent's command",
        }
    )
    return user


def _inbound(out: outline.Section) -> None:
    """Write the official image of an inbound agent in the place of one that is not."""
    image = str(out.get("image") or "")
    name, _, tag = image.partition(":")
    if name.removeprefix("docker.io/") not in _NOT_INBOUND:
        return
    java = re.search(r"jdk\d+", tag)
    now = f"jenkins/inbound-agent:{f'latest-{java[0]}' if java else 'latest'}"
    out.set("image", now, f"{image} there; the image of the same kind that connects", loud=True)


# --- the container -------------------------------------------------------------------------------


def _container(
    base: PlainSection, into: Target, name: str, out: outline.Section
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the template's section `docker`, and variables."""
    settings: dict[str, Any] = {}
    image = base.text("image")
    target.image(out, image)
    user = base.text("user")
    if user:
        settings["user"] = user
    environment: dict[str, str] = {}
    for line in base.lines("environment", "environmentsString"):
        key, _, value = line.partition("=")
        into.variable(environment, base, key.strip(), value, f"template {name}")
    groups = base.lines("extraGroups", "extraGroupsString")
    if groups:
        settings["groups"] = groups
    network = base.text("network", "networkMode")
    if network:
        settings["network"] = network
    for ours, keys in (
        ("dns", ("dnsHosts", "dnsString")),
        ("dns_search", ("dnsSearch", "dnsSearchString")),
        ("extra_hosts", ("extraHosts", "extraHostsString")),
        ("devices", ("devices", "devicesString")),
    ):
        told = [word for line in base.lines(*keys) for word in line.split()]
        if told:
            settings[ours] = told
    _ports(base, settings)
    _volumes(base, settings, out)
    _rights(base, settings, out)
    credentials = base.text("pullCredentialsId")
    if credentials:
        out.note(
            f"pullCredentialsId {credentials}: the login at the image's registry; here "
            "`registries` of the backend: {REGISTRY: {user: ..., password_file: ...}}",
            loud=True,
        )
        into.need(
            f"a login at the registry of {hiding.cleaned(image) or name} (was {credentials})"
        )
    return settings, environment


def _ports(base: PlainSection, settings: dict[str, Any]) -> None:
    ports = []
    for word in re.split(r"[\s,]+", base.text("bindPorts")):
        found = re.fullmatch(r"(?:\d{1,3}(?:\.\d{1,3}){3}:)?((?:\d+:)?\d+(?:/\w+)?)", word)
        if found:
            ports.append(found[1])
        elif word:
            base.note(f"bindPorts: {word[:40]}: not imported")
    if ports:
        settings["ports"] = ports


def _volumes(base: PlainSection, settings: dict[str, Any], out: outline.Section) -> None:
    volumes: list[dict[str, Any]] = []
    for line in base.lines("mounts", "mountsString"):
        volume = _mount(base, line)
        if volume:
            volumes.append(volume)
    for line in base.lines("volumes", "volumesString"):
        name, _, rest = line.partition(":")
        path, _, options = rest.partition(":")
        if not path:
            volumes.append({"target": name})
        else:
            volume = {"name": name, "target": path}
            if "ro" in options.split(","):
                volume["read_only"] = True
            volumes.append(volume)
    if any(volume.get("name") == _SOCKET for volume in volumes):
        volumes = [volume for volume in volumes if volume.get("name") != _SOCKET]
        settings["docker_socket"] = True
        out.note("the engine's socket was mounted: every build is root on the host", loud=True)
    if volumes:
        settings["volumes"] = volumes
    sources = base.lines("volumesFrom2", "volumesFrom", "volumesFromString")
    if sources:
        settings.setdefault("docker", {}).setdefault("HostConfig", {})["VolumesFrom"] = sources


def _mount(base: PlainSection, line: str) -> dict[str, Any] | None:
    """Return a mount that is written as for `docker run --mount`."""
    told = dict(part.partition("=")[::2] for part in line.split(","))
    source = told.pop("source", "") or told.pop("src", "")
    place = told.pop("destination", "") or told.pop("dst", "") or told.pop("target", "")
    kind = told.pop("type", "volume")
    volume: dict[str, Any] = {}
    if kind == "tmpfs":
        size = _size(told.pop("tmpfs-size", ""))
        if not size:
            base.note(f"the tmpfs at {place} had no limit but the host's memory; it has 64Mi here")
        volume = {"target": place, "tmpfs": size or "64Mi"}
    elif source:
        volume = {"name": source, "target": place}
    else:
        volume = {"target": place}
    if any(key in told and told[key] in {"", "true", "1"} for key in ("readonly", "ro")):
        volume["read_only"] = True
    for key in ("readonly", "ro"):
        told.pop(key, None)
    driver = told.pop("volume-driver", "")
    if driver:
        volume["driver"] = driver
    if told:
        base.note(f"mounts: {', '.join(sorted(told))[:80]}: not imported")
    if not place:
        base.note(f"mounts: {hiding.cleaned(line)[:80]}: not imported: no destination")
        return None
    return volume


def _size(text: str) -> str:
    found = re.fullmatch(r"(\d+)([kmgKMG]?)b?", text)
    if found is None:
        return ""
    return f"{found[1]}{found[2].upper() + 'i' if found[2] else ''}"


def _rights(base: PlainSection, settings: dict[str, Any], out: outline.Section) -> None:
    host: dict[str, Any] = {}
    adds, drops = (
        base.lines("capabilitiesToAdd", "capabilitiesToAddString"),
        base.lines("capabilitiesToDrop", "capabilitiesToDropString"),
    )
    if adds:
        settings["cap_add"] = adds
    settings["cap_drop"] = drops
    settings["no_new_privileges"] = False
    if base.truth("privileged"):
        host["Privileged"] = True
        out.note("privileged: every build is root on the engine's host", loud=True)
    options = base.lines("securityOpts", "securityOptsString")
    if options:
        host["SecurityOpt"] = options
    hostname = base.text("hostname")
    if hostname:
        out.note(
            f"hostname {hostname}: the same for all; `hostname` here is the agent's name by "
            "default"
        )
        settings.setdefault("docker", {})["Hostname"] = hostname
    command = base.words("dockerCommand", "command")
    if command:
        settings.setdefault("docker", {})["Cmd"] = command
        out.note(
            f"the command '{' '.join(command)[:60]}' is given to the image's entry point, which "
            "has to start an inbound agent all the same",
            loud=True,
        )
    labels = _labels(base)
    if labels:
        settings["labels"] = labels
    if host:
        raw = settings.setdefault("docker", {})
        raw["HostConfig"] = {**raw.get("HostConfig", {}), **host}


def _labels(base: PlainSection) -> dict[str, str]:
    told = base.data.get("extraDockerLabels")
    base.skip("extraDockerLabels")
    if isinstance(told, Mapping):
        return {str(k): hiding.cleaned(v) for k, v in told.items() if isinstance(v, str)}
    lines = base.lines("extraDockerLabelsString", "dockerLabels")
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def _resources(base: PlainSection, *, in_bytes: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the common resources, and settings of the section `docker`."""
    common: dict[str, Any] = {}
    own: dict[str, Any] = {}
    memory = base.whole("memoryLimit")
    if isinstance(memory, int) and memory > 0:
        common["memory"] = f"{memory}Mi"
    swap = base.whole("memorySwap")
    if isinstance(swap, int) and swap > 0:
        own["memory_swap"] = f"{swap}Mi"
    elif isinstance(swap, int) and swap < 0:
        base.note("memorySwap -1: swap without limit; here none where memory is limited")
    cores = base.number("cpus")
    quota, period = base.whole("cpuQuota"), base.whole("cpuPeriod")
    if cores is None and isinstance(quota, int) and quota > 0:
        cores = quota / (period if isinstance(period, int) and period > 0 else 100_000)
    if isinstance(cores, float) and cores:
        cores = int(cores) if cores == int(cores) else round(cores, 3)
    if cores:
        common["cpu_limit"] = cores
    shares = base.whole("cpuShares")
    if isinstance(shares, int) and shares > 0:
        common["cpu_shares"] = round(shares / 1024, 3)
    shm = base.whole("shmSize")
    if isinstance(shm, int) and shm > 0:
        own["shm"] = shm if in_bytes else f"{shm}Mi"
    return common, own


def _finish(
    out: outline.Section,
    base: PlainSection,
    settings: dict[str, Any],
    environment: dict[str, str],
    work: str,
    *,
    in_bytes: bool = False,  # the size of /dev/shm, not MiB
) -> None:
    if work and work != _WORK:
        out.set(
            "remote_fs",
            work,
            f"the image or a volume has to provide {work} for the agent's user: only {_WORK} is "
            "made by the broker",
        )
    target.environment(out, environment)
    common, own = _resources(base, in_bytes=in_bytes)
    if common:
        out.set("resources", common)
    settings |= own
    section = out.section("docker")
    user = settings.pop("user", "") or "image"
    section.set("user", user)
    for key, value in settings.items():
        if key == "cap_drop":
            section.note(
                "as there: the engine's own capabilities, and setuid programs (sudo) work. Safer: "
                "remove the next two settings"
            )
        section.set(key, value)


# --- templates of yet-another-docker -----------------------------------------------------------


def _other_template(told: PlainSection, backend: str, into: Target) -> None:
    label = str(told.data.get("labelString") or "")
    name, out = into.template(label)
    fields = told.to(out)
    target.labels(out, fields.text("labelString"), name)
    out.set("backends", [backend])
    target.mode(out, fields.text("mode") or "EXCLUSIVE")
    cap = fields.limit("maxCapacity", "instanceCap")
    if cap is not None:
        out.set("cap", cap)
    executors = fields.whole("numExecutors")
    kind, strategy = fields.kind("retentionStrategy")
    strategy.where = "retentionStrategy."
    idle = strategy.whole("idleMinutes")
    if "once" in kind.lower() or not kind:
        _single(out, idle or 10)
        if executors is not None and executors != 1:
            out.note(f"numExecutors {executors}: a single-use agent has one executor")
    else:
        out.set("retention", {"idle": target.minutes(idle or 0)})
        if executors is not None:
            out.set("executors", executors)
    strategy.rest()
    life = fields.section("dockerContainerLifecycle")
    life.where = ""
    create, pull = life.section("createContainer"), life.section("pullImage")
    create.where = pull.where = ""
    create.data = {**create.data, "image": life.data.get("image")}
    life.skip("image")
    settings, environment = _container(create, into, name, out)
    environment |= target.node_properties(into, fields, f"template {name}")
    words = create.words("entrypoint")
    if words:
        settings["entry_point"] = words
    _other_launcher(fields, out, into)
    policy = pull.text("pullStrategy") or "PULL_LATEST"
    settings["pull"] = {"PULL_NEVER": "never", "PULL_ONCE": "if-missing"}.get(policy, "always")
    credentials = pull.text("credentialsId")
    if credentials or pull.has("registriesCreds"):
        out.note(
            "credentials of a registry: here `registries` of the backend: {REGISTRY: {user: ..., "
            "password_file: ...}}",
            loud=True,
        )
        into.need(f"a login at the registry of template {name} (was {credentials or 'several'})")
    for part in ("stopContainer", "removeContainer"):
        life.section(part).skip("timeout", "removeVolumes", "force")
    pull.rest({"connector": "another engine for pulls; here the same"})
    work = fields.text("remoteFs") or "/home/jenkins"
    _finish(out, create, settings, environment, work, in_bytes=True)
    create.rest(
        {
            **_BASE,
            "commands": "the command in parts",
            "cpusetCpus": "docker: {docker: {HostConfig: {CpusetCpus: ...}}}",
            "cpusetMems": "docker: {docker: {HostConfig: {CpusetMems: ...}}}",
            "workdir": "the directory of the image's program; agents work in `remote_fs`",
        }
    )
    life.rest()
    fields.rest({**_TEMPLATE, "maxCapacity": "agents at most"})


def _other_launcher(fields: PlainSection, out: outline.Section, into: Target) -> None:
    kind, one = fields.kind("launcher")
    one.where = "launcher."
    if kind == "ssh":
        out.note(
            "launcher ssh: the controller logged in to an SSH server in the container. Here "
            "agents connect to the controller: use an image with an inbound agent, such as "
            "jenkins/inbound-agent; no SSH key is needed",
            loud=True,
        )
        _inbound(out)
        one.skip("sshConnector")
    else:
        out.note(
            f"launcher {kind or 'jnlp'}: the plugin started agent.jar in the container by itself. "
            "Here the image needs an entry point that starts an inbound agent, as "
            "jenkins/inbound-agent has",
            loud=True,
        )
        _inbound(out)
        into.url(one, "jenkinsUrl")
        seconds = one.whole("launchTimeout")
        if seconds:
            out.set("connect_deadline", f"{seconds}s")
        target.java_options(out, one.words("jvmOpts"))
    one.rest(
        {
            "javaPath": "the entry point of the image starts Java here",
            "noCertificateCheck": "!agents did not check the controller's certificate; here "
            "`controller.ca_file`",
            "reconnect": "whether agents came back; here `reconnect_for`",
            "slaveOpts": "!options of agent.jar; the broker gives it what it needs",
            "user": "the agent's user; see `user` of the section docker",
        }
    )
