"""What tasks use, by the page ``/containers`` of their agents. Pure.

An agent has to look at all its containers to answer, those of other frameworks too, so each is
asked once a minute and only while it runs tasks of ours. The page is of Mesos' documentation
(endpoints/slave/containers). Refuses to know how pages are got.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from backends.kit import usage
from outside import typed

EVERY_S = 60.0
_MOST = 10_000  # containers of one agent
_BYTES_MAX = 1 << 62
_SECONDS_MAX = 1e12


def read(page: Any, *, framework: str, now: float) -> Iterator[tuple[str, usage.Sample]]:
    """Yield what the framework's tasks use, by their names; what cannot be read is left out.

    A command task's executor has its name, and its container holds them both.
    """
    for entry in page[:_MOST] if isinstance(page, list) else ():
        if not isinstance(entry, Mapping) or entry.get("framework_id") != framework:
            continue
        name, told = entry.get("executor_id"), entry.get("statistics")
        if isinstance(name, str) and isinstance(told, Mapping):
            yield name, _sample(told, now=now)


def _sample(told: Mapping[str, Any], *, now: float) -> usage.Sample:
    spent = [_seconds(told, f"cpus_{kind}_time_secs") for kind in ("user", "system")]
    known = [one for one in spent if one is not None]
    return usage.Sample(
        at=min(_seconds(told, "timestamp") or now, now),
        memory_bytes=typed.integer(told.get("mem_rss_bytes"), 0, _BYTES_MAX),
        memory_limit_bytes=typed.integer(told.get("mem_limit_bytes"), 1, _BYTES_MAX),
        cpu_s=sum(known) if known else None,
        throttled_s=_seconds(told, "cpus_throttled_time_secs"),
    )


def _seconds(told: Mapping[str, Any], key: str) -> float | None:
    return typed.number(told.get(key), 0.0, _SECONDS_MAX)
