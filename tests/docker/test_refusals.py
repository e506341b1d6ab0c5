"""Whose fault a refusal is: 43 of a real engine, by one table; a template's backs off no engine."""

import asyncio

import pytest

from backends import api
from backends.docker import settings
from backends.docker.engine import answers
from tests.docker import recorded, rough
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
    error = answers.refused_launch(told["status"], told["message"], made="c" * 64)
    assert type(error) is (api.NoCapacity if told["case"] in FULL else api.Rejected)
    assert told["message"][:60] in error.reason


@pytest.mark.parametrize("told", REFUSALS, ids=lambda told: told["case"])
def test_no_engine_is_set_aside_for_it(told):
    """The next launch, of another template, is made as if nothing had been."""
    refused = rough.refusal(told["status"], told["message"])
    place = ("POST", "/create") if told["stage"] == "create" else ("POST", "/start")
    plain = settings.DockerTemplate(user="image")
    spec = api.InstanceSpec(name="a1", metadata={"owner": OWNER}, image="x", options=plain)
    with rough.engine() as engine:
        engine.answer("DELETE", "c" * 64, rough.refusal(404, "No such container: c"))
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
    ("status", "words", "kind"),
    [
        (500, "write /var/lib/docker/x: no space left on device", api.Unavailable),
        (500, "OCI runtime create failed: fork/exec: resource temporarily unavailable",
         api.Unavailable),
        (500, "OCI runtime create failed: cannot allocate memory: unknown", api.Unavailable),
        (500, "error creating overlay mount to /var/lib/docker/overlay2/x: invalid argument",
         api.Unavailable),
        (500, "something that nobody has heard of", api.Unavailable),
        (503, "the engine is starting", api.Unavailable),
        (500, "no available IPv4 addresses on this network's address pools: b", api.NoCapacity),
        (403, "authorization denied by plugin: x is not a directory", api.Unauthorized),
        (400, "client version 1.40 is too old. Minimum supported API version is 1.44",
         api.Unauthorized),
        (404, "page not found", api.Unavailable),
        (404, "No such container: " + "c" * 64, api.NotFound),
        (404, 'create image-cache: error looking up volume plugin x: plugin "x" not found',
         api.Rejected),
    ],
)  # fmt: skip
def test_what_is_the_hosts_stays_the_hosts(status, words, kind):
    """A full disk is no template's mistake, and a plugin's no is no missing device."""
    assert kind is type(answers.refused_launch(status, words, made="c" * 64))


def test_a_volume_that_is_called_like_an_image_is_no_missing_image():
    """It would be pulled, again and again."""
    words = 'create image-cache: error looking up volume plugin x: plugin "x" not found'
    assert not answers.is_missing_image(404, words)


async def test_a_name_that_is_no_image_is_refused_at_once():
    """And nothing else: without a word to the engine, so another template is served."""
    with rough.engine() as engine:
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
