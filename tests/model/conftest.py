"""Hypothesis as these tests want it: no deadlines, and a failure that can be repeated."""

import os

import hypothesis

hypothesis.settings.register_profile(
    "local",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
