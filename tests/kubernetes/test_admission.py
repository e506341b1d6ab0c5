"""The fake API server refuses what a real one has refused, in its words: the recorded requests, sent again."""

import copy
import json
from typing import Any

import aiohttp
import pytest

from tests.kubernetes import admission, fake, recorded, test_backend, test_pod
from tests.oracle import schemas

HINDRANCES: dict[str, dict[str, Any]] = {
    "error-403-pod-security": {"restricted": True},
    "error-403-limitrange": {"most_memory": "32Mi"},
    "error-403-quota-memory": {"quota": {"requests.memory": "1Gi"}},
    "error-403-quota-must-specify": {"quota": {"requests.memory": "1Gi"}},
    "error-403-quota-pods": {"quota": {"pods": "1"}, "used": lambda: {"pods": 1.0}},
    "error-403-priorityclass-missing": {"priorities": frozenset()},
    "error-403-serviceaccount-missing": {"accounts": frozenset({"default"})},
}
REPLAYED = [
    *HINDRANCES,
    *("error-400-bad-quantity", "error-400-namespace-mismatch", "error-400-unknown-field-strict"),
    *("error-400-wrong-type", "error-422-invalid-name", "error-422-label-value"),
    *("error-422-limits-below-requests", "error-422-many", "error-422-no-containers"),
    *("ok-201-create", "ok-201-unknown-field-warning"),
]


@pytest.mark.parametrize("case", REPLAYED)
async def test_the_recorded_request_gets_the_recorded_answer(
    cluster: fake.Cluster, case: str
) -> None:
    """Status, message, details and warnings."""
    recording = recorded.load(case)
    request, answer = recording["request"], recording["response"]
    cluster.namespace = request["path"].split("/")[4]
    cluster.hindrances = admission.Admission(**HINDRANCES.get(case, {}))
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post(request["path"], json=request["body"]) as told:
            body = await told.json()

    assert answer["status"] == told.status, body
    assert answer["headers"].get("Warning") == told.headers.get("Warning")
    if told.status >= 400:
        assert {k: answer["body"].get(k) for k in ("message", "reason", "details", "code")} == {
            k: body.get(k) for k in ("message", "reason", "details", "code")
        }


@pytest.mark.parametrize("case", test_pod.CASES)
def test_our_objects_are_what_the_published_schemas_want(case: str) -> None:
    """In the release of the lab; a field that a user took from tomorrow is the only stranger."""
    made = test_pod.made(test_pod.CASES[case])
    strange = [text for text in schemas.problems(made.pod) if "OfTomorrow" not in text]
    assert [] == strange
    assert [] == schemas.problems(made.secret("uid-1"))


@pytest.mark.parametrize("release", schemas.sampled())
def test_plain_pods_are_what_every_release_wants(release: str) -> None:
    """From the oldest that there are schemas of to the newest."""
    made = test_pod.made(test_pod.PLAIN)
    assert [] == schemas.problems(made.pod, release=release)
    assert [] == schemas.problems(made.secret("uid-1"), release=release)


def test_the_schemas_are_strict() -> None:
    """A number for a text, a stranger, and what is missing are all told."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    wrong = {**pod, "spec": {"containers": [{"env": [{"name": "E", "value": 1}]}], "x": 1}}
    assert [
        "spec.containers[0].env[0].value: 1 is not of type 'string', 'null'",
        "spec.containers[0]: 'name' is a required property",
        "spec: Additional properties are not allowed ('x' was unexpected)",
    ] == schemas.problems(wrong)


async def test_what_is_alike_is_judged_alike(cluster: fake.Cluster) -> None:
    """The verdict on one shape of objects is kept; another type at the same place is another shape."""
    pod = copy.deepcopy(recorded.load("ok-201-create")["request"]["body"])
    assert [] == admission._judged(pod)
    pod["metadata"]["name"] = "another"
    assert [] == admission._judged(pod)
    pod["metadata"]["labels"] = {"a": 1}
    assert ["type"] == [kind for kind, *_ in admission._judged(json.loads(json.dumps(pod)))]


async def test_a_pod_security_level_takes_our_pods(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """With what is filled in by default they pass ``restricted``."""
    cluster.hindrances.restricted = True
    ours = make()
    await ours.launch(test_backend.spec("a0"))
    await test_backend.running(ours, "a0")
