"""Builds never share a workspace: what a configuration may say, on every backend."""

import pytest

from broker import config
from broker.config import kinds, loading
from broker.core import model
from broker.core.decide import spec
from jnlp import launch as jnlp_launch
from jnlp import secret as jnlp_secret
from jnlp import tunnel
from tests.each import each

KINDS = kinds.classes()
HEAD = """\
owner: ci
controller: {url: "https://c/", user: u, token: "env:T"}
listen: "off"
backends:
  here: {kind: process, cap: 9}
  box: {kind: docker, cap: 9}
  cluster: {kind: kubernetes, namespace: a, server: "https://k", token_file: /t, cap: 9,
            pods: {claim: {spec: {volumes: [{name: workspace, persistentVolumeClaim: {claimName: x}}]}}}}
  farm: {kind: mesos, master: "https://m:5050", handover: {listen: ":1", url: "https://b"}, cap: 9}
  none: {kind: memory, cap: 9}
templates:
"""


def parse(*templates):
    return loading.parse(f"{HEAD}  " + "\n  ".join(templates), KINDS, environ={"T": "11secret"})


def refused(*templates):
    with pytest.raises(config.ConfigError) as caught:
        parse(*templates)
    return caught.value.lines


def on(backend, text, name="t", more=""):
    image = "image: i," if backend in {"box", "cluster"} else ""
    return f"{name}: {{labels: l, backends: [{backend}], {image} {more} {text}}}"


def pod(text, **more):
    return on("cluster", f"kubernetes: {{pod: {{spec: {{{text}}}}}}}", **more)


SHARED = {
    "process": on("here", "remote_fs: /srv/b"),
    "process-slash": on("here", "remote_fs: /srv/b/"),
    "process-dots": on("here", 'remote_fs: "/srv/{name}/../b"'),
    "docker": on("box", "remote_fs: /b, docker: {volumes: [{name: /b, target: /b}]}"),
    "docker-above": on("box", "docker: {volumes: [{name: homes, target: /home}]}"),
    "docker-raw": on("box", 'remote_fs: /b, docker: {docker: {HostConfig: {Binds: ["/b:/b"]}}}'),
    "kubernetes-host": pod("volumes: [{name: workspace, hostPath: {path: /b}}]"),
    "kubernetes-claim": pod("volumes: [{name: workspace, persistentVolumeClaim: {claimName: c}}]"),
    "kubernetes-fragment": on("cluster", "kubernetes: {inherits: [claim]}"),
    "kubernetes-other-volume": pod(
        "volumes: [{name: v, nfs: {server: s, path: /x}}], "
        "containers: [{name: jnlp, volumeMounts: [{name: v, mountPath: /home/jenkins/agent/}]}]"
    ),
    "kubernetes-subpath": pod(
        "volumes: [{name: v, hostPath: {path: /x}}], containers: "
        "[{name: jnlp, volumeMounts: [{name: v, mountPath: /home/jenkins/agent, subPath: a}]}]"
    ),
    "kubernetes-expression": pod(
        "volumes: [{name: v, hostPath: {path: /x}}], containers: "
        "[{name: jnlp, env: [{name: N, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}], "
        'volumeMounts: [{name: v, mountPath: /home/jenkins/agent, subPathExpr: "$(N)"}]}]'
    ),
    "mesos-host": on("farm", "remote_fs: /srv/b"),
    "mesos-volume": on(
        "farm",
        "remote_fs: /b, mesos: {volumes: [{container_path: /b, host_path: /x}]}",
        more="image: i,",
    ),
    "mesos-work": on("farm", "mesos: {volumes: [{container_path: work, host_path: /x}]}"),
    "mesos-driver": on(
        "farm",
        "remote_fs: /b, mesos: {volumes: [{container_path: /b, driver: nfs, driver_name: v}]}",
        more="image: i,",
    ),
    "mesos-parameters": on(
        "farm",
        'remote_fs: /b, mesos: {containerizer: docker, docker_parameters: {volume: "/x:/b"}}',
        more="image: i,",
    ),
    "mesos-raw": on(
        "farm",
        "remote_fs: /b, mesos: {raw: {container: {volumes: [{container_path: /b, host_path: /x, "
        "mode: RW}]}}}",
        more="image: i,",
    ),
}
APART = {
    "process": on("here", 'remote_fs: "/srv/{name}"'),
    "process-default": on("here", "process: {working_directory: /scratch}"),
    "docker-name": on(
        "box", 'remote_fs: "/b/{name}", docker: {volumes: [{name: /b, target: /b}]}'
    ),
    "docker-cache": on("box", "docker: {volumes: [{name: m2, target: /home/jenkins/.m2}]}"),
    "kubernetes-ephemeral": pod("volumes: [{name: workspace, ephemeral: {}}]"),
    "kubernetes-read-only": pod(
        "volumes: [{name: workspace, persistentVolumeClaim: {claimName: c, readOnly: true}}]"
    ),
    "kubernetes-name": pod('volumes: [{name: workspace, hostPath: {path: "/x/{name}"}}]'),
    "kubernetes-expression": pod(
        "volumes: [{name: v, hostPath: {path: /x}}], containers: "
        "[{name: jnlp, env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], "
        'volumeMounts: [{name: v, mountPath: /home/jenkins/agent, subPathExpr: "a/$(N)"}]}]'
    ),
    "kubernetes-cache": pod(
        "volumes: [{name: v, hostPath: {path: /x}}], "
        "containers: [{name: jnlp, volumeMounts: [{name: v, mountPath: /home/jenkins/.m2}]}]"
    ),
    "mesos-sandbox": on(
        "farm", "mesos: {volumes: [{container_path: work, sandbox_path: elsewhere}]}"
    ),
    "mesos-image": on("farm", "remote_fs: /b", more="image: i,"),
    "mesos-relative": on("farm", "mesos: {volumes: [{container_path: work, host_path: w}]}"),
    "memory": on("none", "remote_fs: /b"),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_template_whose_agents_could_meet_is_refused(name):
    """Unless there is never more than one of them; said with line, setting and what helps."""
    (line,) = refused(SHARED[name])
    assert line.startswith("broker.yaml:12: templates.t.")
    assert "would work together in" in line
    assert "{name}" in line
    assert parse(SHARED[name].replace("labels: l,", "labels: l, cap: 1,")).templates


@pytest.mark.parametrize("name", SHARED)
def test_two_templates_do_not_meet_either(name):
    """With one agent of each there would still be two in one place."""
    alone = SHARED[name].replace("labels: l,", "labels: l, cap: 1,")
    (line,) = refused(alone, alone.replace("t:", "u:", 1))
    assert line.startswith("broker.yaml:13: templates.u.")
    assert "agents of template t work in" in line


@each("name", APART)
def test_a_place_for_each_is_good(name):
    """By its name, by its making, or because nobody can write there; caches are shared."""
    assert parse(APART[name]).templates


def instance(template, name):
    action = model.LaunchAgent(name=name, template="t", backend="box", reason="r")
    site = spec.Site(
        owner="ci",
        style=spec.Style.ENTRY_POINT,
        controller_version="",
        jar_url="https://c/agent.jar",
        work_dir=None,
        now=0.0,
    )
    node = spec.definition(action, template, site)
    return node, spec.instance(action, template, site, jnlp_secret.Secret("0" * 64))


def test_the_name_is_the_same_for_node_and_instance():
    """In the node's root, the agent's working directory and the environment."""
    told = 'remote_fs: "/b/{name}", environment: {HOME: "/h/{name}", X: "${name}"}'
    (template,) = parse(on("box", told)).templates
    node, made = instance(template, "ci-t-abc123")
    assert node.remote_fs == "/b/ci-t-abc123"
    assert made.work_dir == "/b/ci-t-abc123"
    assert made.env["JENKINS_AGENT_WORKDIR"] == "/b/ci-t-abc123"
    assert (made.env["HOME"], made.env["X"]) == ("/h/ci-t-abc123", "${name}")


# --- variables that are the broker's -----------------------------------------------------------

CONNECTIONS = [
    tunnel.Connection(tunnel="h:1"),
    tunnel.Connection(transport=tunnel.Transport.WEBSOCKET),
    tunnel.Connection(
        transport=tunnel.Transport.DIRECT,
        direct="h:1",
        instance_identity="aWQ=",
        protocols=("JNLP4-connect",),
    ),
]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_every_variable_that_we_give_is_known_as_ours(connection):
    """Whatever the transport, the image and the command."""
    inbound = jnlp_launch.Inbound(
        url="https://c/",
        name="n",
        secret=jnlp_secret.Secret("0" * 64),
        secrets_dir="/s",
        work_dir="/w",
        connection=connection,
    )
    given = set(jnlp_launch.command_environment(inbound))
    for style in jnlp_launch.OptionStyle:
        given |= set(jnlp_launch.image_environment(inbound, style=style, jvm_options=("-Xmx1m",)))
    assert given - {"JAVA_OPTS"} <= set(jnlp_launch.VARIABLES)


@pytest.mark.parametrize("variable", jnlp_launch.VARIABLES)
def test_such_a_variable_is_refused_with_what_is_meant(variable):
    """In the environment of every backend, and in that of a pod's agent."""
    meant = jnlp_launch.VARIABLES[variable] or "leave it out"
    for text in (
        *(on(kind, f"environment: {{{variable}: x}}") for kind in ("box", "here", "none")),
        pod(f"containers: [{{name: jnlp, env: [{{name: {variable}, value: x}}]}}]"),
    ):
        (line,) = refused(text)
        assert variable in line
        assert meant in line
    assert parse(
        pod(f"containers: [{{name: other, image: i, env: [{{name: {variable}, value: x}}]}}]")
    )


def test_the_raw_section_of_docker_may_not_replace_the_environment():
    """It is a list, so it would take away what the agent is told."""
    (line,) = refused(on("box", "docker: {docker: {Env: [A=b]}}"))
    assert "environment" in line


SLOTTED = "docker: {volumes: [{name: 'PLACE', target: /work, writable_by_user: true}]}"
CLAIM = (
    "kubernetes: {pod: {spec: {containers: [{name: jnlp, volumeMounts: [{name: c, mountPath: /c}]}],"
    " volumes: [{name: c, persistentVolumeClaim: {claimName: 'PLACE'}}]}}}"
)


@each(("backend", "text"), [("box", f"remote_fs: /work, {SLOTTED}"), ("cluster", CLAIM)])
def test_slots_of_two_templates_never_lead_to_one_place(backend, text):
    """Each counts for itself, so both would have a first one; with the names in it they differ."""

    def both(first, second):
        return [
            on(backend, text.replace("PLACE", place), name)
            for name, place in (("a", first), ("b", second))
        ]

    assert len(parse(*both("a-{slot}", "b-{slot}")).templates) == 2
    (line,) = refused(*both("same-{slot}", "same-{slot}"))
    assert "template a names 'same-{slot}', too, and slots are counted for each template" in line
    assert "put the template's name into it" in line


@each(("executors", "said"), [(1, False), (3, True)])
def test_builds_of_one_agent_share_its_slot(executors, said):
    """So what has one writer has as many as the agent has builds at a time."""
    text = on("box", f"executors: {executors}, {SLOTTED.replace('PLACE', 'a-{slot}')}")
    words = f"{executors} builds of one agent share what {{slot}} names"
    assert any(words in one.text for one in parse(text).warnings) is said
