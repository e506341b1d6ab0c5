"""Who an agent is in its container, and what it may: on a real engine, in an image that knows nobody.

The image is one program: no user database, no folder for work, none for temporary files.
"""

import asyncio
import contextlib
import io
import json
import pathlib
import shutil
import tarfile
from collections.abc import Iterator

import attrs
import docker
import pytest

from backends import api
from backends.docker import settings
from backends.kit import names
from tests.docker import conftest, engines

BARE = "agent-broker-bare:local"
APPLETS = ("sh", "ls", "id", "cat", "stat", "mkdir", "touch", "chmod", "sleep", "grep", "rm")


def _content() -> bytes:
    program = shutil.which("busybox")
    if program is None:
        engines.absent("no busybox")
    content = pathlib.Path(program).read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("bin/busybox")
        member.mode, member.size = 0o755, len(content)
        tar.addfile(member, io.BytesIO(content))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bare(engine_url: str) -> Iterator[str]:
    """Give an image without a user database, and without any folder."""
    repository, _, tag = BARE.partition(":")
    with contextlib.closing(engines.connected(engine_url)) as client:
        client.import_image_from_data(_content(), repository=repository, tag=tag)
        yield BARE
        with contextlib.suppress(docker.errors.APIError):  # another worker's agents have it
            client.remove_image(BARE)


async def _printed(rig: conftest.Rig, spec: api.InstanceSpec) -> list[str]:
    """Run an agent to its end; return what it printed, line by line."""
    await rig.backend.launch(spec)
    end = await rig.exited(spec.name)
    text = await rig.backend.logs(spec.name, tail=100)
    assert end.code == 0, (end, text)
    return text.splitlines()


@pytest.fixture
def volume(rig: conftest.Rig) -> str:
    """Name a volume of the test."""
    return f"{rig.prefix}shared"


@contextlib.asynccontextmanager
async def _gone(rig: conftest.Rig, *volumes: str):
    try:
        yield
    finally:
        for entry in await rig.sdk("containers", all=True, filters={"name": rig.prefix}):
            await rig.sdk("remove_container", entry["Id"], force=True, v=True)
        for one in volumes:
            await rig.sdk("remove_volume", one)


async def test_the_next_agent_of_a_slot_reads_and_writes_what_the_last_one_left(
    rig: conftest.Rig, bare: str
) -> None:
    """Of another revision, with the same number: not root's group, which would be the engine's."""
    told = {"name": f"{rig.prefix}cache-{{slot}}", "target": "/cache", "writable_by_user": True}
    options = settings.DockerTemplate(
        network="none", pull="never", volumes=(settings.Volume(**told),)
    )
    options = names.in_slot(options, 0)

    def spec(name: str, commands: str, **changes: object) -> api.InstanceSpec:
        made = rig.spec(name, commands, code=0, image=bare)
        return attrs.evolve(made, options=options, slot=0, **changes)

    async with _gone(rig, f"{rig.prefix}cache-0"):
        first = "umask 027; id -u; id -g; id -G; mkdir /cache/m2; echo one > /cache/m2/jar"
        assert await _printed(rig, spec("a1", first)) == ["1000", "1000", "1000"]
        await rig.backend.terminate("a1", grace_s=0)
        then = "echo two >> /cache/m2/jar; cat /cache/m2/jar; stat -c '%u:%g %a' /cache/m2/jar"
        changed = spec("a2", then, env={"REVISION": "2"}, metadata={names.OWNER: "o"})
        assert await _printed(rig, changed) == ["one", "two", "1000:1000 640"]


async def test_templates_with_a_group_in_common_share_what_only_it_may_read(
    rig: conftest.Rig, bare: str, volume: str
) -> None:
    """Whoever is not of it does not; and who only reads changes nothing."""
    mount = {"Type": "volume", "Source": volume, "Target": "/cache"}
    fills = "echo jar > /cache/jar; busybox chown -R 0:5000 /cache; chmod 750 /cache; chmod 640 /cache/jar"

    def spec(name: str, user: str, *groups: str) -> api.InstanceSpec:
        cache = settings.Volume(name=volume, target="/cache", read_only=True)
        commands = "cat /cache/jar 2>&1; touch /cache/x 2>&1; id -G"
        told = {"user": user, "groups": groups, "volumes": (cache,)}
        return rig.spec(name, commands, code=0, image=bare, **told)

    async with _gone(rig, volume):
        made = await rig.sdk(
            "create_container", bare, ["sh", "-c", fills], user="0:0", name=f"{rig.prefix}fill",
            host_config={"Mounts": [mount], "NetworkMode": "none"},
        )  # fmt: skip
        await rig.sdk("start", made["Id"])
        assert (await rig.sdk("wait", made["Id"]))["StatusCode"] == 0
        sealed = "touch: /cache/x: Read-only file system"
        one, other, stranger = await asyncio.gather(
            _printed(rig, spec("a1", "1000", "5000")),
            _printed(rig, spec("b1", "4242:4343", "5000")),
            _printed(rig, spec("c1", "1000")),
        )
    assert one == ["jar", sealed, "1000 5000"]
    assert other == ["jar", sealed, "4343 5000"]
    assert stranger[0] == "cat: can't open '/cache/jar': Permission denied"


@pytest.mark.parametrize("work", [None, "/work/here"])
async def test_a_sealed_root_leaves_java_and_the_work_their_places(
    rig: conftest.Rig, bare: str, volume: str, work: str | None
) -> None:
    """Programs run from them; nothing else can be written, and what was written goes."""
    at = work or "/home/jenkins/agent"
    cache = settings.Volume(name=volume, target="/cache", writable_by_user=True)
    commands = (
        f"cd {at} && mkdir workspace && stat -c %u:%g . && "
        "cat /bin/busybox > /tmp/busybox && chmod +x /tmp/busybox && /tmp/busybox echo runs; "
        "touch /cache/x && echo cached; "
        "for place in / /bin /home /etc /agent-broker; do touch $place/x 2>/dev/null && echo $place; "
        "done; grep -c secret-word /agent-broker/secrets/agent-secret"
    )
    made = rig.spec("a1", commands, code=0, image=bare, read_only_root=True, volumes=(cache,))
    spec = attrs.evolve(made, work_dir=work, secret_files={"agent-secret": "secret-word\n"})
    before = {one["Name"] for one in (await rig.sdk("volumes"))["Volumes"] or ()}
    async with _gone(rig, volume):
        assert await _printed(rig, spec) == ["1000:1000", "runs", "cached", "1"]
        await rig.backend.terminate("a1", grace_s=0)
        left = {one["Name"] for one in (await rig.sdk("volumes"))["Volumes"] or ()} - before
        assert {name for name in left if name.startswith(rig.prefix)} == {volume}


async def test_a_folder_of_the_host_is_given_beside_a_sealed_root(
    rig: conftest.Rig, bare: str, tmp_path: pathlib.Path
) -> None:
    """One that is made for the agent, and one that is there."""
    if not rig.url.startswith("unix:"):
        pytest.skip("the engine has to be on this machine")
    shared = tmp_path / "shared"
    shared.mkdir()
    volumes = (
        settings.Volume(name=f"{tmp_path}/of-{{name}}", target="/own"),
        settings.Volume(name=str(shared), target="/shared", writable_by_user=True),
    )
    commands = "stat -c %u:%g /own /shared; touch /own/x /shared/x && echo written"
    made = rig.spec("a1", commands, code=0, image=bare, read_only_root=True, volumes=volumes)
    assert await _printed(rig, made) == ["1000:1000", "1000:1000", "written"]
    await rig.backend.terminate("a1", grace_s=0)
    assert [one.name for one in tmp_path.iterdir() if one.name != "agent-broker"] == ["shared"]


async def test_a_profile_is_in_force(rig: conftest.Rig, bare: str) -> None:
    """As the engine hands it to the kernel: this one forbids to make folders."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    spec = rig.spec(
        "a1", "mkdir /tmp/x 2>&1; mkdir x 2>&1; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
        code=0, image=bare, security_opt=(f"seccomp={json.dumps(profile)}",),
    )  # fmt: skip
    denied, _, *status = await _printed(rig, spec)
    assert "Operation not permitted" in denied
    assert [line.split() for line in status] == [["NoNewPrivs:", "1"], ["Seccomp:", "2"]]


async def test_processes_are_bounded(rig: conftest.Rig, bare: str) -> None:
    """A loop that starts them comes to an end, and the agent says so itself."""
    spec = rig.spec("a1", "for i in $(busybox seq 40); do sleep 5 & done", image=bare, pids=16)
    await rig.backend.launch(spec)
    end = await rig.exited("a1")
    assert "can't fork" in await rig.backend.logs("a1", tail=20) + end.message


async def test_what_the_kernel_does_not_have_is_the_template_s_trouble(
    rig: conftest.Rig, bare: str
) -> None:
    """A profile of AppArmor where there is none; a label of SELinux is taken there as nothing."""
    info = await rig.sdk("info")
    if any("apparmor" in one for one in info["SecurityOptions"]):
        pytest.skip("this kernel has AppArmor")
    spec = rig.spec("a1", "echo runs", code=0, image=bare, security_opt=("apparmor=ci-agents",))
    with contextlib.suppress(api.Rejected):  # releases differ in whether they say so
        await rig.backend.launch(spec)
    if not any("selinux" in one for one in info["SecurityOptions"]):
        other = rig.spec("a2", "echo runs", code=0, image=bare, security_opt=("label=type:ci_t",))
        assert await _printed(rig, other) == ["runs"]
