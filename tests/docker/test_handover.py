"""How secrets come into containers: from memory that both sides see, else by an archive."""

import contextlib
import os
import pathlib
import time

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import handover
from tests.contract import checks
from tests.docker import engines
from tests.docker.conftest import Rig, backend_on, cleaned

SECRET = "0123456789abcdef" * 4
WRITABLE = settings.Volume(target="/scratch", writable_by_user=True)


def with_secret(rig: Rig, name: str, commands: str = "", **options: object) -> api.InstanceSpec:
    spec = rig.spec(name, commands, **options)
    return attrs.evolve(spec, secret_files={"agent-secret": SECRET})


def kept(memory: pathlib.Path) -> list[str]:
    """Return the instances whose secrets lie in memory."""
    return sorted(path.name for path in memory.glob("agent-broker-*/*"))


async def mounted(rig: Rig, name: str) -> bool:
    entry = await rig.sdk("inspect_container", rig.container(name))
    return "/agent-broker/secrets" in [mount["Destination"] for mount in entry["Mounts"]]


# --- without an engine ---------------------------------------------------------------------------


def test_a_secret_is_given_once_and_taken(memory):
    """Nobody but the broker may enter the folder; afterwards nothing is there."""
    hands = handover.SecretFolders("ours", "unix:///s")
    folder = pathlib.Path(hands.give("a1", {"agent-secret": SECRET}))
    assert SECRET == (folder / "agent-secret").read_text()
    assert 0o700 == folder.parent.stat().st_mode & 0o777
    assert {"agent-secret": SECRET.encode()} == hands.held("a1")
    assert str(folder) == hands.give("a1", {"agent-secret": "another"})
    assert {"agent-secret": b"another"} == hands.held("a1")
    hands.take("a1")
    hands.take("a1")
    assert ({}, []) == (hands.held("a1"), list(memory.iterdir()))


def test_owners_and_hosts_have_folders_of_their_own():
    """Two brokers on one machine do not clear away each other's."""
    pairs = [("ours", "unix:///s"), ("theirs", "unix:///s"), ("ours", "unix:///t")]
    assert 3 == len({handover.SecretFolders(*pair).give("a1", {"x": "y"}) for pair in pairs})


def test_what_a_killed_broker_left_goes_after_a_while():
    """Not at once: another process may have made it for a container that is not listed yet."""
    hands = handover.SecretFolders("ours", "unix:///s")
    for name in ("alive", "left"):
        hands.give(name, {"x": "y"})
    hands.keep({"alive"}, now=time.time())
    assert {"x": b"y"} == hands.held("left")
    hands.keep({"alive"}, now=time.time() + 3600)
    assert ({"x": b"y"}, {}) == (hands.held("alive"), hands.held("left"))


@pytest.mark.parametrize("how", ["open", "link", "missing"])
def test_a_folder_that_is_not_ours_alone_is_not_used(how, memory, monkeypatch):
    """Somebody may have made it first, to read along."""
    hands = handover.SecretFolders("ours", "unix:///s")
    path = pathlib.Path(hands.give("a1", {"x": "y"})).parent
    hands.take("a1")
    if how == "open":
        path.mkdir()
        path.chmod(0o777)
    elif how == "link":
        (memory / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(memory / "elsewhere")
    else:
        monkeypatch.setattr(handover, "MEMORY", memory / "missing")
        hands = handover.SecretFolders("ours", "unix:///s")
    assert hands.give("a1", {"x": "y"}) is None


# --- with an engine ------------------------------------------------------------------------------


async def test_the_secret_is_mounted_read_only_and_gone_with_the_container(rig, memory):
    """The agent's user reads it, cannot change it, and `docker cp` still works."""
    look = "cat /agent-broker/secrets/agent-secret | wc -c; echo x > /agent-broker/secrets/y"
    await rig.backend.launch(with_secret(rig, "a1", f"{look}; id -u"))
    await rig.running("a1")
    assert (True, ["a1"]) == (await mounted(rig, "a1"), kept(memory))

    async def said() -> str | None:
        text = await rig.backend.logs("a1", tail=9)
        return text if "1000" in text else None

    words = await checks.until("it has looked", said, within_s=20)
    assert "64\n" in words
    assert "Read-only file system" in words
    stream, _ = await rig.sdk("get_archive", rig.container("a1"), "/agent-broker/secrets")
    assert SECRET.encode() in b"".join(stream)
    await rig.backend.terminate("a1", grace_s=0)
    assert [] == kept(memory)


async def test_an_engine_that_does_not_see_our_files(engine_url, monkeypatch, tmp_path):
    """As one on another machine: the secret comes by the archive, the mount is tried once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(handover, "MEMORY", pathlib.Path("/proc/self/cwd"))  # the engine's own
    async with engines.proxied(engine_url) as proxy:
        rig = Rig(engine_url, backend_on(settings.Host(url=proxy.url)))
        async with cleaned(rig):
            read = "cat /agent-broker/secrets/agent-secret | wc -c"
            for name, creations in (("a1", 2), ("a2", 3)):
                await rig.backend.launch(with_secret(rig, name, read, code=0))
                assert 0 == (await rig.exited(name)).code
                assert "64" == (await rig.backend.logs(name, tail=1)).strip()
                assert not await mounted(rig, name)
                assert creations == sum("/containers/create" in path for path in proxy.asked)
    assert [] == kept(tmp_path)


async def test_a_refused_template_leaves_no_secret(rig, memory):
    """Before and after the first launch that went well; the template's fault is told as ever."""
    for _ in range(2):
        with pytest.raises(api.Rejected, match="network no-such-net not found"):
            await rig.backend.launch(with_secret(rig, "a1", network="no-such-net"))
        with pytest.raises(api.Rejected, match="No such image"):
            await rig.backend.launch(attrs.evolve(with_secret(rig, "a1"), image="none:0"))
        assert ([], {}) == (kept(memory), await checks.listed(rig.backend))
        await rig.backend.launch(with_secret(rig, "good"))
        assert await mounted(rig, "good"), "a refusal says nothing about what is shared"
        await rig.backend.terminate("good", grace_s=0)


async def test_a_half_made_container_of_an_earlier_life_gets_its_secret(rig):
    """Killed between creation and start: the next launch starts it, or makes it anew."""
    spec = with_secret(rig, "a1", "cat /agent-broker/secrets/agent-secret | wc -c", code=0)
    for fault in (False, True):
        async with engines.proxied(rig.url) as proxy:
            earlier = backend_on(settings.Host(url=proxy.url))(rig)
            await earlier.launch(with_secret(rig, "other"))
            await earlier.terminate("other", grace_s=0)
            proxy.faults["PUT", "/archive"] = (500, "killed here")
            proxy.faults["POST", "/start"] = (500, "killed here")
            proxy.faults["DELETE", "/containers"] = (500, "killed here")
            with contextlib.ExitStack() as stack:
                if fault:  # then it came without a mount
                    patch = stack.enter_context(pytest.MonkeyPatch.context())
                    patch.setattr(handover.SecretFolders, "give", lambda *_: None)
                with pytest.raises(api.Unavailable, match="killed here"):
                    await earlier.launch(spec)
            await earlier.aclose()
        assert fault is not await mounted(rig, "a1")
        await rig.backend.launch(spec)
        assert 0 == (await rig.exited("a1")).code
        assert "64" == (await rig.backend.logs("a1", tail=1)).strip()
        await rig.backend.terminate("a1", grace_s=0)


@pytest.mark.parametrize("uid", [1000, 1234])
async def test_the_place_to_work_belongs_to_the_user_in_any_image(rig, uid):
    """Images with that folder, for another user too, at the first launch and at later ones."""
    for name in ("a1", "a2"):
        look = "stat -c %u /home/jenkins /home/jenkins/agent; touch /home/jenkins/agent/x"
        await rig.backend.launch(rig.spec(name, look, code=0, user=str(uid)))
        assert 0 == (await rig.exited(name)).code
        assert [str(uid)] * 2 == (await rig.backend.logs(name, tail=2)).split()


async def test_a_fresh_volume_is_given_to_the_user(rig):
    """Such as a jar cache outside of the working directory; the engine made it for root."""
    await rig.backend.launch(rig.spec("a1", "touch /scratch/x", code=0, volumes=(WRITABLE,)))
    assert 0 == (await rig.exited("a1")).code


async def test_engines_that_remap_owners_are_not_shared_with(rig, memory):
    """SELinux and user namespaces hide a file that is there: the launch would seem to work."""
    async with engines.proxied(rig.url) as proxy:
        proxy.replies["GET", "/info"] = b'{"SecurityOptions": ["name=seccomp", "name=selinux"]}'
        other = backend_on(settings.Host(url=proxy.url))(rig)
        await other.launch(with_secret(rig, "a1"))
        await other.aclose()
    assert ([], False) == (kept(memory), await mounted(rig, "a1"))


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize("uid", [None, 0, "ours", 1000])
def test_a_secret_is_for_its_user_alone_where_that_can_be(uid, umask, memory):
    """Whatever the umask; where the broker may not say whose it is, the folder above is closed."""
    wanted = os.geteuid() if uid == "ours" else uid
    hands = handover.SecretFolders("ours", "unix:///s")
    before = os.umask(umask)
    try:
        folder = pathlib.Path(hands.give("a1", {"agent-secret": SECRET}, (wanted, wanted)))
    finally:
        os.umask(before)
    told = (folder / "agent-secret").stat()
    possible = wanted is not None and os.geteuid() in {0, wanted}
    assert (0o400 if possible else 0o444) == told.st_mode & 0o777
    if possible:
        assert (wanted, wanted) == (told.st_uid, told.st_gid) or os.geteuid() != 0
    assert (0o755, 0o700) == (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777)


async def test_builds_that_have_the_engine_cannot_hand_the_secret_on(rig, tmp_path, memory):
    """`--volumes-from` gives another container all mounts: the secret is none of them."""
    socket = tmp_path / "docker.sock"
    socket.touch()
    volumes = (settings.Volume(name=str(socket), target="/var/run/docker.sock"),)
    look = "cat /agent-broker/secrets/agent-secret | wc -c"
    with pytest.raises(api.Rejected, match="--volumes-from"):  # it would lie in a volume
        await rig.backend.launch(with_secret(rig, "a1", volumes=volumes, read_only_root=True))
    await rig.backend.launch(with_secret(rig, "a1", look, volumes=volumes))
    await rig.running("a1")

    async def said() -> bool:
        return "64" in await rig.backend.logs("a1", tail=5)

    await checks.until("it has read it", said, within_s=20)
    assert (False, []) == (await mounted(rig, "a1"), kept(memory))
    body = {
        "Image": engines.IMAGE, "Cmd": ["cat", "/agent-broker/secrets/agent-secret"],
        "User": "1000", "HostConfig": {"VolumesFrom": [rig.container("a1")], "NetworkMode": "none"},
    }  # fmt: skip
    other = await rig.sdk("create_container_from_config", body, rig.container("inside"))
    await rig.sdk("start", other["Id"])
    assert 0 != (await rig.sdk("wait", other["Id"]))["StatusCode"]
