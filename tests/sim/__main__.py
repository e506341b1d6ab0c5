"""``python -m tests.sim --seeds 50 --hours 6``: simulated days, told in numbers."""

import argparse
import pathlib
import statistics
import sys
import time

from tests.model.world import Broken
from tests.sim import simulator

SEEDS = pathlib.Path(__file__).parent / "seeds.txt"


def main():
    """Run all seeds under each policy; a seed that fails is kept in ``seeds.txt``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--policies", nargs="+", default=list(simulator.POLICIES))
    parser.add_argument("--no-faults", action="store_true")
    options = parser.parse_args()
    failed = 0
    print("policy | builds | wait p50 s | p95 s | warm % | agents started | idle h | cycles | s")
    for name in options.policies:
        began, reports = time.monotonic(), []
        for seed in range(options.first, options.first + options.seeds):
            try:
                reports.append(
                    simulator.run(
                        seed, hours=options.hours, policy_name=name, faults=not options.no_faults
                    )
                )
            except Broken as broken:
                failed += 1
                print(f"seed {seed} under {name}: {str(broken)[:600]}", file=sys.stderr)
                with SEEDS.open("a") as kept:
                    kept.write(f"{seed} {options.hours:g} {name}\n")
        if reports:
            print(told(name, reports, time.monotonic() - began), flush=True)
    return min(failed, 1)


def told(name, reports, took_s):
    """Return one line of the table."""
    waits = sorted(w for r in reports for w in r.waits)
    cut = statistics.quantiles(waits, n=20, method="inclusive")
    builds = sum(r.builds for r in reports)
    return " | ".join([
        name, str(builds), f"{cut[9]:.1f}", f"{cut[18]:.1f}",
        f"{100 * sum(r.warm for r in reports) / builds:.0f}",
        str(sum(r.launches for r in reports)),
        f"{sum(r.idle_s for r in reports) / simulator.HOUR_S:.0f}",
        str(sum(r.cycles for r in reports)), f"{took_s:.0f}",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
