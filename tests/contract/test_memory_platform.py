"""The machine behind the memory backend: time, scripted faults and stale pictures."""

import asyncio

import attrs
import pytest

from backends import api, memory
from backends.kit import names


def _spec(name: str = "a1", template: str = "linux", **options: object) -> api.InstanceSpec:
    return api.InstanceSpec(
        name=name,
        metadata={names.TEMPLATE: template},
        options=memory.MemoryTemplate(**options),
    )


def _states(platform: memory.Platform, now: float) -> dict[str, str]:
    return {i.name: i.state.value for i in platform.visible(owner="ours", now=now)}


def test_everything_happens_when_it_is_due():
    """Starting, running and ending take the time that was scripted, and tell when they are next."""
    heard: list[str] = []
    platform = memory.Platform(
        memory.MemorySettings(launch_s=5, terminate_s=3),
        on_start=lambda spec: heard.append(f"start {spec.name}"),
        on_stop=lambda name: heard.append(f"stop {name}"),
    )
    platform.start(_spec(), owner="ours", now=100)
    assert (105, {"a1": "starting"}) == (platform.wake_at(), _states(platform, 104.9))
    assert {"a1": "running"} == _states(platform, 105)
    assert ["start a1"] == heard
    assert 113 == platform.stop("a1", owner="ours", now=110)
    assert ["start a1", "stop a1"] == heard
    assert {"a1": "stopping"} == _states(platform, 112)
    assert 113 == platform.stop("a1", owner="ours", now=112), "asking again changes nothing"
    assert {} == _states(platform, 113)
    assert platform.wake_at() is None


def test_a_life_that_is_scripted_ends_with_its_status():
    """Between two looks, at the time it was due."""
    platform = memory.Platform()
    platform.start(_spec(launch_s=1, lives_s=10, exit_code=4), owner="ours", now=0)
    (instance,) = platform.visible(owner="ours", now=60)
    assert api.Exit(slug="exited", code=4, at=11) == instance.exit


def test_instances_are_spread_over_the_places_that_they_may_use():
    """The emptiest takes the next; where all are to be avoided there is no room."""
    platform = memory.Platform(memory.MemorySettings(places=("north", "south")))
    for name, avoid in (("a1", ()), ("a2", ()), ("a3", ("north",))):
        platform.start(attrs.evolve(_spec(name), avoid=avoid), owner="ours", now=0)
    placed = {one.name: one.place for one in platform.visible(owner="ours", now=0)}
    assert {"a1": "north", "a2": "south", "a3": "south"} == placed
    nowhere = attrs.evolve(_spec("a4"), avoid=("north", "south"))
    with pytest.raises(api.NoCapacity):
        platform.start(nowhere, owner="ours", now=0)


def test_a_death_while_it_is_ending_is_no_second_life():
    """It goes when it was to go; it does not stay as a dead instance."""
    platform = memory.Platform(memory.MemorySettings(terminate_s=3))
    platform.start(_spec(), owner="ours", now=0)
    platform.stop("a1", owner="ours", now=1)
    platform.kill("a1", now=2)
    assert {"a1": "stopping"} == _states(platform, 2)
    assert {} == _states(platform, 4)


def test_a_dead_instance_takes_its_place_until_it_is_removed():
    """Capacity counts what is listed."""
    platform = memory.Platform(memory.MemorySettings(capacity=1))
    platform.start(_spec("a1"), owner="ours", now=0)
    platform.kill("a1", now=1)
    with pytest.raises(api.NoCapacity):
        platform.start(_spec("a2"), owner="ours", now=2)
    platform.stop("a1", owner="ours", now=3)
    platform.start(_spec("a2"), owner="ours", now=4)
    assert 0 == platform.free()


def test_a_fault_strikes_the_first_call_that_fits():
    """By verb, template and name; the others are not touched."""
    platform = memory.Platform()
    platform.fail_next(api.Unavailable("down"), template="windows")
    platform.fail_next(api.Unavailable("down"), verb="terminate", name="a2")
    for name in ("a1", "a2"):
        platform.start(_spec(name), owner="ours", now=0)
    with pytest.raises(api.Unavailable):
        platform.start(_spec("a3", "windows"), owner="ours", now=0)
    platform.stop("a1", owner="ours", now=1)
    with pytest.raises(api.Unavailable):
        platform.stop("a2", owner="ours", now=1)
    assert {"a2": "running"} == _states(platform, 2)


def test_an_answer_that_is_lost_after_the_effect():
    """The call fails, the instance is there: the worst of all faults."""
    platform = memory.Platform()
    platform.fail_next(api.Unavailable("cut"), after=True)
    with pytest.raises(api.Unavailable):
        platform.start(_spec(), owner="ours", now=0)
    assert {"a1": "running"} == _states(platform, 0)


def test_a_stale_picture_is_shown_as_often_as_scripted():
    """Whatever happens meanwhile."""
    platform = memory.Platform()
    platform.start(_spec("a1"), owner="ours", now=0)
    platform.stale_list(reads=2)
    platform.start(_spec("a2"), owner="ours", now=1)
    platform.stop("a1", owner="ours", now=1)
    assert [{"a1"}, {"a1"}, {"a2"}] == [set(_states(platform, 2)) for _ in range(3)]


async def test_a_call_that_hangs_does_so_until_it_is_given_up():
    """And with ``after`` it has taken effect."""
    platform = memory.Platform()
    made = memory.MemoryBackend(platform, owner="ours", now=lambda: 0.0)
    platform.hang_next(after=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await made.launch(_spec())
    assert ["a1"] == [instance.name for instance in await made.list()]


@pytest.mark.parametrize("setting", ["launch_s", "terminate_s", "list_s", "capacity"])
def test_a_negative_setting_is_told(setting):
    """With its name and what is allowed."""
    with pytest.raises(ValueError, match=f"{setting}: found -1s?; allowed: 0"):
        memory.MemorySettings(**{setting: -1})
