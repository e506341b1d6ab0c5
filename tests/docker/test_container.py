"""What the engine is sent: whole bodies against golden files, and the archive with the secret."""

import io
import json
import pathlib
import posixpath
import tarfile

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.kit import names

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/docker"
SECRET = "0123456789abcdef" * 4

PLAIN = api.InstanceSpec(
    name="ours-maven-1",
    metadata={names.OWNER: "ours", names.TEMPLATE: "maven", "odd": "Ünï/\n"},
    use_entry_point=True,
    image="jenkins/inbound-agent:3261",
    env={"JENKINS_SECRET": f"@{api.SECRETS}/agent-secret", "JENKINS_URL": "http://c/"},
    secret_files={"agent-secret": SECRET},
)
FULL = settings.DockerTemplate(
    pull="always",
    platform="linux/arm64",
    user="1001:1002",
    groups=("999",),
    memory_swap_bytes=3 << 30,
    pids=512,
    ulimits={"nofile": 1024, "nproc": 100},
    shm_bytes=1 << 30,
    network="builds",
    networks=("services",),
    aliases=("agent",),
    dns=("192.0.2.53",),
    dns_search=("example",),
    extra_hosts=("controller:host-gateway",),
    ports=("8080", "18081:8081", "53/udp"),
    volumes=(
        settings.Volume(name="m2", target="/home/jenkins/.m2", writable_by_user=True),
        settings.Volume(name="/srv/tools", target="/tools", read_only=True),
        settings.Volume(target="/scratch", tmpfs_bytes=1 << 20),
        settings.Volume(name="nfs", target="/nfs", driver="local", driver_options={"type": "nfs"}),
        settings.Volume(target="/anonymous"),
    ),
    docker_socket=True,
    devices=("/dev/kvm", "/dev/a:/dev/b:r"),
    cap_drop=("NET_RAW",),
    cap_add=("SYS_PTRACE",),
    entry_point=("/bin/tini", "--"),
    labels={"team": "build", "agent-broker.owner": "forged"},
    docker={
        "Labels": {"raw": "yes", "agent-broker.name": "forged"},
        "HostConfig": {"Runtime": "runsc", "PidsLimit": 99},
        "StopSignal": "SIGINT",
    },
)
CASES = {
    "entry-point": PLAIN,
    "command": api.InstanceSpec(
        name="a", metadata={}, image="busybox",
        argv=("sh", "-c", f"cat {api.SECRETS}/x; cd {api.WORK}"),
        resources=api.Resources(
            memory_bytes=2 << 30, memory_reservation_bytes=1 << 30, cpu_limit=1.5, cpu_shares=0.5
        ),
    ),
    "everything": api.InstanceSpec(
        name="b", metadata={}, image="x", argv=("run",), options=FULL
    ),
}  # fmt: skip


def put_in(spec: api.InstanceSpec, **files: bytes) -> dict[str, tarfile.TarInfo]:
    plan = container.plan(spec, owner="ours")
    found = {}
    for at, content in container.archives(plan, files, secrets=True, folders=True):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found |= {posixpath.normpath(f"{at}/{one.name}").strip("/"): one for one in tar}
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_body_is_the_golden_one(case):
    """Nothing that is sent changes unseen. To renew: delete the file, run, look at the change."""
    plan = container.plan(CASES[case], owner="ours")
    file = GOLDEN / f"{case}.json"
    text = json.dumps(plan.body, indent=1, sort_keys=True) + "\n"
    if not file.exists():
        file.write_text(text)
        pytest.fail(f"{file} was written; look at it")
    assert json.loads(file.read_text()) == json.loads(text)


@pytest.mark.parametrize("case", CASES)
def test_what_is_shown_is_what_is_sent(case):
    """`agent-broker render` shows the body of the launch, and no secret."""
    shown = container.render(CASES[case], settings.DockerSettings(), owner="ours")
    assert container.plan(CASES[case], owner="ours").body == json.loads(shown)
    assert SECRET not in shown


@pytest.mark.parametrize("case", CASES)
def test_files_of_ours_are_beside_those_that_are_fetched(case):
    """Everybody in the container may read them; ``${files}`` stands for their folder."""
    spec = attrs.evolve(CASES[case], given_files={"ca": b"c"}, env={"A": f"{api.FILES}/ca"})
    plan = container.plan(spec, owner="ours")
    path = next(one for one in plan.body["Env"] if one.startswith("A=")).removeprefix("A=")
    modes = {}
    for at, content in container.archives(plan, {"jar": b"j"}, secrets=False, folders=False):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            modes |= {posixpath.join(at, one.name): one.mode for one in tar.getmembers()}
    assert modes[path] == modes[path.replace("/ca", "/jar")] == 0o444
    assert list(container.archives(plan, {}, secrets=False, folders=False))


@pytest.mark.parametrize("case", CASES)
def test_the_secret_is_in_the_archive_only(case):
    """Not in the body, not in any representation."""
    spec = attrs.evolve(CASES[case], secret_files={"agent-secret": SECRET})
    plan = container.plan(spec, owner="ours")
    assert SECRET not in json.dumps(plan.body)
    assert SECRET not in repr((plan, spec))
    with_it = dict(container.archives(plan, {}, secrets=True, folders=False))
    without = dict(container.archives(plan, {"x": b""}, secrets=False, folders=True))
    assert SECRET.encode() in b"".join(with_it.values())
    assert SECRET.encode() not in b"".join(without.values())


def test_the_secret_does_not_change_the_digest_but_all_else_does():
    """A new secret is the same container; another environment is another."""

    def digest(**changes: object) -> str:
        body = container.plan(attrs.evolve(PLAIN, **changes), owner="ours").body
        return body["Labels"][container.DIGEST]

    assert digest() == digest(secret_files={"agent-secret": "other"})
    others = [
        digest(env={}), digest(image="y"), digest(metadata={}), digest(argv=("x",)),
        digest(resources=api.Resources(memory_bytes=1)), digest(options=FULL),
    ]  # fmt: skip
    assert 7 == len({digest(), *others})


def test_only_the_agents_user_may_read_the_secret():
    """Where its number is known; an image's own user is known to the image only."""
    file = "agent-broker/secrets/agent-secret"
    told = put_in(PLAIN)[file]
    assert (1000, 1000, 0o400) == (told.uid, told.gid, told.mode)
    options = settings.DockerTemplate(user=None)
    told = put_in(attrs.evolve(PLAIN, options=options))[file]
    assert (0, 0o444) == (told.uid, told.mode)


def test_the_work_directory_belongs_to_the_user_in_any_image():
    """And what the template wants writable, with its parents; not what is mounted otherwise."""
    cache = settings.Volume(
        name="jars", target=f"{container.WORK}/remoting/jarCache", writable_by_user=True
    )
    other = settings.Volume(name="/srv/x", target=f"{container.WORK}/x")
    options = settings.DockerTemplate(volumes=(cache, other))
    found = put_in(attrs.evolve(PLAIN, options=options))
    folders = {name for name, told in found.items() if told.isdir() and told.uid == 1000}
    wanted = ["home/jenkins", "home/jenkins/agent", "home/jenkins/agent/remoting",
              "home/jenkins/agent/remoting/jarCache"]  # fmt: skip
    assert set(wanted) == {name for name in folders if name.startswith("home")}
    whole = settings.DockerTemplate(volumes=(settings.Volume(name="/srv", target=container.WORK),))
    found = put_in(attrs.evolve(PLAIN, options=whole))
    assert "home/jenkins/agent" not in found


def test_a_read_only_image_gets_its_files_by_a_volume():
    """The engine puts nothing into a read-only root file system."""
    options = settings.DockerTemplate(docker={"HostConfig": {"ReadonlyRootfs": True}})
    spec = attrs.evolve(PLAIN, options=options)
    plan = container.plan(spec, owner="ours")
    assert {"Type": "volume", "Target": container.ROOT} in plan.body["HostConfig"]["Mounts"]
    places = ["", "/secrets", "/files", "/secrets/agent-secret"]
    assert {f"agent-broker{place}" for place in places} == set(put_in(spec))


def test_a_read_only_root_has_places_for_java_and_for_the_work():
    """Unless the template has some itself: at the place or above it."""

    def made(**told):
        options = settings.DockerTemplate(read_only_root=True, **told)
        spec = attrs.evolve(PLAIN, options=options, secret_files={})
        host = container.plan(spec, owner="ours").body["HostConfig"]
        mounts = {one["Target"]: one["Type"] for one in host["Mounts"]}
        return host, mounts, put_in(spec)

    host, mounts, given = made()
    assert host["ReadonlyRootfs"] is True
    assert host["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}
    assert mounts == {container.WORK: "volume", container.ROOT: "volume"}
    assert {name: (one.uid, one.gid, one.mode) for name, one in given.items()} == {
        container.WORK.lstrip("/"): (1000, 1000, 0o755)
    }
    home = settings.Volume(target="/home", tmpfs_bytes=1 << 20)
    scratch = settings.Volume(target="/tmp", name="scratch", writable_by_user=True)
    host, mounts, given = made(volumes=(home, scratch))
    assert "Tmpfs" not in host
    assert mounts == {"/home": "tmpfs", "/tmp": "volume", container.ROOT: "volume"}
    assert set(given) == {"tmp"}


def test_a_read_only_root_leaves_the_work_where_the_template_has_it():
    """A working directory of its own is a volume, too."""
    options = settings.DockerTemplate(read_only_root=True)
    spec = attrs.evolve(PLAIN, options=options, work_dir="/work", secret_files={})
    mounts = container.plan(spec, owner="ours").body["HostConfig"]["Mounts"]
    assert [one["Target"] for one in mounts] == ["/work", container.ROOT]
    assert set(put_in(spec)) == {"work"}


def test_what_confines_a_container_stands_beside_what_is_ours():
    """In the engine's own words."""
    told = ("apparmor=ci", "label=type:ci_t", 'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}')
    options = settings.DockerTemplate(security_opt=told)
    host = container.plan(attrs.evolve(PLAIN, options=options), owner="ours").body["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges", *told]


def test_labels_bring_metadata_and_owner_back():
    """Whatever the user's own labels say."""
    for spec in CASES.values():
        labels = container.plan(spec, owner="ours").body["Labels"]
        assert spec.name == container.name_of(labels, (), prefix="")
        assert dict(spec.metadata) == container.read_metadata(labels)
        assert container.owner_labels("ours").items() <= labels.items()


@pytest.mark.parametrize(
    "changes",
    [{"image": None}, {"name": "a/b"}, {"options": object()}, {"secret_files": {"../x": "y"}},
     {"metadata": {"Bad Key": "x"}}],
)  # fmt: skip
def test_what_no_container_can_be_is_rejected(changes):
    """Before anything is sent."""
    with pytest.raises(api.Rejected):
        container.plan(attrs.evolve(PLAIN, **changes), owner="ours")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"user": "a b"}, "user: found"),
        ({"ports": ("http",)}, "ports: found"),
        ({"pids": 1}, "pids: found 1; allowed: 16 to"),
        ({"cap_add": ("NET ADMIN",)}, "cap_add: found"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(told, words):
    """When the configuration is read, not at the first launch."""
    with pytest.raises(ValueError, match=words):
        settings.DockerTemplate(**told)


def test_hosts_and_volumes_are_checked_against_themselves():
    """Pairs that make no sense."""
    for make in (
        lambda: settings.Host(url="localhost:2375"),
        lambda: settings.Host(url="tcp://h:2376", cert_file="/c"),
        lambda: settings.Host(url="unix:///s", tls=True),
        lambda: settings.Volume(target="relative"),
        lambda: settings.Volume(target="/x", name="n", tmpfs_bytes=4096),
        lambda: settings.Volume(target="/x", name="/n", driver="d"),
        lambda: settings.Registry(user="u"),
        lambda: settings.Registry(user="u", password_env="A", password_file="/b"),
    ):
        with pytest.raises(ValueError, match=": "):
            make()


@pytest.mark.parametrize(
    ("source", "hands_on"),
    [
        ("/var/run/docker.sock", True),
        ("/srv/podman.sock", True),
        ("/var/run", True),  # a link to /run
        ("/var/run/", True),
        ("/var/run/podman", True),
        ("/run/containerd", True),
        ("/run/user", True),
        ("/run/user/1000", True),
        ("/var/run/user/1000/podman", True),
        ("/run", True),
        ("//run/../run/.", True),
        ("/var", True),
        ("/", True),
        ("/run/lock", False),
        ("/running", False),
        ("/var/runner", False),
        ("/run/user/1000/bus", False),
        ("/srv", False),
        ("run", False),  # the name of a volume
    ],
)
def test_whoever_has_the_engine_gets_no_secret_by_a_folder_of_the_host(source, hands_on):
    """The socket itself, whatever lies above it, and the link that every Linux has there."""
    for told in (
        {"volumes": (settings.Volume(name=source, target="/h"),)},
        {"docker": {"HostConfig": {"Binds": [f"{source}:/h"]}}},
    ):
        options = settings.DockerTemplate(**told)
        spec = api.InstanceSpec(name="b", metadata={}, image="x", argv=("run",), options=options)
        assert hands_on == container.plan(spec, owner="ours").hands_on


def test_ports_are_sent_with_their_addresses_and_ranges():
    """One container port may be bound more than once."""
    ports = ("127.0.0.1::80", "8000-8010:80", "[::1]:53:53/udp", "9000-9001")
    options = settings.DockerTemplate(ports=ports)
    body = container.plan(attrs.evolve(PLAIN, options=options), owner="ours").body
    assert {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}, {"HostPort": "8000-8010"}],
        "53/udp": [{"HostIp": "::1", "HostPort": "53"}],
        "9000/tcp": [{"HostPort": ""}],
        "9001/tcp": [{"HostPort": ""}],
    } == body["HostConfig"]["PortBindings"]
    assert set(body["ExposedPorts"]) == set(body["HostConfig"]["PortBindings"])
