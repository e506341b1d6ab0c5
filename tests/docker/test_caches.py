"""Caches of slots have an age and a size: who is over it is made anew before the next agent has it."""

import asyncio
import contextlib
import json
import time

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import caches, container, renewal
from backends.docker.engine import answers, client
from backends.kit import names
from backends.kit.remarks import Common
from tests.contract import checks
from tests.docker import conftest, scripted_engine

DAY = 86_400.0
OWNER = container.owner_labels("ci")


def volume(name="m2-{slot}", **told):
    return settings.Volume(name=name, target="/cache", writable_by_user=True, **told)


def cache(**told):
    return caches.Cache(name="m2-0", driver="local", marks=OWNER, **told)


# --- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "size", "why"),
    [
        (14 * DAY, 20 << 30, ""),
        (14 * DAY + 1, None, "14 days old, max_age is 14d"),
        (15.2 * DAY, None, "15 days and 4 hours old, max_age is 14d"),
        (-5 * DAY, None, ""),  # a clock was put back
        (0, (20 << 30) + 1, "20.0Gi large, max_size is 20Gi"),
        (0, None, ""),
        (15 * DAY, 21 << 30, "15 days old, max_age is 14d"),
    ],
)
def test_when_a_cache_is_made_anew(age_s, size, why):
    """Whoever is at the limit stays; what is not known is not too large; the words say why."""
    told = cache(max_age_s=14 * DAY, max_size_bytes=20 << 30)
    assert why == caches.excess(told, age_s=age_s, size_bytes=size)


def test_each_limit_stands_for_itself():
    assert not caches.excess(cache(max_age_s=DAY), age_s=1, size_bytes=1 << 60)
    assert not caches.excess(cache(max_size_bytes=1), age_s=1e9, size_bytes=1)
    assert "less than a minute old, max_age is 1s" == caches.excess(
        cache(max_age_s=1), age_s=5, size_bytes=None
    )


@pytest.mark.parametrize(
    ("labels", "made"),
    [
        ({**OWNER, caches.MADE: "1796057281"}, 1796057281.0),
        ({caches.MADE: "1796057281"}, None),
        (OWNER, None),
        ({**OWNER, caches.MADE: "-5"}, None),
        ({**OWNER, caches.MADE: "1e3"}, None),
        ({**OWNER, caches.MADE: "9" * 12}, None),
        ({**container.owner_labels("else"), caches.MADE: "1796057281"}, None),
    ],
)
def test_whose_a_volume_is(labels, made):
    """By its labels alone: what somebody else made, or nobody knows when, is not ours."""
    assert made == caches.made_at(labels, OWNER)


def test_labels_are_read_back():
    assert 1796057281.0 == caches.made_at(caches.labels(cache(), now=1796057281.9), OWNER)


# --- what a template may say -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": "m2"}, "others may have this volume"),
        ({"name": "m2-{name}"}, "goes with it"),
        ({"name": "m2-{name}-{slot}"}, "goes with it"),
        ({"name": "/srv/{slot}"}, "only a named volume"),
        ({"name": None}, "only a named volume"),
        ({"read_only": True, "writable_by_user": False}, "only read"),
        ({"driver_options": {"type": "nfs", "device": ":/x/{slot}"}}, "stays when the volume"),
        ({"driver": "rexray/ebs"}, None),
        ({"driver": "local"}, None),
        ({}, None),
    ],
)
def test_what_cannot_be_bounded_is_refused(told, words):
    def found(**more):
        given = {"name": "m2-{slot}", "target": "/c", **more, **told}
        options = settings.DockerTemplate(volumes=(settings.Volume(**given),))
        remarks = options.remarks(Common(settings=settings.DockerSettings()))
        return [(one.path, one.text) for one in remarks if one.wrong]

    aged, sized = found(max_age_s=DAY), found(max_size_bytes=1 << 30)
    if words is not None:
        assert [("volumes", 0, "max_age")] == [path for path, _ in aged]
        assert [("volumes", 0, "max_size")] == [path for path, _ in sized]
        assert words in aged[0][1]
        assert words in sized[0][1]
        return
    assert [] == aged
    elsewhere = told.get("driver") == "rexray/ebs"
    assert elsewhere == any("sizes" in text for _, text in sized)


def planned(**docker):
    rig = conftest.Rig("", lambda _: None)
    spec = rig.spec(
        "a",
        volumes=(volume(max_age_s=DAY), settings.Volume(name="xx", target="/x")),
        docker=docker,
    )
    spec = attrs.evolve(
        spec,
        options=names.in_slot(spec.options, 3),
        slot=3,
        metadata={names.OWNER: "ci", names.TEMPLATE: "Ünï code"},
    )
    return container.plan(spec, owner="ci")


def test_a_plan_says_which_caches_are_bounded():
    """With whose they are; the body and its digest are the same without the bounds."""
    (found,) = planned().caches
    assert ("m2-3", "local", DAY) == (found.name, found.driver, found.max_age_s)
    assert OWNER.items() <= found.marks.items()
    assert "Ünï code" == names.decode_metadata(found.marks, prefix=container.PREFIX)["template"]
    assert () == planned(HostConfig={"Mounts": []}).caches


# --- what engines say --------------------------------------------------------------------------

FORMS = {
    "before 1.52": lambda items: {"Volumes": items},
    "1.52": lambda items: {"VolumeUsage": {"Items": items, "TotalCount": 1}},
    "its documents": lambda items: {"VolumesDiskUsage": {"Items": items}},
}


@pytest.mark.parametrize("form", FORMS)
def test_sizes_are_read(form):
    def entry(name, size, labels):
        usage = None if size is None else {"Size": size, "RefCount": 0}
        return {"Name": name, "Labels": labels, "Driver": "local", "UsageData": usage}

    told = FORMS[form](
        [
            entry("m2-0", 7, OWNER),
            entry("of-a-driver", -1, OWNER),
            entry("not-known", None, OWNER),
            entry("no-number", "7", OWNER),
            entry("else", 7, {}),
            entry("../etc", 7, OWNER),
            "nonsense",
        ]
    )
    assert {"m2-0": (OWNER, 7)} == answers.volume_sizes(told, OWNER)


@pytest.mark.parametrize("told", [{}, {"Volumes": None}, {"VolumeUsage": []}])
def test_no_volumes_are_no_sizes(told):
    assert {} == answers.volume_sizes(told, OWNER)


# --- on an engine that says what a test wants ---------------------------------------------------


class Clock:
    def __init__(self):
        self.at = 2_000_000_000.0

    def __call__(self):
        return self.at


class Scene:
    """A scripted engine with caches on it."""

    def __init__(self, engine):
        self.engine, self.now = engine, Clock()
        configured = settings.DockerSettings(timeout_s=5)
        self.client = client.Engine(settings.Host(url=engine.url), configured)
        self.caches = renewal.Caches(self.client, owner=OWNER, now=self.now, place=engine.url)
        for status, words in ((404, "No such container: a"),):
            engine.answer("GET", "/containers/a/json", scripted_engine.refusal(status, words))
        engine.answer("POST", "/volumes/create", {"Name": "m2-3"})

    def there(self, age_s, **labels):
        made = str(int(self.now() - age_s))
        told = {"Name": "m2-3", "Labels": {**OWNER, caches.MADE: made, **labels}}
        self.engine.answer("GET", "/volumes/m2-3", told)
        return told

    def sized(self, told, size):
        entry = {**told, "UsageData": {"Size": size, "RefCount": 0}}
        self.engine.answer("GET", "/system/df", {"Volumes": [entry]})

    def renew(self, **told):
        plan = attrs.evolve(
            planned(), caches=(attrs.evolve(cache(**told), name="m2-3"),), container="a"
        )
        before = len(self.engine.requests)
        self.caches.renew(plan)
        return [
            one.method
            for one in self.engine.requests[before:]
            if "/volumes" in one.target and one.method != "GET"
        ]

    def looks(self):
        return sum("/system/df" in one.target for one in self.engine.requests)

    async def look(self):
        self.caches.look()
        await self.caches.looked()


@pytest.fixture
def scene():
    with scripted_engine.engine() as engine:
        made = Scene(engine)
        yield made
        made.client.leave()
        made.client.close()


def reasons(caplog, what):
    return [one.reason for one in caplog.records if one.getMessage() == what]


def test_one_that_is_too_old_goes_and_is_made_anew(scene, caplog):
    caplog.set_level("INFO")
    scene.there(15 * DAY)
    scene.engine.answer("DELETE", "/volumes/m2-3", b"HTTP/1.1 204 No Content\r\n\r\n")
    assert ["DELETE", "POST"] == scene.renew(max_age_s=14 * DAY)
    sent = json.loads(scene.engine.requests[-1].body)
    assert ("m2-3", "local") == (sent["Name"], sent["Driver"])
    assert scene.now() == caches.made_at(sent["Labels"], OWNER)
    assert ["15 days old, max_age is 14d"] == reasons(caplog, "cache removed")


def test_nothing_happens_to_one_that_is_young(scene):
    scene.there(13 * DAY)
    assert [] == scene.renew(max_age_s=14 * DAY)


def test_one_that_is_missing_is_made(scene):
    """As a broker leaves it that is killed between the two."""
    scene.engine.answer(
        "GET", "/volumes/m2-3", scripted_engine.refusal(404, "get m2-3: no such volume")
    )
    assert ["POST"] == scene.renew(max_age_s=14 * DAY)


def test_one_that_somebody_has_stays_and_is_told_once(scene, caplog):
    scene.there(15 * DAY)
    scene.engine.answer(
        "DELETE",
        "/volumes/m2-3",
        scripted_engine.refusal(409, "remove m2-3: volume is in use - [0123]"),
    )
    for _ in range(3):
        assert ["DELETE", "POST"] == scene.renew(max_age_s=14 * DAY)
    (told,) = reasons(caplog, "cache not removed")
    assert "15 days old" in told
    assert "in use" in told


def test_an_engine_that_is_too_slow_makes_none_without_labels(scene, caplog, monkeypatch):
    """It goes on to remove it: whoever makes one then waits for that, and says whose it is."""
    monkeypatch.setattr(renewal, "_WITHIN_S", 2.0)
    scene.there(15 * DAY)
    scene.engine.answer("DELETE", "/volumes/m2-3", lambda _, sock: sock.rest(60))
    assert ["DELETE", "POST"] == scene.renew(max_age_s=14 * DAY)
    assert caches.MADE in json.loads(scene.engine.requests[-1].body)["Labels"]
    assert 1 == len(reasons(caplog, "cache not removed"))


async def test_a_node_that_lets_go_of_it_late_is_waited_for_once(scene, monkeypatch):
    """Whoever has it longer holds up no launch after the first."""
    monkeypatch.setattr(renewal, "_GOING_S", 0.5)
    scene.there(15 * DAY)
    scene.engine.answer(
        "DELETE", "/volumes/m2-3", scripted_engine.refusal(409, "volume is in use - [0123]")
    )
    bounded = (attrs.evolve(cache(max_age_s=DAY), name="m2-3"),)

    def asked():
        return sum(one.method == "DELETE" for one in scene.engine.requests)

    await asyncio.to_thread(scene.caches.clear, bounded, "s")
    first = asked()
    await asyncio.to_thread(scene.caches.clear, bounded, "s")
    assert first > 1
    assert first + 1 == asked()


def test_one_of_somebody_else_stays_and_is_told_once(scene, caplog):
    told = scene.there(15 * DAY, **container.owner_labels("another"))
    scene.sized(told, 1 << 40)
    for _ in range(3):
        assert [] == scene.renew(max_age_s=14 * DAY, max_size_bytes=1)
    assert 1 == len(reasons(caplog, "cache not removed"))


def test_a_container_that_is_there_has_what_it_has(scene):
    """A launch that is repeated takes nothing from the agent that it has begun."""
    scene.there(15 * DAY)
    state = {"Status": "running", "Running": True}
    scene.engine.answer(
        "GET", "/containers/a/json", {"Id": "a" * 64, "State": state, "Config": {"Labels": {}}}
    )
    assert [] == scene.renew(max_age_s=14 * DAY)


async def test_a_clock_that_was_ahead_does_not_put_the_next_look_off(scene):
    """As of a machine that has found its time only after the broker began."""
    scene.sized(scene.there(DAY), 3 << 30)
    scene.now.at += 1000 * DAY
    await asyncio.to_thread(scene.renew, max_size_bytes=4 << 30)
    await scene.look()
    scene.now.at -= 1000 * DAY
    await asyncio.to_thread(scene.renew, max_size_bytes=4 << 30)
    await scene.look()
    assert 2 == scene.looks()


async def test_sizes_are_asked_for_seldom_and_only_for_who_needs_them(scene, caplog):
    """Not before somebody came with a limit; an hour later at the earliest; then again."""
    caplog.set_level("INFO")
    told = scene.there(DAY)
    scene.sized(told, 3 << 30)
    await scene.look()
    await asyncio.to_thread(scene.renew, max_age_s=14 * DAY)
    await scene.look()
    assert 0 == scene.looks()
    for _ in range(3):
        assert [] == await asyncio.to_thread(scene.renew, max_size_bytes=4 << 30)
        await scene.look()
    assert 1 == scene.looks()
    scene.now.at += renewal.EVERY_S + 60
    await scene.look()
    assert 2 == scene.looks()
    scene.now.at += 2 * renewal.EVERY_S
    await scene.look()  # nobody came since
    assert 2 == scene.looks()
    scene.engine.answer("DELETE", "/volumes/m2-3", b"HTTP/1.1 204 No Content\r\n\r\n")
    removed = await asyncio.to_thread(scene.renew, max_size_bytes=2 << 30)
    assert ["DELETE", "POST"] == removed
    assert ["3.0Gi large, max_size is 2Gi"] == reasons(caplog, "cache removed")


async def test_a_size_is_not_that_of_the_next_volume_of_the_name(scene):
    """It was made anew since: what the old one had counts for nothing."""
    scene.sized(scene.there(DAY), 3 << 30)
    await asyncio.to_thread(scene.renew, max_size_bytes=4 << 30)
    await scene.look()
    scene.there(60)
    assert [] == await asyncio.to_thread(scene.renew, max_size_bytes=2 << 30)


async def test_an_engine_that_takes_long_over_it_is_in_nobodys_way(scene):
    """Launches go on, a look begins once, and an end does not wait for it."""

    def never(_, sock):
        sock.rest(60)

    scene.there(DAY)
    scene.engine.answer("GET", "/system/df", never)
    await asyncio.to_thread(scene.renew, max_size_bytes=4 << 30)
    for _ in range(3):
        scene.caches.look()
        await checks.until("asked", _async(lambda: scene.looks() == 1), within_s=10)
        assert [] == await asyncio.to_thread(scene.renew, max_size_bytes=1 << 20)
    scene.caches.leave()
    await scene.caches.looked()
    assert frozenset() == scene.client.leave()


def _async(look):
    async def looked():
        return look()

    return looked


async def test_an_engine_that_tells_no_sizes_is_told_of_once(scene, caplog):
    scene.there(DAY)
    scene.engine.answer("GET", "/system/df", scripted_engine.refusal(403, "not through here"))
    for _ in range(3):
        assert [] == await asyncio.to_thread(scene.renew, max_size_bytes=1)
        await scene.look()
        scene.now.at += 2 * renewal.EVERY_S
    assert 3 == scene.looks()
    (told,) = reasons(caplog, "sizes of caches are not known")
    assert "not through here" in told


# --- on a real engine --------------------------------------------------------------------------


@pytest.fixture
async def cached(rig):
    """Give agents with a cache by slot, and remove what they leave."""
    made = []

    def spec(name, slot, commands, volumes=None, **bounds):
        told = volumes or (volume(f"{rig.prefix}m2-{{slot}}", **bounds),)
        whole = rig.spec(name, commands, code=0, volumes=told)
        made.append(name)
        return attrs.evolve(whole, options=names.in_slot(whole.options, slot), slot=slot)

    yield spec
    for name in made:
        with contextlib.suppress(api.NotFound):
            await rig.backend.terminate(name, grace_s=0)
    for one in (await rig.sdk("volumes"))["Volumes"] or ():
        if one["Name"].startswith(rig.prefix):
            await rig.sdk("remove_volume", one["Name"])


async def run(rig, spec, backend=None):
    """Run an agent to its end and remove it; return how it ended."""
    backend = backend or rig.backend
    await backend.launch(spec)
    ended = (await checks.exited(backend, spec.name, within_s=conftest.WITHIN_S)).exit
    await backend.terminate(spec.name, grace_s=0)
    return ended.code


def aged(backend, monkeypatch, by_s):
    """Let the broker's clock be ahead: the engine's does not count."""
    for place in backend._pool.everywhere:
        monkeypatch.setattr(place.host._caches, "_now", lambda: time.time() + by_s)


EMPTY = 'test -z "$(ls /cache)" || exit 5; echo x > /cache/x'
FULL = "test -e /cache/x || exit 6"


async def test_a_cache_that_is_too_old_is_empty_for_exactly_the_next_agent(
    rig, cached, monkeypatch, caplog
):
    """It has labels that say whose it is, and the user can write to it; another slot's stays."""
    caplog.set_level("INFO")
    assert 0 == await run(rig, cached("a", 0, EMPTY, max_age_s=DAY))
    assert 0 == await run(rig, cached("b", 0, FULL, max_age_s=DAY))
    assert 0 == await run(rig, cached("c", 1, EMPTY, max_age_s=DAY))
    labels = (await rig.sdk("inspect_volume", f"{rig.prefix}m2-0"))["Labels"]
    assert container.owner_labels(f"{rig.prefix}ours").items() <= labels.items()
    aged(rig.backend, monkeypatch, 2 * DAY)
    assert 0 == await run(rig, cached("d", 0, EMPTY, max_age_s=DAY))
    assert 0 == await run(rig, cached("e", 0, FULL, max_age_s=DAY))
    (told,) = [one for one in caplog.records if one.getMessage() == "cache removed"]
    assert (f"{rig.prefix}m2-0", "2 days old, max_age is 1d") == (told.cache, told.reason)
    monkeypatch.undo()
    assert 0 == await run(rig, cached("f", 1, FULL, max_age_s=DAY))


async def test_a_cache_that_is_too_large_goes_once_its_size_is_known(rig, cached):
    """A whole backend looks by itself, beside its listings."""
    fill = "dd if=/dev/zero of=/cache/x bs=1024 count=2048 2>/dev/null || exit 5"
    bound = {"max_size_bytes": 1 << 20}
    assert 0 == await run(rig, cached("a", 0, fill, **bound))
    (place,) = rig.backend._pool.everywhere

    async def large():
        """20.10 refuses while somebody else asks it; then it is asked again."""
        looking = place.host._caches
        looking._wanted, looking._rest_s = True, 0.0
        await rig.backend.list()
        await looking.looked()
        return max(looking._sizes.values(), default=0) >= 2 << 20

    await checks.until("its size is known", large, within_s=conftest.WITHIN_S)
    assert 0 == await run(rig, cached("c", 0, EMPTY, **bound))
    assert 0 == await run(rig, cached("d", 0, FULL, **bound))


async def test_another_owners_cache_and_one_without_labels_are_left_alone(
    rig, cached, engine_url, monkeypatch, caplog
):
    """Two brokers with one name for their caches, and a volume from before."""
    other = conftest.Rig(engine_url, conftest.backend_on())
    try:
        made = cached("a", 0, EMPTY, max_age_s=DAY)
        assert 0 == await run(other, made, other.backend)
        aged(rig.backend, monkeypatch, 9 * DAY)
        for name in ("b", "c"):
            assert 0 == await run(rig, cached(name, 0, FULL, max_age_s=DAY))
        await rig.sdk("create_volume", f"{rig.prefix}m2-1")
        before = await rig.sdk("inspect_volume", f"{rig.prefix}m2-1")
        assert 0 == await run(rig, cached("d", 1, EMPTY, max_age_s=DAY))
        assert 0 == await run(rig, cached("e", 1, FULL, max_age_s=DAY))
        after = await rig.sdk("inspect_volume", f"{rig.prefix}m2-1")
        assert before["Labels"] == after["Labels"]
        told = [one.cache for one in caplog.records if one.getMessage() == "cache not removed"]
        assert [f"{rig.prefix}m2-0", f"{rig.prefix}m2-1"] == told
    finally:
        await other.backend.aclose()


async def test_a_cache_that_a_container_of_somebody_has_stays(rig, cached, monkeypatch, caplog):
    """The engine says so, and the agent starts with it."""
    assert 0 == await run(rig, cached("a", 0, EMPTY, max_age_s=DAY))
    held = settings.Volume(name=f"{rig.prefix}m2-0", target="/x")
    await rig.backend.launch(rig.spec("holder", volumes=(held,)))
    await rig.running("holder")
    aged(rig.backend, monkeypatch, 9 * DAY)
    assert 0 == await run(rig, cached("b", 0, FULL, max_age_s=DAY))
    (told,) = [one for one in caplog.records if one.getMessage() == "cache not removed"]
    assert "in use" in told.reason
    await rig.backend.terminate("holder", grace_s=0)
    assert 0 == await run(rig, cached("c", 0, EMPTY, max_age_s=DAY))


async def test_a_broker_killed_between_removing_and_starting(rig, cached, monkeypatch):
    """Before it made the volume anew, or after: the next one starts with an empty cache."""
    assert 0 == await run(rig, cached("a", 0, EMPTY, max_age_s=DAY))
    aged(rig.backend, monkeypatch, 9 * DAY)
    (place,) = rig.backend._pool.everywhere

    class KilledError(BaseException):
        pass

    def die(*_, **__):
        raise KilledError

    for where, verb in ((place.host.client, "create_volume"), (place.host, "_folder_for")):
        with monkeypatch.context() as patch:
            patch.setattr(where, verb, die)
            with pytest.raises(KilledError):
                await rig.backend.launch(cached("b", 0, FULL, max_age_s=DAY))
        heir = conftest.backend_on()(rig)
        try:
            assert 0 == await run(rig, cached("b", 0, EMPTY, max_age_s=DAY), heir)
            assert 0 == await run(rig, cached("c", 0, FULL, max_age_s=DAY), heir)
        finally:
            await heir.aclose()


async def test_what_is_read_only_is_shared_and_slots_never_meet(rig, cached):
    """Two agents at once: both read one cache and cannot write to it; each writes to its own."""
    await rig.sdk("create_volume", f"{rig.prefix}shared")
    fill = rig.spec(
        "f", "echo all > /shared/x", code=0, user="0",
        volumes=(settings.Volume(name=f"{rig.prefix}shared", target="/shared"),),
    )  # fmt: skip
    assert 0 == await run(rig, fill)
    told = (
        settings.Volume(name=f"{rig.prefix}shared", target="/shared", read_only=True),
        volume(f"{rig.prefix}m2-{{slot}}", max_age_s=DAY, max_size_bytes=1 << 30),
    )
    words = (
        "test $(cat /shared/x) = all || exit 5; echo y 2>/dev/null > /shared/y && exit 6; "
        "i=0; while [ $i -lt 200 ]; do echo $HOSTNAME >> /cache/log; i=$((i+1)); done; "
        "test $(sort -u /cache/log | wc -l) = 1"
    )
    async with asyncio.TaskGroup() as group:
        ends = [
            group.create_task(run(rig, cached(name, slot, f"{words} || exit 7", told)))
            for name, slot in (("a", 0), ("b", 1))
        ]
    assert [0, 0] == [one.result() for one in ends]
