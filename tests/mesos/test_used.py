"""What tasks use: the page of their agents, and how often it is asked for."""

import pytest

from backends import api
from backends.kit import usage
from backends.mesos import used
from tests.contract import checks
from tests.mesos.test_wire import broker, served, spec  # noqa: F401 -- fixtures

DOCUMENTED = {  # Mesos' documentation, endpoints/slave/containers
    "container_id": "container",
    "executor_id": "a1",
    "framework_id": "f",
    "source": "source",
    "statistics": {
        "cpus_limit": 8.25,
        "cpus_nr_periods": 769021,
        "cpus_nr_throttled": 1046,
        "cpus_system_time_secs": 34501.45,
        "cpus_throttled_time_secs": 352.597023453,
        "cpus_user_time_secs": 96348.84,
        "mem_anon_bytes": 4845449216,
        "mem_file_bytes": 260165632,
        "mem_limit_bytes": 7650410496,
        "mem_mapped_file_bytes": 7159808,
        "mem_rss_bytes": 5105614848,
        "timestamp": 1388534400.0,
    },
}


def test_what_the_documentation_shows():
    page = [DOCUMENTED, DOCUMENTED | {"framework_id": "of another"}]
    assert [
        (
            "a1",
            usage.Sample(
                at=1388534400.0,
                memory_bytes=5105614848,
                memory_limit_bytes=7650410496,
                cpu_s=pytest.approx(130850.29),
                throttled_s=352.597023453,
            ),
        )
    ] == list(used.read(page, framework="f", now=2e9))


@pytest.mark.parametrize(
    "page",
    [
        None,
        {},
        [None, 7, "a", {}, {"framework_id": "f"}],
        [DOCUMENTED | {"executor_id": 7}],
        [DOCUMENTED | {"statistics": None}],
    ],
)
def test_what_tells_nothing(page):
    assert [] == list(used.read(page, framework="f", now=2e9))


def test_odd_numbers_are_left_out():
    odd = {"mem_rss_bytes": "much", "cpus_user_time_secs": -1, "timestamp": 9e99, "cpus_limit": []}
    ((_, sample),) = used.read([DOCUMENTED | {"statistics": odd}], framework="f", now=5.0)
    assert (5.0, None, None) == (sample.at, sample.memory_bytes, sample.memory_limit_bytes)


async def test_it_is_shown_with_a_task_and_asked_once(served, broker):  # noqa: F811
    """However often is listed; an agent that has no such page is no trouble."""
    ours = broker(served.base)
    await ours.launch(spec("a1"))
    await checks.running(ours, "a1", within_s=10.0)
    (task,) = served.machine.tasks.values()
    served.containers = [DOCUMENTED | {"framework_id": task.framework}]
    other = broker(served.base)
    await ours.aclose()

    async def shown() -> api.Usage | None:
        return (await checks.listed(other))["a1"].usage

    told = await checks.until("it is told", shown, within_s=10.0)
    assert 5105614848 == told.memory_peak_bytes
    served.pages.clear()
    for _ in range(5):
        await other.list()
    assert "/containers" not in served.pages
