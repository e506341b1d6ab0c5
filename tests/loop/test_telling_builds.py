"""Builds are told the ports of their agent: once, again where it changed, and never for nothing."""

import contextlib

import attrs
import pytest

from backends import api
from broker.core import model
from broker.core.model import Phase
from broker.loop import telling_builds
from jnlp import errors
from outside import waits
from tests import patience

NAME = model.NodeName("a")
COMPUTER = object()
TOLD = {"PORT_80": "31000", "HOST_ADDRESS": "node-1"}


def agent(*host_ports, **changes):
    instance = api.Instance(
        name=NAME,
        state=api.InstanceState.RUNNING,
        host="node-1",
        ports=tuple(api.Port(port=80, host_port=one) for one in host_ports),
    )
    return attrs.evolve(
        model.Agent(name=NAME, phase=Phase.IDLE, instance=instance, computer=COMPUTER), **changes
    )


class Telling:
    """The telling, with a clock that a test turns and a controller that answers as told."""

    def __init__(self):
        self.now, self.leads = 1000.0, True
        self.told, self.answers, self.bugs = [], [], []
        self.under = telling_builds.BuildNotices(
            nodes=self,
            now=lambda: self.now,
            leads=lambda: self.leads,
            time_limit_s=5.0,
            outlived=self._outlived,
        )

    @contextlib.contextmanager
    def _outlived(self, what):
        try:
            yield
        except Exception as error:
            self.bugs.append(f"{what}: {error!r}")

    async def tell_builds(self, name, variables):
        self.told.append((name, dict(variables)))
        if self.answers:
            raise self.answers.pop(0)

    async def look(self, *agents, later_s=1.0):
        self.now += later_s
        async with patience.limit(5), waits.TaskGroup() as group:
            self.under.begin(agents, group)


async def test_told_once_and_again_where_it_changed():
    """A restart of an engine gives another random port; another leader may have written it."""
    telling = Telling()
    await telling.look(agent(31000))
    await telling.look(agent(31000))
    assert [(NAME, TOLD)] == telling.told
    await telling.look(agent(31001))
    assert [(NAME, {**TOLD, "PORT_80": "31001"})] == telling.told[1:]
    telling.under.forget()
    await telling.look(agent(31001))
    assert 3 == len(telling.told)
    await telling.look()
    assert {} == telling.under._done


@pytest.mark.parametrize(
    "left_alone",
    [
        agent(),
        agent(31000, computer=None),
        agent(31000, instance=None),
        agent(31000, cordoned=True),
        agent(31000, instance=attrs.evolve(agent(31000).instance, state=api.InstanceState.EXITED)),
        agent(
            31000,
            expectation=model.Expectation(
                verb=model.Verb.RETIRE,
                name=NAME,
                template=None,
                backend=None,
                since_at=1.0,
                expires_at=2.0,
            ),
        ),
    ],
)
async def test_who_is_left_alone(left_alone):
    """Who has no ports, is not there, or is being changed."""
    telling = Telling()
    await telling.look(left_alone)
    assert [] == telling.told


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (errors.Forbidden("no"), 300.0),
        (errors.Unexpected("no"), 300.0),
        (errors.Unreachable("no"), 10.0),
        (errors.NotFound("no"), 10.0),
        (TimeoutError(), 10.0),
    ],
)
async def test_a_refusal_harms_nobody(error, pause_s):
    """It is tried again after a while."""
    telling = Telling()
    telling.answers = [error]
    await telling.look(agent(31000))
    await telling.look(agent(31000), later_s=pause_s - 1)
    assert 1 == len(telling.told)
    await telling.look(agent(31000), later_s=1.0)
    await telling.look(agent(31000))
    assert (2, []) == (len(telling.told), telling.bugs)


async def test_who_does_not_lead_tells_nobody():
    """Another broker does."""
    telling = Telling()
    telling.leads = False
    await telling.look(agent(31000))
    assert [] == telling.told


async def test_a_few_at_a_time():
    """A start of hundreds is no burst on the controller."""
    telling = Telling()
    many = [agent(31000, name=model.NodeName(f"a{n}")) for n in range(10)]
    for _ in range(3):
        await telling.look(*many)
    assert 10 == len(telling.told) == len({name for name, _ in telling.told})
