"""What has ended stays until it is removed, and says how people look at it."""

import os
import subprocess

from tests.docker.conftest import Rig


async def test_an_exited_container_stays_with_a_command_that_shows_it(rig: Rig):
    """Also for a broker that has just started; the command is one that a shell takes as it is."""
    await rig.backend.launch(rig.spec("a1", "echo last words", code=3))
    await rig.exited("a1")
    for backend in (rig.backend, rig.make(rig)):
        (instance,) = await backend.list()
        assert f"docker logs {rig.container('a1')}" == instance.look
        assert instance.exit.at is not None
        if backend is not rig.backend:
            await backend.aclose()
    env = {**os.environ, "DOCKER_HOST": rig.url}
    said = subprocess.run(instance.look.split(), env=env, capture_output=True, check=True)
    assert b"last words\n" == said.stdout
    await rig.backend.launch(rig.spec("a2"))
    running = await rig.running("a2")
    assert "" == running.look
