"""How long a fail-over takes: two real brokers, a lease, a build that waits when the leader goes.

Run: ``python -m benchmarks.failover [--rounds N] [--kubeconfig FILE --namespace NAME]``. Durations
of the lease and of polling are the defaults. The controller is simulated and the cluster a fake,
in this process; with a kubeconfig the lease is on a real cluster. The leader goes at a random
moment between two renewals. docs/performance.md holds what was measured.
"""

import argparse
import asyncio
import pathlib
import random
import statistics
import tempfile
import time
from collections.abc import Sequence

from tests.e2e import replicas

_SEED = 15
_RETRY_S = 2.0
_LIMIT_S = 60.0
_NAMES = ("one", "two")


class _Round:
    """What is seen of one fail-over, in seconds after the leader's end was ordered."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.leads = self.ordered = self.served = 0.0

    def now(self) -> float:
        return time.monotonic() - self.began


def _leads(pair: replicas.Replicas, name: str) -> bool:
    """Whether the broker said so of its own, however the lease is kept."""
    lines = [li for li in pair.said(name).splitlines() if "leading" in li or "standby" in li]
    return bool(lines) and "no longer" not in lines[-1] and "leading" in lines[-1]


async def _fail_over(pair: replicas.Replicas, old: str, new: str, *, kill: bool) -> _Round:
    process, made = pair.brokers[old], pair.made
    pods = len(pair.cluster.made_pods)
    seen = _Round()
    if kill:
        process.kill()
    else:
        process.terminate()
    item = made.sim.items[made.submit("single", 0.5)]
    await made.until(lambda: _leads(pair, new), f"{new} leads", within_s=_LIMIT_S)
    seen.leads = seen.now()
    await made.until(lambda: len(pair.cluster.made_pods) > pods, "ordered", within_s=_LIMIT_S)
    seen.ordered = seen.now()
    await made.until(lambda: item.started_at is not None, "it runs", within_s=_LIMIT_S)
    seen.served = seen.now()
    await process.wait()
    return seen


async def _measure(rounds: int, lease: str | None) -> None:
    dice = random.Random(_SEED)  # noqa: S311 -- the same moments every time
    with tempfile.TemporaryDirectory(prefix="failover-") as folder:
        pair = replicas.Replicas(
            pathlib.Path(folder), terms="retry: 2s", poll="busy: 1s, idle: 5s", lease=lease
        )
        async with pair:
            old, new = _NAMES
            await pair.start(old)
            await pair.made.until(lambda: _leads(pair, old), f"{old} leads", within_s=_LIMIT_S)
            for kill in (True, False):
                found = []
                for _ in range(rounds):
                    await pair.start(new)
                    await pair.until_said(new, "standby")
                    await asyncio.sleep(2 * _RETRY_S + dice.uniform(0, _RETRY_S))
                    found.append(await _fail_over(pair, old, new, kill=kill))
                    old, new = new, old
                _tell("kill -9" if kill else "clean stop", found)
            print("orders beyond what waited:", pair.cluster.excess or "none")


def _tell(what: str, found: Sequence[_Round]) -> None:
    for name in ("leads", "ordered", "served"):
        told = sorted(getattr(one, name) for one in found)
        print(
            f"{what:10}  {name:8}  least {told[0]:5.1f}  median {statistics.median(told):5.1f}  "
            f"most {told[-1]:5.1f} s",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kubeconfig")
    parser.add_argument("--namespace", default="default")
    told = parser.parse_args()
    lease = None
    if told.kubeconfig:
        lease = f'kubeconfig: "{told.kubeconfig}", namespace: {told.namespace}'
    asyncio.run(_measure(told.rounds, lease))


if __name__ == "__main__":
    main()
