"""How fast a swarm starts agents through the backend, beside services that it is given bare.

    .venv/bin/python benchmarks/swarm_launch.py unix:///PATH [ROUNDS] [COUNT]

Method: one manager that is its own only node, network host, image by ID. A round starts COUNT at
once, bare (``POST /services/create`` from 8 threads, no secret) or as agents with their secret
through ``launch`` of the backend, and ends when the manager shows all of them as running; then all
are removed and waited for. Rounds alternate, each begins with the other kind than the one before;
what counts is the ratio of the two of each pair.
"""

import asyncio
import concurrent.futures
import contextlib
import secrets
import statistics
import sys
import time

import docker

from backends import api
from backends.docker.settings import Host
from backends.docker.swarm import backend, settings
from backends.kit import names
from broker import clock
from broker.demo import image
from outside import waits

_THREADS = 8


def _bare(url: str, count: int) -> float:
    client = docker.APIClient(url, version="1.41", timeout=120)
    tag = f"bare{secrets.token_hex(3)}"
    told = client.inspect_image(image.NAME)["Id"]
    task = {
        "ContainerSpec": {"Image": told, "Command": ["sleep", "86400"], "Init": True},
        "RestartPolicy": {"Condition": "none"},
        "Networks": [{"Target": "host"}],
    }
    client.services()
    clients = [docker.APIClient(url, version="1.41", timeout=120) for _ in range(_THREADS)]

    def create(number: int) -> None:
        clients[number % _THREADS].create_service(task, name=f"{tag}-{number}", labels={"b": tag})

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(create, range(count)))
    while (
        sum(t["Status"]["State"] == "running" for t in client.tasks({"label": f"b={tag}"})) < count
    ):
        time.sleep(0.05)
    took = time.monotonic() - began
    for number in range(count):
        client.remove_service(f"{tag}-{number}")
    while client.tasks({"label": f"b={tag}"}):
        time.sleep(0.2)
    for one in (client, *clients):
        one.close()
    return count / took


async def _agents(url: str, count: int) -> float:
    owner = f"rate{secrets.token_hex(3)}"
    configured = settings.SwarmSettings(managers=(Host(url=url),), look_s=0.1)
    made = backend.create(
        configured, owner=owner, store=None, state_dir=None, now=clock.Clock().now
    )
    await made.list()
    specs = [
        api.InstanceSpec(
            name=f"{owner}-{number}",
            metadata={names.OWNER: owner},
            argv=("sleep", "86400"),
            image=image.NAME,
            secret_files={"agent-secret": secrets.token_hex(32)},
            options=settings.SwarmTemplate(networks=("host",), resolve="id", grace_s=1),
        )
        for number in range(count)
    ]
    began = time.monotonic()
    async with waits.TaskGroup() as group:
        for spec in specs:
            group.create_task(made.launch(spec))
    running = api.InstanceState.RUNNING
    while sum(one.state is running for one in await made.list()) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    took = time.monotonic() - began
    async with waits.TaskGroup() as group:
        for spec in specs:
            group.create_task(made.terminate(spec.name, grace_s=0))
    while await made.list():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    await made.aclose()
    return count / took


def main() -> None:
    """Measure, and print a line for each pair."""
    url, rounds, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found: dict[str, list[float]] = {"bare": [], "agents": []}
    for number in range(rounds):
        for kind in ("bare", "agents") if number % 2 else ("agents", "bare"):
            rate = _bare(url, count) if kind == "bare" else asyncio.run(_agents(url, count))
            found[kind].append(rate)
        print(f"{number}: bare {found['bare'][-1]:.2f}/s, agents {found['agents'][-1]:.2f}/s, "
              f"ratio {found['agents'][-1] / found['bare'][-1]:.2f}", flush=True)  # fmt: skip
    ratios = [mine / bare for mine, bare in zip(found["agents"], found["bare"], strict=True)]
    medians = {kind: statistics.median(rates) for kind, rates in found.items()}
    low, high = min(ratios), max(ratios)
    print(f"medians: bare {medians['bare']:.2f}/s, agents {medians['agents']:.2f}/s")
    print(f"ratio of pairs {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
