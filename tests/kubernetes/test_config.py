"""What a broker makes of a configuration with this backend in it."""

import pathlib
from typing import Any

import pytest
import yaml

from broker import config
from broker.config import kinds, loading

DAY_S = 86_400.0


def loaded(
    folder: pathlib.Path, template: dict[str, Any], backend: dict[str, Any] | None = None
) -> config.Settings:
    """Load a configuration with one template, called ``maven``."""
    (folder / "secret").write_text("abc")
    document = {
        "owner": "ci",
        "controller": {
            "url": "http://localhost:8080/",
            "user": "u",
            "token": f"file:{folder}/secret",
        },
        "state_dir": str(folder / "state"),
        "backends": {"cluster": backend or {"kind": "kubernetes"}},
        "templates": {"maven": {"labels": "maven", "image": "x", **template}},
    }
    path = folder / "broker.yaml"
    path.write_text(yaml.safe_dump(document))
    return loading.load(path, kinds.classes(), environ={})


@pytest.mark.parametrize(
    ("told", "days", "warned"),
    [
        ({}, 3.5, False),
        ({"kubernetes": {"active_deadline": "never"}}, None, False),
        ({"kubernetes": {"active_deadline": "2d"}}, 1.0, False),
        ({"retention": {"max_age": "12h"}}, 0.5, False),
        ({"retention": {"max_age": "6d"}}, 3.5, True),
    ],
)
def test_no_agent_takes_builds_until_kubernetes_ends_it(
    tmp_path: pathlib.Path, told: dict[str, Any], days: float | None, warned: bool
) -> None:
    """``activeDeadlineSeconds`` ends a pod with its build: agents go long before."""
    settings = loaded(tmp_path, told)
    (template,) = config.policy(settings, wall_now=0.0).templates

    assert (None if days is None else days * DAY_S) == template.retention.max_age_s
    assert warned == any("build or not" in warning.text for warning in settings.warnings)
