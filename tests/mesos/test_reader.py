"""Commands that read: the master's pages tell, and the broker that runs does not notice."""

import json
import time

import pytest

from backends import api, registry
from backends.mesos import settings
from tests.contract import checks
from tests.mesos import master
from tests.mesos.test_wire import RECORDED, broker, listed_soon, served, spec

__all__ = ["broker", "served"]


def reader_of(broker, served, tmp_path, **changes):
    """Return what a command that reads gets beside the broker of that fixture."""
    return registry.create(
        "mesos",
        settings.MesosSettings(master=served.base, request_timeout_s=2.0, **changes),
        owner="ours",
        store=broker.store,
        state_dir=tmp_path,
        now=time.time,
        reads_only=True,
    )


async def test_it_sees_what_the_running_broker_sees_and_ends_nobodys_stream(
    broker, served, tmp_path
):
    running = broker(served.base)
    await running.launch(spec("a1"))
    await running.launch(spec("a2"))
    machine = served.machine
    machine.change(next(t for t in machine.tasks.values() if t.name == "a2"), "TASK_FAILED", "x")

    async def ended():
        found = await checks.listed(running)
        return found if found["a2"].state is api.InstanceState.EXITED else None

    seen = await checks.until("the end is seen", ended, within_s=5)
    subscribes = served.subscribes
    reader = reader_of(broker, served, tmp_path)
    found = {one.name: one for one in await reader.list()}
    assert seen.keys() == found.keys()
    for name, one in found.items():
        assert seen[name].state is one.state
        assert seen[name].metadata == one.metadata
        assert seen[name].created_at == one.created_at
    with pytest.raises(api.Rejected, match="reading only"):
        await reader.launch(spec("a3"))
    with pytest.raises(api.Rejected, match="reading only"):
        await reader.terminate("a1", grace_s=0)
    await reader.aclose()
    assert subscribes == served.subscribes
    assert seen.keys() == (await checks.listed(running)).keys(), "the broker has its stream"
    assert {"SUBSCRIBE": 1}.items() <= machine.calls.items()


async def test_what_is_over_and_acknowledged_is_nobodys(broker, served, tmp_path):
    running = broker(served.base)
    await running.launch(spec("a1"))
    await running.terminate("a1", grace_s=0)

    async def acknowledged():
        return served.machine.completed

    await checks.until("the end is acknowledged", acknowledged, within_s=5)
    reader = reader_of(broker, served, tmp_path)
    assert [] == await reader.list()
    await reader.aclose()


async def test_an_agent_that_is_away_or_awaited_is_told(broker, served, tmp_path):
    running = broker(served.base)
    await running.launch(spec("a1"))
    (task,) = served.machine.tasks.values()
    served.machine.lose(task.agent.id)
    reader = reader_of(broker, served, tmp_path)
    (one,) = await reader.list()
    assert (api.InstanceState.RUNNING, "its Mesos agent does not answer the master") == (
        one.state, one.detail,
    )  # fmt: skip
    served.machine.fail_over()
    with pytest.raises(api.Partial, match=r"waits for 1 agent, such as agent-\d") as caught:
        await reader.list()
    assert ["a1"] == [one.name for one in caught.value.seen]
    served.machine.reregister()
    await reader.aclose()
    await listed_soon(running)


async def test_nothing_is_written_and_an_unknown_framework_has_nothing(broker, served, tmp_path):
    reader = reader_of(broker, served, tmp_path)
    assert [] == await reader.list()
    assert not broker.store.kept
    await reader.aclose()
    assert not served.machine.frameworks
    with pytest.raises(api.Unavailable, match="closed"):
        await reader.list()


async def test_a_master_that_does_not_answer_is_an_error_also_for_nobody(broker, served, tmp_path):
    served.fault = (503, "No leader elected", {})
    reader = reader_of(broker, served, tmp_path)
    with pytest.raises(api.Unavailable, match="No leader"):
        await reader.list()
    await reader.aclose()


async def test_one_odd_task_costs_that_task(broker, served, tmp_path):
    running = broker(served.base)
    await running.launch(spec("a1"))
    await running.launch(spec("a2"))
    odd = next(t for t in served.machine.tasks.values() if t.name == "a2")
    odd.info["labels"]["labels"].append({"kee": 1})
    reader = reader_of(broker, served, tmp_path)
    with pytest.raises(api.Partial, match="1 task of the master's page cannot be read") as caught:
        await reader.list()
    assert caught.value.odd
    assert ["a1"] == [one.name for one in caught.value.seen]
    await reader.aclose()


def test_the_fake_shows_a_framework_as_recorded():
    """Recording 21: the members that the reader looks at."""
    machine = master.Master()
    opened = machine.subscribe({"subscribe": {"framework_info": {"user": "u", "name": "n"}}}, "s")
    page = machine.view_frameworks(opened.id)
    recorded = json.loads((RECORDED / "21-operator-views" / "calls.json").read_text())
    real = next(
        one["response"]["body"]
        for one in recorded
        if one["request"]["path"] == "/master/frameworks"
    )
    assert real.keys() == page.keys()
    (ours,), theirs = page["frameworks"], real["frameworks"][0]
    assert ours.keys() <= theirs.keys()
    assert ours["connected"] is theirs["connected"] is True
    assert real["completed_frameworks"][0]["connected"] is False
