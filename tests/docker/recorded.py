"""The recordings of a real engine (20.10, see their README), as the client would read them."""

import json
import pathlib

from backends.docker.containers import death
from backends.docker.engine import answers

FOLDER = pathlib.Path(__file__).parents[1] / "recordings/docker"


def load(name: str):
    return json.loads((FOLDER / f"{name}.json").read_text())


def ended_with_engine(name: str, container: str, *, heard: str) -> death.Ended:
    """Return what is told of a container after its engine was stopped or killed and came back.

    ``heard``: the events that were heard, those before the engine ended or those after its start.
    """
    told = load(name)
    shown = answers.inspected({"Config": {}, **told["containers"][container]})
    events = [answers.event(entry) for entry in told[heard]]
    kills = [e for e in events if e.action == "kill" and e.id == shown.id]
    return death.Ended(
        exit_code=shown.exit_code,
        finished_at=shown.finished_at,
        seen=death.EventTrace(signals=tuple((e.at, int(e.attributes["signal"])) for e in kills)),
        engine_began_at=answers.created_at(told["bridge"]),
    )


def ended(name: str, **changes: object) -> death.Ended:
    """Return a recorded death: the last inspect and what the events told until then."""
    shown = answers.inspected(load(f"container-{name}")["inspect_exited"]["body"])
    told = [answers.event(entry) for entry in load(f"events-{name}")]
    seen = death.EventTrace(
        oom_at=tuple(e.at for e in told if e.action == "oom"),
        signals=tuple((e.at, int(e.attributes["signal"])) for e in told if e.action == "kill"),
    )
    fields = {
        "exit_code": shown.exit_code,
        "oom_killed": shown.oom_killed,
        "error": shown.error,
        "started": shown.started,
        "finished_at": shown.finished_at,
        "memory_bytes": shown.memory_bytes,
        "seen": seen,
    }
    return death.Ended(**{**fields, **changes})
