"""A bug planted for each invariant is found: the product is as it is, but for one rule."""

import asyncio
import logging
import types

import attrs
import pytest

from broker import assembly
from broker.controller import placeholder
from broker.core import model
from broker.core.decide import capacity, ordering, serving
from broker.core.decide import plan as plans
from broker.core.fleet import builds, marks
from broker.loop import execute, sources, turn
from jnlp import state as jnlp_state
from tests.soak import invariants, run, sites, world

pytestmark = pytest.mark.timeout(300)


def planned(change):
    """Return a rule that changes each plan."""
    real = plans.plan

    def plan(*about):
        return change(real(*about))

    return plan


def it_retires_by_the_offline_mark_what_would_lose_items(patch):
    """Before 2.517 an item that finds its node offline is dropped."""
    patch.setattr(world, "VERSIONS", ("2.263.4",))
    patch.setattr(world, "HANDOVER_S", 0.3)
    patch.setattr(world, "LASTS", (0.0, 0.3))
    patch.setattr(world, "_LABELS", (("b", 1),))
    patch.setattr(world, "ARRIVES_S", 0.5)
    always = types.SimpleNamespace(safe_to_retire_by_offline=lambda _: True)
    patch.setattr(assembly, "jnlp_version", always)  # the controller knows better


def it_takes_everybody_for_idle(patch):
    real = jnlp_state.parse

    def parse(document):
        return attrs.evolve(real(document), idle=True, busy_executors=0, busy_urls=())

    patch.setattr(jnlp_state, "parse", parse)


def it_counts_no_agents(patch):
    real = capacity.count
    patch.setattr(capacity, "count", lambda seen, policy, _: real(seen, policy, ()))


def it_counts_on_nobody_who_starts(patch):
    real = serving._slots

    def slots(draft, agent):
        online = agent.phase in {model.Phase.IDLE, model.Phase.BUSY}
        return real(draft, agent) if online else 0

    patch.setattr(serving, "_slots", slots)


def it_forgets_one_template(patch):
    def without(plan):
        kept = (a for a in plan.actions if getattr(a, "template", "") != "beta")
        return attrs.evolve(plan, actions=tuple(kept))

    patch.setattr(run, "WITHIN_S", 40.0)
    patch.setattr(plans, "plan", planned(without))


def it_ends_no_instance(patch):
    async def nothing(*_):
        return None

    patch.setattr(run, "WITHIN_S", 40.0)
    patch.setattr(execute.Executor, "_terminate", nothing)


def it_waits_for_the_slowest(patch):
    async def come(asked, *, since, now):
        tasks = [source.task for source in asked if source.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=20.0)

    patch.setattr(sources, "_come", come)


def it_never_backs_off(patch):
    real = turn.settle

    def settle(*about):
        state = real(*about)
        ledger = attrs.evolve(state.ledger, backoffs={}, windows={})
        return attrs.evolve(state, ledger=ledger)

    patch.setattr(turn, "settle", settle)


def it_names_any_template(patch):
    def wrong(plan):
        unmet = (attrs.evolve(one, text="calm is set aside") for one in plan.unmet)
        return attrs.evolve(plan, unmet=tuple(unmet))

    patch.setattr(plans, "plan", planned(wrong))


def it_gives_no_reason(patch):
    patch.setattr(plans, "plan", planned(lambda plan: attrs.evolve(plan, unmet=plan.unmet[1:])))


def it_keeps_no_certificate(patch):
    patch.setattr(turn, "bury", lambda state, *_: state)


def it_knows_no_cause(patch):
    patch.setattr(model.Cause, "of_exit", classmethod(lambda *_: model.Cause.LOST_UNKNOWN))


def it_says_everything_each_time(patch):
    def said(plan):
        for _ in range(40):
            logging.getLogger("broker.reconcile").warning("it is as it was")
        return plan

    patch.setattr(plans, "plan", planned(said))


def it_takes_everything_for_its_own(patch):
    real = marks.from_metadata

    def ours(metadata):
        read = real(metadata)
        return attrs.evolve(read, owner=sites.OWNER) if read is not None else None

    def everything(site):
        return [cell.seen() for cell in site.cells.values()]

    patch.setattr(marks, "from_metadata", ours)
    patch.setattr(sites.Site, "picture", everything)


def it_uses_names_again(patch):
    patch.setattr(world.World, "next_id", lambda self: f"{next(self.ids) % 64:06x}")


def it_fails_at_some_looks(patch):
    def bug(plan):
        if any(one.reason is model.WaitReason.AGENT_STARTING for one in plan.unmet):
            raise KeyError("starting")
        return plan

    patch.setattr(plans, "plan", planned(bug))


def it_orders_once_more(patch):
    real = ordering.order

    def order(draft):
        real(draft)
        launches = [a for a in draft.actions if isinstance(a, model.LaunchAgent)]
        for action in launches:
            draft.launches[action.template] += 1
            draft.actions.append(attrs.evolve(action, name=f"{action.name[:-1]}z"))

    patch.setattr(ordering, "order", order)


def it_takes_itself_for_another(patch):
    async def tend(self, view, *, now):
        raise placeholder.SecondBroker("another broker works here")

    patch.setattr(placeholder.Placeholder, "tend", tend)


def it_counts_no_mishaps(patch):
    patch.setattr(turn, "_harmed", lambda *_: ())


def it_blames_no_host(patch):
    patch.setattr(builds, "suspect_places", lambda _: {})


def it_sends_agents_to_any_host(patch):
    def anywhere(plan):
        launches = (a for a in plan.actions if isinstance(a, model.LaunchAgent))
        free = {a.name: attrs.evolve(a, avoid=()) for a in launches}
        return attrs.evolve(plan, actions=tuple(free.get(a.name, a) for a in plan.actions))

    patch.setattr(plans, "plan", planned(anywhere))


def it_blames_where_builds_do_well(patch):
    def suspects(fates):
        return {(one.backend, one.place): "a build failed" for one in fates if not one.bad}

    patch.setattr(builds, "suspect_places", suspects)


def long(*case):
    return pytest.param(*case, marks=pytest.mark.soak)


FULL = ("full", "full, and says nothing", "crowd")
HOST = ("builds fail on a host",)
HUNG = ("list hangs", "listings slow", "capacity hangs")


@pytest.mark.parametrize(
    ("what", "bug", "kinds"),
    [
        ("no build is lost", it_retires_by_the_offline_mark_what_would_lose_items, ()),
        ("no build is ended by us", it_takes_everybody_for_idle, ("crowd",)),
        long("caps hold", it_counts_no_agents, ("crowd",)),
        long("no more than needed", it_counts_on_nobody_who_starts, ("crowd",)),
        long("served in time", it_forgets_one_template, ()),
        long("nothing is left over", it_ends_no_instance, ()),
        long("beside it all goes on as fast", it_waits_for_the_slowest, HUNG),
        long("platform and controller are asked politely", it_never_backs_off, FULL),
        ("every reason is of one that serves", it_names_any_template, ("crowd",)),
        ("every reason is of one that serves", it_gives_no_reason, ("crowd",)),
        ("every death has its cause", it_keeps_no_certificate, ("killed in mid-build",)),
        long("every death has its cause", it_knows_no_cause, ("out of memory", "evicted")),
        ("the log is bounded", it_says_everything_each_time, ("crowd",)),
        ("what is not ours stays", it_takes_everything_for_its_own, ()),
        ("no name twice", it_uses_names_again, ("crowd", "items cancelled")),
        ("no mistake of ours", it_fails_at_some_looks, ("crowd",)),
        ("no mistake of ours", it_orders_once_more, ("crowd",)),
        ("the broker lives", it_takes_itself_for_another, ()),
        long("a mishap is named", it_counts_no_mishaps, ("a process killed for memory", "crowd")),
        long("a broken host is named and left alone", it_blames_no_host, HOST),
        long("a broken host is named and left alone", it_sends_agents_to_any_host, HOST),
        ("no healthy host is blamed", it_blames_where_builds_do_well, HOST),
    ],
)  # fmt: skip
def test_a_planted_bug_is_found(monkeypatch, what, bug, kinds):
    """And what is said of it can be played again."""
    bug(monkeypatch)
    report = run.Run("planted", rounds=1, only=set(kinds)).play(stops_at=what)
    found = [broken for broken in report.broken if broken.what == what]
    assert found
    assert found[0].at > 0


def test_each_invariant_has_its_bug():
    """A new one is not forgotten here."""
    (cases,) = test_a_planted_bug_is_found.pytestmark
    named = {(case.values if hasattr(case, "values") else case)[0] for case in cases.args[1]}
    assert named == set(invariants.NAMES)
