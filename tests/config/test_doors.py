"""Doors left open and secrets in the clear are said; what nobody limits has a limit."""

import pytest

from backends import registry
from broker import config
from broker.config import kinds, loading, samples
from tests.each import each

KINDS = kinds.classes()
QUIET = """\
owner: o
controller: {url: "https://c/", user: u, token: "env:T"}
listen: 127.0.0.1:8087
backends: {b: {kind: memory}}
templates: {t: {labels: l}}
"""
PLATFORMS = {
    "docker": "kind: docker",
    "kubernetes": "kind: kubernetes, namespace: n, server: 'https://k'",
    "mesos": "kind: mesos, master: 'https://m', handover: {listen: ':1', url: 'https://b'}",
}


def warnings(text, tmp_path=None, **environ):
    made = loading.parse(
        text,
        KINDS,
        environ={"T": "11secret", **environ},
        **({"base": tmp_path} if tmp_path else {}),
    )
    return [warning.words() for warning in made.warnings]


def test_what_is_closed_is_quiet():
    """A warning that is always there is read by nobody."""
    assert warnings(QUIET) == []


@each(
    ("old", "new", "where"),
    [
        ("https://c/", "http://c/", "controller.url: not https: the token travels"),
        ("url:", "verify: false, url:", "controller.verify: false"),
        ("127.0.0.1:8087", "0.0.0.0:8087", "listen: whoever reaches"),
        ("127.0.0.1:8087", '"[::]:8087"', "listen: whoever reaches"),
        ("127.0.0.1:8087", "jenkins.example:8087", "listen: whoever reaches"),
        ("url:", 'proxy: "env:P", url:', "controller.proxy: not https: the proxy's password"),
        (
            "labels: l",
            "labels: l, connect: {mode: websocket}",
            None,
        ),
        (
            "{labels: l}",
            "{labels: l, connect: {mode: websocket}}",
            None,
        ),
    ],
)
def test_a_door_that_is_open_is_said(old, new, where):
    """With the setting, and what to do instead."""
    found = warnings(QUIET.replace(old, new, 1), P="http://u:p4ssword@proxy:1")
    assert [w.startswith(where) for w in found] == [True] if where else not found
    assert "p4ssword" not in str(found)


def test_websocket_without_tls_shows_everything_on_the_way():
    """Other transports have an encryption of their own."""
    text = QUIET.replace("labels: l", "labels: l, connect: {mode: websocket}").replace(
        "url:", 'agent_url: "http://c/", url:'
    )
    (found,) = warnings(text)
    assert found.startswith("templates.t.connect.mode: not https: the agents' secrets")
    assert warnings(text.replace("mode: websocket", "mode: tcp")) == []


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "127.9.9.9:1", '"[::1]:8087"', "localhost:1", '"off"']
)
def test_loopback_is_no_open_door(listen):
    """However it is written."""
    assert warnings(QUIET.replace("127.0.0.1:8087", listen)) == []


def test_a_secret_that_others_may_read_is_said(tmp_path):
    """The controller's, and every file with a secret that a backend names, however deep."""
    for name in ("token", "password", "key", "bearer"):
        (tmp_path / name).write_text("11secret")
        (tmp_path / name).chmod(0o604)
    text = f"""\
owner: o
controller: {{url: "https://c/", user: u, token: "file:token"}}
listen: "off"
backends:
  d:
    kind: docker
    hosts: [{{url: "https://e:2376", tls: true, cert_file: /c, key_file: {tmp_path}/key}}]
    registries: {{r.example: {{user: u, password_file: {tmp_path}/password}}}}
  k: {{kind: kubernetes, namespace: n, server: "https://k", token_file: {tmp_path}/bearer}}
templates: {{t: {{labels: l, image: i}}}}
"""
    words = "every user of this machine may read that file"
    found = {w.split(": ")[0] for w in warnings(text, tmp_path) if words in w}
    assert found == {
        "controller.token",
        "backends.d.hosts[0].key_file",
        "backends.d.registries.r.example.password_file",
        "backends.k.token_file",
    }
    for name in ("token", "password", "key", "bearer"):
        (tmp_path / name).chmod(0o640)
    assert not [w for w in warnings(text, tmp_path) if words in w]


@pytest.mark.parametrize(
    "told",
    [
        "docker_socket: true",
        "volumes: [{name: /run/user/1/docker.sock, target: /var/run/docker.sock}]",
        'docker: {HostConfig: {Binds: ["/var/run/docker.sock:/s"]}}',
        "docker: {HostConfig: {Privileged: true}}",
    ],
)
def test_an_engine_in_a_builds_hands_is_said(told):
    """Whichever way it gets there."""
    text = QUIET.replace("kind: memory", "kind: docker")
    found = warnings(text.replace("labels: l", f"labels: l, image: i, docker: {{{told}}}"))
    assert len([w for w in found if "root on the engine's host" in w]) == 1


POD = "pod: {{spec: {{{}}}}}"
ONE = "containers: [{{name: side, image: i, securityContext: {{{}}}}}]"


@pytest.mark.parametrize(
    ("kind", "told", "where", "what"),
    [
        ("docker", "volumes: [{name: /, target: /h}]", "volumes[0]", "root on"),
        ("docker", "volumes: [{name: /run/, target: /h}]", "volumes[0]", "root on"),
        ("docker", "volumes: [{name: /etc, target: /h}]", "volumes[0]", "reaches /etc"),
        ("docker", "volumes: [{name: /var/lib/docker/x, target: /h}]", "volumes[0]", "reaches"),
        ("docker", 'docker: {HostConfig: {Binds: ["/:/h"]}}', "docker.HostConfig.Binds", "root"),
        ("docker", "docker: {HostConfig: {PidMode: host}}", "docker.HostConfig.PidMode", "sees"),
        ("docker", "network: host", "network", "sees the network"),
        ("docker", "cap_add: [CAP_SYS_ADMIN]", "cap_add", "root on"),
        ("docker", "docker: {HostConfig: {CapAdd: [ALL]}}", "docker.HostConfig.CapAdd", "root on"),
        ("docker", "devices: [/dev/sda]", "devices", "devices of"),
        (
            "docker",
            'docker: {HostConfig: {SecurityOpt: ["seccomp=unconfined"]}}',
            "docker.HostConfig.SecurityOpt",
            "confinement",
        ),
        ("docker", "no_new_privileges: false", "no_new_privileges", "become root"),
        ("docker", "cap_drop: []", "cap_drop", "keeps"),
        ("kubernetes", "restricted: false", "restricted", "become root"),
        ("kubernetes", POD.format("hostNetwork: true"), "pod", "hostNetwork"),
        ("kubernetes", POD.format("hostPID: true"), "pod", "hostPID"),
        ("kubernetes", POD.format("automountServiceAccountToken: true"), "pod", "service account"),
        (
            "kubernetes",
            POD.format("volumes: [{name: v, hostPath: {path: /srv}}]"),
            "pod",
            "reaches /srv",
        ),
        (
            "kubernetes",
            POD.format("volumes: [{name: v, hostPath: {path: /}}]"),
            "pod",
            "root on its node",
        ),
        (
            "kubernetes",
            POD.format(
                "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]"
            ),
            "pod",
            "has that token",
        ),
        ("kubernetes", POD.format(ONE.format("privileged: true")), "pod", "root on its node"),
        (
            "kubernetes",
            POD.format(ONE.format("capabilities: {add: [SYS_PTRACE]}")),
            "pod",
            "root on its node",
        ),
        (
            "kubernetes",
            POD.format(ONE.format("allowPrivilegeEscalation: true")),
            "pod",
            "become root",
        ),
        ("mesos", "privileged: true", "privileged", "root on the agent's host"),
        (
            "mesos",
            "volumes: [{host_path: /, container_path: /h}]",
            "volumes[0]",
            "root on the agent's host",
        ),
    ],
)
def test_what_a_template_opens_is_said(kind, told, where, what):
    """Each setting by its name, once; without it there is nothing to say."""
    text = QUIET.replace("kind: memory", PLATFORMS[kind])
    assert warnings(text.replace("labels: l", "labels: l, image: i")) == []
    (found,) = warnings(text.replace("labels: l", f"labels: l, image: i, {kind}: {{{told}}}"))
    assert found.startswith(f"templates.t.{kind}.{where}")
    assert what in found


def test_what_a_fragment_opens_is_said_of_the_template_that_takes_it_up():
    """The backend's `pods` are nobody's before that."""
    pods = ", pods: {p: {spec: {hostPID: true}}}"
    text = QUIET.replace("kind: memory", PLATFORMS["kubernetes"] + pods)
    assert warnings(text.replace("labels: l", "labels: l, image: i")) == []
    more = "labels: l, image: i, kubernetes: {inherits: [p]}"
    (found,) = warnings(text.replace("labels: l", more))
    assert "hostPID" in found


# --- caps ---


def limits(kind, more=""):
    made = loading.parse(
        QUIET.replace("{kind: memory}", f"{{kind: {kind}{more}}}").replace(
            "labels: l", "labels: l" if kind == "process" else "labels: l, image: i"
        ),
        KINDS,
        environ={"T": "x"},
    )
    return config.policy(made, wall_now=0.0).backends["b"].cap


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_has_a_cap_by_default(kind, monkeypatch):
    """50, on the broker's own machine 20 and no more than its processors bear."""
    door = "{listen: ':1', url: 'https://b'}"
    more = {
        "kubernetes": ", namespace: n, server: 'https://k'",
        "mesos": f", master: 'https://m', handover: {door}",
    }
    told = more.get(kind, "")
    cap = limits(kind, told)
    assert cap == registry.default_cap(kind)
    assert cap <= (20 if kind == "process" else 50)
    assert limits(kind, f"{told}, cap: 70") == 70
    assert limits(kind, f"{told}, cap: unlimited") is None


def test_processes_are_bounded_by_the_processors(monkeypatch):
    """Four for each, and twenty at most."""
    for processors, cap in ((1, 4), (2, 8), (5, 20), (64, 20)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=processors: set(range(n)))
        assert registry.default_cap("process") == cap


@pytest.mark.parametrize("told", ["-1", "many", "1.5", "true", "Unlimited"])
def test_a_cap_is_a_number_or_a_word(told):
    """Nothing else, and said so."""
    with pytest.raises(config.ConfigError, match="cap: found"):
        limits("memory", f", cap: {told}")


def test_the_sample_says_that_there_is_a_cap():
    """Whoever begins reads it there."""
    assert (
        "cap: 10                         # agents on it; default: 20, at most 4 a processor"
        in samples.sample("process")
    )


@pytest.mark.parametrize(("uid", "said"), [(0, 1), (1000, 0)])
def test_builds_of_root_are_said(uid, said, monkeypatch):
    """Processes run as whoever the broker is."""
    monkeypatch.setattr("os.geteuid", lambda: uid)
    found = warnings(QUIET.replace("kind: memory", "kind: process"))
    assert len([w for w in found if "that is root here" in w]) == said == len(found)
