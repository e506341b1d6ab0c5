"""From a specification to a task: the script is run by a real shell, the TaskInfo is looked at."""

import base64
import json
import os
import subprocess

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import api
from backends.kit import runtime
from backends.mesos import backend, offers, settings, tasks
from outside import text
from tests import patience
from tests.each import each

SECRET = "s3cret-word"
TOLD = settings.MesosSettings(master="http://m:5050", user="nobody")


def spec(**more) -> api.InstanceSpec:
    options = more.pop("options", settings.MesosTemplate())
    made = api.InstanceSpec(
        name="a1", metadata={"owner": "Ünit", "empty": ""}, argv=("java",), options=options
    )
    return attrs.evolve(made, **more)


def run(
    told: api.InstanceSpec, folder, secrets: str = "environment", **more: str
) -> subprocess.CompletedProcess:
    sandbox, root = folder / "sandbox", folder / "root"
    sandbox.mkdir()
    text = tasks.script(told, work_root=str(root), secrets=secrets)
    env = {"PATH": os.environ["PATH"], "MESOS_SANDBOX": str(sandbox), **more}
    return subprocess.run(
        ["/bin/sh", "-c", text], env=env, cwd=folder, timeout=patience.seconds(20), check=False
    )


def test_the_script_becomes_the_agent(tmp_path):
    """Words byte for byte, places that exist, the secret in a private file and nowhere else."""
    odd = ("two words", "", "$HOME `x` \\", "'\"", "ä\nö", f"x{api.WORK}y")
    show = 'printf "<%s>" "$@" "$PLACE"; cat "$1/agent-secret"; ls -l "$1/agent-secret" | cut -c1-10; env | grep -c s3cret'
    told = spec(
        argv=("sh", "-c", show, "agent", api.SECRETS, *odd),
        env={"PLACE": api.FILES},
        secret_files={"agent-secret": SECRET},
    )
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "dead").symlink_to(tmp_path / "gone")
    done = run(told, tmp_path, AGENT_BROKER_SECRET_0=SECRET)
    sandbox = tmp_path / "sandbox"
    said = (sandbox / "agent.log").read_text()
    work = f"{tmp_path}/root/a1"
    expected = [f"{sandbox}/secrets", *odd[:-1], f"x{work}y", f"{sandbox}/files"]
    assert "".join(f"<{word}>" for word in expected) + f"{SECRET}-rw-------\n0\n" == said
    assert 1 == done.returncode, "grep found the secret nowhere in the environment"
    assert os.path.realpath(work) == str(sandbox / "work")
    assert not (tmp_path / "root" / "dead").is_symlink()


def test_the_exit_status_is_the_agents(tmp_path):
    """The shell is replaced, so signals and status are the agent's own."""
    assert 7 == run(spec(argv=("sh", "-c", "exit 7")), tmp_path).returncode


DOOR = settings.Handover(listen="127.0.0.1:0", url="http://127.0.0.1:0")
WITH_DOOR = attrs.evolve(TOLD, handover=DOOR)


@pytest.mark.parametrize("secrets", [None, "fetch"])
@pytest.mark.parametrize("containerizer", ["mesos", "docker"])
def test_a_secret_is_in_nothing_that_a_master_is_told(secrets, containerizer):
    """The default way: no command line, no variable, no label, no volume holds it."""
    options = settings.MesosTemplate(secrets=secrets, containerizer=containerizer)
    told = spec(secret_files={"agent-secret": SECRET}, options=options, image="i")
    url = "http://door/handover/x"
    info = tasks.info(told, configured=WITH_DOOR, created_at=1.5, handed={"agent-secret": url})
    (uri,) = info["command"]["uris"]
    assert (url, "secrets/agent-secret", False) == (uri["value"], uri["output_file"], uri["cache"])
    assert "environment" not in info["command"]
    shown = json.dumps(info)
    assert SECRET not in shown
    assert base64.b64encode(SECRET.encode()).decode() not in shown


@pytest.mark.parametrize("secrets", [None, "fetch"])
def test_no_way_is_chosen_for_anybody(secrets):
    """What others see has to be asked for."""
    told = spec(
        secret_files={"agent-secret": SECRET}, options=settings.MesosTemplate(secrets=secrets)
    )
    with pytest.raises(api.Rejected, match=r"no way for the agent's secret.*hint: `handover`"):
        tasks.info(told, configured=TOLD, created_at=1.5)
    tasks.info(attrs.evolve(told, secret_files={}), configured=TOLD, created_at=1.5)


def test_a_secret_in_a_volume_is_in_its_volume_only():
    """Accepted by the template; a process of the host all the same."""
    options = settings.MesosTemplate(secrets="volume")
    told = spec(secret_files={"agent-secret": SECRET}, options=options)
    info = tasks.info(told, configured=TOLD, created_at=1.5)
    assert "environment" not in info["command"]
    (volume,) = info["container"].pop("volumes")
    assert {"type": "MESOS"} == info["container"]
    assert "secrets/agent-secret" == volume["container_path"]
    data = volume["source"]["secret"]["value"]["data"]
    assert SECRET == base64.b64decode(data).decode()
    assert data not in json.dumps(info)


def test_a_fetched_secret_has_no_name_while_the_agent_runs(tmp_path):
    """Mesos agents show sandboxes to whoever asks: the file is open in the task, and gone."""
    show = 'cat "$1"/s0 "$1"/s1 "$1"/s1; find "$2"/secrets -type f | wc -l'
    told = spec(
        argv=("sh", "-c", show, "agent", api.SECRETS, str(tmp_path / "sandbox")),
        secret_files={f"s{number}": SECRET for number in range(9)},
    )
    sandbox = tmp_path / "sandbox"
    (sandbox / "secrets").mkdir(parents=True)
    for number in range(9):
        (sandbox / "secrets" / f"s{number}").write_text(f"{SECRET}{number}")
    text = tasks.script(told, work_root=str(tmp_path / "root"), secrets="fetch")
    env = {"PATH": os.environ["PATH"], "MESOS_SANDBOX": str(sandbox)}
    subprocess.run(["/bin/sh", "-c", text], env=env, timeout=20, check=True)
    said = (sandbox / "agent.log").read_text()
    assert f"{SECRET}0{SECRET}1{SECRET}1" == said.partition("\n")[0][: 3 * len(SECRET) + 3]
    assert said.endswith("2\n"), "a shell has nine such numbers; the rest are private files"
    assert 0o600 == (sandbox / "secrets" / "s8").stat().st_mode & 0o777


def test_a_secret_in_the_environment_is_in_its_variable_only():
    """Accepted by the template; still not in the script, the labels, the name."""
    options = settings.MesosTemplate(secrets="environment")
    told = spec(secret_files={"agent-secret": SECRET}, options=options)
    info = tasks.info(told, configured=TOLD, created_at=1.5)
    (variable,) = info["command"]["environment"]["variables"]
    assert ("VALUE", SECRET) == (variable["type"], variable["value"])
    del info["command"]["environment"]
    assert SECRET not in json.dumps(info)
    assert base64.b64encode(SECRET.encode()).decode() not in json.dumps(info)


@pytest.mark.parametrize("way", ["fetch", "volume"])
@pytest.mark.parametrize("found", [None, "", "s3cret-word"])
def test_a_secret_that_is_not_there_is_said(tmp_path, found, way):
    """An agent without the isolator may ignore the volume: no file, or an empty one."""
    told = spec(
        argv=("sh", "-c", 'cat "$1/agent-secret"', "agent", api.SECRETS),
        secret_files={"agent-secret": SECRET},
    )
    sandbox = tmp_path / "sandbox"
    (sandbox / "secrets").mkdir(parents=True)
    if found is not None:
        (sandbox / "secrets" / "agent-secret").write_text(found)
    text = tasks.script(told, work_root=str(tmp_path / "root"), secrets=way)
    words = tasks.NOT_FETCHED if way == "fetch" else tasks.NOT_MOUNTED
    env = {"PATH": os.environ["PATH"], "MESOS_SANDBOX": str(sandbox)}
    done = subprocess.run(["/bin/sh", "-c", text], env=env, timeout=20, check=False)
    said = (sandbox / "agent.log").read_text()
    assert (0, found) == (done.returncode, said) if found else (126, f"{words}\n") == (
        done.returncode, said,
    )  # fmt: skip


@given(
    metadata=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True),
        st.text(max_size=100),
        max_size=5,
    )
)
def test_metadata_comes_back_from_the_labels(metadata):
    """Byte for byte, with the time and the digest beside it."""
    told = spec(metadata=metadata)
    labels = tasks.labels_of(tasks.info(told, configured=TOLD, created_at=1700000000.25))
    assert metadata == tasks.metadata(labels)
    assert (1700000000.25, tasks.digest(told)) == (
        tasks.created_at(labels),
        tasks.digest_of(labels),
    )


def test_the_raw_part_is_merged_last_but_cannot_rename_the_task():
    """Mappings by key, anything else replaced; our labels stay."""
    raw = {
        "task_id": {"value": "other"},
        "command": {"user": "raw"},
        "discovery": {"visibility": "CLUSTER"},
        "labels": {
            "labels": [
                {"key": "team", "value": "x"},
                {"key": "agent-broker/owner", "value": "thief"},
            ]
        },
    }
    info = tasks.info(
        spec(options=settings.MesosTemplate(raw=raw)), configured=TOLD, created_at=1.0
    )
    assert ("a1", "raw", {"visibility": "CLUSTER"}) == (
        info["task_id"]["value"],
        info["command"]["user"],
        info["discovery"],
    )
    labels = tasks.labels_of(info)
    assert "x" == labels["team"]
    assert "Ünit" == tasks.metadata(labels)["owner"]


def test_ports_are_those_of_the_offer():
    """Mapped in their order, and told in the environment."""
    network = settings.Network(mode="bridge", ports=(22, 8080))
    told = spec(image="i", options=settings.MesosTemplate(containerizer="docker", network=network))
    need = tasks.need(told)
    assert 2 == need.ports
    wanted = tasks.info(told, configured=TOLD, created_at=1.0)
    placement = offers.Placement(
        need=need,
        agent_id="S",
        hostname="rack-1",
        agent_url="",
        traits={"rack": "r1"},
        resources=(),
        ports=(31000, 31007),
    )
    info = tasks.placed(wanted, placement)
    assert [(22, 31000), (8080, 31007)] == [
        (m["container_port"], m["host_port"]) for m in info["container"]["docker"]["port_mappings"]
    ]
    labels = tasks.labels_of(info)
    assert [(22, 31000), (8080, 31007)] == [
        (one.port, one.host_port) for one in tasks.ports_of(labels)
    ]
    assert "owner" in tasks.metadata(labels)
    assert {"PORT0": "31000", "PORT1": "31007"} == {
        v["name"]: v["value"] for v in info["command"]["environment"]["variables"]
    }
    labels = tasks.labels_of(info)
    assert ({"rack": "r1"}, "rack-1") == (tasks.traits_of(labels), tasks.place_of(labels))
    assert tasks.metadata(tasks.labels_of(wanted)) == tasks.metadata(labels)


@each(
    ("changes", "words"),
    [
        ({"argv": ()}, "needs a command"),
        ({"env": {"a b": ""}}, "no name that a shell can set"),
        ({"options": settings.MesosTemplate(containerizer="docker")}, "needs an image"),
        ({"options": settings.MesosTemplate(network=settings.Network(mode="bridge"))}, "bridge networks belong to Docker"),
        ({"options": settings.MesosTemplate(volumes=(settings.Volume(container_path="/t", tmpfs_bytes=1),))}, "volumes in memory"),
        ({"image": "i", "secret_files": {"s": "x"}, "options": settings.MesosTemplate(containerizer="docker")}, "no way for the agent's secret"),
        ({"image": "i", "options": settings.MesosTemplate(containerizer="docker", secrets="volume")}, "secret volumes need"),
        ({"options": settings.MesosTemplate(gpus=1)}, "hint: `gpus: true` of the backend"),
        ({"options": 1}, "not MesosTemplate"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_rejected(changes, words):
    """With a hint, before anything is asked of the cluster."""
    with pytest.raises(api.Rejected, match=words):
        tasks.info(spec(**changes), configured=TOLD, created_at=1.0)


VOLUMES = (
    (settings.Volume(container_path="/h", host_path="/srv", read_only=True), {"container_path": "/h", "mode": "RO", "host_path": "/srv"}),
    (settings.Volume(container_path="/s", sandbox_path="cache"), {"container_path": "/s", "mode": "RW", "source": {"type": "SANDBOX_PATH", "sandbox_path": {"type": "SELF", "path": "cache"}}}),
    (
        settings.Volume(container_path="/e", driver="rexray", driver_name="home", driver_options={"size": "5", "volumetype": "io1"}),
        {"container_path": "/e", "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
            "driver": "rexray", "name": "home", "driver_options": {"parameter": [{"key": "size", "value": "5"}, {"key": "volumetype", "value": "io1"}]}}}},
    ),
)  # fmt: skip


@pytest.mark.parametrize("containerizer", ["mesos", "docker"])
def test_what_surrounds_a_task(containerizer):
    """Volumes of the host, of the sandbox and of a driver with its options; a network by name."""
    options = settings.MesosTemplate(
        containerizer=containerizer,
        network=settings.Network(mode="cni", name="calico", ports=(22,)),
        volumes=tuple(volume for volume, _ in VOLUMES),
        ulimits={"nofile": 4096, "core": 0},
        kill_grace_s=7.0,
        max_completion_time_s=3600.0,
        health_command="test -e alive",
        raw={"health_check": {"grace_period_seconds": 60.0}},
    )
    info = tasks.info(spec(image="i:1", options=options), configured=TOLD, created_at=1.0)
    container = info["container"]
    assert [told for _, told in VOLUMES] == container["volumes"]
    (network,) = container["network_infos"]
    mapping = [{"container_port": 22, "protocol": "tcp"}]
    if containerizer == "docker":
        assert ("USER", mapping) == (
            container["docker"]["network"],
            container["docker"]["port_mappings"],
        )
        assert {"name": "calico"} == network
        assert "i:1" == container["docker"]["image"]
        limits = [
            one["value"] for one in container["docker"]["parameters"] if one["key"] == "ulimit"
        ]
        assert ["nofile=4096", "core=0"] == limits
    else:
        assert {"name": "calico", "port_mappings": mapping} == network
        assert {"type": "DOCKER", "docker": {"name": "i:1"}} == container["mesos"]["image"]
        assert [
            {"type": "RLMT_NOFILE", "soft": 4096, "hard": 4096},
            {"type": "RLMT_CORE", "soft": 0, "hard": 0},
        ] == container["rlimit_info"]["rlimits"]
    assert {"grace_period": {"nanoseconds": 7_000_000_000}} == info["kill_policy"]
    assert {"nanoseconds": 3_600_000_000_000} == info["max_completion_time"]
    check = {"value": "test -e alive", "shell": True}
    assert {"type": "COMMAND", "command": check, "grace_period_seconds": 60.0} == info[
        "health_check"
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: settings.Volume(container_path="/x"), "needs one of host_path"),
        (lambda: settings.Volume(container_path="/x", host_path="/y", driver="d"), "needs one of host_path"),
        (lambda: settings.Volume(container_path="/x", driver="d"), "needs driver_name"),
        (lambda: settings.MesosTemplate(ulimits={"nofiles": 1}), "found 'nofiles'; allowed: as, "),
        (lambda: settings.MesosTemplate(ulimits={"nofile": -1}), "nofile: found -1"),
        (lambda: offers.Constraint(attribute="a", operator="LIKE", value="("), r"not a pattern"),
        (lambda: offers.Constraint(attribute="a", operator="LIKE"), "LIKE needs a value"),
        (lambda: offers.Constraint(attribute="a", operator="MAX_PER", value="few"), "MAX_PER needs a number"),
        (lambda: offers.Constraint(attribute="a", operator="UNIQUE", value="1"), "hint: MAX_PER"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing(make, words):
    """Told when the configuration is read, not when an offer comes."""
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("resources", "limits", "cpus", "mem"),
    [
        (api.Resources(), False, 1000, 1_024_000),
        (api.Resources(cpu_limit=2, memory_bytes=1), False, 2000, 1000),
        (api.Resources(cpu_limit=2, cpu_shares=0.5, memory_bytes=2 << 30, memory_reservation_bytes=1 << 30), False, 500, 2_048_000),
        (api.Resources(cpu_limit=2, cpu_shares=0.5, memory_bytes=2 << 30, memory_reservation_bytes=1 << 30), True, 500, 1_024_000),
    ],
)  # fmt: skip
def test_what_the_scheduler_is_asked_for(resources, limits, cpus, mem):
    """Shares before limits; the reservation only where the limit is told apart."""
    told = spec(resources=resources, options=settings.MesosTemplate(limits=limits))
    assert {"cpus": cpus, "mem": mem} == dict(tasks.need(told).scalars)
    info = tasks.info(told, configured=TOLD, created_at=1.0)
    assert ({"cpus": {"value": 2}, "mem": {"value": 2048}} if limits else None) == info.get(
        "limits"
    )


# --- a Java that is brought in ---

BROUGHT = settings.MesosSettings(
    master="http://m:5050",
    user="nobody",
    runtimes={"default": settings.RuntimeArchive(uri="https://files.example/agent-1.tar")},
)
JAVA = {"image": "golang:1.22", "argv": (runtime.JAVA, "-jar", runtime.JAR), "runtime": "default"}


def test_the_fetcher_unpacks_the_tree_and_a_mount_brings_it_to_its_place():
    """Kept for the next task; the task is started by the shell of the tree."""
    info = tasks.info(spec(**JAVA), configured=BROUGHT, created_at=1.5)
    assert info["command"]["uris"] == [
        {"value": "https://files.example/agent-1.tar", "extract": True, "executable": False,
         "cache": True},
    ]  # fmt: skip
    assert (info["command"]["shell"], info["command"]["value"]) == (False, "/opt/agent/bin/sh")
    assert info["command"]["arguments"][:2] == ["sh", "-c"]
    volumes = {one["container_path"]: one for one in info["container"]["volumes"]}
    assert volumes["/opt/agent"]["mode"] == "RO"
    assert volumes["/opt/agent"]["source"] == {
        "type": "SANDBOX_PATH", "sandbox_path": {"type": "SELF", "path": "opt/agent"},
    }  # fmt: skip
    assert volumes["/tmp"]["source"]["sandbox_path"]["path"] == "tmp"


def test_the_docker_daemon_gets_it_from_the_sandbox_and_its_shell_as_entry_point():
    """The image's own entry point would be given our words."""
    options = settings.MesosTemplate(containerizer="docker")
    info = tasks.info(spec(**JAVA, options=options), configured=BROUGHT, created_at=1.5)
    assert info["container"]["docker"]["parameters"] == [
        {"key": "entrypoint", "value": "/opt/agent/bin/sh"}
    ]
    assert info["container"]["volumes"] == [
        {"container_path": "/opt/agent", "mode": "RO", "host_path": "opt/agent"}
    ]
    assert "value" not in info["command"]
    assert info["command"]["arguments"][0] == "-c"


def test_the_tools_are_found_behind_the_images_own(tmp_path):
    """By the script, which alone knows what the image says."""
    done = run(spec(**{**JAVA, "argv": ("sh", "-c", "echo $PATH")}), tmp_path)
    assert done.returncode == 0
    said = (tmp_path / "sandbox" / "agent.log").read_text()
    assert said == f"{os.environ['PATH']}:{runtime.TOOLS}\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"runtime": "other"}, "no runtime 'other'"), ({"image": None}, "set `image`")],
)
def test_a_runtime_that_cannot_be_is_refused(changes, words):
    """Before Mesos is asked."""
    with pytest.raises(api.Rejected, match=words):
        tasks.info(spec(**{**JAVA, **changes}), configured=BROUGHT, created_at=1.5)


@pytest.mark.parametrize("uri", ["https://x/agent.zip", "https://x/agent.tar?v=1", "a b.tar"])
def test_what_the_fetcher_would_not_unpack_is_no_runtime(uri):
    """It goes by the end of the address."""
    with pytest.raises(ValueError, match="uri"):
        settings.RuntimeArchive(uri=uri)


# --- images ---


def test_an_image_is_asked_for_again_where_the_template_says_so():
    """Each containerizer has its own word."""
    plain = tasks.info(spec(image="a"), configured=TOLD, created_at=1.5)
    assert "cached" not in plain["container"]["mesos"]["image"]
    mesos = settings.MesosTemplate(force_pull=True)
    info = tasks.info(spec(image="a", options=mesos), configured=TOLD, created_at=1.5)
    assert info["container"]["mesos"]["image"]["cached"] is False
    daemon = settings.MesosTemplate(force_pull=True, containerizer="docker")
    info = tasks.info(spec(image="a", options=daemon), configured=TOLD, created_at=1.5)
    assert info["container"]["docker"]["force_pull_image"] is True


def test_a_login_goes_with_the_image():
    """As the secret of Mesos' own containerizer; the Docker daemon has another way."""
    options = settings.MesosTemplate(image_login_file="/etc/login.json")
    told = spec(image="a", options=options)
    info = tasks.info(told, configured=TOLD, created_at=1.5, login=b'{"auths": {}}')
    assert info["container"]["mesos"]["image"]["docker"]["config"] == {
        "type": "VALUE", "value": {"data": base64.b64encode(b'{"auths": {}}').decode()},
    }  # fmt: skip
    daemon = attrs.evolve(options, containerizer="docker")
    with pytest.raises(api.Rejected, match="image_login_file"):
        tasks.info(spec(image="a", options=daemon), configured=TOLD, created_at=1.5)


def test_a_login_is_read_from_its_file_and_never_shown(tmp_path):
    """Whoever quotes it: as it is, or in base64."""
    auth = base64.b64encode(b"robot:hunter2-of-the-registry").decode()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"r.example": {"auth": auth}, "odd": 7}}))
    told = spec(image="a", options=settings.MesosTemplate(image_login_file=str(path)))
    assert path.read_bytes() == backend._login(told)
    said = text.clean(f"denied: {auth} hunter2-of-the-registry")
    assert "hunter2" not in said
    assert auth not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hunter2", "it is not JSON"),
        ("[" * 50_000, "it is not JSON"),
        ("[]", "no `auths`"),
        ('{"credsStore": "desktop"}', "credential helpers do not travel"),
    ],
)
def test_a_file_without_logins_is_refused_and_not_quoted(tmp_path, content, words):
    """One template's mistake."""
    path = tmp_path / "config.json"
    path.write_text(content)
    told = spec(image="a", options=settings.MesosTemplate(image_login_file=str(path)))
    with pytest.raises(api.Rejected, match=words) as caught:
        backend._login(told)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("told", ["", "22", "22:0", "x:y", "99999:1", ",,", "22:31000:5"])
def test_a_label_of_ports_that_was_changed_tells_none(told):
    """Labels are the master's to show, and a person's to change."""
    assert () == tasks.ports_of({f"{tasks.PREFIX}ports.agent": told})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ports": (0,)}, "1 to 65535"),
        ({"ports": (80,), "host_ports": ("1", "2")}, "one for each of `ports`"),
        ({"ports": (80,), "host_ports": ("2-1",)}, "ports from 1 to"),
        ({"ports": (80,), "host_ports": ("70000",)}, "ports from 1 to"),
        ({"ports": (80,), "host_ports": ("any",)}, "PORT, FIRST-LAST or 0"),
        ({"ports": (80, 81), "host_ports": ("31000", "31000")}, "each port once"),
    ],
)
def test_ports_that_cannot_be(told, words):
    """It is said when the file is read."""
    with pytest.raises(ValueError, match=words):
        settings.Network(**told)
