"""How many series a scrape has at rest: before anything happened, with everything at zero.

Run: ``python -m benchmarks.metrics_size``. A series is one line of ``/metrics`` that is no
comment, so a histogram counts with all its buckets.
"""

import collections

from broker import metrics
from broker.core import model


def policy(templates: int, backends: int) -> model.Policy:
    """Every template may start on every backend."""
    places = tuple(model.BackendName(f"b{number}") for number in range(backends))
    return model.Policy(
        owner="size",
        templates=tuple(
            model.Template(
                name=model.TemplateName(f"t{number}"),
                labels=frozenset({"x"}),
                backends=places,
                revision="r",
            )
            for number in range(templates)
        ),
        backends={place: model.BackendPolicy() for place in places},
    )


def series(wanted: model.Policy) -> collections.Counter[str]:
    """Count by metric."""
    body, _ = metrics.PrometheusRecorder(wanted, version="0").render()
    lines = (line for line in body.decode().splitlines() if not line.startswith("#"))
    return collections.Counter(line.partition("{")[0].partition(" ")[0] for line in lines)


def main() -> None:
    """Print one table, and where the series of the smallest come from."""
    print("| templates | backends | series | more per template |")
    print("|---|---|---|---|")
    for templates, backends in ((1, 1), (20, 1), (1, 3), (200, 3)):
        total = series(policy(templates, backends)).total()
        each = (total - series(policy(0, backends)).total()) / templates
        print(f"| {templates} | {backends} | {total} | {each:.1f} |")
    print()
    for name, count in series(policy(1, 1)).most_common():
        print(f"{count:5} {name}")


if __name__ == "__main__":
    main()
