"""Only the simulated controller, for people who want to try a configuration of their own.

It says how to reach it, feeds its queue slowly and stays until a signal comes. Refuses to start
a broker.
"""

import asyncio
import pathlib
import random
import sys

from broker import clock, signals
from broker.config import values
from broker.demo import free_port
from broker.simulator import access as accesses
from broker.simulator import controller, simulation
from outside import quotes, waits

_TOKEN = "11demo"  # noqa: S105 -- of the simulated controller
_LABELS = ("linux", "linux && !gpu", "maven", "release")
_EVERY_S = 5.0

_WELCOME = """\
SIMULATED controller at {url} (no Jenkins): every few seconds a build asks for
{labels}. Until Ctrl-C. To try it, in another terminal:

cat >try.yaml <<END
owner: try
controller: {{url: "{url}", user: demo, token: "env:DEMO_TOKEN"}}
state_dir: try-state
templates:
  linux:
    labels: linux
    command: ["{python}", "{agent}"]
    retention: {{idle: 20s}}
END
export DEMO_TOKEN={token}
agent-broker doctor --config try.yaml
agent-broker plan --config try.yaml
agent-broker run --drain --config try.yaml

Builds for maven and release wait: no template has these labels, as the page and
`agent-broker status` say. Write them into try.yaml, and `kill -HUP` the broker.

To end it without leaving anything: Ctrl-C there (--drain ends the agents, too),
then Ctrl-C here, then rm -r try.yaml try-state
"""


async def serve(*, listen: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError if the address is taken."""
    with signals.awaited() as asked:  # before anybody is told that it serves
        await _serve(listen, asked)


async def _serve(listen: str, asked: asyncio.Event) -> None:
    free = free_port.instead_of(listen)
    host, port = values.address(free) or ("127.0.0.1", 0)
    dice = random.Random()  # noqa: S311 -- only a stream of builds
    access = accesses.Accounts(user="demo", token=_TOKEN)
    server = controller.SimulatedController(
        simulation.Simulation(), now=clock.Clock().now, access=access
    )
    url = await server.start(host=host, port=port)
    try:
        if free != listen:
            print(free_port.words(listen, "the controller"))
        print(
            _WELCOME.format(
                url=url,
                labels=", ".join(quotes.shown(label) for label in _LABELS),
                python=sys.executable,
                agent=pathlib.Path(controller.__file__).with_name("agent.py"),
                token=_TOKEN,
            ),
            end="",
            flush=True,
        )
        async with waits.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="simulated controller")
            feeding = group.create_task(_feed(server, dice), name="feed")
            await asked.wait()
            feeding.cancel()
            clockwork.cancel()
    finally:
        await server.aclose()


async def _feed(server: controller.SimulatedController, dice: random.Random) -> None:
    while True:
        server.submit(job="try", label=dice.choice(_LABELS), duration_s=3.0)
        await asyncio.sleep(_EVERY_S)
