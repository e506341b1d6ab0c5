"""A pod that has ended says how people look at it."""

from tests.contract import checks, harness
from tests.contract import kubernetes as contract


async def test_a_pod_that_has_ended_names_a_command(tmp_path):
    """With namespace, pod and container; one that runs has nothing left yet."""
    async with contract.open_harness(tmp_path, None) as opened:
        made = opened.backend()
        await made.launch(opened.spec("a1", harness.Program(exit_code=3)))
        await made.launch(opened.spec("a2"))
        dead = await checks.exited(made, "a1", within_s=opened.within_s)
        assert "kubectl -n agents logs a1 -c jnlp" == dead.look
        running = await checks.running(made, "a2", within_s=opened.within_s)
        assert "" == running.look
        await made.aclose()
