"""Docker for builds: what is allowed, what it costs, and what the platform is given."""

import pytest

from backends import api
from backends.kit import pipelines
from broker import config
from broker.config import kinds, loading, rehearsal
from broker.config.errors import ConfigError
from tests.each import each

BASE = """
owner: o
controller: {url: "http://jenkins.example/", user: u, token: "env:T"}
backends:
  docker: {kind: docker}
  far: {kind: docker, hosts: [{url: "ssh://build-1"}]}
  here: {kind: process}
  pods: {kind: kubernetes, namespace: n, server: "https://k", token_file: /t}
  services: {kind: swarm}
  tasks: {kind: mesos, master: "http://127.0.0.1:5050"}
templates: {t: {labels: [a], image: i, backends: [BACKEND], docker_pipelines: {SAID}MORE}}
"""
ROOT = "acknowledge: builds-are-root-on-the-host"
BESIDE = "acknowledge: a-privileged-container-beside-each-agent"


def settings(folder, said, *, backend="docker", more=""):
    """Read a configuration whose template says this."""
    path = folder / "broker.yaml"
    text = BASE.replace("SAID", said).replace("BACKEND", backend)
    path.write_text(text.replace("MORE", f", {more}" if more else ""))
    return loading.load([path], kinds.classes(), environ={"T": "t"}, secrets=config.Secrets.UNREAD)


def order(folder, said, **more):
    """Return what a launch would be given."""
    (template,) = config.policy(settings(folder, said, **more), wall_now=0.0).templates
    return rehearsal.order(template, "docker", owner="o", style="entry-point", now=0.0)


def refused(folder, said, **more):
    with pytest.raises(ConfigError) as caught:
        settings(folder, said, **more)
    return "\n".join(caught.value.lines)


def test_an_agent_with_the_engines_socket_works_in_a_folder_of_its_own(tmp_path):
    """The same path that the template would say, without having to."""
    spec = order(tmp_path, f"mode: socket, {ROOT}")
    assert api.DockerPipelines(mode="socket") == spec.pipelines
    assert f"/srv/agent-broker/{spec.name}" == spec.work_dir
    own = order(tmp_path, f"mode: socket, {ROOT}", more="remote_fs: '/ci/{name}/w'")
    assert f"/ci/{own.name}/w" == own.work_dir


def test_an_agent_on_a_swarm_works_in_a_volume_of_its_node(tmp_path):
    """Unless the template says which; the socket's cost is told once."""
    told = {"backend": "services", "more": "swarm: {user: '0'}"}
    read = settings(tmp_path, f"mode: socket, {ROOT}", **told)
    assert not [line for line in read.warnings if "root on" in str(line)]
    (template,) = config.policy(read, wall_now=0.0).templates
    spec = rehearsal.order(template, "services", owner="o", style="entry-point", now=0.0)
    assert f"/var/lib/docker/volumes/{spec.name}-work/_data" == spec.work_dir
    more = "swarm: {user: '0'}, remote_fs: '/data/volumes/w-{name}/_data'"
    read = settings(tmp_path, f"mode: socket, {ROOT}", backend="services", more=more)
    (template,) = config.policy(read, wall_now=0.0).templates
    spec = rehearsal.order(template, "services", owner="o", style="entry-point", now=0.0)
    assert f"/data/volumes/w-{spec.name}/_data" == spec.work_dir


def test_an_engine_beside_the_agent_leaves_its_working_directory_where_it_is(tmp_path):
    """Both see it, and no host has to."""
    spec = order(tmp_path, f"mode: dind, {ROOT}, engine_image: 'mirror/docker:dind'")
    assert (None, "mirror/docker:dind") == (spec.work_dir, spec.pipelines.image)


def test_an_engine_beside_the_agent_has_limits_of_its_own(tmp_path):
    spec = order(tmp_path, f"mode: dind, {ROOT}, engine_memory: 4Gi, engine_cpu_limit: 2.5")
    assert (4 << 30, 2.5) == (spec.pipelines.memory_bytes, spec.pipelines.cpu_limit)


@each("mode", pipelines.MODES)
def test_nobody_has_it_who_does_not_say_what_it_costs(tmp_path, mode):
    """In the words of that very mode; those of a cheaper one do not count."""
    way = pipelines.WAYS[mode]
    said = refused(tmp_path, f"mode: {mode}")
    assert f"docker_pipelines.acknowledge: missing: {way.cost}" in said
    assert f"acknowledge: {way.acknowledged}, in a template of its own" in said
    other = ROOT if way.acknowledged in BESIDE else BESIDE
    assert f"found '{other.partition(': ')[2]}'" in refused(tmp_path, f"mode: {mode}, {other}")


@pytest.mark.parametrize(
    ("said", "told", "words"),
    [
        (f"mode: socket, {ROOT}", {"backend": "here"}, "of kind process, does not honour socket"),
        (
            f"mode: socket, {ROOT}",
            {"backend": "services"},
            "root alone; hint: user: '0'",
        ),
        (
            f"mode: socket, {ROOT}",
            {"backend": "services, docker", "more": "swarm: {user: '0'}"},
            "works in a volume of its node",
        ),
        (
            f"mode: socket, {ROOT}",
            {"backend": "services", "more": "swarm: {user: '0'}, remote_fs: '/srv/{name}'"},
            "hint: leave remote_fs out for /var/lib/docker/volumes/{name}-work/_data",
        ),
        (
            f"mode: socket, {ROOT}",
            {
                "backend": "services",
                "more": "swarm: {user: '0', volumes: [{name: work, target: /var/lib/docker}]}",
            },
            "swarm.volumes[0].target: with docker_pipelines the engine mounts",
        ),
        (
            f"mode: dind, {ROOT}",
            {"backend": "services"},
            "a service of a swarm cannot be privileged",
        ),
        (f"mode: socket, {ROOT}", {"backend": "tasks"}, "Mesos removes no folder"),
        (f"mode: dind, {ROOT}", {"backend": "tasks"}, "a task in a container of Docker is alone"),
        (
            f"mode: socket, {ROOT}",
            {"backend": "pods"},
            "which group may use the socket of the nodes",
        ),
        (f"mode: socket, {ROOT}", {"more": "remote_fs: /ci"}, "remote_fs: with docker_pipelines"),
        (
            f"mode: socket, {ROOT}, engine_image: x",
            {},
            "engine_image: mode socket starts no engine",
        ),
        (
            f"mode: socket, {ROOT}, engine_memory: 1Gi",
            {},
            "engine_memory: mode socket starts no engine",
        ),
        (
            f"mode: socket, {ROOT}, engine_cpu_limit: 2",
            {},
            "engine_cpu_limit: mode socket starts no engine",
        ),
        (f"mode: dind, {ROOT}, engine_memory: 1", {}, "engine_memory: found"),
        (f"mode: socket, {ROOT}", {"backend": "far"}, "which group may use the socket of ssh://"),
        (f"mode: socket, {ROOT}", {"more": "docker: {user: image}"}, "hint: user: a number"),
        (f"mode: dind, {ROOT}", {"more": "docker: {user: image}"}, "hint: its user by number"),
        (f"mode: dind-rootless, {BESIDE}", {"more": "docker: {user: '7'}"}, "that of user 1000"),
        (f"mode: host, {ROOT}", {}, "found 'host'; allowed: socket, dind, dind-rootless"),
        (
            f"mode: socket, {ROOT}",
            {
                "more": "docker: {volumes: [{name: '/x/{name}', target: '/srv/agent-broker/{name}'}]}"
            },
            "the engine mounts what lies at the same path on its host",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_read(tmp_path, said, told, words):
    """Never silently, and never by the first build."""
    assert words in refused(tmp_path, said, **told)


def test_what_is_acknowledged_is_not_warned_of(tmp_path):
    """Once is enough."""
    read = settings(tmp_path, f"mode: socket, {ROOT}")
    assert not [line for line in read.warnings if "root on" in str(line)]
