"""Whose fault a refusal is: 43 of a real engine, by one table; a template's backs off no engine."""

import asyncio
import contextlib
import json

import attrs
import pytest

from backends import api
from backends.docker import backend as docker_engine
from backends.docker import settings
from backends.docker.engine import answers
from tests.docker import recorded, scripted_engine
from tests.docker.test_odd import OWNER, backend

REFUSALS = [told for told in recorded.load("refusals") if told["stage"] != "ok"]
FULL = {"host port taken"}
"""All others are the template's."""


def test_the_recording_is_whole():
    """43 attempts, of which five the engine took."""
    assert (43, 38) == (len(recorded.load("refusals")), len(REFUSALS))


@pytest.mark.parametrize("told", REFUSALS, ids=lambda told: told["case"])
def test_a_refusal_is_the_templates(told):
    """With the engine's words, whatever status it has for them."""
    error = answers.refused_launch(told["status"], told["message"], container_id="c" * 64)
    assert type(error) is (api.NoCapacity if told["case"] in FULL else api.Rejected)
    assert error.reach is api.Reach.TEMPLATE
    assert not error.place
    assert told["message"][:60] in error.reason


@pytest.mark.parametrize("told", REFUSALS, ids=lambda told: told["case"])
def test_no_engine_is_set_aside_for_it(told):
    """The next launch, of another template, is made as if nothing had been."""
    refused = scripted_engine.refusal(told["status"], told["message"])
    place = ("POST", "/create") if told["stage"] == "create" else ("POST", "/start")
    plain = settings.DockerTemplate(user="image")
    spec = api.InstanceSpec(name="a1", metadata={"owner": OWNER}, image="x", options=plain)
    with scripted_engine.engine() as engine:
        engine.answer("DELETE", "c" * 64, scripted_engine.refusal(404, "No such container: c"))
        engine.answer(*place, refused)
        engine.answer("POST", "/connect", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with backend(engine) as (made, run):
            with pytest.raises((api.Rejected, api.NoCapacity)):
                run(made.launch(spec))
            assert made._pool.places[0].error is None
            del engine.answers[place]
            done = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
            engine.answer("POST", "/start", done)
            run(made.launch(spec))


@pytest.mark.parametrize(
    ("status", "words", "kind", "reach"),
    [
        (500, "write /var/lib/docker/x: no space left on device", api.Unavailable, api.Reach.PLACE),
        (500, "OCI runtime create failed: fork/exec: resource temporarily unavailable",
         api.Unavailable, api.Reach.PLACE),
        (500, "OCI runtime create failed: cannot allocate memory: unknown", api.Unavailable, api.Reach.PLACE),
        (500, "error creating overlay mount to /var/lib/docker/overlay2/x: invalid argument",
         api.Unavailable, api.Reach.PLACE),
        (500, "something that nobody has heard of", api.Unavailable, api.Reach.TEMPLATE),
        (503, "the engine is starting", api.Unavailable, api.Reach.PLACE),
        (500, "no available IPv4 addresses on this network's address pools: b", api.NoCapacity, api.Reach.TEMPLATE),
        (403, "authorization denied by plugin: x is not a directory", api.Unauthorized, api.Reach.TEMPLATE),
        (400, "client version 1.40 is too old. Minimum supported API version is 1.44",
         api.Unauthorized, api.Reach.PLACE),
        (404, "page not found", api.Unavailable, api.Reach.PLACE),
        (404, "No such container: " + "c" * 64, api.NotFound, api.Reach.LAUNCH),
        (404, 'create image-cache: error looking up volume plugin x: plugin "x" not found',
         api.Rejected, api.Reach.TEMPLATE),
    ],
)  # fmt: skip
def test_what_is_the_hosts_stays_the_hosts(status, words, kind, reach):
    """A full disk is no template's mistake, and a plugin's no is no missing device."""
    error = answers.refused_launch(status, words, container_id="c" * 64)
    assert (kind, reach) == (type(error), error.reach)


@pytest.mark.parametrize(
    ("status", "words", "kind", "reach"),
    [
        (500, "Get https://reg.example/v2/: dial tcp: lookup reg.example: no such host",
         api.Unavailable, api.Reach.TEMPLATE),
        (500, "Get https://reg.example/v2/: net/http: TLS handshake timeout", api.Unavailable,
         api.Reach.TEMPLATE),
        (None, "received unexpected HTTP status: 503 Service Unavailable", api.Unavailable,
         api.Reach.TEMPLATE),
        (500, "toomanyrequests: You have reached your pull rate limit", api.Unavailable,
         api.Reach.TEMPLATE),
        (500, "Head https://reg.example/v2/x: unauthorized: authentication required",
         api.Unauthorized, api.Reach.TEMPLATE),
        (404, "manifest for reg.example/x:1 not found: manifest unknown", api.Rejected,
         api.Reach.TEMPLATE),
        (None, "write /var/lib/docker/tmp/x: no space left on device", api.Unavailable,
         api.Reach.PLACE),
    ],
)  # fmt: skip
def test_a_registry_is_the_trouble_of_those_who_want_its_images(status, words, kind, reach):
    """The engine serves everybody else; its full disk serves nobody."""
    error = answers.refused_pull(status, words)
    assert (kind, reach) == (type(error), error.reach)


# --- what is set aside -----------------------------------------------------------------------

SPEC = api.InstanceSpec(
    name="a1",
    metadata={"owner": OWNER},
    image="reg.example/x",
    options=settings.DockerTemplate(user="image"),
)
NO_IMAGE = scripted_engine.refusal(404, "No such image: reg.example/x:latest")


@contextlib.contextmanager
def pool_of(*engines, docker_config="/nonexistent"):
    configured = settings.DockerSettings(
        hosts=tuple(settings.Host(url=engine.url) for engine in engines),
        timeout_s=10.0,
        docker_config=str(docker_config),
    )
    made = docker_engine.create(
        configured, owner=OWNER, store=None, state_dir=None, now=lambda: 1795477200.0
    )
    with asyncio.Runner() as runner:
        try:
            yield made, runner.run
        finally:
            runner.run(made.aclose())


def aside(made):
    return [place.host.url for place in made._pool.places if place.error is not None]


def works(engine):
    engine.answers.clear()
    engine.answer("POST", "/start", b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("engines", [1, 2])
def test_an_unreachable_registry_costs_nobody_else_anything(engines):
    """Each engine is asked, none is set aside, and the error says that it is this template's."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(scripted_engine.engine()) for _ in range(engines)]
        for engine in found:
            engine.answer("POST", "/containers/create", NO_IMAGE)
            words = "Get https://reg.example/v2/: dial tcp 192.0.2.1:443: connect: refused"
            engine.answer("POST", "/images/create", scripted_engine.refusal(500, words))
        made, run = stack.enter_context(pool_of(*found))
        with pytest.raises(api.Unavailable, match="registry cannot be reached") as caught:
            run(made.launch(SPEC))
        assert caught.value.reach is api.Reach.TEMPLATE
        assert aside(made) == []
        assert all(any(r.target.startswith("/v1.50/images") for r in e.requests) for e in found)


@pytest.mark.parametrize(
    "config",
    [
        {"auths": {"reg.example": {"auth": "<base64 of user:password>"}}},
        {"credHelpers": "ecr-login"},
    ],
)
def test_an_odd_entry_of_the_docker_configuration_costs_nobody_else_anything(config, tmp_path):
    """It is told with the file; a template whose image is there starts on the same engine."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with (
        scripted_engine.engine() as engine,
        pool_of(engine, docker_config=tmp_path) as (made, run),
    ):
        engine.answer("POST", "/containers/create", NO_IMAGE)
        with pytest.raises(api.Unauthorized, match=f"{tmp_path}/config.json") as caught:
            run(made.launch(SPEC))
        assert caught.value.reach is api.Reach.TEMPLATE
        assert aside(made) == []
        works(engine)
        run(made.launch(attrs.evolve(SPEC, name="a2")))


def test_a_full_host_of_several_is_set_aside_and_named():
    """The other one serves; when both are full it is the whole backend's trouble."""
    sick = scripted_engine.refusal(500, "write /var/lib/docker/x: no space left on device")
    with scripted_engine.engine() as first, scripted_engine.engine() as second:
        with pool_of(first, second) as (made, run):
            first.answer("POST", "/containers/create", sick)
            works(second)
            run(made.launch(SPEC))
            assert aside(made) == [first.url]
            second.answer("POST", "/containers/create", NO_IMAGE)
            words = "dial tcp: lookup reg.example: no such host"
            second.answer("POST", "/images/create", scripted_engine.refusal(500, words))
            with pytest.raises(api.Unavailable) as caught:
                run(made.launch(attrs.evolve(SPEC, name="a2")))
            assert caught.value.reach is api.Reach.TEMPLATE
            assert f"set aside: {first.url}" in caught.value.reason
            second.answers.clear()
            second.answer("POST", "/containers/create", sick)
            with pytest.raises(api.Unavailable) as caught:
                run(made.launch(attrs.evolve(SPEC, name="a3")))
            assert caught.value.reach is api.Reach.BACKEND


def test_a_volume_that_is_called_like_an_image_is_no_missing_image():
    """It would be pulled, again and again."""
    words = 'create image-cache: error looking up volume plugin x: plugin "x" not found'
    assert not answers.is_missing_image(404, words)


async def test_a_name_that_is_no_image_is_refused_at_once():
    """And nothing else: without a word to the engine, so another template is served."""
    with scripted_engine.engine() as engine:
        engine.answer("POST", "/start", b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n")

        def go() -> None:
            with backend(engine) as (made, run):
                bad = api.InstanceSpec(name="a1", metadata={}, image="https://reg.example/x")
                with pytest.raises(api.Rejected, match="has a scheme"):
                    run(made.launch(bad))
                assert [] == [r for r in engine.requests if r.method == "POST"]
                plain = settings.DockerTemplate(user="image")
                run(
                    made.launch(
                        api.InstanceSpec(
                            name="a2",
                            metadata={"owner": OWNER},
                            image="reg.example/x",
                            options=plain,
                        )
                    )
                )

        await asyncio.to_thread(go)
