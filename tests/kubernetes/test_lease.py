"""The lease on the wire: versions, refusals, what others have written, and two candidates."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import attrs
import pytest
import pytest_asyncio

from backends import api, lease
from backends.kubernetes import settings
from backends.kubernetes.api import errors
from backends.kubernetes.api import lease as leases
from tests.kubernetes import fake, recorded

NAME = "agent-broker-ours"
RECORD = lease.Record(
    holder="one",
    lease_s=10,
    acquired="2026-11-24T00:00:00.000000Z",
    renewed="2026-11-24T00:00:00.000000Z",
    transitions=0,
)
Make = Callable[..., leases.KubernetesLease]


@pytest_asyncio.fixture
async def opened(cluster: fake.Cluster) -> AsyncIterator[Make]:
    made = []

    def make(**told: object) -> leases.KubernetesLease:
        configured = settings.ClusterSettings(
            **{"namespace": "agents", "server": cluster.url, **told}
        )
        made.append(leases.create(configured, name=NAME))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


REPLAY = (  # in the order in which they were recorded
    "lease-404-get",
    "lease-201-create",
    "lease-409-exists",
    "lease-200-update",
    "lease-409-conflict",
    "lease-200-update-same",
    "lease-200-release",
)
REFUSED = {
    "lease-404-get": ("get", api.NotFound),
    "lease-409-exists": ("create", api.AlreadyExists),
    "lease-409-conflict": ("update", errors.Outdated),
    "lease-409-update-deleted": ("update", errors.Outdated),
    "lease-403-other-name": ("get", errors.NoRight),
}


async def test_the_fake_answers_as_recorded() -> None:
    """The same requests one after the other, with its own versions in the place of theirs."""
    versions: dict[str, str] = {}
    async with (
        fake.Cluster(namespace="lease-test").serving() as cluster,
        aiohttp.ClientSession() as session,
    ):
        for name in (*REPLAY, "lease-409-update-deleted"):
            told = recorded.load(name)
            request, expected = told["request"], told["response"]
            if name == "lease-409-update-deleted":
                cluster.leases.clear()
            body = request["body"]
            if body is not None and "resourceVersion" in body["metadata"]:
                theirs = body["metadata"]["resourceVersion"]
                body["metadata"]["resourceVersion"] = versions[theirs]
            async with session.request(
                request["method"], cluster.url + request["path"], json=body
            ) as answer:
                got = await answer.json()
                assert (expected["status"], name) == (answer.status, name)
            if answer.status >= 400:
                assert expected["body"] == got
            else:
                assert expected["body"]["spec"] == got["spec"]
                theirs = expected["body"]["metadata"]["resourceVersion"]
                ours = got["metadata"]["resourceVersion"]
                assert ours == versions.setdefault(theirs, ours)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_refusal_means(name: str) -> None:
    """Who was faster is told apart from what is not allowed."""
    verb, cls = REFUSED[name]
    told = recorded.load(name)["response"]
    answer = errors.ErrorAnswer(status=told["status"], body=told["body"], headers=told["headers"])
    assert cls is type(errors.mapped(verb, "leases", answer))


async def test_a_record_goes_there_and_back(cluster: fake.Cluster, opened: Make) -> None:
    """Made, read and replaced; each answer carries the version to write over next."""
    one = opened()

    assert await one.read() is None
    made = await one.write(RECORD, over=None)
    assert made is not None
    assert RECORD == made.record
    assert made == await one.read()
    later = attrs.evolve(RECORD, renewed="2026-11-24T00:00:02.000000Z")
    again = await one.write(later, over=made)
    assert again is not None
    assert (later, made.uid) == (again.record, again.uid)
    assert made.version != again.version
    assert "lease agents/agent-broker-ours" == one.where


async def test_only_the_version_that_was_seen_is_replaced(
    cluster: fake.Cluster, opened: Make
) -> None:
    """Of two who write over the same version the second is told so, and nothing of it is kept."""
    one, two = opened(), opened()
    made = await one.write(RECORD, over=None)
    assert await two.write(attrs.evolve(RECORD, holder="two"), over=None) is None

    later = attrs.evolve(RECORD, renewed="2026-11-24T00:00:02.000000Z")
    assert await one.write(later, over=made) is not None
    assert await two.write(attrs.evolve(RECORD, holder="two"), over=made) is None
    assert "one" == cluster.leases[NAME]["spec"]["holderIdentity"]


async def test_a_lease_that_somebody_deleted_is_made_anew(
    cluster: fake.Cluster, opened: Make
) -> None:
    """To write over it fails as if somebody had been faster; the new one has another uid."""
    one = opened()
    made = await one.write(RECORD, over=None)
    del cluster.leases[NAME]

    assert await one.write(RECORD, over=made) is None
    again = await one.write(RECORD, over=None)
    assert made is not None
    assert again is not None
    assert made.uid != again.uid


async def test_a_released_lease_has_no_holder(cluster: fake.Cluster, opened: Make) -> None:
    """The field is left out, as other clients of a lease do, and reads as nobody."""
    one = opened()
    made = await one.write(RECORD, over=None)

    freed = await one.write(attrs.evolve(RECORD, holder="", lease_s=1), over=made)

    assert freed is not None
    assert "" == freed.record.holder
    assert "holderIdentity" not in cluster.leases[NAME]["spec"]


async def test_what_others_put_into_the_object_is_kept(
    cluster: fake.Cluster, opened: Make
) -> None:
    """Labels, annotations and fields of other releases survive a renewal."""
    one = opened()
    await one.write(RECORD, over=None)
    cluster.leases[NAME]["metadata"]["labels"] = {"team": "ci"}
    cluster.leases[NAME]["spec"]["strategy"] = "OldestEmulationVersion"

    seen = await one.read()
    assert await one.write(attrs.evolve(RECORD, transitions=1), over=seen) is not None
    kept = cluster.leases[NAME]
    assert {"team": "ci"} == kept["metadata"]["labels"]
    assert "OldestEmulationVersion" == kept["spec"]["strategy"]
    assert 1 == kept["spec"]["leaseTransitions"]


async def test_a_lease_that_a_person_made_by_hand_is_read(
    cluster: fake.Cluster, opened: Make
) -> None:
    """Without a spec, or with nonsense in it: nobody holds it."""
    for spec in (None, {}, {"leaseDurationSeconds": "ten", "leaseTransitions": None}):
        cluster.leases[NAME] = {
            "kind": "Lease",
            "metadata": {"name": NAME, "resourceVersion": "7"},
            "spec": spec,
        }
        seen = await opened().read()
        assert seen is not None
        assert ("", 0, 0) == (seen.record.holder, seen.record.lease_s, seen.record.transitions)


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        ("error-403-rbac-list", api.Unauthorized),
        ("error-401-bad-token", api.Unauthorized),
        ("error-404-namespace", api.Unauthorized),
        ("error-500-storage-down", api.Unavailable),
        ("error-429-flowcontrol-list", api.Unavailable),
    ],
)
async def test_refusals_are_errors_of_the_contract(
    cluster: fake.Cluster, opened: Make, answer: str, cls: type[Exception]
) -> None:
    """Never "there is none", never "somebody was faster"."""
    one = opened()
    made = await one.write(RECORD, over=None)
    for verb in ("get", "create", "update"):
        cluster.fail(f"{verb} leases", answer)
    for call in (one.read(), one.write(RECORD, over=None), one.write(RECORD, over=made)):
        with pytest.raises(api.BackendError) as raised:
            await call
        assert cls is type(raised.value)


async def test_answers_that_are_no_lease(cluster: fake.Cluster, opened: Make) -> None:
    """A proxy's page, another kind, no version: unavailable."""
    one = opened()
    for body in (
        b"<html>",
        b"[]",
        b'{"kind": "Pod", "metadata": {"resourceVersion": "1"}}',
        b'{"kind": "Lease", "metadata": {}}',
        b'{"kind": "Lease", "metadata": null}',
    ):
        cluster.fail("get leases", body=body)
        with pytest.raises(api.Unavailable):
            await one.read()


async def test_a_closed_lease_answers_nothing(cluster: fake.Cluster, opened: Make) -> None:
    """Closed twice, also in the middle of a request."""
    one = opened()
    cluster.fail("get leases", hang=True)
    asking = asyncio.create_task(one.read())
    while "get leases" not in cluster.verbs():
        await asyncio.sleep(0.01)
    await one.aclose()
    await one.aclose()
    with pytest.raises(api.Unavailable):
        await asking
    with pytest.raises(api.Unavailable):
        await one.read()


async def test_a_token_that_rotated_is_read_again(
    cluster: fake.Cluster, opened: Make, tmp_path
) -> None:
    """As everywhere in this backend: a 401 costs one more request, not the leadership."""
    token = tmp_path / "token"
    token.write_text("old")
    cluster.token = "old"
    one = opened(token_file=str(token))
    made = await one.write(RECORD, over=None)
    token.write_text("new")
    cluster.token = "new"

    assert await one.write(RECORD, over=made) is not None
