"""Clouds of the mesos plugin, 0.x to 2.x: a backend each, a template for each kind of agent.

Pure. What the plugin means is written down at each field. Refuses to know how tasks start.
"""

import json
import re
from typing import Any

from broker.importing import hiding, outline, target
from broker.importing.fields import PlainSection
from broker.importing.target import Target
from outside import counts

_SANDBOX = "/mnt/mesos/sandbox"
_NO_MASTER = "http://localhost:5050"
_GONE = {
    "-XX:+UseConcMarkSweepGC",
    "-XX:+UseParNewGC",
    "-XX:+CMSClassUnloadingEnabled",
}
"""Options with which a Java of today does not start."""
_CLOUD = {
    "checkpoint": "whether the framework's tasks outlive its restart; here they always do",
    "cloudID": "the plugin's own number",
    "declineOfferDuration": "for how long an offer was refused; here `refuse`, 1h",
    "description": "words for people",
    "frameworkId": "the framework of the plugin; the broker has one of its own",
    "nativeLibraryPath": "the plugin's library; the broker needs none",
    "nfsRemoteFSRoot": "!a directory on NFS as the agents' root; see `volumes`",
    "onDemandRegistration": "whether the framework left when nothing waited; the broker "
    "suppresses offers instead",
    "sslCert": "the certificate of a DC/OS master; here `ca_file`",
}
_CONTAINER = {
    "dockerForcePullImage": "!the image was pulled at each start; use tags that never move",
    "dockerImageCustomizable": "!a label could name another image (label:image); make a template "
    "for each image",
    "isDind": "the image has a Docker engine of its own: it needs `privileged`",
}
_TEMPLATE = {
    "agentCommandStyle": "how the agent was started",
    "domainFilterModel": "the fault domain of the agents; here `constraints` by attributes",
    "minExecutors": "executors of an agent at least; here each agent has the same number",
}


def read(cloud: PlainSection, into: Target) -> None:
    """Add a cloud to a configuration."""
    name, section = into.backend(cloud.text("name", "frameworkName"), "mesos", "mesos")
    cloud = cloud.to(section)
    cloud.skip("name")
    _masters(cloud, section)
    framework = cloud.text("frameworkName")
    if framework:
        section.set("name", framework)
    role = cloud.text("role")
    if role and role != "*":
        section.set("role", role)
    user = cloud.text("agentUser", "slavesUser")
    if user:
        section.set("user", user)
    _credentials(cloud, section, into, name)
    section.set(
        "handover",
        {"listen": "0.0.0.0:8088", "url": "http://agent-broker.example.com:8088"},
        "the agents' secrets stood in the command line of their tasks, where everybody sees them. "
        "Here Mesos' fetcher asks the broker: write the address under which the agents' hosts "
        "reach it (better https, with cert_file and key_file)",
        loud=True,
    )
    into.url(cloud, "jenkinsURL", "jenkinsUrl")
    for key in ("slaveInfos", "mesosAgentSpecTemplates"):
        for told in cloud.entries(key):
            _template(told, name, into)
    cloud.rest(_CLOUD)


def _masters(cloud: PlainSection, section: outline.Section) -> None:
    master = cloud.text("mesosMasterUrl", "master")
    cloud.skip("mesosMasterUrl")
    if not master:
        section.note("no master there; write where the masters are", loud=True)
        master = _NO_MASTER
    section.set("master", master)
    if not master.startswith("zk://") and "," not in master:
        section.note(
            "name every master, with commas between: a redirect to one that is not named here is "
            "not followed"
        )


def _credentials(cloud: PlainSection, section: outline.Section, into: Target, name: str) -> None:
    principal = cloud.text("principal")
    has_secret = cloud.has("secret")
    credentials = cloud.text("credentialsId")
    if not principal and not credentials:
        return
    file = f"{target.SECRETS}/{name}-secret"
    if principal:
        section.set("principal", principal)
        if has_secret or credentials:
            section.set("secret_file", file, "the secret of the principal goes into this file")
            into.need(f"{file}: the secret of the principal {principal}")
    else:
        section.note(
            f"credentialsId {credentials}: here principal: NAME (its user) and secret_file: "
            f"{file} (its password)",
            loud=True,
        )
        into.need(f"{file}: the password of the credentials {credentials}")


# --- templates ---------------------------------------------------------------------------------


def _template(told: PlainSection, backend: str, into: Target) -> None:
    label = str(told.data.get("labelString") or told.data.get("label") or "")
    name, out = into.template(label, backend)
    fields = told.to(out)
    target.labels(out, fields.text("labelString", "label"), name)
    out.set("backends", [backend])
    usage = fields.text("mode")
    target.mode(out, usage)
    if fields.truth("defaultSlave") and usage.upper() == "EXCLUSIVE":
        out.note(
            "defaultSlave: this kind was for builds without a label; here mode: normal, "
            "takes_unlabelled: true",
            loud=True,
        )
    executors = _executors(fields, out)
    _retention(fields, out)
    section = outline.Section()
    _container(fields.section("containerInfo").to(section), out, section, into)
    variables = target.node_properties(into, fields, f"template {name}")
    target.environment(out, variables)
    _resources(fields, out, section, executors)
    _java(fields, out)
    root = fields.text("remoteFSRoot")
    if root.startswith("/") and root != _SANDBOX:
        out.note(
            f"remoteFSRoot {root}: here each task works in its sandbox, which Mesos removes; "
            "remote_fs: PATH/{name} for another place"
        )
    _place(fields, section)
    if fields.text("agentCommandStyle").lower() == "windows":
        out.note("agentCommandStyle Windows: not supported by the backend mesos", loud=True)
    if section.items:
        out.section("mesos").items += section.items
    fields.rest(_TEMPLATE)


def _executors(fields: PlainSection, out: outline.Section) -> int:
    least, most = fields.whole("minExecutors"), fields.whole("maxExecutors")
    if isinstance(most, outline.Written):
        if fields.data.get("reusable") is None:
            out.set("executors", most)
        return 1
    number = most if isinstance(most, int) and most > 0 else 1
    if isinstance(least, int) and least < number:
        out.note(
            f"executors between {least} and {number}, by demand: here every agent has {number}, "
            "and asks for as many cores and as much memory"
        )
    if number != 1:
        out.set("executors", number)
    return number


def _retention(fields: PlainSection, out: outline.Section) -> None:
    idle = fields.whole("idleTerminationMinutes")
    if fields.data.get("reusable") is not None and not fields.truth("reusable", default=True):
        out.set("executors", 1)
        told = {"once": True, "idle": target.minutes(idle or 3)}
        out.set("retention", told, f"reusable false: {target.ONCE}", loud=True)
    elif idle is not None:
        out.set("retention", {"idle": target.minutes(idle)})


def _resources(
    fields: PlainSection, out: outline.Section, section: outline.Section, executors: int
) -> None:
    cores, more = fields.number("slaveCpus", "cpus", "cpu"), fields.number("executorCpus")
    memory = fields.whole("slaveMem", "mem")
    per = fields.whole("executorMem")
    told: dict[str, Any] = {}
    if isinstance(memory, outline.Written):
        told["memory"] = f"{memory}Mi"
    elif memory:
        whole = memory + executors * (per if isinstance(per, int) else 0)
        told["memory"] = f"{whole}Mi"
    if isinstance(cores, outline.Written):
        told["cpu_shares"] = cores
    elif cores or isinstance(more, float):
        each = more if isinstance(more, float) else 0
        told["cpu_shares"] = round((cores or 0) + executors * each, 3)
    if told:
        note = ""
        if more or per:
            note = f"for the agent, and for {counts.told(executors, 'executor')}, as there"
        out.set("resources", told, note)
    disk = fields.number("diskNeeded", "disk")
    if isinstance(disk, float) and disk:
        section.set("disk", f"{max(1, int(disk))}Mi")
    if isinstance(memory, int) and memory > 0 and "slaveMem" in fields.data:
        target.java_options(out, [f"-Xmx{memory}m"])


def _java(fields: PlainSection, out: outline.Section) -> None:
    words = fields.words("jvmArgs", raw=False)
    gone = [word for word in words if word in _GONE]
    if gone:
        out.note(f"jvmArgs {' '.join(gone)}: left out; newer Javas do not start with it")
    if any(word.startswith("-Xmx") for word in words):
        out.set("jvm_options", [])
    target.java_options(out, [word for word in words if word not in _GONE])
    if out.get("jvm_options") == []:
        out.items[:] = [i for i in out.items if getattr(i, "key", "") != "jvm_options"]
    arguments = [word for word in re.split(r"\s+", fields.text("jnlpArgs")) if word]
    if "-noReconnect" in " ".join(arguments):
        out.set("reconnect_for", "0s", "jnlpArgs -noReconnect: an agent without controller ends")
        arguments = [word for word in arguments if word != "-noReconnect"]
    if arguments and "-noReconnect" not in " ".join(arguments):
        out.note(
            f"jnlpArgs {hiding.cleaned(' '.join(arguments))[:80]}: options of agent.jar; the "
            "broker gives it what it needs",
            loud=True,
        )


def _place(fields: PlainSection, section: outline.Section) -> None:
    text = fields.text("slaveAttributes", "slaveAttributesString", "agentAttributes")
    if "${" in text:
        fields.note(f"attributes of agents {text[:80]}: write them as `constraints`", loud=True)
    elif text:
        try:
            told = json.loads(text)
        except ValueError:
            told = dict(part.partition(":")[::2] for part in re.split(r"[,;]", text) if part)
        constraints = [
            {"attribute": str(key).strip(), "operator": "IS", "value": _plain(value)}
            for key, value in (told.items() if isinstance(told, dict) else ())
            if _plain(value)
        ]
        if constraints:
            section.set("constraints", constraints)
        else:
            fields.note(f"attributes of agents: not imported: {hiding.cleaned(text)[:80]}")
    uris = []
    for one in fields.entries("additionalURIs"):
        value = one.text("value")
        if value:
            uri: dict[str, Any] = {"value": value}
            if "extract" in one.data:
                uri["extract"] = one.truth("extract")
            if one.truth("executable"):
                uri["executable"] = True
            uris.append(uri)
        one.rest()
    if uris:
        section.set("uris", uris)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() if isinstance(value, str | int | float) else ""


# --- the container -------------------------------------------------------------------------------


def _container(
    box: PlainSection, out: outline.Section, section: outline.Section, into: Target
) -> None:
    box.where = "containerInfo."
    image = box.text("dockerImage")
    if not image:
        box.rest(_CONTAINER)
        return
    target.image(out, image)
    if box.text("type").upper() == "DOCKER":
        section.set("containerizer", "docker")
    network: dict[str, Any] = {}
    told = box.text("networking").upper()
    if told == "BRIDGE":
        network["mode"] = "bridge"
    elif told in {"USER", "CNI"}:
        network["mode"] = "cni"
    names = [one.text("networkName") for one in box.entries("networkInfos")]
    if any(names):
        network["name"] = next(name for name in names if name)
    ports = [one.whole("containerPort") for one in box.entries("portMappings")]
    if any(ports):
        network["ports"] = [port for port in ports if port]
        section.note("ports of the host are taken from the offer here, whichever were named")
    if network:
        section.set("network", network)
    _volumes(box, section)
    if box.truth("dockerPrivilegedMode"):
        section.set("privileged", True, "every build is root on the agent's host", loud=True)
    _parameters(box, section, into)
    shell = box.text("customDockerCommandShell")
    if box.truth("useCustomDockerCommandShell") and shell:
        section.note(
            f"customDockerCommandShell {shell}: this program of the image ran the agent's command."
            " Here the agent is started by java; to go through the program write `command` of the "
            f"template: [{shell}, sh, -c, ...], which starts the agent from JENKINS_URL, "
            "JENKINS_SECRET_FILE and JENKINS_AGENT_NAME (the manual of the backend has one)",
            loud=True,
        )
    box.rest(_CONTAINER)


def _volumes(box: PlainSection, section: outline.Section) -> None:
    volumes = []
    for one in box.entries("volumes"):
        place, source = one.text("containerPath"), one.text("hostPath")
        if not place or not source:
            box.note("volumes: one without containerPath or hostPath: not imported")
            continue
        volume: dict[str, Any] = {"container_path": place, "host_path": source}
        if one.truth("readOnly"):
            volume["read_only"] = True
        volumes.append(volume)
        one.rest()
    if volumes:
        section.set("volumes", volumes)


def _parameters(box: PlainSection, section: outline.Section, into: Target) -> None:
    parameters: dict[str, str] = {}
    for one in box.entries("parameters"):
        key, value = one.text("key"), one.text("value")
        if key == "env":
            name, _, content = value.partition("=")
            if hiding.is_secret(name, content):
                box.note(f"the variable {name}: its value is not written here", loud=True)
                into.need(f"a credential in Jenkins for the variable {name}")
                continue
        if key in parameters:
            box.note(
                f"parameters: {key} is there twice; a name has one value here, the first",
                loud=True,
            )
        elif key:
            parameters[key] = value
    if parameters:
        section.set("docker_parameters", parameters)
