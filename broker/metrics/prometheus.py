"""The Recorder that Prometheus reads: counters, histograms and the recounted gauges.

Own registry, nothing global but one switch of the library (no ``_created`` series, they double
what is scraped). There from the start, with zero, is what alerts ask for and what each broker
does; a series of a rare outcome appears with its first event. Templates that a reload removes
keep their counters (a counter that vanishes loses its last increments) and lose their gauges.
Refuses to decide what is worth telling.
"""

from collections.abc import Collection, Iterable, Iterator

import prometheus_client
from attrs import frozen
from prometheus_client import core as prometheus_core
from prometheus_client import exposition, registry

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import lifecycle
from broker.metrics import gauges, values

_PREFIX = "jenkins_broker_"
_WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800)
_START_BUCKETS = (0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_CALL_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_HOLDER_MAX = 253
_CHECKED = {True: "passed", False: "failed"}
_SHORT_OF_MEMORY: backends_api.ExitSlug = "out-of-memory"  # what an alert asks for
_HOOK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_LOOP_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Gauges(registry.Collector):
    """Hands the last reading to a scrape."""

    def __init__(self) -> None:
        self.reading: gauges.Reading = {}

    def collect(self) -> Iterator[prometheus_core.Metric]:
        for name, gauge in gauges.GAUGES.items():
            family = prometheus_core.GaugeMetricFamily(
                _PREFIX + name, gauge.text, labels=gauge.labels
            )
            for labels, value in self.reading.get(name, {}).items():
                family.add_metric(labels, value)
            yield family


@frozen
class _HookMetrics:
    up: prometheus_client.Gauge
    lost: prometheus_client.Gauge
    refused: prometheus_client.Counter
    decided: prometheus_client.Histogram


class PrometheusRecorder:
    """Implements ``Recorder``; ``render`` gives what ``/metrics`` answers."""

    def __init__(self, policy: model.Policy, *, version: str) -> None:
        """``version`` of the broker, for ``build_info``."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._policy = policy
        self._templates: set[str] = set()  # ever configured in this process
        self._backends: set[str] = set()
        self._leads = True
        self._of_hook: _HookMetrics | None = None
        self._gauges = _Gauges()
        self.registry.register(self._gauges)
        self._make_counters()
        self._make_histograms()
        info = prometheus_client.Gauge(
            _PREFIX + "build_info", "Version of the broker.", ["version"], registry=self.registry
        )
        info.labels(version).set(1)
        self._make_leadership()
        self._make_configuration()
        self.configured(policy)

    def render(self) -> tuple[bytes, str]:
        """Return the text format and its content type."""
        encoder, content_type = exposition.choose_encoder("")
        return encoder(self.registry), content_type

    def configured(self, policy: model.Policy) -> None:
        """Create with zero what is to be there from the start; gauges of removed templates go."""
        self._policy = policy
        self._templates.update(t.name for t in policy.templates)
        self._backends.update(policy.backends)
        old = self._gauges.reading
        fresh = gauges.zeros(policy, old)
        self._gauges.reading = {
            name: {
                key: zero if name == "agents_allowed" else old.get(name, {}).get(key, zero)
                for key, zero in series.items()
            }
            for name, series in fresh.items()
        }
        for template in policy.templates:
            for reason in values.ALARMING_ENDS:
                self._ended.labels(template.name, reason)
            self._extra.labels(template.name)
            self._harmed.labels(template.name, _SHORT_OF_MEMORY)
            for check in model.Check:
                if template.checks.of(check) is not None:
                    for result in _CHECKED.values():
                        self._checked.labels(template.name, check.value, result)
            for backend in template.backends:
                self._launched.labels(template.name, backend, values.OK)
        for backend in policy.backends:
            for verb in values.BACKEND_VERBS:
                self._backend_calls.labels(backend, verb, values.OK)

    def configuration_read(self, at: float, *, good: bool) -> None:
        """Show it."""
        self._refused.set(float(not good))
        if good:
            self._loaded_at.set(at)

    def cycle(self, world: model.World, plan: model.Plan, duration_s: float) -> None:
        """Recount all gauges; count what this plan says happened just now."""
        self._gauges.reading = gauges.recount(
            world, plan, self._policy, before=self._gauges.reading
        )
        self._cycle_seconds.observe(max(0.0, duration_s))
        if not self._leads:
            return  # what happens is counted by who leads, once
        self._overshot.inc(max(0, plan.overshoot))
        for old, new in plan.illegal:
            if old is not None and not lifecycle.is_legal(old, new):
                self._illegal.labels(old.value, new.value).inc()
        for agent in plan.agents:
            memory = agent.memory
            if memory is None or memory.online_at != world.now or not memory.online_witnessed:
                continue  # not the cycle in which it was first seen online
            if agent.created_at is not None:
                self._connected.labels(
                    self._template(agent.template), self._backend(agent.backend)
                ).observe(max(0.0, world.now - agent.created_at))

    def cycle_failed(self, why: model.CycleFailure) -> None:
        """Count."""
        self._cycles_failed.labels(why.value).inc()

    def acted(self, verb: model.Verb, slug: str, seconds: float) -> None:
        """Count and time."""
        self._acted.labels(verb.value, _one_of(slug or values.OK, values.RESULTS)).inc()
        self._acted_seconds.labels(verb.value).observe(max(0.0, seconds))

    def launched(
        self, template: str | None, backend: str | None, slug: str, seconds: float
    ) -> None:
        """Count, and time what succeeded."""
        result = _one_of(slug or values.OK, values.RESULTS)
        place = self._backend(backend)
        self._launched.labels(self._template(template), place, result).inc()
        if result == values.OK:
            self._launch_seconds.labels(place).observe(max(0.0, seconds))

    def ended(self, template: str | None, cause: model.Cause) -> None:
        """Count."""
        self._ended.labels(self._template(template), cause.slug).inc()

    def queue_latency(self, template: str | None, *, warm: bool, seconds: float) -> None:
        """Put into the histogram that this project is measured by."""
        start = values.STARTS[0] if warm else values.STARTS[1]
        self._latency.labels(self._template(template), start).observe(max(0.0, seconds))

    def left(self, outcome: str) -> None:
        """Count."""
        self._left.labels(_one_of(outcome, values.LEFT_OUTCOMES)).inc()

    def waited(self, template: str | None, reason: str, seconds: float) -> None:
        """Add up."""
        labels = (self._template(template), _one_of(reason, values.WAIT_SPELLS))
        self._waited.labels(*labels).inc(max(0.0, seconds))

    def extra_build(self, template: str | None) -> None:
        """Count."""
        self._extra.labels(self._template(template)).inc()

    def unused(self, template: str | None) -> None:
        """Count."""
        self._unused.labels(self._template(template)).inc()

    def checked(self, template: str | None, check: model.Check, *, passed: bool) -> None:
        """Count."""
        self._checked.labels(self._template(template), check.value, _CHECKED[passed]).inc()

    def harmed(self, template: str | None, slug: backends_api.ExitSlug) -> None:
        """Count."""
        self._harmed.labels(self._template(template), slug).inc()

    def controller_call(self, kind: str, outcome: str, seconds: float) -> None:
        """Count and time."""
        name = _one_of(kind, values.CALL_KINDS)
        result = _one_of(outcome or values.OK, values.CONTROLLER_OUTCOMES)
        self._controller_calls.labels(name, result).inc()
        self._controller_seconds.labels(name).observe(max(0.0, seconds))

    def backend_call(self, backend: str, verb: str, outcome: str, seconds: float) -> None:
        """Count and time."""
        place = self._backend(backend)
        name = _one_of(verb, values.BACKEND_VERBS)
        result = _one_of(outcome or values.OK, values.BACKEND_OUTCOMES)
        self._backend_calls.labels(place, name, result).inc()
        self._backend_seconds.labels(place, name).observe(max(0.0, seconds))

    def loop_lag(self, seconds: float) -> None:
        """Observe."""
        self._loop.observe(max(0.0, seconds))

    def hook_decided(self, seconds: float) -> None:
        """Observe."""
        self._hook().decided.observe(seconds)

    def hook_heard(self, *, heard: bool, lost: int) -> None:
        """Show it."""
        self._hook().up.set(float(heard))
        self._hook().lost.set(float(lost))

    def hook_refused(self, slug: str) -> None:
        """Count."""
        self._hook().refused.labels(_one_of(slug, values.HOOK_REFUSALS)).inc()

    def led(self, *, leading: bool, holder: str, transitions: int) -> None:
        """Show who leads; of the holders only the present one is a series."""
        self._leads = leading
        self._leader.set(float(leading))
        self._lease_taken.set(float(transitions))
        self._lease_holder.clear()
        if holder:
            self._lease_holder.labels(holder[:_HOLDER_MAX]).set(1)

    def _template(self, name: str | None) -> str:
        return name if name is not None and name in self._templates else values.UNCONFIGURED

    def _backend(self, name: str | None) -> str:
        return name if name is not None and name in self._backends else values.UNCONFIGURED

    def _make_counters(self) -> None:
        self._launched = self._counter(
            "agents_launched", "Launches by result.", "template", "backend", "result"
        )
        self._ended = self._counter("agents_ended", "Agents gone.", "template", "reason")
        self._overshot = self._counter(
            "agents_overshot", "Agents ordered beyond demand and warm target; must stay 0."
        )
        self._acted = self._counter("actions_ended", "Actions by result.", "verb", "result")
        self._cycles_failed = self._counter("cycles_failed", "Cycles with an error.", "slug")
        self._illegal = self._counter(
            "phases_changed_illegally", "Changes that no table allows; a bug.", "old", "new"
        )
        self._extra = self._counter(
            "once_extra_builds", "Builds of single-use agents after their first.", "template"
        )
        self._unused = self._counter(
            "agents_unused",
            "Agents that were ordered for an item and are gone without a build.",
            "template",
        )
        self._checked = self._counter(
            "checks_ended",
            "Ready and dirty checks of agents, by result: passed, failed.",
            "template",
            "check",
            "result",
        )
        self._harmed = self._counter(
            "agents_harmed",
            "Agents that live on though something befell them, by what; each counts once.",
            "template",
            "reason",
        )
        self._waited = self._counter(
            "wait_seconds",
            "Time that queue items waited, added up over items, by what they waited for.",
            "template",
            "reason",
        )
        self._left = self._counter("items_left", "Items that left the queue.", "outcome")
        self._controller_calls = self._counter(
            "controller_calls_ended", "Requests to the controller.", "kind", "outcome"
        )
        self._backend_calls = self._counter(
            "backend_calls_ended", "Calls of backends.", "backend", "verb", "outcome"
        )
        _touch(self._cycles_failed, ((s,) for s in values.CYCLE_SLUGS))
        _touch(self._left, ((o,) for o in values.LEFT_OUTCOMES))
        _touch(self._acted, ((v.value, values.OK) for v in model.Verb))
        _touch(
            self._illegal,
            (
                (old.value, new.value)
                for old in model.Phase
                for new in model.Phase
                if not lifecycle.is_legal(old, new)
            ),
        )
        _touch(self._controller_calls, ((kind, values.OK) for kind in values.CALL_KINDS))

    def _make_histograms(self) -> None:
        self._latency = self._histogram(
            "queue_latency_seconds",
            "Time an item was buildable until its build started on one of our agents.",
            _WAIT_BUCKETS,
            "template",
            "start",
        )
        self._connected = self._histogram(
            "agents_connected_seconds",
            "From the order of an agent until it is first seen online.",
            _START_BUCKETS,
            "template",
            "backend",
        )
        self._launch_seconds = self._histogram(
            "agents_launched_seconds",
            "Duration of successful launches: node, secret, instance.",
            _CALL_BUCKETS,
            "backend",
        )
        self._acted_seconds = self._histogram(
            "actions_ended_seconds", "Duration of actions.", _CALL_BUCKETS, "verb"
        )
        self._cycle_seconds = self._histogram(
            "cycles_run_seconds", "Duration of cycles.", _LOOP_BUCKETS
        )
        self._loop = self._histogram(
            "loop_lagged_seconds", "How late timers of the event loop are.", _LOOP_BUCKETS
        )
        self._controller_seconds = self._histogram(
            "controller_calls_ended_seconds", "Duration of requests.", _CALL_BUCKETS, "kind"
        )
        self._backend_seconds = self._histogram(
            "backend_calls_ended_seconds", "Duration of calls.", _CALL_BUCKETS, "backend", "verb"
        )

    def _make_leadership(self) -> None:
        self._leader = self._gauge("leader", "1 while this broker may act; 0 on a standby.")
        self._lease_taken = self._gauge(
            "lease_transitions", "How often the lease has gone to another broker."
        )
        self._lease_holder = self._gauge(
            "lease_holder_info", "Who holds the lease; only with high_availability.", "holder"
        )

    def _hook(self) -> "_HookMetrics":
        """Return the series of the push hook: there are some where there is to be one."""
        if self._of_hook is None:
            self._of_hook = _HookMetrics(
                up=self._gauge("hook_up", "1 while the push hook is heard of; 0: it is silent."),
                lost=self._gauge(
                    "hook_events_lost", "Events that the push hook dropped since it was installed."
                ),
                refused=self._counter(
                    "hook_messages_refused", "Messages of the push hook not taken.", "reason"
                ),
                decided=self._histogram(
                    "hook_decided_seconds",
                    "From an item becoming buildable on the controller until the push hook's "
                    "word of it is decided upon.",
                    _HOOK_BUCKETS,
                ),
            )
        return self._of_hook

    def _make_configuration(self) -> None:
        self._refused = self._gauge(
            "configuration_refused",
            "1 while the newest configuration cannot be used and one before it is in force.",
        )
        self._loaded_at = self._gauge(
            "configuration_loaded_timestamp_seconds",
            "POSIX time at which the configuration in force was read.",
        )

    def _gauge(self, name: str, text: str, *labels: str) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            _PREFIX + name, text, labels, buckets=buckets, registry=self.registry
        )


def _touch(counter: prometheus_client.Counter, series: Iterable[tuple[str, ...]]) -> None:
    for labels in series:
        counter.labels(*labels)


def _one_of(value: str, allowed: Collection[str]) -> str:
    return value if value in allowed else values.OTHER
