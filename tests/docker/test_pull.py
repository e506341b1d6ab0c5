"""Images from a real registry: policies, progress, logins, and what goes wrong."""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from backends import api
from backends.docker import settings
from backends.docker.engine import logins
from tests import patience
from tests.contract import checks
from tests.docker import registries
from tests.docker.conftest import WITHIN_S, Rig, backend_on, cleaned


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    with registries.registry(tmp_path_factory.mktemp("plain") / "r") as found:
        yield found


@pytest.fixture(scope="module")
def closed(
    tmp_path_factory: pytest.TempPathFactory, engine_url: str
) -> Iterator[tuple[registries.Registry, str]]:
    """A registry that asks who we are, and an image in it."""
    with registries.registry(tmp_path_factory.mktemp("closed") / "r", asks=True) as found:
        yield found, found.push(engine_url, "private")


@pytest_asyncio.fixture(autouse=True)
async def _no_image_stays(rig: Rig) -> AsyncIterator[None]:
    """Remove what was pulled from a registry of a test."""
    yield
    await rig.backend.aclose()
    for entry in await rig.sdk("containers", all=True):
        if entry["Names"][0][1:].startswith(rig.prefix):
            await rig.sdk("remove_container", entry["Id"], force=True, v=True)
    for entry in await rig.sdk("images"):
        for tag in entry["RepoTags"] or ():
            if tag.partition("/")[0] in registries.KNOWN:
                with contextlib.suppress(Exception):  # another test's container has it
                    await rig.sdk("remove_image", tag, force=True)


async def has(rig: Rig, image: str) -> bool:
    return bool(await rig.sdk("images", name=image))


async def image_of(rig: Rig, name: str) -> str:
    return (await rig.sdk("inspect_container", rig.container(name)))["Image"]


# --- policies ------------------------------------------------------------------------------------


async def test_a_missing_image_is_pulled_once_for_all_who_wait(rig, plain):
    """Two launches at once, one pull; the next launch needs no registry."""
    image = await asyncio.to_thread(plain.push, rig.url, "missing")
    assert not await has(rig, image)
    specs = [rig.spec(name, image=image, pull="if-missing") for name in ("a1", "a2")]
    await asyncio.gather(*(rig.backend.launch(spec) for spec in specs))
    for name in ("a1", "a2"):
        await rig.running(name)
    never = rig.spec("a3", image=image, pull="never")
    await rig.backend.launch(never)
    assert await image_of(rig, "a1") == await image_of(rig, "a3")


async def test_a_tag_that_moves_is_followed_by_always_only(rig, plain):
    """With if-missing yesterday's image stays."""
    image = await asyncio.to_thread(plain.push, rig.url, "moves")
    await rig.backend.launch(rig.spec("old", image=image, pull="always"))
    first = await image_of(rig, "old")
    await rig.sdk("tag", image, image.replace(":1", ""), "kept")
    await asyncio.to_thread(plain.push, rig.url, "moves")
    await rig.sdk("tag", image.replace(":1", ":kept"), image.replace(":1", ""), "1")
    await rig.backend.launch(rig.spec("same", image=image, pull="if-missing"))
    await rig.backend.launch(rig.spec("new", image=image, pull="always"))
    assert first == await image_of(rig, "same")
    assert first != await image_of(rig, "new")


async def test_the_progress_of_a_pull_is_what_the_agent_waits_for(rig, plain):
    """The list shows it, with how much is there, until the container runs."""
    pushed = await asyncio.to_thread(plain.push, rig.url, "slow", size=1 << 20)
    async with registries.slow_line(plain.address, bytes_per_s=1 << 20) as line:
        image = pushed.replace(plain.address, line.address)
        launch = asyncio.ensure_future(
            rig.backend.launch(rig.spec("a1", image=image, pull="if-missing"))
        )

        async def counted() -> str | None:
            detail = getattr((await checks.listed(rig.backend)).get("a1"), "detail", "")
            assert not detail or detail.startswith(
                (f"pulling {image}: ", "its container is being made")
            )
            return detail if "0 of 1 layer is here" in detail else None

        await checks.until("the progress is told", counted, within_s=WITHIN_S)
        assert not launch.done()
        await launch
    await rig.running("a1")


# --- logins --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def rig_with(engine_url: str, **told: object) -> AsyncIterator[Rig]:
    rig = Rig(engine_url, backend_on(**told))
    async with cleaned(rig):
        yield rig


def config_dir(folder: pathlib.Path, config: object) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def helper(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Put a credential helper into the PATH."""
    program = folder / "docker-credential-forge"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "how", ["file", "env", "auths", "helper", "store", "auths beside a helper"]
)
async def test_a_login_is_found(how, engine_url, closed, tmp_path, monkeypatch):
    """Wherever it is kept."""
    registry, image = closed
    told: dict[str, object] = {}
    secret = json.dumps({"Username": registries.USER, "Secret": registries.PASSWORD})
    if how == "file":
        (tmp_path / "password").write_text(f"{registries.PASSWORD}\n")
        login = settings.Registry(user=registries.USER, password_file=str(tmp_path / "password"))
        told["registries"] = {registry.address: login}
    elif how == "env":
        monkeypatch.setenv("FORGE_PASSWORD", registries.PASSWORD)
        login = settings.Registry(user=registries.USER, password_env="FORGE_PASSWORD")
        told["registries"] = {registry.address: login}
    elif how == "auths":
        both = base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
        config = {"auths": {registry.address: {"auth": both}}}
        told["docker_config"] = config_dir(tmp_path, config)
    elif how == "auths beside a helper":
        helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
        both = base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
        config = {"auths": {f"http://{registry.address}": {"auth": both}}, "credsStore": "forge"}
        told["docker_config"] = config_dir(tmp_path, config)
    else:
        helper(tmp_path, monkeypatch, f"cat >/dev/null; echo '{secret}'")
        config = {"credHelpers": {registry.address: "forge"}}
        told["docker_config"] = config_dir(
            tmp_path, config if how == "helper" else {"credsStore": "forge"}
        )
    async with rig_with(engine_url, **told) as rig:
        await rig.backend.launch(rig.spec("a1", image=image, pull="always"))
        await rig.running("a1")


async def test_a_login_that_is_made_meanwhile(engine_url, closed, tmp_path):
    """By `docker login`, or by what renews tokens: no restart is needed."""
    registry, image = closed
    folder = config_dir(tmp_path, {})
    async with rig_with(engine_url, docker_config=folder) as rig:
        with pytest.raises(api.Unauthorized):
            await rig.backend.launch(rig.spec("a1", image=image, pull="always"))
        both = base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
        config_dir(tmp_path, {"auths": {registry.address: {"auth": both}}})
        await rig.backend.launch(rig.spec("a1", image=image, pull="always"))
        await rig.running("a1")


@pytest.mark.parametrize("how", ["none", "wrong", "wrong in the configuration"])
async def test_a_login_that_is_missing_or_wrong(how, engine_url, closed, tmp_path, monkeypatch):
    """The operator is told which setting holds it; the password is not told to anybody."""
    registry, image = closed
    told: dict[str, object] = {"docker_config": config_dir(tmp_path, {})}
    if how == "wrong":
        monkeypatch.setenv("FORGE_PASSWORD", "not-the-one")
        login = settings.Registry(user=registries.USER, password_env="FORGE_PASSWORD")
        told["registries"] = {registry.address: login}
    elif how != "none":
        both = base64.b64encode(f"{registries.USER}:not-the-one".encode()).decode()
        config = {"auths": {registry.address: {"auth": both}}}
        told["docker_config"] = config_dir(tmp_path, config)
    async with rig_with(engine_url, **told) as rig:
        with pytest.raises(api.Unauthorized, match=r"the registry refuses: .*`registries`") as end:
            await rig.backend.launch(rig.spec("a1", image=image, pull="always"))
        assert "not-the-one" not in str(end.value)
        assert end.value.reach is api.Reach.TEMPLATE
        assert {} == await checks.listed(rig.backend)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "docker-credential-forge: No such file or directory"),
        ("cat >/dev/null; echo locked >&2; exit 1", "docker-credential-forge: locked"),
        (
            "cat >/dev/null; echo not-this-secret",
            "docker-credential-forge: its answer cannot be understood: not JSON at character 1",
        ),
        ("exec sleep 60", "docker-credential-forge: no answer within 0.5 s"),
    ],
)
async def test_a_credential_helper_that_fails(
    answer, words, engine_url, closed, tmp_path, monkeypatch
):
    """It is named, and whose it is."""
    registry, image = closed
    if answer is not None:
        helper(tmp_path, monkeypatch, answer)
    config = {"credHelpers": {registry.address: "forge"}}
    async with rig_with(engine_url, docker_config=config_dir(tmp_path, config)) as rig:
        monkeypatch.setattr(logins, "_HELPER_S", 0.5)
        with pytest.raises(api.Unauthorized, match=f"{words}; hint: the credential helper") as end:
            await rig.backend.launch(rig.spec("a1", image=image, pull="always"))
        assert "not-this-secret" not in str(end.value)
        assert end.value.reach is api.Reach.TEMPLATE


async def test_a_password_that_cannot_be_read(engine_url, closed):
    """The setting is named; nothing is asked of the registry."""
    registry, image = closed
    login = settings.Registry(user=registries.USER, password_file="/nonexistent/password")
    async with rig_with(engine_url, registries={registry.address: login}) as rig:
        with pytest.raises(
            api.Unauthorized, match="cannot be read: No such file or directory; hint: `reg"
        ):
            await rig.backend.launch(rig.spec("a1", image=image, pull="always"))


# --- what goes wrong -----------------------------------------------------------------------------


async def test_closing_does_not_wait_for_a_silent_registry(engine_url, plain):
    """Who waits for it is told."""
    async with (
        registries.slow_line(plain.address, bytes_per_s=0) as line,
        rig_with(engine_url, pull_timeout_s=20.0) as rig,
    ):
        spec = rig.spec("a1", image=f"{line.address}/x:1", pull="if-missing")
        launch = asyncio.ensure_future(rig.backend.launch(spec))

        async def asking() -> bool:
            return bool(line.tasks)

        await checks.until("the registry is asked", asking, within_s=WITHIN_S)
        async with patience.limit(5):
            await rig.backend.aclose()
            with pytest.raises(api.Unavailable, match="closed"):
                await launch


@pytest.mark.parametrize("policy", ["if-missing", "always"])
async def test_an_image_that_is_not_there(policy, rig, plain):
    """A wrong tag and a wrong name are the template's fault."""
    image = await asyncio.to_thread(plain.push, rig.url, "there")
    for wrong in (image.replace(":1", ":2"), image.replace("there", "nowhere")):
        with pytest.raises(
            api.Rejected, match=r"the image cannot be pulled: .*(unknown|not found)"
        ):
            await rig.backend.launch(rig.spec("a1", image=wrong, pull=policy))
    assert {} == await checks.listed(rig.backend)


async def test_a_registry_that_is_down(rig):
    """The platform's fault; an image that is here serves all the same, unless it moves."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        registries.KNOWN.add(address)
        image = f"{address}/x:1"
        await rig.sdk("tag", "agent-broker-demo:local", image.removesuffix(":1"), "1")
        await rig.backend.launch(rig.spec("a1", image=image, pull="if-missing"))
        with pytest.raises(api.Unavailable, match="the registry cannot be reached") as end:
            await rig.backend.launch(rig.spec("a2", image=image, pull="always"))
        assert end.value.reach is api.Reach.TEMPLATE
    assert ["a1"] == list(await checks.listed(rig.backend))


@pytest.mark.parametrize(
    ("speed", "words"),
    [(64 << 10, "within 1 s: it was still under way"), (0, "within 1 s: .*timed out")],
)
async def test_a_pull_that_takes_too_long(speed, words, engine_url, plain):
    """It is given up with the limit in words, and the next one begins anew."""
    pushed = await asyncio.to_thread(plain.push, engine_url, "long", size=1 << 20)
    async with (
        registries.slow_line(plain.address, bytes_per_s=speed) as line,
        rig_with(engine_url, pull_timeout_s=1.0) as rig,
    ):
        image = pushed.replace(plain.address, line.address)
        with pytest.raises(api.Unavailable, match=words) as end:
            await rig.backend.launch(rig.spec("a1", image=image, pull="if-missing"))
        assert end.value.reach is api.Reach.TEMPLATE

        async def ended() -> bool:
            return not line.tasks

        if speed:  # before it has an answer an engine of that age cannot be told
            await checks.until("the engine has given up too", ended, within_s=WITHIN_S)
        assert {} == await checks.listed(rig.backend)
    async with rig_with(engine_url) as rig:
        await rig.backend.launch(rig.spec("a1", image=pushed, pull="if-missing"))
        await rig.running("a1")
