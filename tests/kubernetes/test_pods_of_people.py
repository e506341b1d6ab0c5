"""Pods as users of the Kubernetes plugin write them, put below ``pod`` unchanged.

Each is read with warnings at most, and becomes a pod that the published schemas of Kubernetes allow and
that the fake API server, which follows the recordings, takes. Written for these tests after the kinds
that are found in public pods.
"""

import pathlib
import textwrap
from typing import Any

import aiohttp
import pytest
import yaml

from broker import config
from broker.cli import rendering
from broker.config import kinds, loading
from tests.kubernetes import fake
from tests.oracle import schemas

FOLDER = pathlib.Path(__file__).parent / "pods_of_people"
KINDS = kinds.classes()
HEAD = """
owner: ci
controller: {url: "http://127.0.0.1/"}
listen: "off"
backends: {k: {kind: kubernetes, namespace: agents}}
templates:
  t:
    labels: x
    image: jenkins/inbound-agent
    kubernetes:
      pod:
"""
PODS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
IGNORED = {"not-indented": ["labels", "resources.cpu", "spec.env"]}
"""Warned of, and left out by an API server."""


def made(text: str, *, more: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """Return the pod of a template, and what is warned of by the last part of its place."""
    text = f"{HEAD}{textwrap.indent(text, ' ' * 8)}\n{more}"
    settings = loading.parse(text, KINDS, environ={})
    policy = config.policy(settings, wall_now=0.0)
    (rendered,) = rendering.render(settings, policy, template="t", now=1.0).values()
    warnings = {
        ".".join(map(str, warning.path[4:])): warning.text
        for warning in settings.warnings
        if warning.path[:4] == ("templates", "t", "kubernetes", "pod")
    }
    return next(yaml.safe_load_all(rendered)), warnings


def of(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    return made((FOLDER / f"{name}.yaml").read_text())


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    everything = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    (found,) = [one for one in everything if one["name"] == name]
    return found


@pytest.mark.parametrize("name", PODS)
async def test_it_becomes_a_pod_that_is_taken(cluster: fake.Cluster, name: str) -> None:
    """By the schemas, and by a server that asks them and the recordings."""
    pod, warnings = of(name)
    url = f"{cluster.url}/api/v1/namespaces/agents/pods"
    async with aiohttp.ClientSession() as session, session.post(url, json=pod) as answer:
        told, warned = await answer.json(), answer.headers.getall("Warning", [])
    assert 201 == answer.status, told
    strange = IGNORED.get(name, [])
    assert len(strange) == len(warned)
    assert all(any(place.endswith(key) for place in warnings) for key in strange)
    if not strange:
        assert [] == schemas.problems(pod)


@pytest.mark.parametrize("release", schemas.sampled(4))
def test_what_is_old_is_taken_by_every_release(release: str) -> None:
    """From 1.29 on, which knows native sidecars."""
    for name in set(PODS) - IGNORED.keys():
        assert [] == schemas.problems(of(name)[0], release=release)


def test_the_agents_container() -> None:
    """Own image and arguments stay; the name is the agent's; a mount's slash makes no second one."""
    pod, warnings = of("agent-with-arguments")
    agent, side = container(pod, "jnlp"), container(pod, "gradle")
    assert ["$(JENKINS_SECRET)", "$(JENKINS_NAME)"] == agent["args"]
    assert {"JENKINS_SECRET", "JENKINS_NAME"} <= {one["name"] for one in agent["env"]}
    assert [("workspace", "/home/jenkins/agent"), ("gradle-cache", "/home/gradle/.gradle")] == [
        (mount["name"], mount["mountPath"]) for mount in side["volumeMounts"]
    ]
    assert "2.10" == pod["metadata"]["labels"]["release"]
    assert "ci-t-xxxxxx" == pod["metadata"]["name"]
    assert {"metadata.name", "metadata.labels.release"} == warnings.keys()


def test_texts_are_what_was_written() -> None:
    """All of them with a warning at their place."""
    pod, warnings = of("values-of-other-kinds")
    browser = container(pod, "browser")
    env = {one["name"]: one.get("value") for one in browser["env"]}
    assert {
        "PORT": "4444",
        "STARTS_AT": "12:30",
        "MASK": "0022",
        "VERBOSE": "on",
        "RATIO": "1.50",
        "EMPTY": None,
    } == env
    assert ["99999"] == browser["args"]
    assert [{"containerPort": 4444}] == browser["ports"]
    assert "yes" == pod["metadata"]["labels"]["fast"]
    assert "2026-01-31" == pod["metadata"]["annotations"]["example.org/since"]
    assert 12 == len(warnings)


def test_a_pod_for_windows() -> None:
    """Nothing that its API server would forbid, and paths as they were written."""
    pod, warnings = of("windows")
    assert "securityContext" not in pod["spec"]
    assert not any("securityContext" in one for one in pod["spec"]["containers"])
    mounts = [mount["mountPath"] for mount in container(pod, "shell")["volumeMounts"]]
    assert ["C:\\Users\\ContainerUser\\.nuget", "/home/jenkins/agent"] == mounts
    assert ["spec.containers.1.args.1"] == [*warnings]


def test_containers_that_begin_before_the_agent() -> None:
    """They share the working directory too; a native sidecar keeps its rights and its policy."""
    pod, _ = of("native-sidecar")
    side = container(pod, "dind")
    assert ("Always", {"privileged": True}) == (side["restartPolicy"], side["securityContext"])
    assert "/home/jenkins/agent" in [
        m["mountPath"] for m in container(pod, "prepare")["volumeMounts"]
    ]


def test_tokens_are_there_where_they_are_asked_for() -> None:
    """And a template that names an account without a word on its token hears of it."""
    assert of("shared-processes")[0]["spec"]["automountServiceAccountToken"] is True
    pod, warnings = made("spec: {serviceAccountName: deployer}")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert any("token is not mounted" in text for text in warnings.values())
    pod, _ = made("spec: {}", more="      service_account_token: true\n")
    assert pod["spec"]["automountServiceAccountToken"] is True


def test_users_of_containers() -> None:
    """What a container says of itself counts, and is completed, not overruled."""
    kaniko = container(of("users-of-containers")[0], "kaniko")["securityContext"]
    assert (0, False, True) == (
        kaniko["runAsUser"],
        kaniko["runAsNonRoot"],
        kaniko["allowPrivilegeEscalation"],
    )
    assert {"add": ["CHOWN", "SETUID"]} == kaniko["capabilities"]


def test_the_shared_directory_by_the_plugins_name() -> None:
    """Mounted and not declared: the broker's own."""
    pod, warnings = of("workspace-undeclared")
    names = [m["name"] for one in pod["spec"]["containers"] for m in one["volumeMounts"]]
    assert {"workspace", "agent-broker-secrets"} == set(names)
    assert {} == warnings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "spec: {containers: [{name: jnlp, env: [{name: JENKINS_URL, value: 'http://c/'}]}]}",
            "the broker gives JENKINS_URL to the container jnlp",
        ),
        ("metadata: {namespace: other}", "found 'other'; allowed: agents, the backend's"),
        ("spec: {containers: [{name: tool, command: [cat]}]}", "containers[0]: has no image"),
        ("spec: {containers: [{name: a, image: i, ports: [{containerPort: http}]}]}", "a whole"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(text: str, words: str) -> None:
    """And with the reason."""
    with pytest.raises(config.ConfigError) as raised:
        made(text)
    assert words in str(raised.value)
    assert "broker.yaml:12: templates.t.kubernetes.pod" in str(raised.value)
