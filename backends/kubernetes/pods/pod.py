"""From a specification to the pod and the secret that are created.

Pure. Pods are plain dictionaries, never generated classes: a field that this module does not know
goes through as the user wrote it. Refuses to know HTTP and what the agent is.

The layers, each over the one before (``merge``): what is made of the common settings; the
fragments that the template inherits; the template's own ``pod``; the fragments and images that
a build asks for by parameters; what the broker insists on (names, owner marks, the secret's
volume, the shared working directory).
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from attrs import frozen

from backends import api
from backends.kit import names, runtime, workspaces
from backends.kubernetes import settings
from backends.kubernetes.exec import incontainer
from backends.kubernetes.pods import engine, merge, shared, table, volumes
from outside import quotes

AGENT = "jnlp"
"""The container that the agent runs in, unless `agent_container` names another one."""
RUNTIME = "agent-broker-runtime"
"""The container that copies what `inject` brings, and the volume that has it."""
PREFIX = "agent-broker/"
"""Of our labels and annotations."""
NAME = f"{PREFIX}name"
METADATA = f"{PREFIX}metadata"
DIGEST = f"{PREFIX}digest"
AGENT_CONTAINER = f"{PREFIX}agent-container"
"""Names the container of a pod's agent, where it is not ``AGENT``."""
AGENT_ALONE = f"{PREFIX}agent-alone"
"""Of a pod whose side containers say nothing of its agent."""
GUARDS = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations by which node autoscalers spare a pod; each is ours where the user says nothing."""
GUARDED = f"{PREFIX}guards"
"""Names those of them that are ours, for they go while the agent is idle."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "agent-broker"}

_SECRETS_DIR = "/run/agent-broker"
_SECRETS_VOLUME = table.OWN_SECRET
_WORK_VOLUME = "workspace"
_PROGRAM_VOLUME = "agent-broker-in-container"
_TMP_VOLUME = "agent-broker-tmp"
_TMP = "/tmp"  # noqa: S108 -- of the container
_COPIED_TO = "/agent-broker/runtime"
_MI = 1 << 20
_IN_SECRET = 64 << 10  # bytes of files of ours that each agent has a copy of
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_SHORT = 8
_OS_LABEL = "kubernetes.io/os"
_HOST_LABEL = "kubernetes.io/hostname"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

Manifest = dict[str, Any]


@frozen(kw_only=True)
class Manifests:
    """What to create for one instance; the secret is not part of any ``repr``."""

    name: str
    pod: Manifest
    secret_files: Mapping[str, str]
    given_files: Mapping[str, bytes]  # no secrets, and small: they come the same way
    shared: Manifest | None = None  # the ConfigMap that has them, where they are not small

    def __repr__(self) -> str:
        return f"Manifests(name={quotes.shown(self.name)})"

    @property
    def digest(self) -> str:
        """What tells two specifications apart; secrets are left out."""
        return str(self.pod["metadata"]["annotations"][DIGEST])

    def _given(self) -> dict[str, str]:
        return {name: base64.b64encode(one).decode() for name, one in self.given_files.items()}

    def secret(self, pod_uid: str) -> Manifest:
        """Return the secret; it belongs to the pod and is removed with it by the cluster."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.name,
                "labels": dict(self.pod["metadata"]["labels"]),
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": pod_uid}
                ],
            },
            "immutable": True,
            "stringData": dict(self.secret_files),
            **({"data": self._given()} if self.given_files else {}),
        }


def is_shared(spec: api.InstanceSpec) -> bool:
    """Return whether files of ours are too large to be copied for each agent."""
    return sum(map(len, spec.given_files.values())) > _IN_SECRET


def has_secret(spec: api.InstanceSpec) -> bool:
    """Return whether an instance has a secret of its own."""
    return bool(spec.secret_files) or (bool(spec.given_files) and not is_shared(spec))


def pod_name(name: str) -> str:
    """Return the name of an instance's pod: the same, where Kubernetes allows it."""
    if _DNS_LABEL.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    short = hashlib.sha256(name.encode()).hexdigest()[:_SHORT]
    return f"{plain[: names.NAME_MAX - _SHORT - 1].rstrip('-') or 'agent'}-{short}"


def owner_labels(owner: str) -> dict[str, str]:
    """Return the labels that select everything of one owner."""
    return {**MANAGED_BY, **names.encode_metadata({names.OWNER: owner}, prefix=PREFIX)}


def selector(owner: str) -> str:
    """Return the label selector of one owner."""
    return ",".join(f"{key}={value}" for key, value in owner_labels(owner).items())


def make(
    spec: api.InstanceSpec,
    *,
    owner: str,
    fragments: Mapping[str, Any] | None = None,
    served: incontainer.Served | None = None,
    runtimes: Mapping[str, settings.RuntimeImage] | None = None,
) -> Manifests:
    """Return what to create. Raises Rejected for what cannot be a pod.

    ``served``: where ``in-container`` reaches the broker, if it does.
    """
    options = _options(spec)
    try:
        pod = _merged(spec, options, fragments or {})
        if _is_windows(pod):
            pod = _merged(spec, options, fragments or {}, windows=True)
        elif workspaces.is_of_windows(options.work_directory):
            raise api.Rejected(
                f"work_directory {options.work_directory} is a path of Windows, and the pod is "
                "for Linux; hint: kubernetes.io/os: windows in node_selector"
            )
    except merge.MergeError as error:
        raise api.Rejected(str(error)) from error
    pod = names.in_slot(pod, spec.slot)  # of its parts by name, too
    volumes.share(pod)
    volumes.named(pod, spec.name)
    _complete(pod, spec, options, runtimes or {})
    inherited = (*options.inherits, *spec.inherits)
    told = [*(_fragment(name, fragments or {}) for name in inherited), options.pod]
    _mark(pod, spec, owner, options, guards=_guards(told))
    if spec.avoid:  # after the digest: the same pod, wherever it must not go
        _keep_off(pod["spec"], spec.avoid)
    files = None
    if is_shared(spec):  # after the digest: what each launch is given is no part of what it is
        files = shared.manifest(pod_name(owner), owner_labels(owner), spec.given_files)
        agent = _found_agent(pod["spec"], options.agent_container)
        shared.mount(pod["spec"], agent, files)
    secret_files = dict(spec.secret_files)
    if options.in_container:  # after the digest, which leaves secrets out
        secret_files |= _add_program(pod, spec, served, options.agent_container)
    return Manifests(
        name=pod_name(spec.name),
        pod=pod,
        secret_files=secret_files,
        given_files={} if files is not None else spec.given_files,
        shared=files,
    )


def _merged(
    spec: api.InstanceSpec,
    options: settings.KubernetesTemplate,
    fragments: Mapping[str, Any],
    *,
    windows: bool = False,
) -> Manifest:
    """Lay the layers over each other. Raises MergeError and Rejected."""
    pod: Manifest = _common(spec, options)
    if windows:  # the API server forbids it there, whatever it says
        del pod["spec"]["securityContext"]
    for name in options.inherits:
        pod = merge.merge(pod, _fragment(name, fragments))
    pod = merge.merge(pod, options.pod)
    for name in spec.inherits:
        pod = merge.merge(pod, _fragment(name, fragments))
    merged = merge.finish(pod)
    if "spec" not in merged:
        raise api.Rejected("`pod` removes the section `spec`; hint: indent what belongs into it")
    _put_images(merged["spec"], spec.side_images, options.agent_container)
    return merged


def _put_images(body: Manifest, side_images: Mapping[str, str], agent: str) -> None:
    """Give containers beside the agent's the images that are asked for. Raises Rejected."""
    containers = [*body.get("initContainers", []), *body.get("containers", [])]
    for name, image in side_images.items():
        named = [one for one in containers if one.get("name") == name]
        if not named or name == agent:
            known = ", ".join(str(c.get("name")) for c in containers if c.get("name") != agent)
            raise api.Rejected(
                f"an image for the container {quotes.shown(name)} is asked for, but beside "
                f"{agent} those of the pod are: {known[:120] or 'none'}; hint: `inherits` of the "
                "parameter, or `pod`"
            )
        named[0]["image"] = image


def _is_windows(pod: Manifest) -> bool:
    """Return whether a pod is for Windows nodes: by its word, or by the nodes that it wants."""
    body = pod["spec"]
    os = body.get("os")
    named = os.get("name") if isinstance(os, Mapping) else None
    selector = body.get("nodeSelector")
    asked = selector.get(_OS_LABEL) if isinstance(selector, Mapping) else None
    return "windows" in {str(named), str(asked)}


def serving(
    configured: settings.KubernetesSettings, *, authority: str | None
) -> incontainer.Served | None:
    """Return where ``in-container`` reaches the broker, if it does; ``authority`` as PEM."""
    if configured.in_container is None:
        return None
    return incontainer.Served(url=configured.in_container.url, authority=authority)


def body(
    spec: api.InstanceSpec, configured: settings.KubernetesSettings, *, owner: str
) -> Manifest:
    """Return the pod that a launch would create. Raises Rejected."""
    return _manifests(spec, configured, owner).pod


def _manifests(
    spec: api.InstanceSpec, configured: settings.KubernetesSettings, owner: str
) -> Manifests:
    served = serving(configured, authority=None)
    return make(
        spec,
        owner=owner,
        fragments=configured.pods,
        served=served,
        runtimes=configured.runtimes,
    )


def render(spec: api.InstanceSpec, configured: settings.KubernetesSettings, *, owner: str) -> str:
    """Return what is created as YAML; of files the names alone. Raises Rejected."""
    manifests = _manifests(spec, configured, owner)
    secret = manifests.secret("of the pod, when it is made")
    secret["stringData"] = dict.fromkeys(sorted(secret["stringData"]), "not shown")
    more = [] if manifests.shared is None else [shared.shown(manifests.shared)]
    return str(yaml.safe_dump_all([manifests.pod, secret, *more], sort_keys=False))


def _options(spec: api.InstanceSpec) -> settings.KubernetesTemplate:
    options = spec.options if spec.options is not None else settings.KubernetesTemplate()
    problem = names.name_problem(spec.name)
    if problem is None and not isinstance(options, settings.KubernetesTemplate):
        problem = f"the template's options are {type(options).__name__}, not KubernetesTemplate"
    if problem is None and spec.files:
        problem = (
            "pods fetch no files; hint: an image that holds the agent, such as "
            "jenkins/inbound-agent, and no `command`"
        )
    for name in (*spec.secret_files, *spec.given_files):
        if problem is None and not _KEY.fullmatch(name):
            problem = f"the file name {quotes.shown(name)} cannot be a key of a secret"
    if problem is not None:
        raise api.Rejected(problem)
    assert isinstance(options, settings.KubernetesTemplate)  # noqa: S101 -- just checked; for mypy
    return options


def _fragment(name: str, fragments: Mapping[str, Any]) -> Mapping[str, Any]:
    if name not in fragments:
        known = ", ".join(sorted(fragments)) or "none"
        raise api.Rejected(
            f"inherits {quotes.shown(name)}, but the backend's `pods` are: {known}; hint: a "
            "name of them"
        )
    fragment: Mapping[str, Any] = fragments[name]
    return fragment


# --- what is made of the common settings -------------------------------------------------------


def _common(spec: api.InstanceSpec, options: settings.KubernetesTemplate) -> Manifest:
    """Return the lowest layer."""
    context = {
        "runAsUser": options.run_as_user,
        # a runtime cannot start a sandbox for a group without a user
        "runAsGroup": None if options.run_as_user is None else options.run_as_group,
        "fsGroup": options.fs_group,
    }
    deadline_s = options.active_deadline_s
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": merge.finish(
            {
                "restartPolicy": "Never",
                "automountServiceAccountToken": options.service_account_token,
                "enableServiceLinks": False,
                "activeDeadlineSeconds": None if deadline_s is None else int(deadline_s),
                "serviceAccountName": options.service_account,
                "priorityClassName": options.priority_class,
                "nodeSelector": dict(options.node_selector) or None,
                "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets]
                or None,
                "securityContext": context,
                "containers": [_agent(spec, options)],
                "volumes": [{"name": _WORK_VOLUME, "emptyDir": {}}],
            }
        ),
    }


def _agent(spec: api.InstanceSpec, options: settings.KubernetesTemplate) -> Manifest:
    where = {
        api.SECRETS: _SECRETS_DIR,
        api.FILES: shared.FOLDER if is_shared(spec) else _SECRETS_DIR,
        api.WORK: options.work_directory,
    }

    def put(text: str) -> str:
        for token, path in where.items():
            text = text.replace(token, path)
        return _literal(text)

    argv = spec.argv if spec.runtime is None else runtime.started(spec.argv)
    words = [put(word) for word in argv]
    return {
        "name": options.agent_container,
        "image": spec.image,
        "imagePullPolicy": options.image_pull_policy,
        "workingDir": options.work_directory,
        "command": None if spec.use_entry_point else words or None,
        "args": (words or None) if spec.use_entry_point else None,
        "env": [{"name": name, "value": put(value)} for name, value in spec.env.items()],
        "resources": _resources(spec.resources),
    }


def _literal(text: str) -> str:
    """Keep Kubernetes from putting variables into a text: it reads ``$(NAME)`` and ``$$``."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def _resources(wanted: api.Resources) -> Manifest:
    """Return limits and requests; what is not told is left to the namespace's LimitRange."""
    resources = {
        "limits": {"memory": _bytes(wanted.memory_bytes), "cpu": _cores(wanted.cpu_limit)},
        "requests": {
            "memory": _bytes(wanted.memory_reservation_bytes),
            "cpu": _cores(wanted.cpu_shares),
        },
    }
    known = {
        key: {k: v for k, v in part.items() if v is not None} for key, part in resources.items()
    }
    return {key: part for key, part in known.items() if part}


def _bytes(value: int | None) -> str | None:
    if value is None:
        return None
    return f"{value // _MI}Mi" if value % _MI == 0 and value else str(value)


def _cores(value: float | None) -> str | None:
    return None if value is None else f"{max(1, round(value * 1000))}m"


# --- what the broker insists on ----------------------------------------------------------------


def _complete(
    pod: Manifest,
    spec: api.InstanceSpec,
    options: settings.KubernetesTemplate,
    runtimes: Mapping[str, settings.RuntimeImage],
) -> None:
    """Add the secret, the shared working directory and the defaults of every container."""
    body: Manifest = pod["spec"]
    body.setdefault("restartPolicy", "Never")  # to remove it is not to ask for Kubernetes' Always
    agent = _found_agent(body, options.agent_container)
    if has_secret(spec):
        _add_secret(body, agent, pod_name(spec.name), shared=_group(body) is not None)
    if spec.pipelines is not None and _is_windows(pod):
        raise api.Rejected("docker_pipelines: an engine is for Linux, and the pod for Windows")
    told = spec.pipelines
    wanted = api.Resources(
        memory_bytes=None if told is None else told.memory_bytes,
        cpu_limit=None if told is None else told.cpu_limit,
    )
    engine.give(body, agent, spec, limits=_resources(wanted))
    copies = _bring(pod, agent, spec, options, runtimes)
    others = [c for c in body.get("initContainers", []) if c not in copies]
    everything = [*copies, *others, *body["containers"]]
    for container in (*others, *body["containers"]):
        _share_work(container, options.work_directory, twice=options.in_container)
    if not any(v["name"] == _WORK_VOLUME for v in body.get("volumes", [])):
        raise api.Rejected(
            f"`pod` removes the volume {quotes.shown(_WORK_VOLUME)}, which containers share"
        )
    for (kind, number, *_), volume in volumes.missing(body):
        name = body[str(kind)][number]["name"]
        known = ", ".join(map(str, volumes.names_of(body)))
        raise api.Rejected(
            f"the container {quotes.shown(name)} mounts the volume {quotes.shown(volume)}, "
            f"but those of the pod are: {known[:120]}"
        )
    if options.drain_grace_s is not None:
        _give_grace(body, agent, math.ceil(options.drain_grace_s))
    if options.read_only_root:
        if _is_windows(pod):
            raise api.Rejected("read_only_root is for Linux, and the pod for Windows")
        _mount_scratch(body, agent)
        agent.setdefault("securityContext", {}).setdefault("readOnlyRootFilesystem", True)
    if options.restricted and not _is_windows(pod):
        _restrict(body, everything)


def _found_agent(body: Manifest, called: str) -> Manifest:
    """Return the container that the agent runs in. Raises Rejected."""
    if any(c.get("name") == called for c in body.get("initContainers", [])):
        raise api.Rejected(
            f"agent_container: {quotes.shown(called)} is an init container, which ends before "
            "the others begin; hint: one of `containers`"
        )
    containers: list[Manifest] = [c for c in body.get("containers", []) if c["name"] == called]
    if len(containers) != 1:
        raise api.Rejected(
            f"`pod` removes the container {quotes.shown(called)}, which the agent runs in"
        )
    if not containers[0].get("image"):
        raise api.Rejected(
            "no image; hint: `image` in the template, such as jenkins/inbound-agent, or in the "
            f"container {quotes.shown(called)} of `pod`"
        )
    return containers[0]


def _bring(
    pod: Manifest,
    agent: Manifest,
    spec: api.InstanceSpec,
    options: settings.KubernetesTemplate,
    runtimes: Mapping[str, settings.RuntimeImage],
) -> list[Manifest]:
    """Bring Java into the agent's container; return the init container that does, if one does.

    The agent is its command then: a container of a pod of people has one that only waits, for
    others to run their steps in it. What it is copied with is of its own image, as large as the
    agent may be: a quota counts the larger of both.
    """
    if spec.runtime is None:
        return []
    brought, body = runtime.find(spec.runtime, runtimes), pod["spec"]
    if _is_windows(pod):
        raise api.Rejected("inject: a runtime is for Linux, and the pod for Windows")
    agent["command"] = _agent(spec, options)["command"]
    agent.pop("args", None)
    _mount_scratch(body, agent)
    volumes_now = [v for v in body.get("volumes", []) if v["name"] != RUNTIME]
    mounts = [m for m in agent.get("volumeMounts", []) if m["mountPath"] != runtime.ROOT]
    mount: Manifest = {"name": RUNTIME, "mountPath": runtime.ROOT, "readOnly": True}
    policy = {} if brought.pull_policy is None else {"pullPolicy": brought.pull_policy}
    if brought.mount:
        source = {"image": {"reference": brought.image, **policy}}
        mount["subPath"] = runtime.ROOT.lstrip("/")
    else:
        source = {"emptyDir": {}}
    body["volumes"] = [*volumes_now, {"name": RUNTIME, **source}]
    agent["volumeMounts"] = [*mounts, mount]
    if brought.mount:
        return []
    copy: Manifest = {
        "name": RUNTIME,
        "image": brought.image,
        "command": list(runtime.copied(_COPIED_TO)),
        "volumeMounts": [{"name": RUNTIME, "mountPath": _COPIED_TO}],
        "resources": dict(agent.get("resources") or {}),
    }
    if brought.pull_policy is not None:
        copy["imagePullPolicy"] = brought.pull_policy
    body["initContainers"] = [copy, *body.get("initContainers", [])]
    return [copy]


def _mount_scratch(body: Manifest, agent: Manifest) -> None:
    """Give the agent a place for temporary files: images from scratch, sealed ones have none."""
    mounts = agent.setdefault("volumeMounts", [])
    if not any(mount["mountPath"] == _TMP for mount in mounts):
        body.setdefault("volumes", []).append({"name": _TMP_VOLUME, "emptyDir": {}})
        mounts.append({"name": _TMP_VOLUME, "mountPath": _TMP})


def _give_grace(body: Manifest, agent: Manifest, seconds: int) -> None:
    """Let a build use the time between an eviction and the end.

    The hook only waits: the agent, taken out of service, is deleted by the broker when its build
    has ended, and a deletion with a shorter grace cuts the wait. What the template says itself
    stays.
    """
    body.setdefault("terminationGracePeriodSeconds", seconds)
    hook = {"exec": {"command": ["sleep", str(seconds)]}}
    agent["lifecycle"] = {"preStop": hook, **(agent.get("lifecycle") or {})}


def _keep_off(body: Manifest, nodes: Sequence[str]) -> None:
    """Let the scheduler leave nodes out, beside all that the template asks of its node.

    A term that fits is enough for Kubernetes, so every term that there is gets the condition.
    """
    condition = {"key": _HOST_LABEL, "operator": "NotIn", "values": list(nodes)}
    affinity = _mapping(body.get("affinity"))
    of_node = _mapping(affinity.get("nodeAffinity"))
    required = _mapping(of_node.get(_REQUIRED))
    terms = [_mapping(term) for term in required.get("nodeSelectorTerms") or [{}]]
    told = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), condition]}
        for term in terms
    ]
    required = {**required, "nodeSelectorTerms": told}
    body["affinity"] = {**affinity, "nodeAffinity": {**of_node, _REQUIRED: required}}


def _mapping(value: Any) -> Manifest:
    return dict(value) if isinstance(value, Mapping) else {}


def _group(body: Manifest) -> int | None:
    """Return the group that owns the volumes of a pod, if one is told."""
    context = body.get("securityContext") or {}
    group: int | None = context.get("fsGroup")
    return group


def _add_secret(body: Manifest, agent: Manifest, name: str, *, shared: bool) -> None:
    """Mount the secret into the agent's container alone; its group may read it, or all."""
    others = [v for v in body.get("volumes", []) if v["name"] != _SECRETS_VOLUME]
    mode = 0o440 if shared else 0o444
    source = {"secretName": name, "defaultMode": mode}
    body["volumes"] = [*others, {"name": _SECRETS_VOLUME, "secret": source}]
    mounts = [
        m
        for m in agent.get("volumeMounts", [])
        if m["mountPath"] != _SECRETS_DIR and m.get("name") != _SECRETS_VOLUME
    ]
    mount = {"name": _SECRETS_VOLUME, "mountPath": _SECRETS_DIR, "readOnly": True}
    agent["volumeMounts"] = [*mounts, mount]


def _add_program(
    pod: Manifest, spec: api.InstanceSpec, served: incontainer.Served | None, called: str
) -> dict[str, str]:
    """Put ``in-container`` into the agent's container; return its files for the secret.

    And a volume for the pipes of its commands into every container that may run one.
    """
    if served is None:
        raise api.Rejected("in_container is on, but the backend has no section `in_container`")
    if _is_windows(pod):
        raise api.Rejected(
            "in_container needs a POSIX shell, which Windows containers do not have"
        )
    name, body = pod_name(spec.name), pod["spec"]
    try:
        token = incontainer.token(name, spec.secret_files)
    except ValueError as error:
        raise api.Rejected(str(error)) from error
    item = {"key": incontainer.PROGRAM, "path": incontainer.PROGRAM, "mode": 0o555}
    ours = {_PROGRAM_VOLUME, incontainer.VOLUME}
    others = [v for v in body["volumes"] if v["name"] not in ours]
    source = {"secretName": name, "items": [item]}
    program = {"name": _PROGRAM_VOLUME, "secret": source}
    body["volumes"] = [*others, program, {"name": incontainer.VOLUME, "emptyDir": {}}]
    sidecars = [c for c in body.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    for container in [*sidecars, *body["containers"]]:
        kept = [m for m in container["volumeMounts"] if m["mountPath"] != incontainer.SHARED]
        pipes = {"name": incontainer.VOLUME, "mountPath": incontainer.SHARED}
        container["volumeMounts"] = [*kept, pipes]
    agent = next(c for c in body["containers"] if c["name"] == called)
    mounts = [m for m in agent["volumeMounts"] if m["mountPath"] != incontainer.PATH]
    mount = {"name": _PROGRAM_VOLUME, "mountPath": incontainer.PATH, "readOnly": True}
    agent["volumeMounts"] = [*mounts, {**mount, "subPath": incontainer.PROGRAM}]
    pod["metadata"]["annotations"][incontainer.DIGEST] = incontainer.digest(token)
    return incontainer.files(name, token, served, directory=_SECRETS_DIR)


def _share_work(container: Manifest, path: str, *, twice: bool) -> None:
    """Mount the working directory, unless the container has its own idea of it.

    ``twice``: under the agent's path too, where a step that is run in it begins.
    """
    mounts = container.setdefault("volumeMounts", [])
    elsewhere = not twice and any(m.get("name") == _WORK_VOLUME for m in mounts)
    if not elsewhere and not any(m["mountPath"] == path for m in mounts):
        mounts.append({"name": _WORK_VOLUME, "mountPath": path})


def _restrict(body: Manifest, containers: list[Manifest]) -> None:
    """Fill in what the Pod Security level ``restricted`` asks for, where nothing else is said."""
    context = body.setdefault("securityContext", {})
    context.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    if context.get("runAsUser"):  # without a number the kubelet cannot tell who the user is
        context.setdefault("runAsNonRoot", True)
    for container in containers:
        own = container.setdefault("securityContext", {})
        if own.get("runAsUser") == 0:
            own.setdefault("runAsNonRoot", False)  # the pod's would keep it from starting
        capabilities = own.get("capabilities") or {}
        if own.get("privileged") or "SYS_ADMIN" in str(capabilities.get("add")):
            continue  # the API server refuses the rest beside these
        own.setdefault("allowPrivilegeEscalation", False)
        own.setdefault("capabilities", {"drop": ["ALL"]})


def _guards(layers: Iterable[Mapping[str, Any]]) -> Mapping[str, str]:
    """Return the annotations against eviction that no layer speaks of, be it to remove them."""
    told = [
        _mapping(_mapping(layer.get("metadata")).get("annotations")).keys() for layer in layers
    ]
    return {key: value for key, value in GUARDS.items() if not any(key in keys for keys in told)}


def _mark(
    pod: Manifest,
    spec: api.InstanceSpec,
    owner: str,
    options: settings.KubernetesTemplate,
    *,
    guards: Mapping[str, str],
) -> None:
    """Write down whose pod it is, over whatever a user wrote there."""
    metadata: Manifest = pod.setdefault("metadata", {})
    for key in ("generateName", "namespace"):
        metadata.pop(key, None)
    metadata["name"] = pod_name(spec.name)
    labels = {k: v for k, v in metadata.get("labels", {}).items() if not k.startswith(PREFIX)}
    template = {k: v for k, v in spec.metadata.items() if k == names.TEMPLATE}
    metadata["labels"] = {
        **labels,
        **names.encode_metadata(template, prefix=PREFIX),
        **owner_labels(owner),
    }
    annotations = {
        k: v for k, v in metadata.get("annotations", {}).items() if not k.startswith(PREFIX)
    }
    metadata["annotations"] = {
        **annotations,
        **guards,
        **({GUARDED: " ".join(guards)} if guards else {}),
        NAME: spec.name,
        METADATA: json.dumps(dict(spec.metadata), sort_keys=True),
    }
    if options.agent_container != AGENT:
        metadata["annotations"][AGENT_CONTAINER] = options.agent_container
    if not options.all_containers:
        metadata["annotations"][AGENT_ALONE] = "true"
    text = json.dumps(pod, sort_keys=True)
    metadata["annotations"][DIGEST] = hashlib.sha256(text.encode()).hexdigest()[:32]
