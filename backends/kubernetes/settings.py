"""What a user may set for the Kubernetes backend. No import of the backend itself.

Every field says unit, default and the reason of the default. The values are checked here, so that
a wrong one is told when the configuration is read; ValueError names what is allowed.
"""

import ipaddress
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import Attribute, frozen

from backends.kit import misfits, perils, setting, workspaces
from backends.kit.remarks import Common, Remark
from backends.kubernetes.api import contexts
from backends.kubernetes.pods import acceptance, fields, volumes
from outside import files, quotes

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DAY_S = 86_400.0
_IMAGE_FS = "/home/jenkins/agent"  # where agent images work
_LAST_PORT = 65_535


def _namespace(_: object, attribute: "Attribute[Any]", value: str | None) -> None:
    if value is not None and not _DNS_LABEL.fullmatch(value):
        raise ValueError(
            f"{attribute.name}: {quotes.shown(value)} is not a name of a namespace; hint: "
            "lower-case letters, digits and '-', 63 at most"
        )


def _url(_: object, attribute: "Attribute[Any]", value: str | None) -> None:
    if value is None:
        return
    if re.match(r"[^/]*//[^/]*@", value):  # never quoted
        raise ValueError(f"{attribute.name}: holds a user or password; hint: `token_file`")
    if not re.match(r"https?://[^/\s]", value):
        raise ValueError(
            f"{attribute.name}: {quotes.shown(value)} is not a URL; hint: https://HOST:PORT"
        )


def _of_layer(layer: Any, path: misfits.Path, namespace: str | None) -> Iterator[Remark]:
    """Say what is wrong, and what is odd, with a part of a pod that stands at a path."""
    for remark in acceptance.of_layer(layer, namespace):
        yield attrs.evolve(remark, path=(*path, *remark.path))


def address(listen: str) -> tuple[str, int]:
    """Take HOST:PORT apart. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"{quotes.shown(listen)} is not HOST:PORT; hint: 0.0.0.0:8088")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(_: object, attribute: "Attribute[Any]", value: str) -> None:
    try:
        address(value)
    except ValueError as error:
        raise ValueError(f"{attribute.name}: {error}") from error


@frozen(kw_only=True)
class InContainer:
    """Where the command `in-container` of the agents finds this broker."""

    listen: str = setting.of(
        "HOST:PORT to listen on. Apart from the broker's own page, because agents may reach it.",
        check=_address,
    )
    url: str = setting.of(
        "URL under which the pods reach it. No default: our own address would change with "
        "every restart, and agents outlive restarts; a service stays.",
        check=_url,
    )
    cert_file: str | None = setting.of(
        "PEM files of the certificate that we show and its key. None: plain HTTP.",
        None,
        **setting.ABSOLUTE,
    )
    key_file: str | None = setting.of("", None, **setting.ABSOLUTE)
    ca_file: str | None = setting.of(
        "PEM file with the authority of that certificate, given to the agents. None: the "
        "agents' images know it.",
        None,
        **setting.ABSOLUTE,
    )

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file: needs key_file, and the other way round")
        if self.cert_file is not None and self.url.startswith("http:"):
            raise ValueError("url: with cert_file it begins with https://")


@frozen(kw_only=True)
class ClusterSettings:
    """How a cluster is reached: part of the backend's settings, and all that a lease needs."""

    namespace: str | None = setting.of(
        "Where the agents' pods live, or the lease. None: the namespace of the service "
        "account or of the kubeconfig's context. One for agents alone makes quota, policies "
        "and rights simple.",
        None,
        check=_namespace,
    )
    kubeconfig: str | None = setting.of(
        "Path of a kubeconfig. None: the pod's own service account, the usual case for a "
        "sidecar. Needs the extra `kubernetes` (docs/decisions/0030-kubernetes-client.md "
        "says why).",
        None,
    )
    context: str | None = setting.of("Context in the kubeconfig. None: its current one.", None)
    server: str | None = setting.of(
        "URL of the API server. None: told by the service account or the kubeconfig. For an "
        "API server that is reached by a proxy or another address.",
        None,
        check=_url,
    )
    token_file: str | None = setting.of(
        "File with the bearer token; read again every minute and after a 401, because "
        "projected tokens rotate. None: the service account's.",
        None,
        **setting.ABSOLUTE,
    )
    ca_file: str | None = setting.of(
        "PEM file with the authority of the API server. None: the service account's.",
        None,
        **setting.ABSOLUTE,
    )

    def remarks(self) -> Iterator[Remark]:
        """Say what is open to others on the way to the cluster."""
        if self.server is not None and in_the_clear(self.server):
            yield Remark(
                path=("server",),
                text="not https: the token of the service account, and every agent's secret, "
                "travel in the clear",
                hint="https://HOST:PORT, with `ca_file`",
            )
        if self.kubeconfig is not None and is_open(self.kubeconfig):
            yield Remark(
                path=("kubeconfig",),
                text="every user of this machine may read that file",
                hint="chmod 600",
            )
        if self.kubeconfig is not None or self.context is not None:
            for misfit in contexts.misfits(self.kubeconfig, self.context):
                place = "context" if self.kubeconfig is None else "kubeconfig"
                yield Remark(path=(place,), text=misfit.text, hint=misfit.hint)


def in_the_clear(url: str) -> bool:
    """Return whether what goes there can be read on the way: not on this machine itself."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return parts.scheme == "http" and not here


def is_open(path: str) -> bool:
    """Return whether every user of the machine may read a file."""
    try:
        return files.is_open_to_others(pathlib.Path(path).expanduser())
    except (OSError, RuntimeError):
        return False  # that it cannot be read is said where it is read


@frozen(kw_only=True)
class RuntimeImage:
    """A Java for images that have none."""

    image: str = setting.of(
        "The image that `agent-broker runtime build --image` wrote, where the nodes find it: in "
        "their registry, or loaded into each.",
        like=re.compile(r"[^\s]{1,512}"),
        words="the name of an image",
    )
    mount: bool = setting.of(
        "Mount the image as a volume, which takes no time at a start; needs a cluster that has "
        "them (`ImageVolume`: on by default from Kubernetes 1.35, with subPath from 1.33). Off: "
        "an init container copies it into an emptyDir, 90 MB a pod.",
        False,
    )
    pull_policy: str | None = setting.of(
        "When it is pulled: Always, IfNotPresent, Never. None: Kubernetes' own rule.",
        None,
        choices=("Always", "IfNotPresent", "Never"),
    )


@frozen(kw_only=True)
class KubernetesSettings(ClusterSettings):
    """Settings of the backend."""

    request_timeout_s: float = setting.of(
        "Seconds for one request but lists and watches. An API server whose storage hangs "
        "answers 504 after 34 s; the broker would rather try again.",
        15.0,
        least=0.5,
        most=600,
    )
    list_timeout_s: float = setting.of(
        "Seconds for one page of a list; a busy API server may need long.",
        30.0,
        least=0.5,
        most=600,
    )
    page_size: int = setting.of(
        "Pods per page: a page is decoded in one go, 250 pods in about 10 ms.",
        250,
        least=1,
        most=10_000,
    )
    watch_timeout_s: float = setting.of(
        "Seconds until the API server ends a watch, so that connections spread over several "
        "servers.",
        300.0,
        least=1,
        most=3600,
    )
    watch_silence_s: float = setting.of(
        "A watch that says nothing for these seconds is dead: bookmarks come about every 60 s.",
        100.0,
        least=0.5,
        most=3600,
    )
    start_patience_s: float = setting.of(
        "A pod whose image cannot be pulled or whose container cannot be made is given up "
        "after these seconds without a step forward (a node was found, an init container "
        "ended). The kubelet tries again after 10, 20, 40 s: two tries are enough to tell a "
        "typing error, and a registry that fails for longer is met again by the next agent, "
        "after the template's back-off.",
        30.0,
        least=0,
        most=3600,
    )
    usage: str = setting.of(
        "Where what agents use is asked for: metrics-server (memory and processors, by the API "
        "`metrics.k8s.io`); kubelet (also kills for memory while an agent lives, and how long its "
        "limit of processors held it back; needs the right `get nodes/proxy`, which is as good as "
        "root on every node); off.",
        "metrics-server",
        choices=("metrics-server", "kubelet", "off"),
    )
    pods: dict[str, Any] = setting.of(
        "Parts of pods by name, plain pod YAML; a template takes them up with `inherits`.",
        {},
        raw=fields.FRAGMENTS,
    )
    runtimes: dict[str, RuntimeImage] = setting.of(
        "What `inject` of a template brings into images without Java, by name; `default` is that "
        "of `inject: true`.",
        {},
    )
    in_container: InContainer | None = setting.of(
        "Serve `in-container` to the templates that switch it on. None: nothing is listened "
        "on, and the right to `pods/exec` is not needed.",
        None,
    )

    def remarks(self) -> Iterator[Remark]:
        """Say what is open to others on the way to the cluster, and from the agents to us."""
        yield from super().remarks()
        for name, fragment in self.pods.items():
            yield from _of_layer(fragment, ("pods", name), self.namespace)
        if self.in_container is not None and in_the_clear(self.in_container.url):
            yield Remark(
                path=("in_container", "url"),
                text="not https: the agents' tokens, and what builds run, travel in the clear",
                hint="`cert_file` and `key_file`, where the cluster's network is not trusted",
            )


@frozen(kw_only=True)
class KubernetesTemplate:
    """Settings of one template on this backend."""

    inherits: tuple[str, ...] = setting.of(
        "Names in the backend's `pods`, the later over the earlier, all of them over what "
        "is made of the template's common settings and below `pod`.",
        (),
    )
    pod: dict[str, Any] = setting.of(
        "Plain pod YAML (`metadata`, `spec`), merged as docs/backends/kubernetes.md tells. "
        "The agent runs in the container `jnlp`, or in `agent_container`; others stand beside it "
        "and share its working directory.",
        {},
        raw=fields.KINDS,
    )
    agent_container: str = setting.of(
        "The container of `pod` that the agent runs in, and that `image`, `environment` and "
        "`resources` of the template are for; `pod` counts more. With `inject` Java comes into "
        "it, and the agent takes the place of its `command` and `args`: so a container that only "
        "waits for steps becomes the agent. Without, its image has to be one of an agent.",
        volumes.AGENT,
        like=_DNS_LABEL,
        words="the name of a container: lower-case letters, digits and '-', 63 at most",
    )
    work_directory: str = setting.of(
        "Where the shared working directory is mounted in every container. Only to be "
        "changed together with the template's `remote_fs`. The default is that of the agent "
        "images.",
        "/home/jenkins/agent",
        converter=workspaces.plain,
        **setting.ELSEWHERE,
    )
    run_as_user: int | None = setting.of(
        "User and group of all processes, by number. 1000 is `jenkins` in the agent images. "
        "None: the image's own; the group counts only with a user, since runtimes start "
        "none alone.",
        1000,
        least=0,
        most=4_294_967_294,
    )
    run_as_group: int | None = setting.of("", 1000, least=0, most=4_294_967_294)
    fs_group: int | None = setting.of(
        "Group that owns the volumes, so that the user may write to them. None: the volume's own.",
        1000,
        least=0,
        most=4_294_967_294,
    )
    restricted: bool = setting.of(
        "Fill in what the Pod Security level `restricted` asks for, where a container does "
        "not say otherwise: no privilege escalation, no capabilities, no root, the "
        "runtime's seccomp profile.",
        True,
    )
    read_only_root: bool = setting.of(
        "The files of the agent's image cannot be changed: `readOnlyRootFilesystem` of its "
        "container, unless `pod` says otherwise, and an emptyDir at `/tmp` unless something is "
        "there. What builds write to elsewhere, as to a home, needs a volume.",
        False,
    )
    all_containers: bool = setting.of(
        "An agent counts only while all containers of its pod run, as in the kubernetes "
        "plugin: one whose side container ends, or cannot be started, takes no builds, and "
        "its template is set aside. Off: the agent's container alone decides.",
        True,
    )
    drain_grace_s: float | None = setting.of(
        "How long a build may go on once its pod is evicted or deleted by others, as when a "
        "node is drained: the agent ignores that for so long and takes nothing new. None: "
        "Kubernetes' 30 s, which the agent does not use.",
        None,
        least=1,
        most=7 * _DAY_S,
        word="none",
    )
    image_pull_policy: str | None = setting.of(
        "When the image of the agent's container is pulled: Always, IfNotPresent, Never. None: "
        "Kubernetes' own rule.",
        None,
        choices=("Always", "IfNotPresent", "Never"),
    )
    image_pull_secrets: tuple[str, ...] = setting.of(
        "Names of secrets with registry credentials.", ()
    )
    node_selector: dict[str, str] = setting.of("Labels that a node must have.", {})
    service_account: str | None = setting.of("Service account.", None)
    service_account_token: bool = setting.of(
        "Mount the token of the service account into every container, as "
        "`automountServiceAccountToken` in `pod` does, which counts more. Off: builds are not "
        "trusted with the cluster.",
        False,
    )
    priority_class: str | None = setting.of("Name of a PriorityClass.", None)
    active_deadline_s: float | None = setting.of(
        "Age at which Kubernetes ends a pod, build or not: the last safety net, if the "
        "broker never comes back. An agent takes no further build at half of it, whatever "
        "`retention` says, so the longest build may last as long again: 3.5 days of 7. "
        "Shorter would end builds, longer would only let leftovers of a broker that was "
        "taken away cost more. None: never.",
        7 * _DAY_S,
        least=60,
        most=10_000 * _DAY_S,
        word="never",
    )
    in_container: bool = setting.of(
        "Give the agent the command `in-container NAME COMMAND...`, which runs a step in "
        "another container of its pod. Needs the backend's `in_container`. Off: who has no "
        "side containers needs none.",
        False,
    )

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where pods of this template would work together."""
        yield from volumes.shared(
            self._body(common),
            work_directory=self.work_directory,
            remote_fs=common.remote_fs or _IMAGE_FS,
        )

    @property
    def has_own_network(self) -> bool:
        """Whether the loopback address is the pod's own; what it inherits is not looked at."""
        spec = self.pod.get("spec")
        return not self.inherits and not (isinstance(spec, dict) and spec.get("hostNetwork"))

    def remarks(self, common: Common) -> Iterator[Remark]:
        """Say what cannot be right about this template, and what is dangerous."""
        body = self._body(common)
        asked = {"automountServiceAccountToken": True} if self.service_account_token else {}
        for text in volumes.perilous({**asked, **body}):
            yield Remark(path=("pod",), text=text, hint=perils.HINT)
        if not self.restricted:
            yield Remark(
                path=("restricted",),
                text="every build of this template can become root in its container, where the "
                "image lets it",
                hint="true; a container that needs more says so in its own securityContext",
            )
        told = list(_of_layer(self.pod, ("pod",), getattr(common.settings, "namespace", None)))
        yield from told
        layers, agent = self._layers(common), self.agent_container
        pod = volumes.whole(layers, agent)
        yield from self._of_agent(common, layers)
        for path, port in volumes.host_ports(pod, agent):
            yield Remark(
                path=("pod", *acceptance.place(path, pod, self.pod)),
                text=f"only one agent of each node can have its port {port} at a time",
                hint="the cluster chooses no port; the next agent goes to another node, or waits",
            )
        for remark in acceptance.refused(pod, agent):
            where = ("pod", *acceptance.place(remark.path, pod, self.pod))
            if not any(one.wrong and where[: len(one.path)] == one.path for one in told):
                yield attrs.evolve(remark, path=where)
        account = body.get("serviceAccountName") or body.get("serviceAccount")
        untold = not self.service_account_token and "automountServiceAccountToken" not in body
        if untold and (account or self.service_account):
            yield Remark(
                path=("pod",) if account else ("service_account",),
                text="the service account's token is not mounted: in builds kubectl and the like "
                "are nobody",
                hint="automountServiceAccountToken: true or false in `pod`",
            )
        for name in volumes.apart(body, self.work_directory, agent):
            yield Remark(
                path=("pod",),
                text=f"the container {name} has another volume at {self.work_directory} than the "
                f"agent: it sees none of the agent's files there",
                hint=f"mount the volume {quotes.shown(volumes.WORK_VOLUME)}, or leave the "
                "mount out",
            )
        for path, name, meant in volumes.given_variables(body, common.reserved, agent):
            yield Remark(
                path=("pod", *acceptance.place(("spec", *path), pod, self.pod)),
                text=f"the broker gives {name} to the container {agent}",
                hint=f"set {meant}" if meant else "leave it out",
                wrong=True,
            )

        given = {*common.reserved, *common.environment}
        unknown = volumes.unknown_variables(body, given, agent) if common.reserved else ()
        for path, name in unknown:
            yield Remark(
                path=("pod", *acceptance.place(("spec", *path), pod, self.pod)),
                text=f"nobody gives {name} to the container {agent}: $({name}) stays as it is",
                hint=f"one of {', '.join(sorted(common.reserved))}, or a variable in its `env`",
                wrong=True,
            )

    def _body(self, common: Common) -> Mapping[str, Any]:
        return volumes.merged(self._layers(common), self.agent_container)

    def _of_agent(self, common: Common, layers: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
        """Say what is odd about the container that the agent runs in."""
        agent, told = self.agent_container, volumes.containers(layers)
        if agent != volumes.AGENT and agent not in told:
            known = ", ".join(told) or "none"
            yield Remark(
                path=("agent_container",),
                text=f"the pod has no container {agent}: it is made of the common settings; "
                f"containers there: {known[:120]}",
                hint="one of `containers` in `pod`",
            )
        if volumes.AGENT in told and agent != volumes.AGENT:
            yield Remark(
                path=("agent_container",),
                text=f"the container {volumes.AGENT} of the pod is none of the agent's, and gets "
                "nothing of what an agent needs",
                hint="leave that container out",
            )
        given = told.get(agent, {})
        words = [key for key in ("command", "args") if given.get(key)]
        if common.injects and agent == volumes.AGENT and words:
            yield Remark(
                path=("pod",),
                text=f"{words[0]} of the container {agent} is not used: with `inject` the agent "
                "takes its place",
                hint="leave it out",
            )

    def _layers(self, common: Common) -> list[Mapping[str, Any]]:
        fragments = getattr(common.settings, "pods", {})
        told = [*(fragments[name] for name in self.inherits if name in fragments), self.pod]
        told += [fragments[name] for name in common.inherits if name in fragments]
        return [acceptance.sound(layer) for layer in told]

    @property
    def lifetime_s(self) -> float | None:
        """Seconds until the platform ends an agent whatever it does."""
        return self.active_deadline_s
