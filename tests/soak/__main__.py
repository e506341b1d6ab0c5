"""``python -m tests.soak``: many thousand faults from a seed, and a table of what became of them.

``--run N`` plays one of the runs alone, as a failure says.
"""

import argparse
import concurrent.futures
import os
import sys
import time

from tests.soak import faults, run, table

ROUNDS = 10
"""Of one run; each has every kind of fault once."""


def main():
    """Play all runs; return 1 if anything did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--faults", type=int, default=14_800)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--run", type=int, help="this one alone")
    options = parser.parse_args()
    rounds = -(-options.faults // len(faults.KINDS))
    sizes = [min(ROUNDS, rounds - at) for at in range(0, rounds, ROUNDS)]
    runs = [(f"{options.seed}/{number}", size) for number, size in enumerate(sizes)]
    if options.run is not None:
        runs = [runs[options.run]]
    began = time.monotonic()
    print(
        f"seed {options.seed}: {rounds * len(faults.KINDS)} faults in {len(sizes)} runs",
        flush=True,
    )
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(play, *zip(*runs, strict=True)))
    print("\n".join(table.lines(reports)))
    print(f"\n{time.monotonic() - began:.0f} s with {options.jobs} processes")
    broken = [(report, one) for report in reports for one in report.broken]
    for report, one in broken[:20]:
        number = report.seed.rpartition("/")[2]
        print(f"BROKEN in run {report.seed}: {one}")
        print(
            f"  again: python -m tests.soak --seed {options.seed} --faults {options.faults} "
            f"--run {number}"
        )
    return min(len(broken), 1)


def play(seed, rounds):
    """Play one run in a process of its own."""
    return run.Run(seed, rounds=rounds).play()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is a part of the seed
        arguments = [sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
