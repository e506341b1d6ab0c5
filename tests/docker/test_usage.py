"""What an engine tells of memory and processors, and what becomes of it."""

import attrs
import pytest

from backends import api
from backends.docker.engine import answers
from backends.kit import usage
from tests.docker import recorded

MIB = 1 << 20
V2 = {  # as the API's reference describes it: without max_usage, other words in ``stats``
    "memory_stats": {
        "usage": 300 * MIB,
        "stats": {"anon": 200 * MIB, "inactive_file": 90 * MIB},
        "limit": 512 * MIB,
    },
    "cpu_stats": {
        "cpu_usage": {"total_usage": 5_500_000_000},
        "throttling_data": {"throttled_time": 1_250_000_000},
    },
}


def test_what_a_recorded_engine_tells():
    """Of cgroup v1: the kernel's own peak is there."""
    told = answers.sample(recorded.load("stats-one-shot")["body"], limit=None, at=7.0)
    assert (
        usage.Sample(
            at=7.0,
            memory_bytes=331776,
            memory_cached_peak_bytes=4337664,
            cpu_s=0.033501246,
            throttled_s=0.0,
        )
        == told
    )


def test_what_an_engine_with_cgroup_v2_tells():
    told = answers.sample(V2, limit=512 * MIB, at=7.0)
    assert (210 * MIB, None, 512 * MIB) == (
        told.memory_bytes,
        told.memory_cached_peak_bytes,
        told.memory_limit_bytes,
    )
    assert (5.5, 1.25) == (told.cpu_s, told.throttled_s)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}},  # it has ended
        {"memory_stats": [], "cpu_stats": "?"},
        {"memory_stats": {"usage": "much"}, "cpu_stats": {"cpu_usage": {"total_usage": -1}}},
        {"memory_stats": {"usage": True}},
    ],
)
def test_what_tells_nothing(odd):
    assert answers.sample(odd, limit=1, at=7.0) is None


def test_the_largest_answer_stays_and_the_rest_is_the_last():
    used = None
    for at, memory, cpu_s in ((0.0, 100, 0.0), (10.0, 900, 20.0), (20.0, 200, 25.0)):
        used = usage.added(used, usage.Sample(at=at, memory_bytes=memory, cpu_s=cpu_s))
    assert (
        api.Usage(at=20.0, memory_bytes=200, memory_peak_bytes=900, cpu_s=25.0, cpu_peak_cores=2.0)
        == used
    )
    later = usage.added(used, usage.Sample(at=30.0))
    assert attrs.evolve(used, at=30.0) == later, "what an answer leaves out stays"


def test_a_rate_that_is_told_or_cannot_be():
    first = usage.added(None, usage.Sample(at=0.0, cpu_s=5.0))
    soon = usage.added(first, usage.Sample(at=0.1, cpu_s=5.5))
    assert soon.cpu_peak_cores is None, "the interval is too short to say anything"
    anew = usage.added(first, usage.Sample(at=10.0, cpu_s=1.0))
    assert (5.0, 0.0) == (anew.cpu_s, anew.cpu_peak_cores), "its counter began anew"
    assert usage.added(None, usage.Sample(at=0.0, cpu_cores=1.5)).cpu_peak_cores == 1.5


def test_who_is_asked_and_when():
    """Soon after the start, then ever less; whatever the clock does."""
    usages, asked, now = usage.Usages(), [], 0.0
    while now < 60:
        if usages.due(["a"], now=now):
            asked.append(now)
        now += 1.0
    assert asked == [0.0, 2.0, 6.0, 14.0, 29.0, 44.0, 59.0]
    assert ("a",) == usages.due(["a"], now=-100.0), "the clock went back"
    usages.take("a", usage.Sample(at=0.0, memory_bytes=1))
    usages.keep(["b"])
    assert usages.of("a") is None
    assert ("a",) == usages.due(["a"], now=-99.5), "it is forgotten: somebody new"
