"""One listing per engine and look, and none for a launch: on a busy engine each one is dear."""

import asyncio

import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import host, pool
from broker.loop import observe
from tests.docker import scripted_engine
from tests.docker.test_odd import backend, entry


def listings(engine):
    return sum(
        "/containers/json" in request.target and "beside" not in request.target
        for request in engine.requests
    )


@pytest.mark.parametrize("limit", [None, 3])
def test_a_look_lists_an_engine_once(limit):
    """The instances and the free room are told by the same answer."""
    with scripted_engine.engine() as engine:
        engine.answer("GET", "/containers/json", [entry("a1"), entry("a2")])
        host_ = settings.Host(url=engine.url, max_instances=limit)
        with backend(engine, hosts=(host_,)) as (made, run):
            for looks in range(1, 4):
                view = run(observe.read_backend(made, now=lambda: 0.0, time_limit_s=20.0))
                assert {"a1", "a2"} == {one.name for one in view.instances}
                assert looks == listings(engine)
            free = view.capacity.free_instances if view.capacity is not None else None
            assert free == (None if limit is None else 1)


class Engine:
    """A host whose listings are counted; it shows what ran when the listing began."""

    def __init__(self, limit):
        self.url, self.max_instances = "unix:///x", limit
        self.running, self.listed = set(), 0

    def stream(self):
        return 1

    async def list(self):
        self.listed += 1
        shown = sorted(self.running)
        await asyncio.sleep(0.05)
        state = api.InstanceState.RUNNING
        return host.Listing(
            instances=tuple(api.Instance(name=n, state=state, metadata={}) for n in shown)
        )


async def launched(places, name, *, takes_s=0.0):
    (place,) = places.places
    await places.check_room(place, name)
    await asyncio.sleep(takes_s)
    place.host.running.add(name)
    place.took(name)


async def test_launches_list_nothing_and_never_take_more_than_there_is():
    """Not one after another, not many at once, not while a listing is under way."""
    engine = Engine(5)
    places = pool.Pool([engine])
    await places.list()
    listing = asyncio.create_task(places.list())
    await asyncio.sleep(0.01)
    names = [f"a{n}" for n in range(9)]
    jobs = (launched(places, name, takes_s=0.1) for name in names)
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    await listing
    assert 4 == sum(isinstance(end, api.NoCapacity) for end in ends)
    assert 2 == engine.listed
    assert engine.running == await places.names()  # the listing had begun before they were made
    with pytest.raises(api.NoCapacity):
        await launched(places, "b1")
    engine.running.clear()
    await places.list()
    await launched(places, "b1")
    assert 3 == engine.listed
    assert {"b1"} == await places.names()


async def test_who_was_never_listed_is_listed_once_before_its_room_is_given():
    """A broker that begins does not know what its last life has left."""
    engine = Engine(1)
    engine.running.add("old")
    places = pool.Pool([engine])
    for _ in range(3):
        with pytest.raises(api.NoCapacity):
            await launched(places, "a1")
    assert 1 == engine.listed
