"""Nodes that are about to end: what says so, what does not, and what asking may cost."""

import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import pytest

from backends import api
from backends.kubernetes.api import errors
from backends.kubernetes.pods import nodes
from tests.each import each
from tests.kubernetes import fake, test_backend

AUTOSCALER = "ToBeDeletedByClusterAutoscaler"


def node(*taints: Any) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": list(taints)}}


def taint(key: str, effect: str = "NoSchedule") -> dict[str, Any]:
    return {"key": key, "value": "1", "effect": effect}


@each("key", nodes.ENDS)
def test_a_taint_that_means_an_end_is_told_with_its_key(key: str) -> None:
    """Whatever stands beside it."""
    for effect in ("NoSchedule", "NoExecute"):
        told = nodes.ending(node(taint("dedicated"), taint(key, effect)))
        assert nodes.ENDS[key] in told
        assert key in told


@each(
    "told",
    [
        node(),
        node(taint("dedicated", "NoExecute")),
        node(taint("node.kubernetes.io/unschedulable")),
        node(taint("node.kubernetes.io/not-ready", "NoExecute")),
        node(taint("node.kubernetes.io/unreachable", "NoExecute")),
        node(taint("DeletionCandidateOfClusterAutoscaler", "PreferNoSchedule")),
        node(taint(AUTOSCALER, "PreferNoSchedule")),
        node(taint("aws-node-termination-handler/rebalance-recommendation")),
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [None, 3, {"key": [AUTOSCALER]}]}},
        {"spec": None},
        {},
    ],
)
def test_nothing_else_is_an_end(told: dict[str, Any]) -> None:
    """Pods may tolerate a taint of their own, a cordoned node goes on, and so may one that is away."""
    assert "" == nodes.ending(told)


def test_the_manual_names_each_of_them() -> None:
    """And no other: a table of keys, and who sets them."""
    manual = (pathlib.Path(__file__).parents[2] / "docs/backends/kubernetes.md").read_text()
    table = manual.partition("| taint | set by |")[2].partition("\n\n")[0]
    keys = [
        key for row in table.splitlines()[2:] for key in re.findall("`([^`]+)`", row.split("|")[1])
    ]
    assert sorted(nodes.ENDS) == sorted(keys)


class Source:
    """Answers, and keeps who was asked about."""

    def __init__(self, answer: Mapping[str, Any] | Exception) -> None:
        self.answer, self.asked = answer, list[str]()

    async def node(self, name: str) -> Mapping[str, Any]:
        self.asked.append(name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_each_node_is_asked_about_now_and_then_and_few_at_once() -> None:
    """Two for a look, each four times a minute at most; the one asked longest ago comes first."""
    asked, source = nodes.NodeWatch(), Source(node())
    names = [f"n{number}" for number in range(5)]
    for second in range(60):
        await asked.ask(source, names, now=1000.0 + second)
    assert dict.fromkeys(names, 4) == {name: source.asked.count(name) for name in names}
    assert names[:2] == source.asked[:2]
    await asked.ask(source, ["", "gone"], now=2000.0)
    assert "gone" == source.asked[-1], "a pod without a node asks nobody"


async def test_a_node_that_is_untainted_again_ends_nothing_and_trouble_keeps_what_was_said() -> (
    None
):
    """An answer replaces the one before, and only that."""
    asked, source = nodes.NodeWatch(), Source(node(taint(AUTOSCALER)))
    await asked.ask(source, ["n"], now=0.0)
    assert AUTOSCALER in asked.ending_of("n")
    source.answer = api.Unavailable("no answer")
    await asked.ask(source, ["n"], now=20.0)
    await asked.ask(source, ["n"], now=40.0)
    assert 2 == len(source.asked), "nobody is asked for a while"
    assert AUTOSCALER in asked.ending_of("n")
    source.answer = node()
    await asked.ask(source, ["n"], now=100.0)
    assert "" == asked.ending_of("n")


async def test_without_the_right_it_is_tried_again_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every ten minutes, for somebody may give it; said once."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    asked, source = nodes.NodeWatch(), Source(errors.NoRight("it is not permitted"))
    for second in range(0, 1300, 10):
        await asked.ask(source, ["n"], now=float(second))
    assert 3 == len(source.asked)
    assert ["it is not permitted"] == [record.reason for record in caplog.records]


@pytest.mark.parametrize("readable", [True, False])
async def test_a_pod_ends_with_its_node(
    cluster: fake.Cluster, make: test_backend.Make, readable: bool
) -> None:
    """It is announced, with the node; where nodes may not be read nothing fails for it."""
    ours = make()
    await ours.launch(test_backend.spec())
    found = await test_backend.running(ours)
    assert ("", True) == (found.ends_because, bool(found.place))
    cluster.nodes = {found.place: node(taint(AUTOSCALER))} if readable else None
    (told,) = await make().list()
    expected = f"node {found.place}: the cluster autoscaler removes it" if readable else ""
    assert told.ends_because.startswith(expected)
    assert readable == bool(told.ends_because)
    assert api.InstanceState.RUNNING is told.state
