"""``doctor --try`` starts an agent of each template, says how it fared, and leaves nothing."""

import json
import pathlib
import subprocess
import sys
from unittest import mock

import pytest

from backends import api as backends_api
from broker import trying
from broker.simulator import controller
from tests.cli import test_doctor
from tests.cli.test_cli import ran

AGENT = pathlib.Path(controller.__file__).with_name("agent.py")


async def tried(tmp_path, monkeypatch, more, *arguments):
    """Return what the command finds, by check, and the simulated controller."""
    monkeypatch.setenv("DOCTOR_TOKEN", test_doctor.TOKEN)
    async with test_doctor.surgery(tmp_path, more=more) as (server, path):
        _, out, _ = await ran("doctor", "--json", *arguments, "--config", str(path))
    return {row["check"]: row for row in json.loads(out)}, server


async def test_an_agent_comes_online_and_goes(tmp_path, monkeypatch):
    """Each of its phases has a time; its node had no label, and is gone like the agent."""
    command = f'command: ["{sys.executable}", "-S", "{AGENT}"]'
    rows, server = await tried(tmp_path, monkeypatch, command, "--try")
    assert rows["try t"]["verdict"] == "ok"
    for phase in ("node", "launched", "online"):
        assert f"{phase} " in rows["try t"]["text"]
    assert server.sim.nodes == {}


async def test_one_that_ends_is_told_with_its_words(tmp_path, monkeypatch):
    """And removed, too."""
    command = "command: [/bin/sh, -c, 'echo no such library; exit 3']"
    rows, server = await tried(tmp_path, monkeypatch, command, "--try")
    assert rows["try t"]["verdict"] == "FAIL"
    assert "ended before it was online" in rows["try t"]["text"]
    assert "no such library" in rows["try t"]["hint"]
    assert server.sim.nodes == {}


async def test_nothing_is_started_unless_it_is_asked_for(tmp_path, monkeypatch):
    """Nor made."""
    mark = tmp_path / "started"
    rows, _ = await tried(tmp_path, monkeypatch, f"command: [/usr/bin/touch, {mark}]")
    assert "try t" not in rows
    assert not mark.exists()


@pytest.mark.parametrize(
    ("tools", "expected"), [((), ["sh", "nohup"]), (("nohup", "sh"), []), (("sh",), ["nohup"])]
)
def test_what_an_image_lacks_is_seen_by_a_shell_in_it(tmp_path, tools, expected):
    """By the image's own search path; the tools that are brought along do not count."""
    for name in tools:
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", "-c", trying.PROBE],
        env={"PATH": f"{tmp_path}:/opt/agent/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lacks = [one for one in trying.lacking(f"noise\n{said.stdout}") if "locale" not in one]
    assert lacks == expected


class Lagging:
    """A backend whose listing shows an agent late, then running, then no more."""

    def __init__(self, *shown):
        self.shown = list(shown)

    async def list(self):
        found = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        return [] if found is None else [found]


class Nodes:
    """A controller on which nobody is ever online."""

    async def read(self, name):
        return mock.Mock(offline=True)


async def test_a_listing_that_lags_is_no_end(monkeypatch):
    """What has not been seen yet is waited for; what is seen no more has gone."""
    monkeypatch.setattr(trying, "_LOOK_S", 0.0)
    runs = backends_api.Instance(name="a", metadata={}, state=backends_api.InstanceState.RUNNING)
    passed = []
    trier = trying.Trier(owner="o", nodes=Nodes(), backends={}, order=None, now=None)
    with pytest.raises(trying._Unwell, match="it is gone"):
        await trier._online(Lagging(None, None, runs, None), "a", passed.append)
    assert ["running"] == passed


def test_last_words_are_cleaned_like_all_others():
    """They are an image's, which may say anything."""
    assert ["sh\ufffd[2J"] == trying.lacking(f"{trying._SAID}sh\x1b[2J\nsomething else\n")
