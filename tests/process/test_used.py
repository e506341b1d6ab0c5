"""What an agent and its children use: by /proc of this machine, and by a cgroup's files."""

import os
import signal

import attrs
import pytest

from backends import api
from backends.process import kernel, proc, used
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop

MIB = 1 << 20


async def test_memory_and_time_of_children_count_and_stay_after_the_end(shop: Workshop, made):
    """A child that has ended counts with its parent, one that holds memory while it lives."""
    hold = "python3 -c 'import time; kept = bytearray(60 << 20); time.sleep(600)' &"
    burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    spec = shop.spec("a1", f"{hold}\n( {burn} )\n")
    limit = 500 * MIB
    await made.launch(attrs.evolve(spec, resources=api.Resources(memory_bytes=limit)))

    async def told() -> api.Usage | None:
        usage = (await checks.listed(made))["a1"].usage
        if usage is None or usage.memory_bytes < 50 * MIB or usage.cpu_s <= 0.1:
            return None
        return usage

    usage = await checks.until("both are told", told, within_s=WITHIN_S)
    assert limit == usage.memory_limit_bytes
    assert usage.memory_bytes <= usage.memory_peak_bytes < limit
    os.kill(shop.claim("a1")["agent"], signal.SIGKILL)
    await checks.exited(made, "a1", within_s=WITHIN_S)
    after = (await checks.listed(made))["a1"].usage
    assert after.memory_peak_bytes >= usage.memory_peak_bytes


def myself() -> proc.Process:
    return proc.Process(
        pid=os.getpid(), start=kernel.stat_fields(os.getpid())[19], boot=kernel.boot_id()
    )


def test_a_cgroup_tells_more(tmp_path):
    """The files are those of the kernel's cgroup-v2.rst."""
    told = {
        "memory.current": "314572800\n",
        "memory.peak": "400000000\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1000\nfile 99614720\ninactive_anon 5\ninactive_file 94371840\n",
        "cpu.stat": "usage_usec 5500000\nuser_usec 5000000\nnr_throttled 7\nthrottled_usec 250000\n",
    }
    for name, words in told.items():
        (tmp_path / name).write_text(words)
    sample = used.sample(myself(), str(tmp_path), 7, now=lambda: 3.0)
    assert (210 * MIB, 400000000, None, 5.5, 0.25) == (
        sample.memory_bytes,
        sample.memory_cached_peak_bytes,
        sample.memory_limit_bytes,
        sample.cpu_s,
        sample.throttled_s,
    )


@pytest.mark.parametrize("words", ["", "max", "-1", "a", "1e5"])
def test_a_cgroup_that_says_nothing_sensible(tmp_path, words):
    (tmp_path / "memory.current").write_text(words)
    sample = used.sample(myself(), str(tmp_path), None, now=lambda: 3.0)
    assert (None, None) == (sample.memory_bytes, sample.cpu_s)


def test_a_cgroup_that_is_gone_and_a_process_that_is():
    """Then /proc is asked; and of nobody nothing is told."""
    mine = myself()
    assert used.sample(mine, "/no/such/group", None, now=lambda: 3.0).cpu_s > 0
    assert used.sample(attrs.evolve(mine, start="1"), None, None, now=lambda: 3.0) is None
