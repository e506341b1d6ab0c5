"""One agent, asked about beside the broker at work: what it writes, and of what it goes."""

import json
import os
import re
import signal

import pytest

from tests import forked, patience
from tests.e2e import stage

POOL = """\
  pool:
    labels: pool
    warm: {min_idle: 1}
    retention: {idle: 1h}
"""


@pytest.fixture
async def made(tmp_path, monkeypatch):
    """A broker at work with a page, and one warm agent."""
    monkeypatch.setenv("TOKEN", stage.TOKEN)
    async with stage.Stage(tmp_path, templates=POOL) as found:
        found.write_config(listen="127.0.0.1:0")
        await found.start()
        await found.until(
            lambda: any(found.sim.nodes[n].online for n in found.agents), "an agent is online"
        )
        yield found


async def command(made, *arguments):
    return await forked.talking(
        *arguments, "--config", str(made.config), cwd=made.folder, env=os.environ
    )


async def said(made, *arguments):
    process = await command(made, *arguments)
    out, err = await patience.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_its_output_is_followed_until_it_is_gone_and_of_what(made):
    """What it has written, then what it died of, by the broker's word; afterwards the same."""
    (name,) = made.agents
    patient, out = patience.Patience(20), ""
    while not re.search(r"\nphase +idle\n", out):  # the broker sees it online a moment later
        assert not patient.is_over(), out
        code, out, err = await said(made, "describe", name)
        assert code == 0, err
    assert "1 are kept warm" in out

    process = await command(made, "logs", name, "--follow")
    first = await patience.wait_for(process.stdout.readline(), 60)
    assert f"{name} connected\n" == first.decode()
    for pid, line in made.processes().items():
        if name in _environment(pid) and "supervisor.py" not in line:
            os.kill(pid, signal.SIGKILL)
    _, err = await patience.wait_for(process.communicate(), 60)
    assert 0 == process.returncode, err
    assert re.search(rf"{name} is gone: (lost-)?killed: .", err.decode())

    await made.until(lambda: name not in made.directories, "it is buried")
    code, out, err = await said(made, "logs", name, "--json")
    *lines, end = map(json.loads, out.splitlines())
    assert (code, end["ended"]["slug"]) == (0, "lost-killed")
    assert {"line": f"{name} connected"} in lines
    code, out, _ = await said(made, "describe", name)
    assert code == 0
    assert "lost-killed" in out
    code, _, err = await said(made, "logs", "e2e-pool-nobody")
    assert (code, "no instance e2e-pool-nobody on local" in err) == (1, True)


def _environment(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/environ", "rb") as env:
            return (line.read() + env.read()).decode(errors="replace")
    except OSError:
        return ""
