"""The options of an agent's JVM: fast by default, and the template's own win."""

import pytest

from backends import api
from broker.core import model
from broker.core.decide import spec
from jnlp import tunnel

FAST = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def launch(*own: str, memory: int | None = None, **more: object) -> model.LaunchSettings:
    return model.LaunchSettings(
        connection=tunnel.Connection(),
        agent_url="http://c/",
        jvm_options=own,
        resources=api.Resources(memory_bytes=memory),
        **more,
    )


def test_an_agent_starts_fast_by_default():
    """The first compiler, the simplest collector; the heap is the JVM's choice without a limit."""
    assert FAST == spec.jvm_options(launch())


@pytest.mark.parametrize(
    ("memory", "share", "heap"),
    [(2 << 30, 0.25, "-Xmx512m"), (1 << 30, 0.5, "-Xmx512m"), (128 << 20, 0.25, "-Xmx64m")],
)
def test_the_heap_is_a_share_of_the_limit(memory, share, heap):
    """So that a build beside it does not die for the agent's heap; never less than 64 MiB."""
    assert (*FAST, heap) == spec.jvm_options(launch(memory=memory, heap_share=share))


@pytest.mark.parametrize("own", ["-Xmx1g", "-XX:MaxRAMPercentage=50", "-XX:MaxHeapSize=1g"])
def test_a_heap_of_the_templates_own(own):
    """Is not told twice."""
    assert (*FAST, own) == spec.jvm_options(launch(own, memory=2 << 30))


def test_a_collector_of_the_templates_own():
    """A JVM with two collectors does not start."""
    assert (FAST[0], "-XX:+UseG1GC") == spec.jvm_options(launch("-XX:+UseG1GC"))


def test_the_templates_own_come_last():
    """Of two options of one name a JVM takes the last."""
    own = "-XX:TieredStopAtLevel=4"
    assert own == spec.jvm_options(launch(own))[-1]
