"""Plays a recorded scenario to the fake master: every call in its time, what an operator did too.

Ids of frameworks, agents and offers are those of the machine, found by their place in the streams.
"""

import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from backends.mesos import recordio
from tests.mesos import master

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
STEP_S = 0.01
OFFER_WITHIN_S = 1.2

Act = Callable[[master.Master], None]


@attrs.frozen(kw_only=True)
class Stream:
    """One recorded answer to a SUBSCRIBE."""

    name: str
    events: tuple[Mapping[str, Any], ...]  # {"t": seconds, "event": {...}}
    end: str
    end_t: float
    stream_id: str

    def told(self) -> list[dict[str, Any]]:
        return [one["event"] for one in self.events]


def streams(scenario: str) -> dict[str, Stream]:
    """Return the streams of a scenario by name, in the order in which they were opened."""
    found = []
    for path in (RECORDED / scenario).glob("stream-*.json"):
        if path.name.endswith(".chunks.json"):
            continue
        raw = json.loads(path.read_text())
        stream_id = dict(raw["headers"])["Mesos-Stream-Id"]
        found.append(
            Stream(
                name=path.stem,
                events=tuple(raw["events"]),
                end=raw["end"],
                end_t=raw["end_t"],
                stream_id=stream_id,
            )
        )
    found.sort(key=lambda one: one.events[0]["t"])
    return {one.name: one for one in found}


def decoded(scenario: str, name: str) -> list[dict[str, Any]]:
    """Return the events of the raw bytes, cut where the HTTP chunks were cut."""
    folder = RECORDED / scenario
    data = (folder / f"{name}.recordio").read_bytes()
    decoder, records, start = recordio.Decoder(), [], 0
    for size in _sizes(folder / f"{name}.chunks.json", len(data)):
        records += decoder.feed(data[start : start + size])
        start += size
    assert decoder.is_between_records
    return [json.loads(record) for record in records]


def _sizes(path: pathlib.Path, rest: int) -> list[int]:
    return [*(size for _at, size, _end in json.loads(path.read_text())["pieces"]), rest]


class Replay:
    """One scenario on one machine; ``events`` holds what the machine said, by stream name."""

    def __init__(
        self, scenario: str, *, acts: Sequence[tuple[float, Act]] = (), phase_s: float = 0.0
    ) -> None:
        self.scenario = scenario
        self.recorded = streams(scenario)
        self.events: dict[str, list[dict[str, Any] | None]] = {}
        self.answers: list[tuple[str, int, str, int, str]] = []  # kind, recorded, given
        self.machine = master.Master(plan=master.plan_of)
        self.machine._allocate_at = phase_s
        self._opened: dict[str, master.Framework] = {}
        self._ids: dict[str, str] = {}
        self._acts = list(acts)
        self._later: list[tuple[str, dict[str, Any]]] = []

    def run(self) -> "Replay":
        timeline: list[tuple[float, Callable[[], None]]] = []
        for one in self.recorded.values():
            if one.end == "closed by client":
                timeline.append((one.end_t, lambda name=one.name: self._close(name)))
        timeline += [(at, lambda act=act: act(self.machine)) for at, act in self._acts]
        for call in json.loads((RECORDED / self.scenario / "calls.json").read_text()):
            timeline.append((call["t"], lambda call=call: self._call(call)))
        for at, do in sorted(timeline, key=lambda row: row[0]):
            self._advance(at)
            do()
        self._advance(max(one.end_t for one in self.recorded.values()))
        return self

    def _advance(self, now: float) -> None:
        while self.machine.now < now:
            self.machine.advance(min(now, self.machine.now + STEP_S))
            self._acknowledge()

    def _close(self, name: str) -> None:
        self.machine.disconnect(self._opened[name])

    def _call(self, call: Mapping[str, Any]) -> None:
        body, response = call["request"]["body"], call["response"]
        if not isinstance(body, Mapping) or body.get("type") in (None, "MARK_AGENT_GONE"):
            return  # an operator's; the acts play it
        if not isinstance(response, Mapping) or response["status"] == 307:
            return  # nobody answered, or a master that does not lead
        self._wait_for_offers(body)
        body = self._translated(body)
        stream_id = dict(call["request"]["headers"]).get("Mesos-Stream-Id")
        if body["type"] == "ACKNOWLEDGE" and (state := self._acknowledged(body["acknowledge"])):
            self._later.append((state, body))
            self._acknowledge()
            return
        if body["type"] == "SUBSCRIBE":
            self._subscribe(body, response)
            return
        status, text = self.machine.call(body, stream_id)
        told = response["body"] if isinstance(response["body"], str) else ""
        self.answers.append((body["type"], response["status"], told, status, text))

    def _subscribe(self, body: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        name = re.fullmatch(r"see (\S+)\.recordio", response["body"])[1]
        stream = self.recorded[name]
        opened = self.machine.subscribe(body, stream.stream_id)
        assert isinstance(opened, master.Framework)
        self._opened[name], self.events[name] = opened, opened.stream
        first = stream.events[0]["event"]
        if first["type"] == "SUBSCRIBED":
            self._ids[first["subscribed"]["framework_id"]["value"]] = opened.id

    def _translated(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call with the machine's ids for the recorded ones."""
        self._pair()
        text = json.dumps(body)
        for theirs, ours in self._ids.items():
            text = text.replace(f'"{theirs}"', f'"{ours}"')
        return json.loads(text)

    def _wait_for_offers(self, body: Mapping[str, Any]) -> None:
        """A call about an offer is said when there is one; the machine's may be a little later."""
        members = body.get("accept", body.get("decline", {}))
        asked = {one["value"] for one in members.get("offer_ids", ())}
        known = {
            one["id"]["value"]
            for stream in self.recorded.values()
            for one in offered(stream.told())
        }
        end = self.machine.now + OFFER_WITHIN_S
        self._pair()
        while asked & known - set(self._ids) and self.machine.now < end:
            self._advance(self.machine.now + STEP_S)
            self._pair()

    def _pair(self) -> None:
        """Find offers and agents by their place in the streams."""
        for name, events in self.events.items():
            pairs = zip(offered(self.recorded[name].told()), offered(events), strict=False)
            for theirs, ours in pairs:
                self._ids[theirs["id"]["value"]] = ours["id"]["value"]
                self._ids[theirs["agent_id"]["value"]] = ours["agent_id"]["value"]

    def _acknowledged(self, acknowledge: Mapping[str, Any]) -> str | None:
        """Return the state of the recorded update that is acknowledged rightly; None: of none."""
        return next(
            (
                status["state"]
                for stream in self.recorded.values()
                for status in updates(stream.told())
                if status.get("uuid") == acknowledge.get("uuid", "none")
                and status["task_id"] == acknowledge["task_id"]
                and self._ids.get(status["agent_id"]["value"]) == acknowledge["agent_id"]["value"]
            ),
            None,
        )

    def _acknowledge(self) -> None:
        """Acknowledge what was acknowledged in the recording, as soon as the machine says it."""
        for one in [*self._later]:
            state, body = one
            task = self.machine.tasks.get(
                (body["framework_id"]["value"], body["acknowledge"]["task_id"]["value"])
            )
            if task is not None and task.pending and task.pending[0]["state"] == state:
                members = body["acknowledge"] | {"uuid": task.pending[0]["uuid"]}
                if self.machine.call({**body, "acknowledge": members})[0] == 202:
                    self._later.remove(one)


def offered(events: Sequence[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    return [
        offer
        for event in events
        if event is not None and event["type"] == "OFFERS"
        for offer in event["offers"]["offers"]
    ]


def updates(events: Sequence[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    return [e["update"]["status"] for e in events if e is not None and e["type"] == "UPDATE"]


def told(events: Sequence[Mapping[str, Any] | None]) -> dict[str, list[tuple]]:
    """Updates by task, without what is chance (uuids, ids of containers, times)."""
    by_task: dict[str, list[tuple]] = {}
    for status in updates(events):
        agent = status.get("agent_id", {}).get("value", "").rpartition("-")[2]
        words = re.sub(r"\S+-O\d+", "OFFER", status.get("message", ""))
        words = re.sub(r"agent \S+-S0", "agent S0", words)
        members = tuple(sorted(set(status) - {"container_status"}))
        one = (status["state"], words, status["source"], status.get("reason"), agent, members)
        by_task.setdefault(status["task_id"]["value"], []).append(one)
    return by_task


def amounts(events: Sequence[Mapping[str, Any] | None]) -> list[dict[str, float]]:
    """What was offered, offer by offer."""
    return [
        {
            one["name"]: round(one["scalar"]["value"], 3)
            for one in offer["resources"]
            if one["type"] == "SCALAR"
        }
        for offer in offered(events)
    ]


def others(events: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Events that are neither offers, updates nor heartbeats, with an error's words."""
    quiet = ("OFFERS", "UPDATE", "HEARTBEAT")
    return [
        " ".join([event["type"], *event.get("error", {}).values()])
        for event in events
        if event is not None and event["type"] not in quiet
    ]
