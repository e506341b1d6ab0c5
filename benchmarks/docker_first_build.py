"""What a first build waits for on a real controller, and what the jar cache is worth.

Run: ``TOKEN=... python benchmarks/docker_first_build.py http://controller:8080/ USER IMAGE
[--agent-url URL] [--tunnel HOST:] [--archive /path/in/the/image.jsa] [--rounds N]`` with the
engine of DOCKER_HOST beside it. It runs a real broker, creates a job for each row and removes it.
Rows are interleaved, every build has a fresh container; the figures are medians, and ratios to
the first row. docs/performance.md holds what was measured.
"""

import argparse
import asyncio
import base64
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from typing import Any

import aiohttp
import yaml

from outside import waits

_ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
_JARS = "/home/jenkins/agent/remoting/jarCache"
_LIMIT_S = 180.0
_JOB = """\
<project><assignedNode>{label}</assignedNode><canRoam>false</canRoam>
<builders><hudson.tasks.Shell><command>true</command></hudson.tasks.Shell></builders></project>"""


def _rows(told: argparse.Namespace, volume: str) -> dict[str, dict[str, Any]]:
    """Return the templates that are compared, each on top of the one before."""
    cache = {"name": volume, "target": _JARS, "writable_by_user": True}
    without_killer = ["-Dhudson.util.ProcessTree.disable=true"]
    rows: dict[str, dict[str, Any]] = {
        "nothing but the image": {},
        "+ a shared jar cache": {"docker": {"volumes": [cache]}},
        "+ no process killer": {"docker": {"volumes": [cache]}, "jvm_options": without_killer},
    }
    if told.archive:
        rows["+ a class-data archive"] = {
            "docker": {"volumes": [cache]},
            "jvm_options": [*without_killer, f"-XX:SharedArchiveFile={told.archive}"],
        }
    return rows


class _Jenkins:
    """The few requests that are needed."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url.rstrip("/"), session

    async def post(self, path: str, **more: Any) -> None:
        """Do something; the session's token makes a crumb unnecessary."""
        async with self._session.post(f"{self._url}/{path}", **more) as answer:
            answer.raise_for_status()

    async def create(self, job: str, label: str) -> None:
        """Make a job that does nothing on an agent of that label."""
        kind = {"Content-Type": "application/xml"}
        content = _JOB.format(label=label)
        await self.post("createItem", params={"name": job}, data=content, headers=kind)

    async def build(self, job: str, number: int) -> tuple[float, float]:
        """Return seconds from the order to the start of a build, and what the build took."""
        began = time.time()  # noqa: TID251 -- compared with the controller's clock, on one machine
        await self.post(f"job/{job}/build", params={"delay": "0sec"})
        url = f"{self._url}/job/{job}/{number}/api/json?tree=building,timestamp,duration,result"
        async with waits.timeout(_LIMIT_S):
            while True:
                async with self._session.get(url) as answer:
                    told = await answer.json() if answer.status == 200 else {"building": True}
                if not told["building"]:
                    break
                await asyncio.sleep(0.05)
        assert told["result"] == "SUCCESS", told  # noqa: S101 -- a benchmark
        return told["timestamp"] / 1000 - began, told["duration"] / 1000

    async def rest(self, prefix: str) -> None:
        """Wait until no node of ours is left, so that the next row has the machine to itself."""
        url = f"{self._url}/computer/api/json?tree=computer[displayName]"
        async with waits.timeout(_LIMIT_S):
            while True:
                async with self._session.get(url) as answer:
                    nodes = [node["displayName"] for node in (await answer.json())["computer"]]
                if not any(name.startswith(f"{prefix}-x") for name in nodes):
                    return
                await asyncio.sleep(0.2)


async def _measure(told: argparse.Namespace, owner: str, folder: str) -> None:
    rows = _rows(told, f"{owner}-jars")
    labels = {name: f"x{number}" for number, name in enumerate(rows)}
    connect = {"tunnel": told.tunnel} if told.tunnel else {}
    config = {
        "owner": owner,
        "controller": {"url": told.url, "user": told.user, "token": "env:TOKEN",
                       "agent_url": told.agent_url or told.url},
        "state_dir": f"{folder}/state",
        "listen": "off",
        "backends": {"docker": {"kind": "docker", "hosts": [{"url": _ENGINE}]}},
        # a build may be too short to be seen: then the idle agent goes
        "defaults": {"image": told.image, "retention": {"once": True, "idle": "2s"},
                     "connect": connect},
        "templates": {label: {"labels": label, **rows[name]} for name, label in labels.items()},
    }  # fmt: skip
    file = pathlib.Path(folder) / "broker.yaml"
    await asyncio.to_thread(file.write_text, yaml.safe_dump(config))
    broker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "run", "--config", str(file),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    access = base64.b64encode(f"{told.user}:{os.environ['TOKEN']}".encode()).decode()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {access}"}) as session:
        jenkins = _Jenkins(told.url, session)
        try:
            for label in labels.values():
                await jenkins.create(f"{owner}-{label}", label)
            for number in range(told.rounds + 1):
                for name, label in labels.items():
                    seen[name].append(await jenkins.build(f"{owner}-{label}", number + 1))
                    await jenkins.rest(owner)
        finally:
            broker.terminate()
            await broker.wait()
            for label in labels.values():
                await jenkins.post(f"job/{owner}-{label}/doDelete", allow_redirects=False)
    _tell({name: runs[1:] for name, runs in seen.items()})  # the first round fills the cache


def _tell(seen: dict[str, list[tuple[float, float]]]) -> None:
    first: tuple[float, float] | None = None
    for name, runs in seen.items():
        starts, builds = ([run[part] for run in runs] for part in (0, 1))
        start, build = statistics.median(starts), statistics.median(builds)
        first = first or (start, build)
        print(
            f"{name:24} to the start {start / first[0]:.2f} ({start:.2f} s, {min(starts):.2f} to "
            f"{max(starts):.2f})   the build {build / first[1]:.2f} ({build:.2f} s)"
        )


def main() -> None:
    """Measure, and remove the volume."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "user", "image"):
        parser.add_argument(name)
    for name in ("--agent-url", "--tunnel", "--archive"):
        parser.add_argument(name)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    owner = f"first{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(told, owner, folder))
    tool = ["docker", "-H", _ENGINE, "volume", "rm", f"{owner}-jars"]
    subprocess.run(tool, check=True, capture_output=True)  # noqa: S603 -- our own words


if __name__ == "__main__":
    main()
