"""Docker: what our fakes answer, what was recorded, what we read and send, by the Engine API's own definitions.

The definitions are moby's (``engine_forms``); the scripted engine judges each document that it sends by them.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import attrs
import docker
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.docker.engine import answers
from backends.kit import names
from tests.docker import engines, recorded, scripted_engine, test_container
from tests.docker.test_odd import backend, entry
from tests.each import each
from tests.oracle import engine_forms

NEWER = engine_forms.VERSIONS[1:]


def exchanges() -> Iterator[tuple[str, str, Any]]:
    """Yield the recorded answers with a body: file and case, endpoint (empty: a refusal), document."""
    for path in sorted(recorded.FOLDER.glob("*.json")):
        told = json.loads(path.read_text())
        if path.name.startswith("events-"):
            yield from ((path.name, "GET /events", event) for event in told)
            continue
        if isinstance(told, list):  # refusals that were told in short
            continue
        for case, exchange in ({"": told} if "body" in told else told).items():
            if not isinstance(exchange, dict) or exchange.get("body") is None:
                continue
            if exchange["status"] >= 400:
                yield f"{path.name} {case}", "", exchange["body"]
            elif "request" in exchange:
                asked = exchange["request"]
                if name := engine_forms.endpoint(asked["method"], asked["path"]):
                    yield f"{path.name} {case}", name, exchange["body"]


def found(version: str) -> set[str]:
    """Return everything in the recordings that a version does not allow."""
    problems: set[str] = set()
    for _, name, document in exchanges():
        if name:
            problems.update(engine_forms.problems(name, document, version=version))
        else:
            problems.update(engine_forms.refusal_problems(document, version=version))
    return problems


# --- the recordings ----------------------------------------------------------------------------


def test_the_recordings_are_of_every_kind():
    """Or the tests below have nothing to judge."""
    assert {name for _, name, _ in exchanges()} >= {
        "GET /containers/json", "GET /containers/{id}/json", "POST /containers/create",
        "POST /containers/{id}/wait", "GET /events", "",
    }  # fmt: skip


@pytest.mark.parametrize("version", engine_forms.VERSIONS)
def test_the_recordings_differ_from_the_definitions_by_what_is_named(version):
    """By nothing else, and by all of it once its version has come."""

    def number(told: str) -> tuple[int, ...]:
        return tuple(map(int, told.split(".")))

    gone = {
        f"{path}: no such field"
        for path, since in engine_forms.GONE.items()
        if number(since) <= number(version) and path not in engine_forms.ONLY_IN_INFO
    }
    assert found(version) == gone | engine_forms.UNDEFINED


# --- the fakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", engine_forms.VERSIONS)
def test_the_calm_engine_answers_as_defined(version):
    """And so does each refusal of it, and a listed container of the tests."""
    for (method, path), told in scripted_engine.CALM.items():
        name = engine_forms.endpoint(method, path)
        assert name is not None, path
        assert [] == engine_forms.problems(name, told, version=version)
    listing = [entry("a1"), entry("a2")]
    assert [] == engine_forms.problems("GET /containers/json", listing, version=version)
    body = json.loads(scripted_engine.refusal(404, "no such image: x").partition(b"\r\n\r\n")[2])
    assert [] == engine_forms.refusal_problems(body, version=version)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("/containers/json", [entry("a1", Names="a1")]),
        ("/containers/json", [entry("a1", Created="2026-11-23")]),
        ("/containers/json", [entry("a1", Owner="x")]),
        ("/containers/json", {}),
    ],
)
def test_a_fake_answer_that_is_none_is_told(end, told):
    """Unless the test says that it is odd."""

    def listed(**how: bool) -> int:
        with scripted_engine.engine() as engine:
            engine.answer("GET", end, told, **how)
            with contextlib.suppress(api.BackendError, api.Partial):
                with backend(engine) as (made, run):
                    run(made.list())
            return sum("/containers/json" in asked.target for asked in engine.requests)

    with pytest.raises(AssertionError, match="/containers/json of API"):
        listed()
    assert listed(odd=True)


# --- what is read ------------------------------------------------------------------------------


class Noting(dict):
    """A section of an answer that notes which of its fields are asked for."""

    def __init__(self, told: dict[str, Any], asked: set[str], place: str = "") -> None:
        super().__init__(
            {key: _noting(value, asked, f"{place}.{key}") for key, value in told.items()}
        )
        self._asked, self._place = asked, place

    def _note(self, key: str) -> None:
        self._asked.add(f"{self._place}.{key}")

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)


def _noting(told: Any, asked: set[str], place: str) -> Any:
    if isinstance(told, dict):
        return Noting(told, asked, place)
    if isinstance(told, list):
        return [_noting(one, asked, f"{place}[]") for one in told]
    return told


READERS = {
    "GET /containers/json": answers.listed,
    "GET /containers/{id}/json": answers.inspected,
    "GET /events": answers.event,
    "GET /info": lambda told: (answers.identity(told), answers.security_options(told)),
    "POST /containers/create": answers.created_id,
    "POST /containers/{id}/wait": answers.status_code,
    "GET /volumes": answers.volumes,
    "GET /networks/{id}": answers.created_at,
}
SAMPLES = {
    "GET /containers/json": entry("a1", Ports=[{"IP": "::", "PrivatePort": 1, "PublicPort": 2, "Type": "tcp"}]),
    "GET /containers/{id}/json": recorded.load("container-exit3")["inspect_exited"]["body"]
    | {"Mounts": [{"Destination": "/x"}]},
    "GET /events": recorded.load("events-oom-pid1")[0],
    "GET /info": {"ID": "x", "SecurityOptions": []},
    "POST /containers/create": {"Id": "c" * 64},
    "POST /containers/{id}/wait": {"StatusCode": 0},
    "GET /volumes": {"Volumes": [{"Name": "x", "Labels": {}}]},
    "GET /networks/{id}": {"Created": "2026-01-01T00:00:00Z"},
}  # fmt: skip


@each("version", NEWER)
@each("name", READERS)
def test_what_we_read_is_still_there(name, version):
    """No reader relies on a field that a newer engine no longer has."""
    asked: set[str] = set()
    READERS[name](Noting(SAMPLES[name], asked))
    fields = {path for path in asked if not path.startswith((".Labels.", ".Config.Labels."))}
    assert fields
    assert fields <= engine_forms.fields(name, version=version)


@pytest.mark.parametrize("version", ["1.41", "1.44"])
def test_upstreams_own_examples_are_read(version):
    """Each whole: nothing of it is taken for odd. Newer definitions have none of whole answers."""
    read = []
    for name, told in engine_forms.examples(version):
        if name in READERS:
            for one in told if isinstance(told, list) else [told]:
                seen = READERS[name](one)
                assert not isinstance(seen, answers.Listed) or (seen.id and seen.names)
                read.append(name)
    assert {"GET /containers/json", "GET /containers/{id}/json"} <= set(read)


# --- what is sent ------------------------------------------------------------------------------

ORDER = api.InstanceSpec(
    name="a1",
    metadata={names.OWNER: "ours"},
    image="busybox:1",
    argv=("sh", "-c", "exit 3"),
    resources=api.Resources(cpu_limit=1.5, memory_bytes=1 << 28),
    options=settings.DockerTemplate(network="none"),
)


@pytest.mark.parametrize("version", engine_forms.VERSIONS)
@pytest.mark.parametrize("options", [ORDER.options, test_container.FULL], ids=["plain", "full"])
def test_what_we_ask_to_create_is_defined(options, version):
    """With every field of its type."""
    body = container.plan(attrs.evolve(ORDER, options=options), owner="ours").body
    assert {"Image", "Labels", "HostConfig"} <= set(body)
    assert [] == engine_forms.problems(engine_forms.CREATION, body, version=version)
    for bad in ({**body, "Labels": ["x"]}, {**body, "Imag": "x"}):
        assert engine_forms.problems(engine_forms.CREATION, bad, version=version)


# --- a real engine -----------------------------------------------------------------------------


def number(told: str) -> tuple[int, int]:
    read = answers.version(told)
    assert read is not None
    return read


def test_a_real_engine_answers_as_defined():
    """In each version that it speaks, from the creation of a container to its end."""
    url = asyncio.run(engines.with_image(engines.address()))
    with contextlib.closing(docker.APIClient(url, version="auto")) as client:
        told = client.version(api_version=False)
    spoken = [
        version
        for version in engine_forms.VERSIONS
        if number(told["MinAPIVersion"]) <= number(version) <= number(told["ApiVersion"])
    ]
    assert spoken, told
    for version in spoken:
        with contextlib.closing(docker.APIClient(url, version=version)) as client:
            seen = dict(_life(client))
        problems = {
            f"{name}: {problem}"
            for name, document in seen.items()
            for problem in engine_forms.surprises(name, document, version=version)
        }
        assert set() == problems
        assert len(seen) == 9


def _life(client: docker.APIClient) -> Iterator[tuple[str, Any]]:
    name = f"t{secrets.token_hex(4)}-forms"
    yield "GET /version", client.version(api_version=False)
    yield "GET /info", client.info()
    yield "GET /images/{name}/json", client.inspect_image(engines.IMAGE)
    body = {**container.plan(ORDER, owner=name).body, "Image": engines.IMAGE}
    body["HostConfig"] = {**body["HostConfig"], "NetworkMode": "none"}
    made = client.create_container_from_config(body, name)
    yield "POST /containers/create", made
    try:
        client.start(made["Id"])
        yield "POST /containers/{id}/wait", client.wait(made["Id"])
        yield "GET /containers/{id}/json", client.inspect_container(made["Id"])
        listed = client.containers(all=True, filters={"name": name})
        assert [made["Id"]] == [one["Id"] for one in listed]
        yield "GET /containers/json", listed
        yield "GET /volumes", client.volumes()
        event = next(
            iter(client.events(decode=True, since=1, filters={"container": [made["Id"]]}))
        )
        yield "GET /events", event
    finally:
        client.remove_container(made["Id"], force=True, v=True)
