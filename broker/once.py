"""A look without a loop: what ``plan``, ``doctor`` and ``sweep`` do with a broker at rest.

Refuses to hold rules: the core decides, the executor performs, as ever.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import attrs

from broker import app, assembly, clock, config, ends, observe, store
from broker.core import marks, model
from broker.core import plan as plans
from jnlp import errors as jnlp_errors

Rows = list[dict[str, str]]
_ASK_S = 10.0


def complain(world: model.World) -> None:
    """Raise ``Failed`` when the controller could not be read; warn of backends."""
    if not world.controller.synced:
        raise ends.Failed(f"controller: {world.controller.error}")
    for name, view in world.backends.items():
        if not view.synced:
            print(f"warning: backend {name} does not answer: {view.error}", file=sys.stderr)
        elif not view.whole:
            print(f"warning: backend {name}: {view.hidden or view.odd}", file=sys.stderr)


async def dry(settings: config.Settings) -> tuple[model.Plan, model.World]:
    """Look once; return the plan and what it was made from."""
    watch = clock.Clock()
    async with built(settings, watch) as made:
        world = await look(made, watch, model.Ledger())
        return plans.plan(world, made.policy), world


@contextlib.asynccontextmanager
async def built(settings: config.Settings, watch: clock.Clock) -> AsyncIterator[app.Broker]:
    """Yield a broker that does not run; the state directory is read, not held."""
    try:
        made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
    except ValueError as error:
        raise ends.BadInput(str(error)) from error
    except OSError as error:
        raise ends.BadInput(
            f"state_dir {settings.state_dir}: {error.strerror or error}"
        ) from error
    try:
        yield made
    finally:
        await made.aclose()


async def look(made: app.Broker, watch: clock.Clock, ledger: model.Ledger) -> model.World:
    """Observe, with what is remembered of an earlier look."""
    seen = await observe.observe(
        made.reconciler.reader, made.backends, now=watch.now, time_limit_s=_ASK_S
    )
    return model.World(
        now=watch.now(),
        controller=seen.controller,
        backends=seen.backends,
        ledger=ledger,
        fresh_ids=tuple(made.reconciler.new_id() for _ in range(64)),
    )


async def sweep(
    settings: config.Settings, options: argparse.Namespace
) -> tuple[Rows, list[str], Rows]:
    """Look twice, with the grace between; then remove with the same steps as ever."""
    watch = clock.Clock()
    async with built(settings, watch) as made:
        made.draining = options.all
        policy = attrs.evolve(made.policy, sweep_share=1.0, resume_grace_s=0.0)
        first = await look(made, watch, model.Ledger())
        complain(first)
        seen = plans.plan(first, policy)
        if any(a.phase in {model.Phase.ORPHAN, model.Phase.LOST} for a in seen.agents):
            print(f"looking again in {policy.orphan_grace_s:.0f} s", file=sys.stderr)
            await asyncio.sleep(policy.orphan_grace_s)
        world = await look(made, watch, seen.ledger)
        complain(world)
        planned = plans.plan(world, policy)
        made.reconciler.ledger = planned.ledger
        made.reconciler.world, made.reconciler.last_plan = world, planned
        doing = [
            a
            for a in planned.actions
            if isinstance(a, model.SweepNode | model.SweepInstance | model.RetireAgent)
        ]
        found = [{"name": a.name, "reason": a.reason} for a in doing]
        kept = [{"name": r.subject, "reason": r.text} for r in planned.refusals]
        removed: list[str] = []
        if options.yes:
            for action in doing:
                outcome = await made.reconciler.executor.perform(action)
                if outcome.slug or outcome.withdrawn:
                    kept.append({"name": action.name, "reason": outcome.text})
                else:
                    removed.append(action.name)
            if options.all and made.reconciler.place is not None:
                with contextlib.suppress(jnlp_errors.JenkinsError):
                    await made.reconciler.place.remove()
                    removed.append(marks.placeholder_name(settings.owner))
        return found, removed, kept
