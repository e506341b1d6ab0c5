"""A broker's backend as a program of its own, to be killed: ``ADDRESS STATE_DIR USER NAME WORK``.

Says ``launching`` before and ``launched`` after it has launched the instance, then waits.
"""

import asyncio
import pathlib
import sys
import time

from backends import api
from backends.mesos import backend, settings
from broker import store
from tests.contract import harness

OWNER = "killed"


def made(address: str, state: pathlib.Path, user: str, work: str) -> backend.MesosBackend:
    """Return the backend of one life; every life has the same state directory."""
    told = settings.MesosSettings(
        master=address,
        name=f"life-{state.name}",
        user=user,
        work_root=work,
        failover_timeout_s=300.0,
    )
    files = store.FileStore(state)
    return backend.create(told, owner=OWNER, store=files, state_dir=state, now=time.time)


def spec(name: str) -> api.InstanceSpec:
    options = settings.MesosTemplate(default_cpus=0.1, default_memory_bytes=64 << 20)
    return api.InstanceSpec(
        name=name,
        metadata={"owner": OWNER},
        argv=harness.Program(lines=("hello",)).argv(),
        options=options,
    )


async def _live(address: str, state: str, user: str, name: str, work: str) -> None:
    mine = made(address, pathlib.Path(state), user, work)
    print("launching", flush=True)
    await mine.launch(spec(name))
    print("launched", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_live(*sys.argv[1:]))
