"""The fake master against the recordings: the same calls give the same updates, word by word."""

import json
import pathlib
import re

import pytest

from tests.mesos import master

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
CASES = {
    "11-accept-errors": ("stream-partition-aware", "-0002"),
    "07-reconcile": ("stream-partition-aware", "-0008"),
    "04-kill": ("stream-killing-state", "-0004"),
}
STEP_S = 0.05


def told(events: list[dict]) -> dict[str, list[tuple]]:
    """Updates by task, without what is chance (uuids, ids of containers, times)."""
    by_task: dict[str, list[tuple]] = {}
    for event in events:
        if event is None or event["type"] != "UPDATE":
            continue
        status = event["update"]["status"]
        agent = status.get("agent_id", {}).get("value", "").rpartition("-")[2]
        words = re.sub(r"\S+-O\d+", "OFFER", status.get("message", ""))
        words = re.sub(r"agent \S+-S0", "agent S0", words)
        members = tuple(sorted(set(status) - {"container_status"}))
        one = (status["state"], words, status["source"], status.get("reason"), agent, members)
        by_task.setdefault(status["task_id"]["value"], []).append(one)
    return by_task


class Replay:
    """Plays the calls of one recorded framework to the machine, each in its time."""

    def __init__(self, scenario: str) -> None:
        stream, self.framework = CASES[scenario]
        self.events = json.loads((RECORDED / scenario / f"{stream}.json").read_text())["events"]
        self.calls = json.loads((RECORDED / scenario / "calls.json").read_text())
        offered = [
            e["event"]["offers"]["offers"] for e in self.events if e["event"]["type"] == "OFFERS"
        ]
        self.offers = {one["id"]["value"] for many in offered for one in many}
        self.agent = offered[0][0]["agent_id"]["value"]
        self.mine: dict[str, str] = {}
        self.machine = master.Master(plan=master.plan_of)

    def run(self) -> list[dict]:
        start = self.events[0]["t"]
        begin = [
            c
            for c in self.calls
            if c["request"]["body"]["type"] == "SUBSCRIBE" and c["t"] <= start
        ][-1]
        self.advance(begin["t"])
        opened = self.machine.subscribe(begin["request"]["body"], "s")
        for one in self.calls:
            body = one["request"]["body"]
            if body["type"] in ("SUBSCRIBE", "TEARDOWN") or not body["framework_id"][
                "value"
            ].endswith(self.framework):
                continue
            self.advance(one["t"])
            assert (
                one["response"]["status"] == self.machine.call(self.translated(body, opened.id))[0]
            ), one
        self.advance(self.events[-1]["t"])
        return opened.stream

    def advance(self, now: float) -> None:
        while self.machine.now < now:
            self.machine.advance(min(now, self.machine.now + STEP_S))

    def translated(self, body: dict, framework: str) -> dict:
        """Return the call with the machine's ids for the recorded ones."""
        for one in body.get("accept", body.get("decline", {})).get("offer_ids", ()):
            if one["value"] in self.offers and one["value"] not in self.mine:
                if not self.machine.offers:
                    self.machine.allocate()
                self.mine[one["value"]] = next(iter(self.machine.offers))
        text = json.dumps(body).replace(self.agent, next(iter(self.machine.agents)))
        for theirs, mine in self.mine.items():
            text = text.replace(f'"{theirs}"', f'"{mine}"')
        body = json.loads(text)
        body["framework_id"]["value"] = framework
        if body["type"] == "ACKNOWLEDGE":
            task = self.machine.tasks.get((framework, body["acknowledge"]["task_id"]["value"]))
            if task is not None and task.pending:
                body["acknowledge"]["uuid"] = task.pending[0]["uuid"]
        return body


@pytest.mark.parametrize("scenario", CASES)
def test_recorded_calls_give_the_recorded_updates(scenario):
    """State, words, source, reason, members and their order, for every task of the scenario."""
    replay = Replay(scenario)
    stream = replay.run()
    assert told([one["event"] for one in replay.events]) == told(stream)
