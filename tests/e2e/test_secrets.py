"""No secret where somebody might read it, over the whole life of a running broker and its agents.

The API token, the secret of every node, and the password of a proxy's address: not in the log at
its most talkative, the metrics, the API, the page, a process list or an environment, a node on the
controller; on the disk only in the file that hands an agent its own.
"""

import json
import os
import pathlib
import signal

import aiohttp
import pytest

from broker.simulator import documents
from tests.e2e import stage

TEMPLATES = """\
  pool:
    labels: pool
    warm: {min_idle: 1}
    retention: {idle: 1h}
  single:
    labels: single
    retention: {once: true}
  broken:
    labels: broken
    command: [/no/such/program]
"""


def page_of(broker):
    """The address that the log names, once it does."""
    for line in broker.said.read_text().splitlines():
        if '"status page served"' in line:
            return json.loads(line)["url"]
    return None


async def shown(url):
    """Everything that is served over HTTP, as one text."""
    texts = []
    async with aiohttp.ClientSession(url) as session:
        for path in (
            "/",
            "/metrics",
            "/readyz",
            *(f"/api/v1/{n}" for n in ("queue", "agents", "templates", "plan")),
        ):
            async with session.get(path) as answer:
                texts.append(await answer.text())
    return "\n".join(texts)


def process_lists(pids):
    """Command lines and environments, as any process of the same user reads them."""
    texts = []
    for pid in pids:
        for name in ("cmdline", "environ"):
            texts.append(pathlib.Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace"))
    return "\n".join(texts)


async def test_secrets_are_nowhere(tmp_path):
    """With agents idle, busy, refused by the platform, killed and retired."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as made:
        made.write_config(listen="127.0.0.1:0")
        text = made.config.read_text()
        made.config.write_text(text.replace("{format: console}", "{format: json, level: debug}"))
        broker = await made.start()
        made.submit("single")
        made.submit("pool", duration_s=1.0)
        made.submit("broken")
        await made.until(lambda: page_of(broker), "the page is served")
        await made.until(lambda: made.fates().get("done", 0) == 2, "two builds are done")
        names = set(made.sim.nodes)
        agents = [pid for pid, line in made.processes().items() if "agent.py" in line]
        told = process_lists(made.processes())
        os.kill(agents[0], signal.SIGKILL)

        async def died():
            return "lost-" in await shown(page_of(broker))

        while not await died():
            await made.until(lambda: broker.returncode is None, "the broker lives")
        told += await shown(page_of(broker))
        told += "".join(
            repr(vars(node)) if hasattr(node, "__dict__") else repr(node)
            for node in made.sim.nodes.values()
        )
        assert 0 == (await made.stop(broker)).code
        log = broker.said.read_text()
        told += log
        seen = names | {json.loads(line).get("agent", "") for line in log.splitlines()}
        on_disk = {
            path: path.read_bytes().decode(errors="replace")
            for folder in (made.state, made.instances)
            for path in folder.rglob("*")
            if path.is_file() and path.stat().st_size < 1 << 20
        }

    begun = [json.loads(line) for line in log.splitlines() if '"launch begun"' in line]
    assert begun
    assert all(line["agent"] and line["cycle"] for line in begun)
    secrets = [documents.secret_of(name) for name in seen if name]
    assert len(secrets) >= 3
    for secret in (stage.TOKEN, *secrets):
        assert secret not in told.replace(f"TOKEN={stage.TOKEN}", "")
        holders = [path for path, content in on_disk.items() if secret in content]
        assert all(path.stat().st_mode & 0o077 == 0 if path.exists() else True for path in holders)
        assert stage.TOKEN != secret or holders == []


async def test_the_password_of_a_proxy_is_not_told(tmp_path):
    """Also when the proxy cannot be reached and everything complains about it."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as made:
        (tmp_path / "proxy").write_text("http://who:hunter2@127.0.0.1:1")
        text = made.config.read_text().replace(
            "timeout: 2s", f'timeout: 2s, proxy: "file:{tmp_path}/proxy"'
        )
        made.config.write_text(text.replace("{format: console}", "{format: json, level: debug}"))
        broker = await made.start()
        await made.until(lambda: "source lost" in broker.said.read_text(), "it complains")
        broker.send_signal(signal.SIGTERM)
        assert "hunter2" not in (await made.ended(broker)).said


@pytest.mark.parametrize("form", ["repr", "str", "format"])
def test_a_secret_does_not_show_itself(form):
    """Not by repr, not by str, not in an f-string, not inside of whatever holds it."""
    import attrs

    from jnlp import http as jnlp_http
    from jnlp import secret as jnlp_secret
    from jnlp import settings as jnlp_settings

    secret = jnlp_secret.Secret("hunter2")
    held = jnlp_settings.ControllerAccess(
        url="http://c/",
        credentials=jnlp_settings.Credentials(user="u", secret=secret),
        proxy="http://u:hunter2@p/",
    )
    session = jnlp_http.ControllerSession(held)
    for one in (secret, held, session, vars(session), [held], attrs.evolve(held)):
        shown_as = {"repr": repr(one), "str": str(one), "format": f"{one}"}[form]
        assert "hunter2" not in shown_as
