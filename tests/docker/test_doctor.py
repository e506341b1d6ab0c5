"""The doctor and images: there, to be had, or not; nothing is pulled and nothing started."""

import time

import pytest

from backends import api
from backends.docker import doctor, settings
from tests import echo
from tests.docker import scripted_engine

IMAGE = "registry.example:5000/team/agent:1"
HERE = ("GET", f"/images/{IMAGE}/json")
THERE = ("GET", f"/distribution/{IMAGE}/json")


async def found(engine, *, pull="if-missing", image=IMAGE, hosts=None):
    order = api.InstanceSpec(
        name="x", metadata={}, image=image, options=settings.DockerTemplate(pull=pull)
    )
    hosts = (settings.Host(url=engine.url),) if hosts is None else hosts
    told = settings.DockerSettings(hosts=hosts)
    rows = doctor.examine(told, owner="o", orders={"t": order, "u": order}, now=time.time)
    return [row async for row in rows]


MISSING = scripted_engine.refusal(404, f"No such image: {IMAGE}")
DENIED = "denied: requested access to the resource is denied"
UNKNOWN = "manifest unknown: manifest unknown"
THERE_IT_IS = {
    "Descriptor": {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{'d' * 64}",
        "size": 1234,
    },
    "Platforms": [{"architecture": "amd64", "os": "linux"}],
}
AWAY = "Get https://registry.example:5000/v2/: dial tcp: lookup registry.example: no such host"


@pytest.mark.parametrize(
    ("here", "there", "pull", "grade", "fault", "words"),
    [
        ({}, None, "if-missing", "ok", "", "(template t, u) is there"),
        ({}, None, "never", "ok", "", "is there"),
        (MISSING, None, "never", "FAIL", "configuration", "is not there, and it is never pulled"),
        (MISSING, THERE_IT_IS, "if-missing", "ok", "", "can be pulled"),
        ({}, THERE_IT_IS, "always", "ok", "", "can be pulled"),
        (MISSING, (403, DENIED), "if-missing", "FAIL", "operator", "the registry refuses"),
        (MISSING, (404, UNKNOWN), "if-missing", "FAIL", "configuration", "cannot be pulled"),
        (MISSING, (500, AWAY), "if-missing", "warn", "platform", "not there, and whether it can"),
        ({}, (500, AWAY), "always", "warn", "platform", "is to be pulled anew, and whether"),
        (MISSING, (404, "page not found"), "if-missing", "warn", "platform", "does not ask"),
    ],
)  # fmt: skip
async def test_an_image_is_there_or_can_be_had_or_not(here, there, pull, grade, fault, words):
    """By the engine's word, and by what its registry tells the engine; once for each image."""
    with scripted_engine.engine() as engine:
        engine.answer(*HERE, here)
        if there is not None:
            is_refusal = isinstance(there, tuple)
            engine.answer(*THERE, scripted_engine.refusal(*there) if is_refusal else there)
        (row,) = await found(engine, pull=pull)
        asked = [r for r in engine.requests if "/images/" in r.target or "/dist" in r.target]
    assert (grade, fault) == (row.verdict.value, row.fault)
    assert row.text.startswith(IMAGE)
    assert words in row.text
    assert {"GET"} == {request.method for request in asked}
    assert len(asked) == (2 if there is not None else 1)


async def test_a_login_of_the_configuration_is_used(tmp_path):
    """As a pull does: else a private image would be called missing."""
    (tmp_path / "password").write_text("a-password-of-bob\n")
    login = settings.Registry(user="bob", password_file=str(tmp_path / "password"))
    with scripted_engine.engine() as engine:
        engine.answer(*HERE, MISSING)
        engine.answer(*THERE, THERE_IT_IS)
        told = settings.DockerSettings(
            hosts=(settings.Host(url=engine.url),), registries={"registry.example:5000": login}
        )
        order = api.InstanceSpec(name="x", metadata={}, image=IMAGE)
        rows = doctor.examine(told, owner="o", orders={"t": order}, now=time.time)
        (row,) = [row async for row in rows]
        (asked,) = (r for r in engine.requests if "/distribution/" in r.target)
    assert "ok" == row.verdict.value
    assert "x-registry-auth: " in asked.head.lower()


async def test_an_engine_that_does_not_answer_is_said_of_each_image(tmp_path):
    """The platform's fault."""
    with scripted_engine.engine() as engine:
        url = engine.url
    (row,) = await found(scripted_engine.Engine(url))
    assert ("FAIL", "platform") == (row.verdict.value, row.fault)


async def test_an_engine_that_answers_nonsense_is_no_bug():
    """One line."""
    with scripted_engine.engine() as engine:
        engine.answer(*HERE, echo.reply([], status="503 Busy"))
        (row,) = await found(engine)
    assert "FAIL" == row.verdict.value


async def test_without_hosts_the_engine_of_the_environment_is_asked(monkeypatch, tmp_path):
    """As the backend does; where none can be told, the backend says so."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    with scripted_engine.engine() as engine:
        engine.answer(*HERE, {})
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        (told,) = await found(engine, hosts=())
        assert "is there" in told.text
        monkeypatch.setenv("DOCKER_HOST", "npipe:////./pipe/docker_engine")
        assert await found(engine, hosts=()) == []


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"no tar", "runtime ")])
async def test_an_archive_that_is_wanted_and_is_none_is_named(tmp_path, content, words):
    """Before an agent needs it; of a runtime that nobody wants nothing is said."""
    tar = tmp_path / "runtime.tar"
    if content is not None:
        tar.write_bytes(content)
    order = api.InstanceSpec(name="x", metadata={}, runtime="default")
    other = settings.Runtime(tar="/no/such/one")
    told = settings.DockerSettings(
        hosts=(settings.Host(url="unix:///nobody"),),
        runtimes={"default": settings.Runtime(tar=str(tar)), "other": other},
    )
    rows = doctor.examine(told, owner="o", orders={"t": order}, now=time.time)
    (row,) = [row async for row in rows]
    assert ("runtime", "FAIL", "configuration") == (row.check, row.verdict.value, row.fault)
    assert words in row.text
    assert str(tar) in row.hint
