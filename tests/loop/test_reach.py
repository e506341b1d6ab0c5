"""From an error to what is left alone: exactly as far as it reaches, and no further."""

import asyncio
import types

import pytest

from backends import api
from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.model import Scope
from broker.loop import execute
from jnlp import errors, secret
from tests.core import worlds
from tests.loop.daemons import LOCAL, Daemon, template

LAUNCH = model.LaunchAgent(
    name=model.NodeName("n"), template=model.TemplateName("bad"), backend=worlds.B, reason="r"
)
SPEC = api.InstanceSpec(name="n", metadata={})
DEFINITION = types.SimpleNamespace(name="n")
CLASSES = [
    api.Rejected,
    api.NoCapacity,
    api.Unauthorized,
    api.Unavailable,
    api.NotFound,
    api.AlreadyExists,
]


class Nodes:
    """A controller that makes nodes, or says why not."""

    def __init__(self, error=None):
        self.error = error

    async def create(self, definition):
        if self.error is not None:
            raise self.error

    async def secret(self, name):
        return secret.Secret("0" * 64)

    async def delete(self, name):
        """Be done."""


class Backend:
    """Refuses whatever it is to launch."""

    def __init__(self, error):
        self.error = error

    async def reserve(self, spec):
        """Hold nothing back."""

    async def launch(self, spec):
        raise self.error

    async def terminate(self, name, *, grace_s):
        raise api.NotFound(name)


def executor(backend, nodes=None):
    return execute.Executor(
        nodes=nodes or Nodes(),
        backends={worlds.B: backend},
        order=lambda _: execute.Order(definition=DEFINITION, spec_with=lambda _: SPEC),
        look=None,
        retires_by_offline=lambda: True,
        now=lambda: worlds.NOW,
        before_end=None,
    )


async def outcome(error, nodes=None):
    return await executor(Backend(error), nodes).attempt(LAUNCH)


def after(told):
    """Return what the next look orders for three items: of the same template, and of others."""
    far = model.BackendName("far")
    scene = worlds.Scene(
        worlds.template("bad"), worlds.template("good"), worlds.template("else", backends=(far,))
    )
    scene.wait(*(worlds.item(n, label) for n, label in enumerate(("bad", "good", "else"), 1)))
    scene.ledger = ledgers.settle(scene.ledger, told, policy=scene.policy, jitter=1.0)
    plan = scene.plan()
    return plan, {a.template for a in plan.actions if isinstance(a, model.LaunchAgent)}


SERVED = {  # of these, when that is left alone
    Scope.CONTROLLER: set(),
    Scope.BACKEND: {"else"},
    Scope.TEMPLATE: {"good", "else"},
    Scope.PLACE: {"bad", "good", "else"},
    Scope.LAUNCH: {"bad", "good", "else"},
}


@pytest.mark.parametrize("reach", api.Reach)
@pytest.mark.parametrize("kind", CLASSES)
async def test_a_backends_error_holds_back_what_it_reaches(kind, reach):
    """Whatever its class; and everything else is ordered in the next cycle."""
    place = "tcp://two" if reach is api.Reach.PLACE else ""
    told = await outcome(kind("said so", reach=reach, place=place))
    assert told.failure is model.Failure.of(kind.slug)
    assert (told.scope, told.place) == (model.SCOPES[reach], place)
    plan, served = after(told)
    assert served == SERVED[told.scope]
    (key, *others) = plan.ledger.backoffs
    assert key.place == place
    assert {Scope.LAUNCH} >= {other.scope for other in others}  # a place's is a start's, too
    for unmet in plan.unmet:
        if unmet.reason is not model.WaitReason.AGENT_ORDERED:
            assert "said so" in unmet.text
            assert ("template bad" if told.scope is Scope.TEMPLATE else "local") in unmet.text


@pytest.mark.parametrize("kind", [*errors.JenkinsError.__subclasses__(), errors.JenkinsError])
async def test_a_controllers_error_holds_back_every_launch_but_for_a_node_it_does_not_take(kind):
    """No backend is blamed."""
    told = await outcome(None, Nodes(kind("said so")))
    assert told.failure is model.Failure.of(kind.slug)
    own = kind is errors.BadRequest
    assert told.scope is (Scope.TEMPLATE if own else Scope.CONTROLLER)
    _, served = after(told)
    assert served == SERVED[told.scope]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_a_reach_of_its_own(kind):
    """What an adapter does not say; a place that is named is one."""
    assert kind("x").reach is kind.usual
    assert kind("x", place="tcp://two").reach is api.Reach.PLACE


async def test_a_launch_that_takes_too_long_is_its_templates_trouble():
    """A slow pull, for example; a backend that answers nobody cannot be listed either."""

    class Slow(Backend):
        async def launch(self, spec):
            await asyncio.Event().wait()

    made = executor(Slow(None))
    made.time_limit_s = 0.01
    told = await made.perform(LAUNCH)
    assert (told.failure, told.scope) == (model.Failure.UNAVAILABLE, Scope.TEMPLATE)
    assert after(told)[1] == SERVED[Scope.TEMPLATE]


@pytest.mark.looptime
async def test_beside_a_template_whose_registry_is_away_others_are_served_as_ever():
    """Five minutes of it: each build of another template waits no longer than without."""
    waits = {}
    for broken in (False, True):
        async with Daemon(template("bad"), template("good")) as made:
            if broken:
                away = api.Unavailable("the registry cannot be reached", reach=api.Reach.TEMPLATE)
                made.platforms[LOCAL].fail_next(away, template="bad", times=1000)
                for _ in range(3):
                    made.submit("bad", duration_s=1.0)
            for _ in range(10):
                made.submit("good", duration_s=20.0)
                await asyncio.sleep(30)
            told = [seconds for name, _, seconds in made.notes.latencies if name == "good"]
            assert len(told) == 10
            waits[broken] = max(told)
            assert made.notes.results["launch", "unavailable"] <= (12 if broken else 0)
    assert waits[True] <= waits[False] + 1.0
