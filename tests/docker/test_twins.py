"""One engine under two addresses is listed once: each container would be its own double, and go."""

import contextlib
import logging
import os
import pathlib

import pytest

from backends import api
from backends.docker import settings
from tests.docker import scripted_engine
from tests.docker.test_odd import backend, entry

INFO = {"ID": "one", "Name": "machine", "SecurityOptions": []}


@contextlib.contextmanager
def twice(engine: scripted_engine.Engine):
    """Give both addresses of an engine, the second by a link to its socket."""
    socket = pathlib.Path(engine.url.removeprefix("unix://"))
    link = socket.with_name("other")
    os.symlink(socket, link)
    try:
        yield (settings.Host(url=engine.url), settings.Host(url=f"unix://{link}"))
    finally:
        link.unlink()


def listings(engine: scripted_engine.Engine) -> int:
    """Return how often our agents were listed; what is beside them is swept once."""
    asked_for = [one.target for one in engine.requests if "/containers/json" in one.target]
    return sum("agent-broker.beside." not in target for target in asked_for)


def asked(engine: scripted_engine.Engine, end: str, method: str = "GET") -> int:
    return sum(
        one.method == method and one.target.partition("?")[0].endswith(end)
        for one in engine.requests
    )


@pytest.mark.parametrize("limit", [None, 5])
def test_an_engine_by_two_addresses_is_listed_once_and_loses_nothing(caplog, limit):
    """The later address is left out, which the page and the log say; once, not in every look."""
    with scripted_engine.engine() as engine, twice(engine) as (first, second):
        engine.answer("GET", "/containers/json", [entry("a1"), entry("a2")])
        hosts = [settings.Host(url=one.url, max_instances=limit) for one in (first, second)]
        with (
            caplog.at_level(logging.WARNING),
            backend(engine, hosts=tuple(hosts)) as (made, run),
        ):
            for look in (1, 2, 3):
                assert {"a1", "a2"} == {one.name for one in run(made.list())}
                assert look == listings(engine)
            room = run(made.capacity())
        assert [] == [one.target for one in engine.requests if one.method != "GET"]
        assert 2 == asked(engine, "/info")
    words = f"{second.url} is left out: it leads to the same engine as {first.url}"
    assert words in room.text
    assert (None if limit is None else 3) == room.free_instances
    (told,) = [record for record in caplog.records if record.message == "host left out"]
    assert told.reason.startswith(f"{words}; hint: name it once")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ID": "one", "Name": "a"}, {"ID": "one", "Name": "b"}),  # cloned with its disk
        ({"ID": "one", "Name": "a"}, {"ID": "two", "Name": "a"}),
        (  # two of one machine
            {"ID": "one", "Name": "a", "DockerRootDir": "/var/lib/docker"},
            {"ID": "one", "Name": "a", "DockerRootDir": "/var/lib/other"},
        ),
        ({"Name": "a"}, {"Name": "a"}),  # it does not say
        ({"ID": 7}, {"ID": ["x"]}),
    ],
)
def test_engines_that_are_not_one_are_all_listed(one, other):
    """Whatever makes them alike."""
    with scripted_engine.engine() as first, scripted_engine.engine() as second:
        first.answer("GET", "/info", one, odd=True)
        second.answer("GET", "/info", other, odd=True)
        first.answer("GET", "/containers/json", [entry("a1")])
        second.answer("GET", "/containers/json", [entry("a2")])
        hosts = tuple(settings.Host(url=engine.url) for engine in (first, second))
        with backend(first, hosts=hosts) as (made, run):
            assert {"a1", "a2"} == {one.name for one in run(made.list())}
            assert None is run(made.capacity()).free_instances


def test_who_does_not_say_which_engine_it_is_is_not_listed():
    """It may be the one that is listed already; it is asked again, and left out then."""
    with scripted_engine.engine() as engine, twice(engine) as (first, second):
        engine.answer("GET", "/containers/json", [entry("a1")])
        engine.answer("GET", "/info", scripted_engine.refusal(500, "not now"))
        with backend(engine, hosts=(first, second)) as (made, run):
            for _ in range(2):
                with pytest.raises(api.BackendError):
                    run(made.list())
            assert 0 == listings(engine)
            engine.answer("GET", "/info", INFO)
            assert ["a1"] == [one.name for one in run(made.list())]
            assert 1 == listings(engine)
        assert [] == [one.target for one in engine.requests if one.method != "GET"]


def test_an_address_that_leads_elsewhere_by_now_is_taken_in(monkeypatch):
    """It is asked again after a while."""
    with (
        scripted_engine.engine() as engine,
        scripted_engine.engine() as moved,
        twice(engine) as (first, second),
    ):
        engine.answer("GET", "/containers/json", [entry("a1")])
        moved.answer("GET", "/containers/json", [entry("a2")])
        with backend(engine, hosts=(first, second)) as (made, run):
            assert ["a1"] == [one.name for one in run(made.list())]
            link = pathlib.Path(second.url.removeprefix("unix://"))
            link.unlink()
            os.symlink(moved.url.removeprefix("unix://"), link)
            place = made._pool.everywhere[1]
            place.host.client._forget()  # as when the old engine closes the connection
            assert ["a1"] == [one.name for one in run(made.list())]
            place.ask_at = 0.0
            assert {"a1", "a2"} == {one.name for one in run(made.list())}
            assert None is run(made.capacity()).free_instances
