"""A place for each slot: agents that live at the same time have different ones, and the next one
finds that of the last, over a restart of the broker too."""

import pathlib

from broker.simulator import simulation
from tests.e2e import stage

TEMPLATES = """\
  cached:
    labels: cached
    cap: 3
    retention: {once: true}
    environment: {CACHE: "/cache/{slot}", LITERAL: "${slot}"}
"""


def caches(made):
    """Return the cache of each agent that runs, as its own environment has it."""
    found = set()
    for pid in made.processes():
        try:
            told = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        found |= {line.decode() for line in told if line.startswith(b"CACHE=")}
        assert not [line for line in told if line.startswith(b"LITERAL=") and b"{" not in line]
    return {one.removeprefix("CACHE=/cache/") for one in found}


async def test_two_at_a_time_have_two_and_the_next_one_has_another(tmp_path):
    async with stage.Stage(tmp_path, templates=TEMPLATES) as made:
        broker = await made.start()
        made.submit("cached", duration_s=3600)
        made.submit("cached", duration_s=3.0)
        await made.until(lambda: caches(made) == {"0", "1"}, "each has a place")
        assert (await made.stop(broker)).code == 0
        await made.start()
        await made.until(lambda: len(made.open) == 1, "the short build has ended")
        await made.until(lambda: len(caches(made)) == 1, "and its agent")
        made.submit("cached", duration_s=3600)
        await made.until(lambda: len(caches(made)) == 2, "the next one has another")
        # 2 where its order came before the broker knew that the last one is gone
        assert caches(made) in ({"0", "1"}, {"0", "2"}, {"1", "2"})
        assert made.fates() == {
            simulation.Fate.DONE.value: 1,
            simulation.Fate.OPEN.value: 2,
        }
