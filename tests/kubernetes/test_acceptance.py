"""What is said of a pod before any API server sees it: where it stands in the file, and why."""

import json
from typing import Any

import pytest

from backends.kit import remarks
from backends.kubernetes import settings
from backends.kubernetes.pods import fields
from tests.each import each
from tests.oracle import known_fields


def test_the_table_of_fields_is_that_of_the_published_schemas() -> None:
    """Of all releases; ``python -m tests.oracle.known_fields`` writes it."""
    assert known_fields.text() == fields.FILE.read_text()
    assert known_fields.table() == json.loads(fields.FILE.read_text())


def said(
    pod: dict[str, Any], *, pods: dict[str, Any] | None = None, namespace: str | None = None
) -> list[tuple[bool, str, str, str]]:
    """Return what is said of a template's pod: is it wrong, where, what, and what to do."""
    options = settings.KubernetesTemplate(pod=pod, inherits=tuple(pods or ()))
    backend = settings.KubernetesSettings(namespace=namespace, pods=pods or {})
    return [
        (remark.wrong, ".".join(map(str, remark.path)), remark.text, remark.hint)
        for remark in options.remarks(remarks.Common(settings=backend))
    ]


def spec(**told: Any) -> dict[str, Any]:
    return {"spec": told}


def container(**told: Any) -> dict[str, Any]:
    return spec(containers=[{"name": "jnlp"}, {"name": "c", "image": "i", **told}])


def mounted(**told: Any) -> dict[str, Any]:
    mounts = [{"name": "jnlp"}, {"name": "c", "image": "i", "volumeMounts": [told]}]
    return spec(containers=mounts, volumes=[{"name": "v", "emptyDir": {}}])


C = "pod.spec.containers.1"


@each(
    ("pod", "place", "text"),
    [
        (spec(containers=[{"name": "c"}]), "pod.spec.containers.0", "has no image"),
        (spec(initContainers=[{"name": "c"}]), "pod.spec.initContainers.0", "has no image"),
        (spec(containers=[{"image": "i"}]), "pod.spec.containers.0", "has no 'name'"),
        (spec(containers=["c"]), "pod.spec.containers.0", "found 'c'; allowed: a section"),
        (spec(containers=[{"name": "a"}, {"name": "a"}]), "pod.spec.containers",
         "a is there twice"),
        (spec(initContainers=[{"name": "jnlp", "image": "i"}]), "pod.spec.initContainers.0",
         "another container is called jnlp"),
        (spec(containers=[{"name": "C_1", "image": "i"}]), "pod.spec.containers.0.name",
         "found 'C_1'; allowed: as the name of a container lower-case letters, digits and '-', 63 at most"),
        (spec(volumes=[{"name": "v.1", "emptyDir": {}}]), "pod.spec.volumes.0.name",
         "found 'v.1'; allowed: as the name of a volume lower-case letters, digits and '-', 63 at most"),
        (spec(volumes=[{"name": "v", "hostPath": {"type": "Directory"}}]),
         "pod.spec.volumes.0.hostPath", "has no path"),
        (mounted(mountPath="/x"), f"{C}.volumeMounts.0", "has no name"),
        (container(env=[{"value": "1"}]), f"{C}.env.0", "has no 'name'"),
        (container(env=[{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
         f"{C}.env.0.valueFrom.secretKeyRef", "has no key"),
        (container(imagePullPolicy="always"), f"{C}.imagePullPolicy",
         "found 'always'; allowed: Always, IfNotPresent, Never"),
        (container(resources={"limits": {"memory": "2GB"}}), f"{C}.resources.limits.memory",
         "found '2GB'; allowed: a quantity, such as 500m or 2Gi"),
        (container(resources={"requests": {"cpu": -1}}), f"{C}.resources.requests.cpu",
         "found -1; allowed: a quantity, such as 500m or 2Gi"),
        (spec(nodeSelector={"zone": "a b"}), "pod.spec.nodeSelector.zone",
         "found 'a b'; allowed: letters, digits, '-', '_', '.', 63 at most, at both ends a letter or a digit"),
        ({"metadata": {"labels": {"a": "“x”"}}}, "pod.metadata.labels.a",
         "found '“x”'; allowed: letters, digits, '-', '_', '.', 63 at most, at both ends a letter or a digit"),
        ({"metadata": {"labels": {"a/b/c": "x"}}}, "pod.metadata.labels.a/b/c",
         "found 'a/b/c'; allowed: a key of a label: letters, digits, '-', '_', '.'"),
        (spec(tolerations=[{"operator": "Exists", "effect": "NoRun"}]),
         "pod.spec.tolerations.0.effect",
         "found 'NoRun'; allowed: NoExecute, NoSchedule, PreferNoSchedule"),
        (spec(topologySpreadConstraints=[{"topologyKey": "zone", "maxSkew": 1}]),
         "pod.spec.topologySpreadConstraints.0", "has no whenUnsatisfiable"),
        ({"kind": "Deployment"}, "pod.kind", "only apiVersion v1, kind Pod can be created"),
        ({"metadata": {"finalizers": ["a/b"]}}, "pod.metadata.finalizers",
         "the broker's: it alone decides when a pod goes"),
        ({"containers": []}, "pod.containers", "stands outside of `spec`"),
    ],
)  # fmt: skip
def test_what_no_api_server_takes_is_wrong(pod: dict[str, Any], place: str, text: str) -> None:
    """At its very place in the file."""
    assert (True, place, text) in [entry[:3] for entry in said(pod)]


@pytest.mark.parametrize(
    ("pod", "place", "hint"),
    [
        (container(resources={"cpu": 1}), f"{C}.resources.cpu",
         "it belongs into `limits` or `requests`"),
        (spec(env=[]), "pod.spec.env", "it belongs into a container"),
        ({"metadata": None, "labels": {"a": "b"}}, "pod.labels", "it belongs into `metadata`"),
        (container(imagePullpolicy="Always"), f"{C}.imagePullpolicy", ""),
        (container(hostAliases=[]), f"{C}.hostAliases", "it belongs into `spec`"),
        (spec(volumes=[{"name": "v", "hostPath": None, "path": "/x"}]),
         "pod.spec.volumes.0.path", ""),
    ],
)  # fmt: skip
def test_a_field_that_nobody_knows_is_said(pod: dict[str, Any], place: str, hint: str) -> None:
    """API servers leave it out, or it is one of tomorrow: no error."""
    words = "no release of Kubernetes knows this field here: API servers ignore it"
    assert [(False, place, words, hint)] == said(pod)


def test_names_and_namespaces_of_pods() -> None:
    """A name is the broker's, and left out; the namespace is that of the backend, or an error."""
    told = {"metadata": {"name": "n", "namespace": "a", "labels": {"x": "y"}}}
    name = (
        False,
        "pod.metadata.name",
        "left out: each pod has the name of its agent",
        "remove it",
    )
    hint = "a backend of its own for each namespace"
    place = "pod.metadata.namespace"
    assert [name] == said(told, namespace="a")
    assert [name, (True, place, "found 'a'; allowed: b, the backend's", hint)] == said(
        told, namespace="b"
    )
    words = "found 'a'; allowed: the backend's, which says none"
    assert [name, (True, place, words, hint)] == said(told)


def test_fragments_are_judged_by_themselves_and_with_the_template() -> None:
    """A container may be in parts: what it lacks is said of the whole alone."""
    part = spec(containers=[{"name": "c", "image": "i"}])
    assert [] == said(spec(containers=[{"name": "c", "tty": True}]), pods={"base": part})
    (remark,) = settings.KubernetesSettings(pods={"base": spec(containers=["c"])}).remarks()
    assert ("pods", "base", "spec", "containers", 0) == remark.path
    (remark,) = settings.KubernetesSettings(pods={"base": "text"}).remarks()
    assert (("pods", "base"), True) == (remark.path, remark.wrong)


def test_what_the_plugins_users_write_is_not_odd() -> None:
    """Native sidecars, projected tokens, quantities of all spellings, fields of a section each."""
    pod = spec(
        initContainers=[{"name": "side", "image": "i", "restartPolicy": "Always"}],
        containers=[{
            "name": "c",
            "image": "i",
            "resources": {"limits": {"cpu": 0.5, "memory": "1e3", "nvidia.com/gpu": 1},
                          "requests": {"cpu": "100m", "memory": "1.5Gi", "hugepages-2Mi": "4Mi"}},
            "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        }],
        volumes=[{"name": "t", "projected": {"sources": [{"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
        hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a.b"]}],
        dnsConfig={"options": [{"name": "ndots", "value": "2"}]},
        shareProcessNamespace=True,
        priorityClassName="low",
    )  # fmt: skip
    assert [] == said(pod)


def test_a_port_of_the_node_has_one_agent():
    """Of the agent's container; where it stands in the template, or not at all if a part has it."""
    ports = [{"containerPort": 1}, {"containerPort": 8080, "hostPort": 18080}]
    pod = spec(
        containers=[
            {"name": "db", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]},
            {"name": "jnlp", "ports": ports},
        ]
    )
    given = remarks.Common(settings=settings.KubernetesSettings())
    found = [
        one
        for one in settings.KubernetesTemplate(pod=pod).remarks(given)
        if "only one agent" in one.text
    ]
    (remark,) = found
    assert "its port 18080" in remark.text
    assert ("pod", "spec", "containers", 1, "ports") == remark.path[:5]
    assert not remark.wrong
