"""The figures of many runs, added up and printed."""

import collections
import statistics

from tests.soak import faults, invariants

PLATFORMS = ("one", "two", "calm")


def added(reports, what):
    """Return the sum of a count of each run."""
    total = collections.Counter()
    for report in reports:
        total.update(getattr(report, what))
    return total


def lines(reports):
    """Return the lines of the table."""
    strikes, checked = added(reports, "strikes"), added(reports, "checked")
    broken = collections.Counter(b.what for report in reports for b in report.broken)
    calls, left = added(reports, "calls"), added(reports, "left")
    minutes = sum(report.simulated_s for report in reports) / 60
    turns = sum(report.turns for report in reports)
    together = sum(report.together for report in reports)
    yield f"{sum(strikes.values())} faults of {len(strikes)} kinds, {together} beside another;"
    yield f"{minutes / 60:.1f} simulated hours in {len(reports)} runs, {turns} turns"
    yield ""
    yield "fault | times"
    for kind in sorted(faults.KINDS):
        yield f"{kind} | {strikes[kind]}"
    yield ""
    yield "invariant | checked | broken"
    for what in invariants.NAMES:
        yield f"{what} | {checked[what]} | {broken[what]}"
    yield ""
    yield "figure | value"
    for name, value in (
        ("items", sum(r.items for r in reports)),
        ("builds that ended well", sum(r.builds for r in reports)),
        ("builds that died of a fault", sum(r.excused for r in reports)),
        ("items lost", sum(r.lost for r in reports)),
        ("builds ended by us", sum(r.ended_by_us for r in reports)),
        *((f"{what} left over", left[what]) for what in ("nodes", "instances", "secrets")),
        ("longest step of the loop, ms", f"{max(r.longest_ms for r in reports):.0f}"),
        ("a turn, ms on average", f"{sum(r.turn_ms for r in reports) / max(turns, 1):.1f}"),
        ("start on the healthy backend beside faults, s", _mean(reports, "calm_s")),
        ("the same without faults, s", _mean(reports, "alone_s")),
    ):
        yield f"{name} | {value}"
    yield ""
    yield "whom | calls a minute | in the worst | refused a minute | in the worst"
    for who in ("controller", *PLATFORMS):
        refused = (who, "refused")
        yield " | ".join([
            who, f"{calls[who] / minutes:.0f}", str(_most(reports, who)),
            f"{calls[refused] / minutes:.1f}", str(_most(reports, refused)),
        ])  # fmt: skip
    yield f"lines of the log | {calls['log'] / minutes:.0f} | {_most(reports, 'log')} | |"


def _mean(reports, what):
    values = [value for report in reports for value in getattr(report, what)]
    return f"{statistics.fmean(values):.2f} ({len(values)} starts)" if values else "-"


def _most(reports, who):
    return max(report.most.get(who, 0) for report in reports)
