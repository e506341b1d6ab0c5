"""What a scrape shows: from the start what alerts need, closed label values, recounted gauges."""

import asyncio

import attrs
import pytest
from prometheus_client import parser

from backends import api as backends_api
from broker import metrics
from broker.core import model
from broker.metrics import gauges, values
from jnlp import errors as jnlp_errors
from tests.status import status_source

OTHER = attrs.evolve(status_source.RELEASE, name=model.TemplateName("other"), cap=None)
POLICY = status_source.POLICY
PREFIX = "jenkins_broker_"


def scraped(recorder):
    """Every sample of a scrape, as the format's own parser reads it."""
    body, kind = recorder.render()
    assert kind.startswith("text/plain")
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def recorder():
    return metrics.PrometheusRecorder(POLICY, version="1.2.3")


def test_what_alerts_need_is_there_from_the_start_with_zero(recorder):
    """An increase from nothing to one is none: a broker that has just begun has the series."""
    before = scraped(recorder)
    for cause in model.Cause:
        key = {"template": "release", "reason": cause.slug}
        is_there = ("agents_ended_total", tuple(sorted(key.items()))) in before
        assert is_there == cause.accident
    for phase in model.Phase:
        assert of(before, "agents_present", template="release", phase=phase.value) == 0
    for backend in ("local", "far"):
        key = {"template": "release", "backend": backend, "result": "ok"}
        assert of(before, "agents_launched_total", **key) == 0
        assert of(before, "sources_synced", source="backend", backend=backend) == 0
    for reason in model.WaitReason:
        assert of(before, "items_waiting", reason=reason.value) == 0
        assert of(before, "items_waited_longest_seconds", reason=reason.value) == 0
    for kind in values.CALL_KINDS:
        assert of(before, "controller_calls_ended_total", kind=kind, outcome="ok") == 0
    assert of(before, "agents_overshot_total") == 0
    assert len([name for name, _ in before if name == "phases_changed_illegally_total"]) > 5
    assert of(before, "agents_allowed", template="release") == 2
    assert of(before, "build_info", version="1.2.3") == 1
    zero = {
        k: v
        for k, v in before.items()
        if not k[0].startswith(("process_", "build_info", "agents_allowed"))
    }
    assert set(zero.values()) == {0.0}


@pytest.mark.parametrize(("templates", "backends"), [(0, 1), (1, 1), (1, 3), (40, 1), (200, 3)])
def test_at_rest_there_are_few_series(templates, backends):
    """At most 250, and 45 more for each template but the first, wherever they may start."""
    places = tuple(model.BackendName(f"b{number}") for number in range(backends))
    made = [
        attrs.evolve(OTHER, name=model.TemplateName(f"t{number}"), backends=places)
        for number in range(templates)
    ]
    limits = {place: model.BackendPolicy() for place in places}
    policy = attrs.evolve(POLICY, templates=tuple(made), backends=limits)
    found = scraped(metrics.PrometheusRecorder(policy, version="1"))
    assert len(found) <= 250 + 45 * max(0, templates - 1)


def test_what_is_rare_has_a_series_from_its_first_time_on(recorder):
    """It stays, with zero, when it is over; and goes when it is no longer configured."""
    source = status_source.full()
    key = {"scope": "template", "backend": "far", "template": "release"}
    assert ("backoffs_active", tuple(sorted(key.items()))) not in scraped(recorder)
    recorder.cycle(source.world, source.plan, 0.01)
    assert of(scraped(recorder), "backoffs_active", **key) == 1
    ledger = attrs.evolve(source.plan.ledger, backoffs={})
    recorder.cycle(source.world, attrs.evolve(source.plan, ledger=ledger), 0.01)
    assert of(scraped(recorder), "backoffs_active", **key) == 0
    recorder.configured(attrs.evolve(POLICY, templates=(OTHER,)))
    assert ("backoffs_active", tuple(sorted(key.items()))) not in scraped(recorder)
    stray = attrs.evolve(source.plan.agents[0], template=None)
    recorder.cycle(source.world, attrs.evolve(source.plan, agents=(stray,)), 0.01)
    key = {"template": values.UNCONFIGURED, "phase": stray.phase.value}
    assert of(scraped(recorder), "agents_present", **key) == 1
    recorder.cycle(source.world, attrs.evolve(source.plan, agents=()), 0.01)
    assert of(scraped(recorder), "agents_present", **key) == 0


def test_an_event_adds_only_listed_values(recorder):
    """Whatever the outside says becomes one of the listed values, or ``other``."""
    before = set(scraped(recorder))
    recorder.ended("no such template", model.Cause.ONCE)
    recorder.launched("release", "no such backend", "weird", 1.0)
    recorder.acted(model.Verb.LAUNCH, "weird", 1.0)
    recorder.harmed("no such template", "out-of-memory")
    recorder.left("weird")
    recorder.controller_call("weird", "weird", 1.0)
    recorder.backend_call("local", "weird", "weird", 1.0)
    recorder.queue_latency(None, warm=True, seconds=-5.0)
    after = scraped(recorder)
    for _, labels in set(after) - before:
        assert {value for key, value in labels if key != "le"} & {
            values.OTHER, values.UNCONFIGURED, "once", "launch",
        }  # fmt: skip
    text = recorder.render()[0].decode()
    assert "weird" not in text
    assert of(after, "agents_ended_total", template=values.UNCONFIGURED, reason="once") == 1
    assert of(after, "queue_latency_seconds_sum", template=values.UNCONFIGURED, start="warm") == 0


def test_a_cycle_is_recounted(recorder):
    """Gauges are what the last world and plan say, not what was added up."""
    source = status_source.full()
    for _ in range(3):
        recorder.cycle(source.world, source.plan, 0.01)
    found = scraped(recorder)
    assert of(found, "agents_present", template="release", phase="busy") == 1
    assert of(found, "slots_demanded", template="release") == 1
    assert of(found, "slots_present", template="release", state="busy") == 1
    assert of(found, "slots_targeted_warm", template="release") == 1
    assert of(found, "items_waiting", reason="no-template") == 1
    assert of(found, "items_waited_longest_seconds", reason="no-template") == pytest.approx(74.5)
    assert of(found, "sources_synced", source="controller", backend="") == 1
    assert of(found, "sources_synced", source="backend", backend="far") == 0
    assert of(found, "backoffs_active", scope="template", backend="far", template="release") == 1
    assert of(found, "cycles_succeeded_timestamp_seconds") == source.world.now
    assert of(found, "cycles_run_seconds_count") == 3
    recorder.cycle(source.world, model.Plan(), 0.01)
    found = scraped(recorder)
    assert of(found, "agents_present", template="release", phase="busy") == 0
    assert of(found, "items_waiting", reason="no-template") == 0


def test_unknown_is_not_zero(recorder):
    """While the controller cannot be read, its queue's figures stay; one gauge says so."""
    source = status_source.full()
    recorder.cycle(source.world, source.plan, 0.01)
    blind = attrs.evolve(source.world, controller=model.ControllerView(error="away"))
    recorder.cycle(blind, model.Plan(), 0.01)
    found = scraped(recorder)
    assert of(found, "slots_demanded", template="release") == 1
    assert of(found, "items_waiting", reason="no-template") == 1
    assert of(found, "sources_synced", source="controller", backend="") == 0


def test_overshoot_shows_now_and_for_ever(recorder):
    """The gauge is of the last cycle, the counter keeps it."""
    source = status_source.full()
    recorder.cycle(source.world, attrs.evolve(source.plan, overshoot=2), 0.01)
    assert of(scraped(recorder), "overshoot_agents") == 2
    recorder.cycle(source.world, source.plan, 0.01)
    found = scraped(recorder)
    assert (of(found, "overshoot_agents"), of(found, "agents_overshot_total")) == (0, 2)


def test_who_leads_is_shown(recorder):
    """One series for the holder of this moment; none while nobody holds, or nobody else is there."""
    assert not [key for key in scraped(recorder) if "lease_holder" in key[0]]
    recorder.led(leading=False, holder="one_1", transitions=3)
    recorder.led(leading=True, holder="two_2", transitions=4)
    found = scraped(recorder)
    assert (1, 4) == (of(found, "leader"), of(found, "lease_transitions"))
    assert of(found, "lease_holder_info", holder="two_2") == 1
    assert 1 == len([key for key in found if "lease_holder" in key[0]])
    recorder.led(leading=False, holder="", transitions=4)
    assert 0 == of(scraped(recorder), "leader")
    assert not [key for key in scraped(recorder) if "lease_holder" in key[0]]


def test_a_standby_counts_nothing_that_the_leader_counts(recorder):
    """Its gauges are true, but the sum over both replicas is that of one broker."""
    source = status_source.full()
    recorder.led(leading=False, holder="one_1", transitions=0)
    recorder.cycle(source.world, attrs.evolve(source.plan, overshoot=2), 0.01)
    found = scraped(recorder)
    assert of(found, "agents_present", template="release", phase="busy") == 1
    assert of(found, "agents_overshot_total") == 0


def test_a_reload_takes_gauges_away_and_keeps_counters(recorder):
    """A counter that vanished would lose what it last counted; a gauge would lie."""
    recorder.ended("release", model.Cause.ONCE)
    recorder.configured(attrs.evolve(POLICY, templates=(OTHER,)))
    found = scraped(recorder)
    assert of(found, "agents_ended_total", template="release", reason="once") == 1
    assert ("slots_demanded", (("template", "release"),)) not in found
    assert of(found, "agents_allowed", template="other") == float("inf")
    recorder.ended("other", model.Cause.IDLE)
    assert of(scraped(recorder), "agents_ended_total", template="other", reason="idle") == 1


def test_latency_is_told_by_template_and_by_warm_and_cold(recorder):
    """The figure that this project is measured by."""
    recorder.queue_latency("release", warm=True, seconds=0.2)
    recorder.queue_latency("release", warm=False, seconds=20.0)
    found = scraped(recorder)
    assert (
        of(found, "queue_latency_seconds_bucket", template="release", start="warm", le="0.25") == 1
    )
    assert (
        of(found, "queue_latency_seconds_bucket", template="release", start="cold", le="15.0") == 0
    )
    assert (
        of(found, "queue_latency_seconds_bucket", template="release", start="cold", le="30.0") == 1
    )


def test_names_are_of_one_make(recorder):
    """``jenkins_broker_<noun>_<verb>_<unit or total>``; nothing twice, no ``_created``."""
    names = {n for n, _ in scraped(recorder)}
    assert not [n for n in names if n.endswith("_created")]
    families = [f for f in recorder.registry.collect() if not f.name.startswith("process_")]
    assert all(f.name.startswith(PREFIX) for f in families)
    assert all(f.documentation.endswith(".") for f in families)
    assert len(families) == len({f.name for f in families})


# --- what counts the calls ---


class Backend:
    kind = "fake"

    def __init__(self, error=None):
        self.error = error

    async def list(self):
        if self.error is not None:
            raise self.error
        return ["one"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (backends_api.Unavailable("away"), "unavailable"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("x"), "bug"),
    ],
)
async def test_a_call_is_counted_and_passed_on(recorder, error, outcome):
    """The same result, the same error, and one more of that outcome."""
    metered = metrics.metered(Backend(error), "local", recorder)
    if error is None:
        assert ["one"] == await metered.list()
    else:
        with pytest.raises(type(error)) as raised:
            await metered.list()
        assert raised.value is error
    assert (
        of(
            scraped(recorder),
            "backend_calls_ended_total",
            backend="local",
            verb="list",
            outcome=outcome,
        )
        == 1
    )


async def test_a_request_to_the_controller_is_counted_by_its_slug(recorder):
    """Errors of that side have slugs of their own."""
    with pytest.raises(jnlp_errors.Forbidden), metrics.called(recorder, "look"):
        raise jnlp_errors.Forbidden("no", permission="Job/Read")
    assert (
        of(scraped(recorder), "controller_calls_ended_total", kind="look", outcome="forbidden")
        == 1
    )


def test_every_gauge_is_set_by_the_recount():
    """From a world that shows something of each: one that nobody counts would stay at zero."""
    template, backend = status_source.RELEASE.name, model.BackendName("local")
    key = model.BackoffKey(scope=model.Scope.BACKEND, backend=backend, template=None)
    backoff = model.Backoff(failures=1, until_at=99.0, reason="", cause=model.Failure.REJECTED)
    place = model.BackoffKey(scope=model.Scope.PLACE, backend=backend, place="tcp://h")
    avoided = attrs.evolve(backoff, cause=model.Cause.BLACK_HOLE)
    world = model.World(
        now=50.0,
        controller=model.ControllerView(synced=True, quieting_down=True),
        backends={backend: model.BackendView(synced=True)},
    )
    plan = model.Plan(
        agents=(
            model.Agent(name="n", phase=model.Phase.IDLE, template=template, backend=backend),
        ),
        unmet=(model.Unmet(item=1, reason=model.WaitReason.PAUSED, text="x", since_at=10.0),),
        counts={
            template: model.TemplateCount(
                demand=1, warm_target=1, idle=1, busy=1, starting=1, agents=1
            )
        },
        overshoot=1,
        ledger=model.Ledger(backoffs={key: backoff, place: avoided}),
    )
    before = gauges.zeros(POLICY)
    found = gauges.recount(world, plan, POLICY, before=before)
    assert found.keys() == before.keys() == gauges.GAUGES.keys()
    told = {name for name in found if found[name] != before[name]}
    assert told == set(found) - {"agents_allowed"}, "a gauge that no recount sets"
    for name, gauge in gauges.GAUGES.items():
        assert {len(labels) for labels in found[name]} == {len(gauge.labels)}, name
    assert found["agents_allowed"] == {
        (t.name,): float("inf") if t.cap is None else float(t.cap) for t in POLICY.templates
    }
