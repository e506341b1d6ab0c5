"""Clouds of the kubernetes plugin: a backend for each namespace, a template for each pod template.

Pure. What the plugin means is written down at each field. Refuses to know how a pod is started.
"""

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from broker.importing import hiding, outline, pods, target
from broker.importing.fields import PlainSection
from broker.importing.target import Target

_WORK = "/home/jenkins/agent"
_RUNTIME = "registry.example.com/agent-runtime:1"
_QUANTITY = re.compile(r"\d+(\.\d+)?([KMGT]i?)?")
_IN_CLUSTER = re.compile(
    r"https?://(kubernetes\.default(\.svc(\.cluster\.local)?)?|"
    r"\^?\$\{KUBERNETES_SERVICE_HOST[^/]*)(:\d+)?/?"
)
_DEFAULT_ARGS = re.compile(r"\^?\$\{computer\.jnlpmac\}\s*\^?\$\{computer\.name\}")
_RETENTION = (
    "what became of the pod after the build. Here no pod is kept: the broker keeps the last "
    "words, exit code and cause of every dead agent (page, `/api/deaths`, log)"
)
_RESTRICTED = (
    "only folders that allow this cloud could use it. The broker does not know folders: any job "
    "that asks for a label gets an agent. Restrict the jobs in Jenkins, or use another controller"
)
_CLOUD = {
    "addMasterProxyEnvVars": "gave agents the controller's proxy variables; set them in "
    "`environment` of the templates",
    "capOnlyOnAlivePods": "counted running pods only; the broker counts those that are there or "
    "ordered",
    "defaultsProviderTemplate": "the template under all others; merged into each below",
    "garbageCollection": "removed orphaned pods; the broker always does (`sweep`)",
    "jnlpregistry": "!the registry of the agent's default image; write it before `image`",
    "maxRequestsPerHost": "requests to the API server at a time; the broker makes few, "
    "`launch_rate` limits launches",
    "maxRequestsPerHostStr": "requests to the API server at a time; the broker makes few, "
    "`launch_rate` limits launches",
    "readTimeout": "seconds for an answer of the API server; here `request_timeout`, 15s",
    "traits": "extensions of the plugin; not imported",
    "useJenkinsProxy": "!used the controller's proxy to the API server; the broker uses none",
    "waitForPodSec": "seconds until a pod had to run; here `connect_deadline`, until the agent "
    "is online",
}
_TEMPLATE = {
    "capOnlyOnAlivePods": "counted running pods only; the broker counts those that are there or "
    "ordered",
    "customWorkspaceVolumeEnabled": "said that workspaceVolume counts",
    "id": "the plugin's own number",
    "inheritYamlMergeStrategy": "how children take over yamlMergeStrategy; merged already",
    "showRawYaml": "showed the pod in the build's log; here `agent-broker render TEMPLATE` does",
    "unwrapped": "the plugin's own mark",
    "yamlMergeStrategy": "how yaml is laid over an inherited one; done already",
}


def read(cloud: PlainSection, into: Target) -> None:
    """Add a cloud to a configuration."""
    name = cloud.text("name") or "kubernetes"
    general = outline.Section()
    whole = _whole(cloud.to(general), into)
    templates = [t for t in cloud.plain_list("templates") if isinstance(t, Mapping)]
    merged = [_inherited(t, templates, whole.default) for t in templates]
    spaces = [str(t.get("namespace") or "").strip() or whole.namespace for t, _ in merged]
    backends: dict[str, str] = {}
    for space in dict.fromkeys(spaces or [whole.namespace]):
        several = len(set(spaces)) > 1
        called = f"{name}-{space or 'default'}" if several else name
        found, section = into.backend(called, "kubernetes", "kubernetes")
        if several:
            section.note(
                "templates of this cloud are in several namespaces, which are a backend each: the "
                "service account needs its role in each of them, and `cap` holds for each",
                loud=True,
            )
        if not backends:
            section.items += general.items
        if space:
            section.set("namespace", space)
        no_cap = "no limit there; a cap is a good safety net"
        cap = "unlimited" if whole.cap is None else whole.cap
        section.set("cap", cap, no_cap if whole.cap is None else "")
        _reached(cloud.to(outline.Section() if backends else section), section, into, found)
        backends[space] = found
    rest = outline.Section()
    cloud.to(rest).rest(_CLOUD)
    into.backends.section(backends[next(iter(backends))]).items += rest.items
    if not merged:
        _without_templates(into, next(iter(backends.values())))
    for (told, notes), space in zip(merged, spaces, strict=True):
        template, out = into.template(*(str(told.get(key) or "") for key in ("name", "label")))
        for text, loud in notes:
            out.note(text, loud=loud)
        out.set("backends", [backends[space]])
        _template(PlainSection(told, out, cloud.has_variables), template, into, whole)
        if out.get("inject"):
            _runtime(into, backends[space])


def _runtime(into: Target, backend: str) -> None:
    """Write where the Java is that comes into containers, once for each backend."""
    section = into.backends.section(backend)
    if section.get("runtimes") is None:
        section.set(
            "runtimes",
            {"default": {"image": _RUNTIME}},
            "agentInjection of a template: what is put into the container, Java too, is an image "
            "that `agent-broker runtime build --image` writes",
            loud=True,
        )
        into.need(
            f"{_RUNTIME}: an image by `agent-broker runtime build --image`, in a registry that "
            "the nodes reach; write its name into `runtimes`"
        )


@frozen(kw_only=True)
class _Whole:
    """What a cloud says for all of its templates."""

    namespace: str
    cap: int | outline.Written | None
    default: str  # the template under all others
    restricted: bool
    labels: Mapping[str, str]
    connect: Mapping[str, str]
    unused: int | outline.Written  # minutes that an agent waits for its build


def _whole(cloud: PlainSection, into: Target) -> _Whole:
    """Read it, and say what is no setting of a backend."""
    cloud.skip("name", "templates")
    into.url(cloud, "jenkinsUrl")
    if cloud.truth("usageRestricted"):
        cloud.note(f"usageRestricted: {_RESTRICTED}", loud=True)
    _retained(cloud)
    if cloud.truth("directConnection"):
        cloud.note(
            "directConnection: agents connected to the agent port without asking over HTTP. The "
            "templates below ask over HTTP; for the same set connect: {mode: direct, direct: "
            "HOST:50000, instance_identity: ...} (the header X-Instance-Identity of the "
            "controller)",
            loud=True,
        )
    tunnel = cloud.text("jenkinsTunnel")
    connect = {"tunnel": tunnel} if tunnel else {}
    if cloud.truth("webSocket"):
        connect = {"mode": "websocket"}
    labels = {one.raw("key"): one.raw("value") for one in cloud.entries("podLabels")}
    return _Whole(
        namespace=cloud.text("namespace"),
        cap=cloud.limit("containerCap", "containerCapStr"),
        default=cloud.text("defaultsProviderTemplate"),
        restricted=cloud.truth("restrictedPssSecurityContext"),
        labels={key: value for key, value in (_labels(cloud) | labels).items() if key},
        connect=connect,
        unused=cloud.whole("retentionTimeout") or 5,
    )


def _without_templates(into: Target, backend: str) -> None:
    """Write a template where pipelines bring theirs along."""
    name, out = into.template("agent")
    out.note(
        "no templates in this cloud: pipelines bring their own (podTemplate, agent { kubernetes "
        "{ } }). The broker makes agents of templates that stand here; write one for each pod, "
        "with the pipeline's YAML as `pod`, and ask for its label",
        loud=True,
    )
    out.set("labels", name)
    out.set("backends", [backend])
    out.set("image", target.INBOUND)


def _retained(fields: PlainSection) -> None:
    kind, _ = fields.kind("podRetention")
    if kind and kind not in {"never", "default"}:
        fields.note(f"podRetention {kind}: {_RETENTION}", loud=True)


def _labels(cloud: PlainSection) -> dict[str, str]:
    """Return labels of pods that are given as a section."""
    cloud.taken.add("labels")
    told = cloud.data.get("labels")
    if not isinstance(told, Mapping):
        return {}
    return {str(k): v for k, v in told.items() if isinstance(v, str)}


def _reached(cloud: PlainSection, section: outline.Section, into: Target, name: str) -> None:
    """Write how the cluster is reached."""
    url = cloud.text("serverUrl")
    credentials = cloud.text("credentialsId")
    inside = bool(_IN_CLUSTER.fullmatch(url)) or not url
    if url and inside:
        section.note(f"serverUrl {url}: from within the cluster, which is the default here")
    elif url:
        section.set("server", url)
    if credentials or (url and not inside):
        file = f"{target.SECRETS}/{name}-token"
        section.set(
            "token_file",
            file,
            f"credentialsId {credentials}: a token of a service account goes into this "
            "file; for a kubeconfig write `kubeconfig: PATH` instead"
            if credentials
            else "no credentials there; the broker needs a token",
        )
        was = f" (was the credentials {credentials})" if credentials else ""
        into.need(f"{file}: the token of a service account{was}")
    if cloud.has("serverCertificate"):
        file = f"{target.SECRETS}/{name}-ca.pem"
        section.set("ca_file", file, "serverCertificate: put the certificate into this file")
        into.need(f"{file}: the PEM text of serverCertificate")
    if cloud.truth("skipTlsVerify"):
        section.note(
            "skipTlsVerify: anybody could pose as the API server. The broker always checks: put "
            "the cluster's authority into `ca_file`",
            loud=True,
        )
    seconds = cloud.whole("connectTimeout")
    if isinstance(seconds, int) and seconds > 0:
        section.note(
            f"connectTimeout {seconds}: seconds until the API server had to take a connection; "
            "here `request_timeout`, 15s for a whole request"
        )


# --- templates ---------------------------------------------------------------------------------


def _template(fields: PlainSection, name: str, into: Target, whole: _Whole) -> None:
    out = fields.out
    target.labels(out, fields.text("label") or " ".join(fields.lines("labels")), name)
    fields.skip("name", "namespace", "inheritFrom", "labels")
    target.mode(out, fields.text("nodeUsageMode"))
    cap = fields.limit("instanceCap", "instanceCapStr")
    if cap is not None:
        out.set("cap", cap)
    _retention(fields, whole)
    if whole.connect:
        out.set("connect", dict(whole.connect))
    seconds = fields.whole("slaveConnectTimeout", "slaveConnectTimeoutStr", "agentConnectTimeout")
    if seconds is not None and seconds != 0:
        out.set("connect_deadline", f"{seconds}s")
    called, injects = fields.text("agentContainer") or pods.AGENT, fields.truth("agentInjection")
    pod = pods.Pod(fields, into, name, called, injects)
    pod.build()
    _agent(pod)
    if injects:
        out.set("inject", True)
    section = out.section("kubernetes")
    inside = fields.to(section)
    if called != pods.AGENT:
        section.set("agent_container", called)
    _security(inside, section, pod, restricted=whole.restricted)
    _settings_of_template(inside, section)
    body = pod.finished(whole.labels)
    if body:
        section.set("pod", body)
    fields.rest(_TEMPLATE)


def _retention(fields: PlainSection, whole: _Whole) -> None:
    idle = fields.whole("idleMinutes", "idleMinutesStr")
    if idle is None or idle == 0:
        told = {"once": True, "idle": target.minutes(whole.unused)}
        fields.out.set("retention", told, f"idleMinutes 0: {target.ONCE}", loud=True)
    else:
        fields.out.set("retention", {"idle": target.minutes(idle)})
    _retained(fields)


def _agent(pod: pods.Pod) -> None:
    """Write what the agent's own container has: image, directory, variables, resources."""
    out, agent = pod.fields.out, pod.agent
    image = str(agent.pop("image", "") or "")
    if not image:
        out.note(
            f"no image for the container {pod.called}: the plugin's own was taken; "
            f"{target.INBOUND} here"
        )
    target.image(out, image or target.INBOUND)
    work = str(agent.pop("workingDir", "") or _WORK)
    if work != _WORK:
        out.set("remote_fs", work)
        pod.work = work
    told: dict[str, str] = {}
    for variable in list(agent.get("env", [])):
        if "value" in variable:
            agent["env"].remove(variable)
            told[str(variable["name"])] = str(variable["value"])
    target.environment(out, told)
    _resources(pod)
    _command(pod)


def _resources(pod: pods.Pod) -> None:
    """Write what the common settings can say of the agent's container; the rest stays there."""
    resources = pod.agent.get("resources")
    if not isinstance(resources, dict):
        return
    common: dict[str, Any] = {}
    for part, names in (
        ("limits", {"memory": "memory", "cpu": "cpu_limit"}),
        ("requests", {"memory": "memory_reservation", "cpu": "cpu_shares"}),
    ):
        amounts = resources.get(part)
        if not isinstance(amounts, dict):
            continue
        for key, ours in names.items():
            value = _amount(key, str(amounts.get(key, "")))
            if value is not None:
                common[ours] = value
                del amounts[key]
        if not amounts:
            del resources[part]
    if common:
        pod.fields.out.set("resources", common)
    if not resources:
        del pod.agent["resources"]


def _amount(key: str, text: str) -> str | float | int | None:
    """Return a quantity of Kubernetes as this configuration writes it; None: it cannot."""
    if key == "memory":
        return text if _QUANTITY.fullmatch(text) and not text.isdecimal() else None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if found is None:
        return None
    cores = float(found[1]) / (1000 if found[2] else 1)
    return int(cores) if cores == int(cores) else cores


def _command(pod: pods.Pod) -> None:
    """Say what a command or arguments of the agent's container mean here."""
    out, agent = pod.fields.out, pod.agent
    command, args = agent.get("command"), agent.get("args")
    if command:
        program = command[0].replace("\\", "/").rpartition("/")[2]
        if program in {"jenkins-agent", "jenkins-slave", "jenkins-agent.ps1"}:
            out.note(
                f"the container {pod.called} is started by {command[0]}: it stays its command in "
                "`pod`, where the script finds JENKINS_SECRET. As `command` of the template it "
                "would not be given one (only JENKINS_SECRET_FILE), and the agent would never "
                "connect",
                loud=True,
            )
        else:
            out.note(
                f"the container {pod.called} is started by '{' '.join(command)[:60]}', in place "
                "of the image's entry point: it has to start the agent from JENKINS_URL, "
                "JENKINS_SECRET and JENKINS_AGENT_NAME, or the agent never connects",
                loud=True,
            )
    if args:
        out.note(
            f"arguments of the container {pod.called} ({len(args)}) replace what the entry point "
            "is given by default: they have to leave it JENKINS_SECRET and JENKINS_AGENT_NAME, or "
            "name $(JENKINS_SECRET) and $(JENKINS_AGENT_NAME)",
            loud=True,
        )


def _security(
    fields: PlainSection, section: outline.Section, pod: pods.Pod, *, restricted: bool
) -> None:
    user, group = fields.whole("runAsUser"), fields.whole("runAsGroup")
    if user is not None:
        section.set("run_as_user", user)
        section.set("run_as_group", group)
        section.set("fs_group", None)
    else:
        section.set(
            "run_as_user",
            None,
            "as there, each container has its image's own user and rights. Safer where the images "
            "allow it: remove these four lines (user 1000, Pod Security level `restricted`)"
            if not restricted
            else "as there, each container has its image's own user",
        )
        section.set("run_as_group", group)
        section.set("fs_group", None)
    if not restricted:
        section.set("restricted", False)
    if pod.work:
        section.set("work_directory", pod.work)


def _settings_of_template(fields: PlainSection, section: outline.Section) -> None:
    account = fields.raw("serviceAccount")
    if account:
        section.set("service_account", account)
        section.note(
            f"serviceAccount {account}: builds had its token; here they get none unless `pod` "
            "says spec: {automountServiceAccountToken: true}",
            loud=True,
        )
    selector = {
        key.strip(): value.strip()
        for key, sign, value in (p.partition("=") for p in fields.raw("nodeSelector").split(","))
        if sign and key.strip()
    }
    if selector:
        section.set("node_selector", selector)
    secrets = [one.raw("name") for one in fields.entries("imagePullSecrets")]
    secrets = [name for name in secrets if name]
    if secrets:
        section.set("image_pull_secrets", secrets)
    seconds = fields.whole("activeDeadlineSeconds", "activeDeadlineSecondsStr")
    if seconds is not None and seconds != 0:
        section.set(
            "active_deadline",
            f"{seconds}s",
            "activeDeadlineSeconds: at half of it an agent takes no further build, so that the "
            "last one can end",
        )


# --- what is inherited -------------------------------------------------------------------------


def _inherited(
    told: Mapping[str, Any], templates: list[Mapping[str, Any]], default: str
) -> tuple[dict[str, Any], list[tuple[str, bool]]]:
    """Return a template with what it inherits, and what is to be said of that."""
    notes: list[tuple[str, bool]] = []
    merged = _with_parents(told, templates, default, notes, seen=())
    return merged, notes


def _with_parents(
    told: Mapping[str, Any],
    templates: list[Mapping[str, Any]],
    default: str,
    notes: list[tuple[str, bool]],
    seen: tuple[str, ...],
) -> dict[str, Any]:
    own = str(told.get("name") or told.get("label") or "")
    asked = str(told.get("inheritFrom") or "").split() or ([default] if default else [])
    under: dict[str, Any] = {}
    for name in asked:
        if name == own or name in seen:
            continue
        called = f"inheritFrom {hiding.cleaned(name)[:60]}"
        parent = next((t for t in templates if name in [t.get("name"), t.get("label")]), None)
        if parent is None:
            text = f"{called}: no such template in this cloud: what it has is missing here"
            notes.append((text, True))
            continue
        text = (
            f"{called}: merged into this template, which does not follow it any more; parts of "
            "pods for several templates are `pods` of the backend, named in `inherits`"
        )
        notes.append((text, True))
        lower = _with_parents(parent, templates, "", notes, (*seen, own))
        under = _over(under, {k: v for k, v in lower.items() if k not in {"name", "label"}})
    return _over(under, told) if under else dict(told)


_KEYS = {"annotations": "key", "imagePullSecrets": "name", "containers": "name"}


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one template over another, as the plugin does."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if value in (None, "", [], {}):
            merged.setdefault(key, value)
        elif isinstance(value, list) and isinstance(below, list):
            merged[key] = _lists(key, below, value)
        elif key == "yaml" and isinstance(below, str) and isinstance(value, str):
            strategy = over.get("yamlMergeStrategy")
            both = str(next(iter(strategy), None) if isinstance(strategy, Mapping) else strategy)
            merged[key] = f"{below}\n---\n{value}" if "merge" in both.lower() else value
        else:
            merged[key] = value
    return merged


def _lists(key: str, under: list[Any], over: list[Any]) -> list[Any]:
    """Return two lists as one: the same container or variable is there once."""

    def called(entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            return None
        inner = next(iter(entry.values()), None) if len(entry) == 1 else entry
        inner = inner if isinstance(inner, Mapping) else entry
        name = _KEYS.get(key) or ("mountPath" if key == "volumes" else "key")
        found = inner.get(name)
        return found if isinstance(found, str) else None

    names = {called(entry): number for number, entry in enumerate(under)}
    joined = list(under)
    for entry in over:
        number = names.get(called(entry)) if called(entry) is not None else None
        if number is None:
            joined.append(entry)
        elif key == "containers" and isinstance(joined[number], Mapping):
            joined[number] = _over(joined[number], entry)
        else:
            joined[number] = entry
    return joined
