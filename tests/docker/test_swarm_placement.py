"""Which nodes may take an agent, and how it waits for its Java: the rules, without a swarm."""

import pytest

from backends import api
from backends.docker.swarm import errand, manager, placement, states
from backends.kit import runtime


def node(name, **changes):
    told = {
        "id": f"id-{name}", "name": name, "role": "worker", "address": "10.1.2.3",
        "system": "linux", "architecture": "x86_64",
        "labels": {"pool": "agents", "Case": "x"}, "engine_labels": {"disk": "ssd"},
    }  # fmt: skip
    return states.SwarmNode(**{**told, **changes})


ONE, TWO = node("one"), node("two")


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("node.id==id-one", True),
        ("node.id!=id-one", False),
        ("node.hostname == ONE", True),
        ("node.role==manager", False),
        ("node.role!=manager", True),
        ("node.labels.pool==agents", True),
        ("node.labels.Case==X", True),
        ("node.labels.case==x", False),
        ("node.labels.none!=x", True),
        ("node.labels.none==x", False),
        ("engine.labels.disk==ssd", True),
        ("engine.labels.disk!=ssd", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==x86_64", True),
        ("node.platform.arch==aarch64", False),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.1.2.3", False),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.unheard!=of", False),
        ("nonsense", False),
    ],
)
def test_constraints_are_read_as_the_scheduler_reads_them(constraint, expected):
    """Keys of labels are as they are, all else in either case; what nobody knows allows nobody."""
    assert expected is placement.fits(ONE, {"Constraints": [constraint]})


def test_every_constraint_has_to_be_met_and_one_platform():
    """Kernels call machines otherwise than images do."""
    both = ["node.role==worker", "node.labels.pool==agents"]
    assert placement.fits(ONE, {"Constraints": both})
    assert not placement.fits(ONE, {"Constraints": [*both, "node.labels.pool!=agents"]})
    amd, arm = ({"OS": "linux", "Architecture": name} for name in ("amd64", "arm64"))
    assert placement.fits(ONE, {"Platforms": [arm, amd]})
    assert not placement.fits(ONE, {"Platforms": [arm]})
    assert placement.fits(ONE, {"Platforms": [{"OS": "linux"}]})


def judged(*nodes, ready=(), missed=(), since_s=0.0, constraints=()):
    filling = placement.Filling(
        ready={one.id for one in ready},
        missed=dict(missed),
        since_s=since_s,
    )
    return placement.judge(nodes, {"Constraints": list(constraints)}, filling)


def test_an_agent_waits_until_all_nodes_have_its_java():
    """And says how many have it; those that do not get it, or take no tasks, are not waited for."""
    assert judged(ONE, TWO, ready=[ONE]) == placement.AwaitedJava(
        words="its Java is brought to the nodes: 1 of 2 have it"
    )
    assert judged(ONE, TWO, ready=[ONE, TWO]) == placement.Go(without=())
    assert judged(ONE, TWO, ready=[ONE], missed=[(TWO.id, "no image")]) == placement.Go(
        without=(TWO.id,)
    )
    drained = node("gone", takes_tasks=False)
    assert judged(ONE, drained, ready=[ONE]) == placement.Go(without=(drained.id,))


def test_one_that_is_late_is_gone_without():
    """As soon as another one has it; it is kept from the late one."""
    late_s = placement.LATE_S + 1
    assert judged(ONE, TWO, ready=[ONE], since_s=late_s) == placement.Go(without=(TWO.id,))
    assert isinstance(judged(ONE, TWO, since_s=late_s), placement.AwaitedJava)


def test_only_nodes_that_the_template_allows_are_waited_for():
    """It is kept from the others all the same: constraints may change, a node's labels too."""
    other = node("other", labels={})
    told = {"constraints": ["node.labels.pool==agents"]}
    assert judged(ONE, other, ready=[ONE], **told) == placement.Go(without=(other.id,))


def test_a_launch_that_no_node_can_take_is_no_failure():
    """Another backend may, or a node comes back."""
    with pytest.raises(api.NoCapacity, match="no node"):
        judged(ONE, TWO, ready=[ONE, TWO], constraints=["node.role==manager"])


def test_java_that_comes_to_no_node_is_told_with_its_reason():
    """At once where every node has failed, else after a while; of that template alone."""
    with pytest.raises(api.Unavailable, match=r"none of 2 nodes .*: one: no such image") as told:
        judged(ONE, TWO, missed=[(ONE.id, "no such image"), (TWO.id, "x")])
    assert told.value.reach is api.Reach.TEMPLATE
    with pytest.raises(api.Unavailable, match="takes too long"):
        judged(ONE, TWO, since_s=placement.NEVER_S + 1)


def test_a_service_is_kept_from_nodes_beside_its_own_constraints():
    """Labels of nodes are nobody's business but their operator's."""
    told = {"Constraints": ["node.role==worker"], "Preferences": ["x"]}
    assert placement.kept_from(told, ["a", "b"]) == {
        "Constraints": ["node.role==worker", "node.id!=a", "node.id!=b"], "Preferences": ["x"],
    }  # fmt: skip
    assert placement.kept_from({}, []) == {}


# --- the job ---


def body(**changes):
    told = {"volume": "v", "image": "java@sha256:1", "constraints": (), "owner": "ours"}
    return errand.filling(**{**told, **changes})


def test_the_job_runs_once_on_each_node_until_it_has_done_it():
    """It may write the volume, and nothing of its image is copied there by the engine."""
    made = body()
    inner = made["TaskTemplate"]["ContainerSpec"]
    assert made["Mode"] == {"GlobalJob": {}}
    assert made["TaskTemplate"]["RestartPolicy"]["Condition"] == "on-failure"
    (mount,) = inner["Mounts"]
    assert (mount["Source"], mount["VolumeOptions"]["NoCopy"]) == ("v", True)
    assert mount["Target"] == inner["Command"][-1] != runtime.ROOT
    assert "ReadOnly" not in mount


def test_another_job_is_told_by_its_label():
    """What it runs, and where; the job that empties is the same service."""
    digest = "agent-broker.digest"
    told = {body()["Labels"][digest], body(constraints=("node.role==worker",))["Labels"][digest]}
    assert len(told) == 2
    there = manager.Errand(id="1", name="v", labels={}, spec=body(), version=3, run=0)
    emptied = errand.emptying(there)
    assert emptied["Labels"][digest] == errand.EMPTIES
    assert emptied["Labels"].items() >= errand.marks("ours").items()
    inner = emptied["TaskTemplate"]["ContainerSpec"]
    assert inner["Command"] == list(runtime.emptied(inner["Mounts"][0]["Target"]))
    assert inner["Image"] == there.image == "java@sha256:1"
