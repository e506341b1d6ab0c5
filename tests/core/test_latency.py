"""How long an item waited that was gone before it was seen to start: ``latency.claim``."""

import attrs
import pytest

from broker.core import model
from broker.core.fleet import latency
from broker.core.model import ItemId, NodeName, Phase, TemplateName

READY, GONE = 100.0, 107.0
HERE = "http://c/job/app/7/"
VANISHED = latency.Vanished(
    item=ItemId(5), template=TemplateName("wanted"), ready_at=READY, gone_at=GONE
)


def agent(name, *urls, template="t", online_at=50.0, computer=True):
    seen = model.Computer(
        name=NodeName(name), idle=not urls, busy_executors=len(urls), executable_urls=urls
    )
    return model.Agent(
        name=NodeName(name),
        phase=Phase.BUSY,
        template=TemplateName(template) if template else None,
        computer=seen if computer else None,
        memory=model.Memory(first_seen_at=0.0, online_at=online_at),
    )


def claimed(*agents, vanished=VANISHED):
    return latency.claim(vanished, executable_url=HERE, agents=agents)


def test_it_is_claimed_for_the_agent_that_runs_its_build():
    """Not for the first one that runs anything, and whichever executor of it that is."""
    found = claimed(
        agent("a", computer=False),
        agent("b"),
        agent("c", "http://c/job/app/8/"),
        agent("d", "http://c/job/other/1/", HERE),
    )
    assert (found.item, found.agent, found.template) == (5, "d", "t")


def test_it_waited_from_when_it_was_ready_until_it_was_gone():
    """Not until the answer came: the question is asked later."""
    assert claimed(agent("a", HERE)).waited_s == GONE - READY


def test_a_wait_is_never_negative():
    """Where the controller's clock is ahead of ours."""
    ahead = attrs.evolve(VANISHED, ready_at=GONE + 3.0)
    assert claimed(agent("a", HERE), vanished=ahead).waited_s == 0.0


@pytest.mark.parametrize(
    ("online_at", "warm"), [(READY - 1, True), (READY, True), (READY + 0.1, False), (None, False)]
)
def test_it_is_warm_if_the_agent_was_online_before_it_was_ready(online_at, warm):
    """An agent that came online between its readiness and its start was started for it."""
    assert claimed(agent("a", HERE, online_at=online_at)).warm is warm


def test_of_an_agent_without_a_template_the_items_own_is_told():
    """It was to be served by one of ours, and was."""
    assert claimed(agent("a", HERE, template=None)).template == "wanted"


@pytest.mark.parametrize(
    "agents",
    [
        (),
        (agent("a"),),
        (agent("a", "http://c/job/app/70/"),),
        (agent("a", "http://c/job/app/"),),
        (agent("a", HERE, computer=False),),
    ],
)
def test_what_runs_on_no_agent_of_ours_is_not_claimed(agents):
    """Elsewhere, or ended already."""
    assert claimed(*agents) is None
