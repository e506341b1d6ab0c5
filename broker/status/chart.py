"""The last hour as a picture: SVG that stands in the page, and the same in words beside it.

Pure; refuses to know where the figures come from.
"""

import html
import time
from collections.abc import Callable, Sequence

from broker.core.fleet import hour as hours
from outside import counts

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 150, 36, 18
_SERIES = (  # from the bottom up; what waits is a line over them
    ("busy", "working agents"),
    ("idle", "idle agents"),
    ("starting", "starting agents"),
)
_TICKS = 4
_Column = Callable[[float], float]  # where a minute begins


def picture(hour: hours.Hour, *, now: float) -> str:
    """Return the chart of an hour: agents stacked, and what waits as a line over them."""
    minutes = [one for one in hour.minutes if one.at > now - hours.MINUTES * hours.MINUTE_S]
    if not minutes:
        return '<p class="none">Nothing was seen in the last hour.</p>'
    top = _round_up(max(max(one.busy + one.idle + one.starting, one.waiting) for one in minutes))
    begin = now - hours.MINUTES * hours.MINUTE_S
    step = (_WIDTH - _LEFT) / hours.MINUTES
    scale = (_HEIGHT - _BOTTOM) / top

    def column(at: float) -> float:
        return round(_LEFT + (at - begin) / hours.MINUTE_S * step, 1)

    parts = [_grid(top, scale)]
    for one in minutes:
        x, base = column(one.at), float(_HEIGHT - _BOTTOM)
        for name, _ in _SERIES:
            size = getattr(one, name) * scale
            if size:
                base -= size
                parts.append(
                    f'<rect class="{name}" x="{x}" y="{base:.1f}" width="{step - 1:.1f}" '
                    f'height="{size:.1f}"/>'
                )
    parts += [_line(run, column, scale, step) for run in _runs(minutes)]
    parts += [_clock(begin + share * hours.MINUTES * hours.MINUTE_S, column, share)
              for share in (0.0, 0.25, 0.5, 0.75)]  # fmt: skip
    words = _words(minutes)
    legend = "".join(
        f'<li class="{name}">{text}</li>'
        for name, text in (*_SERIES, ("waiting", "waiting builds"))
    )
    return (
        f'<figure><svg role="img" aria-labelledby="hour-words" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul>'
        f'<figcaption id="hour-words" class="quiet">{html.escape(words)}</figcaption></figure>'
    )


def _grid(top: int, scale: float) -> str:
    lines = []
    for value in sorted({round(top * part / _TICKS) for part in range(_TICKS + 1)}):
        y = _HEIGHT - _BOTTOM - value * scale
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{max(y + 4, 10):.1f}" text-anchor="end">{value}</text>'
        )
    return "".join(lines)


def _line(run: Sequence[hours.Minute], column: _Column, scale: float, step: float) -> str:
    """Return what waits, as steps; minutes that nobody saw are a gap."""
    points = []
    for one in run:
        x, y = column(one.at), _HEIGHT - _BOTTOM - one.waiting * scale
        points += [f"{x},{y:.1f}", f"{x + step:.1f},{y:.1f}"]
    return f'<polyline class="waiting" points="{" ".join(points)}"/>'


def _runs(minutes: Sequence[hours.Minute]) -> list[list[hours.Minute]]:
    runs: list[list[hours.Minute]] = []
    for one in minutes:
        if runs and one.at - runs[-1][-1].at <= hours.MINUTE_S:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _clock(at: float, column: _Column, share: float) -> str:
    anchor = "start" if share == 0.0 else "middle"
    told = time.strftime("%H:%M", time.gmtime(at))
    return f'<text x="{column(at)}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{told}</text>'


def _words(minutes: Sequence[hours.Minute]) -> str:
    most = max(minutes, key=lambda one: one.waiting)
    last = minutes[-1]
    told = time.strftime("%H:%M", time.gmtime(most.at))
    peak = f"most builds waited at {told}: {most.waiting}" if most.waiting else "nothing waited"
    return (
        f"The last hour by minutes, in UTC: {peak}; in the last minute {last.waiting} waited, "
        f"{counts.told(last.busy, 'agent')} worked, {last.idle} were idle, {last.starting} were "
        "starting."
    )


def _round_up(most: int) -> int:
    """Return the top of the scale: a multiple of four, so that its marks are whole numbers."""
    step = 1
    while most > _TICKS * step:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return _TICKS * step
