"""The push hook on a real controller on this machine: ``--live jenkins=http://USER:TOKEN@HOST:PORT/``.

The user is an administrator. The broker puts the hook in by itself, and it is taken out at the end.
"""

import asyncio
import collections
import json
import re
import sys

import pytest

from tests import patience
from tests.e2e import test_real_controller as real_controllers

pytestmark = pytest.mark.enable_socket
KEY = "0123456789abcdef0123456789abcdef"
PIPELINE = (
    '<flow-definition plugin="workflow-job"><definition plugin="workflow-cps" '
    'class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition"><script>{script}</script>'
    "<sandbox>true</sandbox></definition></flow-definition>"
)
pytest_generate_tests = real_controllers.pytest_generate_tests


class Hooked(real_controllers.Controller):
    """A controller whose broker has a hook."""

    def __init__(self, address, folder):
        super().__init__(address, folder)
        if self.url.host not in {"127.0.0.1", "localhost", "::1"}:
            pytest.skip("the controller has to reach the broker on this machine")
        (folder / "key").write_text(KEY)
        (folder / "key").chmod(0o600)
        text = self.config.read_text().replace('listen: "off"', 'listen: "127.0.0.1:0"')
        text += "control: {hook: {key: file:key, install: true}}\n"
        self.config.write_text(text.replace("cap: 1, retention", "cap: 6, retention"))

    async def __aexit__(self, *raised):
        code, said = await self.command("hook", "remove")
        await super().__aexit__(*raised)
        assert code == 0, said

    async def command(self, *arguments):
        asked = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker",
            *arguments,
            "--config",
            self.config,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**real_controllers.os.environ, "TOKEN": self.token},
        )
        said, _ = await asked.communicate()
        return asked.returncode, said.decode()

    def logged(self, message):
        """Return every line of the broker's log with such a message."""
        text = (self.folder / "broker.log").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if line["message"] == message]

    async def heard(self, times=1):
        """Wait until the hook has been put in so often, and is heard."""

        async def looked():
            if len(self.logged("the hook is put in")) < times:
                return False
            code, said = await self.command("status", "--json")
            hook = json.loads(said)["plan"]["hook"] if code == 0 else {}
            return bool(hook and hook["heard_at"] and not hook["silent"])

        await self.until(looked, "the hook is heard")

    async def metric(self, name):
        url = self.logged("status page served")[-1]["url"]
        async with self.http.get(f"{url}metrics") as answer:
            text = await answer.text()
        found = re.findall(rf"^jenkins_broker_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    async def pipeline(self, script):
        name = f"{self.owner}-{len(self.jobs)}"
        xml = {"Content-Type": "application/xml"}
        await self.post(f"createItem?name={name}", PIPELINE.format(script=script), headers=xml)
        self.jobs.append(name)
        return name

    async def console(self, job):
        async with self.http.get(f"job/{job}/1/consoleText") as answer:
            return await answer.text() if answer.ok else ""


async def test_short_builds_have_an_agent_each(address, tmp_path):
    """Thirty of them at once; all that entered the queue was told, and nothing was lost."""
    async with Hooked(address, tmp_path) as real:
        job = await real.job(f"{real.owner}-single", "sleep 0.1")
        broker = await real.start()
        await real.heard()
        for number in range(30):
            # the same item otherwise
            parameters = {"json": json.dumps({"parameter": {"name": "N", "value": str(number)}})}
            await real.post(f"job/{job}/build?delay=0sec", data=parameters)
            await asyncio.sleep(0.3)

        async def served():
            builds = await real.builds(job)
            queue = await real.get("queue/", "items[task[name]]")
            waiting = [item for item in queue["items"] if item["task"].get("name") == job]
            return not waiting and all(result for result, _ in builds) and builds

        builds = await real.until(served, "all builds have ended", within_s=300.0)
        nodes = collections.Counter(node for _, node in builds)
        assert {result for result, _ in builds} == {"SUCCESS"}
        assert set(nodes.values()) == {1}
        assert await real.metric("once_extra_builds_total") == 0
        assert await real.metric("hook_events_lost") == 0
        assert await real.metric("hook_decided_seconds_count") >= len(builds)
        broker.terminate()
        assert await patience.wait_for(broker.wait(), 60) == 0
        assert await real.nodes() == []


async def test_a_waiting_step_says_why(address, tmp_path):
    """In the log of its own run."""
    async with Hooked(address, tmp_path) as real:
        await real.start()
        await real.heard()
        job = await real.pipeline(f'node("{real.owner}-nobody") {{ echo "x" }}')
        await real.submit(job)

        async def told():
            return "[agent-broker] no template serves" in await real.console(job)

        await real.until(told, "it says why")


async def test_a_dead_agents_step_ends_at_once(address, tmp_path):
    """And is tried again on another one."""
    async with Hooked(address, tmp_path) as real:
        await real.start()
        await real.heard()
        job = await real.pipeline(
            "retry(count: 2, conditions: [agent()]) { "
            f'node("{real.owner}-kept") {{ sh "sleep 15" }} }}'
        )
        await real.submit(job)

        async def working():
            console = await real.console(job)
            found = re.search(rf"Running on ({real.owner}-kept-\w+)", console)
            return "sleep 15" in console and found and found[1]

        name = await real.until(working, "the step runs")
        killer = await asyncio.create_subprocess_exec("pkill", "-9", "-f", f"agent[.]jar.*{name}")
        assert await killer.wait() == 0

        async def done():
            found = await real.get(f"job/{job}/1/", "result")
            return found and found["result"]

        assert await real.until(done, "the build is done", within_s=120.0) == "SUCCESS"
        assert "Agent was removed" in await real.console(job)
