"""Perform one action: the order of its steps, time limits, and how it ended.

Release (of an agent that died at work) = look again, say of what, delete the node, terminate.
What is kept for a look (``keeps``) is not terminated then, but swept when its time is over.
Launch = room, node, secret, instance: what the platform refuses costs the controller no node
(docs/decisions/0007). Retire = look again, take out of service, look again, still idle?
delete the node, terminate the instance; a busy answer un-cordons. How a node is taken out of
service depends on the controller's version (docs/decisions/0002). Every prefix of either is a
state that the life-cycle table names, so nothing here is undone by hand beyond tidiness. Whoever
may not lead any more begins no further call. Refuses to decide whether an action is right: the
plan did, ``judge`` objects once more on a fresh look.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, assert_never

import attrs
from attrs import define, frozen

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge
from broker.core.fleet import checks
from broker.core.fleet import ledger as ledgers
from jnlp import errors as jnlp_errors
from jnlp import node as jnlp_node
from jnlp import secret as jnlp_secret
from jnlp import state as jnlp_state
from outside import waits


class Nodes(Protocol):
    """The write side of the controller, as far as agents need it."""

    async def create(self, definition: jnlp_node.NodeDefinition) -> None:
        """Create a node; ``NodeExists`` if the name is taken."""

    async def secret(self, name: str) -> jnlp_secret.Secret:
        """Return the secret of a node."""

    async def cordon(self, name: str, message: str) -> None:
        """Mark a node temporarily offline."""

    async def uncordon(self, name: str) -> None:
        """Bring a node back online."""

    async def seal(self, name: str, *labels: str, busy: bool) -> None:
        """Let a node take nothing more and leave it labels that nobody asks for."""

    async def unseal(self, name: str, *labels: str, exclusive: bool = True) -> None:
        """Let a node take items again, with these labels if any are given."""

    async def delete(self, name: str) -> None:
        """Delete a node; ``NotFound`` if it is gone."""

    async def release(self, name: str) -> None:
        """Delete a node so that Pipeline's steps on it end; ``NotFound`` if it is gone."""

    async def read(self, name: str) -> jnlp_state.NodeState:
        """Return the live state of a node."""


@frozen(kw_only=True)
class Order:
    """A launch, made ready by the core: what to create on either side."""

    definition: jnlp_node.NodeDefinition
    spec_with: Callable[[jnlp_secret.Secret], backends_api.InstanceSpec]

    def reservation(self) -> backends_api.InstanceSpec:
        """Return what to take room for, before there is a node that could have a secret."""
        spec = self.spec_with(jnlp_secret.Secret(""))
        return attrs.evolve(spec, secret_files=dict.fromkeys(spec.secret_files, ""))


_Leaving = model.RetireAgent | model.ReleaseAgent | model.SweepNode
_NOTHING_MADE = (backends_api.Rejected, backends_api.NoCapacity, backends_api.AlreadyExists)
_LAST_MOMENT = "it was given work in the last moment"


class HookDeeds(Protocol):
    """What the push hook does on the controller; None where it does not come, or not in time."""

    async def close(self, name: model.NodeName) -> bool | None:
        """Let an agent take nothing more if it is idle, and return whether it is."""

    def reopen(self, name: model.NodeName) -> None:
        """Let it take work again."""

    async def end_steps(self, name: model.NodeName) -> bool | None:
        """End the Pipeline steps on an agent that is gone, and return whether there were any."""


class _Withdrawn(Exception):  # noqa: N818 -- not an error: a fresh look changed our mind
    """The action would have been wrong; nothing was done, or it was undone."""


@define(kw_only=True)
class Executor:
    """Performs actions against one controller and its backends."""

    nodes: Nodes
    backends: Mapping[model.BackendName, backends_api.Backend]
    order: Callable[[model.LaunchAgent], Order]
    look: Callable[[], Awaitable[judge.SecondLook]]  # begun after the call, shared by many
    retires_by_offline: Callable[[], bool]  # the controller never loses a returned item
    now: Callable[[], float]
    before_end: Callable[[model.Removal], Awaitable[None]]  # keep the last words of an instance
    released: Callable[[], None] = lambda: None  # steps have ended: they may be queued anew
    hook: HookDeeds | None = None
    leads: Callable[[], bool] = lambda: True  # whether we may change anything at this very moment
    # what is run for a check; None: nothing is, any more
    check_command: Callable[[model.CheckAgent], model.CheckCommand | None] = lambda _: None
    grace_s: float = 10.0
    time_limit_s: float = 120.0

    async def perform(self, action: model.Action) -> ledgers.Outcome:
        """Perform an action to its end. Raises nothing but cancellation and our own bugs."""
        try:
            async with waits.timeout(self.time_limit_s + self._check_s(action)):
                return await self.attempt(action)
        except TimeoutError:
            return ledgers.Outcome(
                action=action,
                at=self.now(),
                failure=model.Failure.UNAVAILABLE,
                # a backend that does not answer anybody shows in its listing; a pull may take long
                scope=model.Scope.TEMPLATE,
                text=f"not done within {self.time_limit_s:g} s",
            )

    def _check_s(self, action: model.Action) -> float:
        """Return how much longer an action may take because a command runs in it."""
        command = self.check_command(action) if isinstance(action, model.CheckAgent) else None
        return command.within_s if command is not None else 0.0

    @property
    def _changes(self) -> Nodes:
        """The controller's write side, as long as we lead: asked before each single call."""
        self._check_leads()
        return self.nodes

    def _backend(self, name: model.BackendName) -> backends_api.Backend:
        """Return a backend to launch on or to terminate on, as long as we lead."""
        self._check_leads()
        return self.backends[name]

    def _check_leads(self) -> None:
        if not self.leads():
            raise _Withdrawn("another broker may lead by now")

    async def attempt(self, action: model.Action) -> ledgers.Outcome:
        """Perform an action without a time limit: needs no event loop, one step at a time."""
        try:
            passed, text = await self._steps(action)
        except _Withdrawn as reason:
            return ledgers.Outcome(action=action, at=self.now(), withdrawn=True, text=str(reason))
        except jnlp_errors.JenkinsError as error:
            return ledgers.Outcome(
                action=action,
                at=self.now(),
                failure=model.Failure.of(error.slug),
                text=error.text,
                controller=True,
                scope=_scope_of(error),
                retry_after=error.retry_after,
            )
        except backends_api.BackendError as error:
            return ledgers.Outcome(
                action=action,
                at=self.now(),
                failure=model.Failure.of(error.slug),
                text=error.reason,
                scope=model.SCOPES[error.reach],
                place=error.place,
                retry_after=error.retry_after,
            )
        return ledgers.Outcome(action=action, at=self.now(), text=text, passed=passed)

    async def _steps(self, action: model.Action) -> tuple[bool | None, str]:
        """Perform an action; return whether a check has passed, and why not."""
        match action:
            case model.LaunchAgent():
                await self._launch(action)
            case model.CordonAgent():
                await self._cordon_busy(action)
            case model.UncordonAgent():
                await self._uncordon(action)
            case model.CheckAgent():
                words = await self._check_agent(action)
                return not words, words
            case model.RetireAgent():
                await self._retire(action)
            case model.ReleaseAgent():
                await self._release(action)
            case model.SweepNode():
                await self._sweep_node(action)
            case model.SweepInstance():
                await self._sweep_instance(action)
            case _:
                assert_never(action)
        return None, ""

    async def _launch(self, action: model.LaunchAgent) -> None:
        order = self.order(action)
        await self._backend(action.backend).reserve(order.reservation())
        try:
            secret = await self._make_node(order.definition, checked=action.checked)
        except (jnlp_errors.JenkinsError, _Withdrawn):
            await self._give_up_room(action)
            raise
        try:
            await self._backend(action.backend).launch(order.spec_with(secret))
        except backends_api.BackendError as error:
            if error.nothing_left or isinstance(error, _NOTHING_MADE):
                # certain that nothing of ours runs: do not leave an empty node for the sweep
                await self._delete_node(action.name)
            raise

    async def _make_node(
        self, definition: jnlp_node.NodeDefinition, *, checked: bool
    ) -> jnlp_secret.Secret:
        """Create a node and return its secret; without that there is no use for the node.

        One that is to be checked is out of service before anybody can connect as it.
        """
        await self._changes.create(definition)
        try:
            if checked:
                message = checks.due_message(model.Check.READY)
                await self._changes.cordon(definition.name, message)
            return await self.nodes.secret(definition.name)
        except (jnlp_errors.JenkinsError, _Withdrawn):
            with contextlib.suppress(jnlp_errors.JenkinsError, _Withdrawn):  # or it is swept
                await self._delete_node(definition.name)
            raise

    async def _give_up_room(self, action: model.LaunchAgent) -> None:
        """Undo a reservation; what is left of it is an instance without a node, and swept."""
        with contextlib.suppress(backends_api.BackendError, _Withdrawn):
            await self._terminate(action.backend, action.name)

    async def _cordon_busy(self, action: model.CordonAgent) -> None:
        if action.hold and not self.retires_by_offline():
            raise _Withdrawn("this controller could lose an item that is just being given to it")
        if action.online and not self.retires_by_offline():
            # the build may end in this very moment and another item be assigned: an older
            # controller drops an item that finds its node offline
            labels: tuple[str, ...] = model.retired_labels(action.cause)
            if action.check is not None:
                labels = (model.check_label(action.check), *action.asked)
            await self._changes.seal(action.name, *labels, busy=not action.idle)
        else:
            await self._changes.cordon(action.name, _message(action))

    async def _uncordon(self, action: model.UncordonAgent) -> None:
        await self._bring_back(action)

    async def _bring_back(self, action: model.UncordonAgent | model.CheckAgent) -> None:
        await self._changes.uncordon(action.name)
        if not self.retires_by_offline():
            await self._changes.unseal(action.name, *action.labels, exclusive=action.exclusive)

    async def _check_agent(self, action: model.CheckAgent) -> str:
        """Run a check and bring the agent back; return why it did not pass, empty: it did.

        Whoever is killed in the midst of it begins it anew: the node is out of service still.
        """
        command = self.check_command(action)
        if command is None:
            raise _Withdrawn(f"its template has no {action.check.value} check any more")
        words = await self._run_check(action, command)
        state = await self.nodes.read(action.name)
        if not state.exists:
            raise _Withdrawn("its node is gone")
        if state.is_at_work:
            raise _Withdrawn("it works")
        if state.temporarily_offline and not state.offline_cause.startswith(model.CORDON_MARK):
            raise _Withdrawn("a person has taken it out of service while its check ran")
        if not words:
            await self._bring_back(action)
            return ""
        if not (state.temporarily_offline or self.retires_by_offline()):
            # sealed and empty it can be given nothing that the mark would drop
            labels = model.retired_labels(checks.CAUSES[action.check])
            await self._changes.seal(action.name, *labels, busy=False)
        await self._changes.cordon(action.name, checks.failed_message(action.check, words))
        return words

    async def _run_check(self, action: model.CheckAgent, command: model.CheckCommand) -> str:
        backend = self._backend(action.backend)
        try:
            ran = await backends_api.run(
                backend, action.name, command.argv, within_s=command.within_s
            )
        except backends_api.Rejected as error:
            return f"its {action.check.value} check could not be run: {error.reason}"
        return checks.failure(action.check, ran, within_s=command.within_s)

    async def _retire(self, action: model.RetireAgent) -> None:
        await self._check(action)
        closed = await self._close(action.name)
        try:
            await self._remove_node(action, await self.nodes.read(action.name), closed=closed)
        except (jnlp_errors.JenkinsError, _Withdrawn):
            if closed and self.hook is not None:
                self.hook.reopen(action.name)
            raise
        if action.backend is not None and not action.keeps:
            await self._terminate(action.backend, action.name)

    async def _close(self, name: model.NodeName) -> bool:
        """Have the hook close an idle agent under the queue's lock; whether it has."""
        if self.hook is None:
            return False
        self._check_leads()
        closed = await self.hook.close(name)
        if closed is False and (await self.nodes.read(name)).is_at_work:
            raise _Withdrawn(_LAST_MOMENT)
        return closed is True

    async def _end_steps(self, name: model.NodeName) -> bool:
        """Have the hook end the steps on an agent that is gone; whether it has."""
        if self.hook is None:
            return False
        self._check_leads()
        return await self.hook.end_steps(name) is True

    async def _release(self, action: model.ReleaseAgent) -> None:
        """Say what an agent died of where its builds' owners look, then end their steps.

        Whoever waits for that waits for nothing else: the last words, which a platform may take
        its time for, are read afterwards, and what is queued anew is looked for at once.
        """
        await self._check(action)
        with contextlib.suppress(jnlp_errors.NotFound):
            await self._changes.cordon(action.name, _message(action))
        if await self._end_steps(action.name):
            await self._delete_node(action.name)
        else:
            with contextlib.suppress(jnlp_errors.NotFound):
                await self._changes.release(action.name)
        self.released()
        await self.before_end(action)
        if action.backend is not None and not action.keeps:
            await self._terminate(action.backend, action.name)

    async def _sweep_node(self, action: model.SweepNode) -> None:
        await self._check(action)
        state = await self.nodes.read(action.name)
        if state.exists and not state.offline:
            raise _Withdrawn("it is back")
        await self._remove_node(action, state)

    async def _remove_node(
        self, action: _Leaving, state: jnlp_state.NodeState, *, closed: bool = False
    ) -> None:
        """Delete a node that works on nothing and can be given nothing.

        ``closed``: the hook has seen to the latter.
        """
        if state.is_at_work:
            raise _Withdrawn("it works")
        if state.exists and not state.temporarily_offline and not closed:
            try:
                await self._take_out(action)
            except jnlp_errors.NotFound:  # somebody else deletes it just now, or a proxy says so
                if (await self.nodes.read(action.name)).exists:
                    raise _Withdrawn("it exists, and was not taken out of service") from None
            except jnlp_errors.Unexpected as error:
                # a computer that its node has left behind answers so ("the node has been
                # removed"), and only the deletion helps; what is offline is given nothing
                if error.status != 500 or not state.offline:
                    raise
        await self.before_end(action)
        if not state.exists:
            return
        if not (await self.nodes.read(action.name)).is_at_work:
            await self._delete_node(action.name)
            return
        raise _Withdrawn(_LAST_MOMENT)

    async def _take_out(self, action: _Leaving) -> None:
        """Take an idle agent out of service, so that what is idle afterwards stays idle."""
        by_offline = self.retires_by_offline()
        if by_offline:
            await self._changes.cordon(action.name, _message(action))
        else:
            await self._changes.seal(action.name, *model.retired_labels(action.cause), busy=False)
        if not (await self.nodes.read(action.name)).is_at_work:
            return
        if by_offline:
            await self._changes.uncordon(action.name)
        # a sealed one ends its build and is then found drained
        raise _Withdrawn(_LAST_MOMENT)

    async def _sweep_instance(self, action: model.SweepInstance) -> None:
        state = await self.nodes.read(action.name)
        if state.exists:
            raise _Withdrawn("its node exists after all")
        if not action.told:
            await self.before_end(action)
        await self._terminate(action.backend, action.name)

    async def _check(self, action: _Leaving) -> None:
        objection = judge.objection(action, await self.look())
        if objection is not None:
            raise _Withdrawn(objection)

    async def _delete_node(self, name: str) -> None:
        try:
            await self._changes.delete(name)
        except jnlp_errors.NotFound:
            return

    async def _terminate(self, backend: model.BackendName, name: str) -> None:
        try:
            await self._backend(backend).terminate(name, grace_s=self.grace_s)
        except backends_api.NotFound:
            return


def _message(action: _Leaving | model.CordonAgent) -> str:
    if isinstance(action, model.CordonAgent) and action.check is not None:
        return checks.due_message(action.check)
    if isinstance(action, model.CordonAgent) and action.hold:
        return f"{model.HOLD_MARK}: {action.reason}"
    return f"{model.CORDON_MARK} {action.cause.slug}: {action.reason}"


def _scope_of(error: jnlp_errors.JenkinsError) -> model.Scope:
    """Return how far a controller's refusal of a new node reaches."""
    is_about_it = isinstance(error, jnlp_errors.BadRequest)  # what this very template sends
    return model.Scope.TEMPLATE if is_about_it else model.Scope.CONTROLLER
