"""The operator's page says what the settings classes say."""

import pathlib
import re

import attrs
import pytest

from backends.process import settings
from broker.config import describing, reading

_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "backends" / "process.md"


def _table(heading: str) -> dict[str, str]:
    """Return setting to default of the table under a heading."""
    part = _PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S*) ?\| (\S.*) \|$", part, flags=re.MULTILINE)
    return {name: default for name, default, _ in rows}


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("Settings of the backend", settings.ProcessSettings),
        ("Settings of a template", settings.ProcessTemplate),
    ],
)
def test_every_setting_is_on_the_page_with_its_default(heading, cls):
    """In the order of the class, called as in the configuration file."""
    wanted = {
        reading.key_of(attribute): describing.default_text(attribute)
        for attribute in attrs.fields(cls)
    }
    assert list(wanted.items()) == list(_table(heading).items())


@pytest.mark.parametrize(
    ("cls", "name", "bad", "words"),
    [
        (settings.ProcessSettings, "directory", "agents", "allowed: an absolute path"),
        (settings.ProcessSettings, "max_instances", -1, "allowed: 0 to 100000"),
        (settings.ProcessSettings, "max_output_bytes", 10, "allowed: 4Ki to"),
        (settings.ProcessSettings, "start_timeout_s", 0.1, "allowed: 500ms to 10m"),
        (settings.ProcessSettings, "cgroup", "x", "begin it with '/'"),
        (settings.ProcessTemplate, "nice", -5, "allowed: 0 to 19"),
        (settings.ProcessTemplate, "nice", 20, "allowed: 0 to 19"),
        (settings.ProcessTemplate, "max_open_files", 1, "allowed: 64 to"),
    ],
)
def test_a_wrong_value_is_told_when_the_configuration_is_read(cls, name, bad, words):
    """With the setting's name, what was found and what is allowed."""
    with pytest.raises(ValueError, match=words) as caught:
        cls(**{name: bad})
    assert str(caught.value).startswith(f"{name}: found ")
