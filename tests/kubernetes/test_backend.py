"""What the Kubernetes backend does beyond the contract suite, seen on the (fake) cluster."""

import asyncio
import logging
import pathlib
from collections.abc import Callable

import attrs
import pytest

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.api import access
from backends.kubernetes.pods import events
from tests import patience
from tests.kubernetes import fake

Make = Callable[..., backend.KubernetesBackend]
SECRET = "0123456789abcdef-nobody-may-see"


def spec(name: str = "a1", **changes: object) -> api.InstanceSpec:
    told = {
        "name": name,
        "metadata": {"owner": "ours"},
        "image": "busybox:1.36",
        "secret_files": {"agent-secret": SECRET},
        **changes,
    }
    return api.InstanceSpec(**told)


async def running(ours: api.Backend, name: str = "a1") -> api.Instance:
    async with patience.limit(5):
        while True:
            found = {i.name: i for i in await ours.list()}
            if name in found and found[name].state is api.InstanceState.RUNNING:
                return found[name]
            await asyncio.sleep(0.01)


async def test_the_secret_belongs_to_its_pod(cluster: fake.Cluster, make: Make) -> None:
    """It is made right after the pod, names it as owner, and goes with it."""
    ours = make()
    await ours.launch(spec())
    await running(ours)

    secret = cluster.secrets["a1"]
    owner = secret["metadata"]["ownerReferences"][0]
    assert owner["uid"] == cluster.pods["a1"]["metadata"]["uid"]
    assert cluster.verbs()[:2] == ["create", "create secrets"]
    assert SECRET not in str(cluster.pods)
    cluster.delete("a1")
    async with patience.limit(5):
        while cluster.secrets:
            await asyncio.sleep(0.01)


async def test_the_container_that_is_chosen_is_the_agent(
    cluster: fake.Cluster, make: Make
) -> None:
    """Its words are the agent's, its end is the agent's end, and of no other one."""
    told = {
        "spec": {"containers": [{"name": "maven", "image": "m:1"}, {"name": "db", "image": "d:1"}]}
    }
    options = settings.KubernetesTemplate(agent_container="maven", pod=told)
    cluster.programs["a1"] = fake.Program(lines=("hello",), exit_code=3)
    ours = make()
    await ours.launch(spec(image=None, options=options))
    async with patience.limit(5):
        while (one := (await ours.list())[0]).state is not api.InstanceState.EXITED:
            await asyncio.sleep(0.01)
    assert one.exit is not None
    assert (one.exit.slug, one.exit.code, one.exit.message) == ("exited", 3, "ended with 3")
    assert await ours.logs("a1", tail=5) == "hello\n"


async def test_without_its_secret_a_pod_is_taken_back(cluster: fake.Cluster, make: Make) -> None:
    """Nothing is left of a launch that could not be finished, and the reason names the right."""
    cluster.fail("create secrets", "error-403-rbac-create")
    cluster.runs = False
    ours = make()
    with pytest.raises(api.Unauthorized):
        await ours.launch(spec())

    assert {} == cluster.pods
    assert [] == list(await ours.list())


async def test_last_words_that_may_not_be_read_are_said_once(
    cluster: fake.Cluster, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks gets an error, and the log names the right."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    cluster.fail("get pods/log", "error-403-rbac-log", times=2)
    ours = make()
    await ours.launch(spec())
    await running(ours)
    for _ in range(2):
        with pytest.raises(api.Unauthorized):
            await ours.logs("a1", tail=10)
    said = [r for r in caplog.records if r.message == "dead agents have no last words"]
    assert 1 == len(said)
    assert "get pods/log" in said[0].reason
    assert api.InstanceState.RUNNING is (await ours.list())[0].state


def reservation(name: str = "a1", **changes: object) -> api.InstanceSpec:
    """Return what is known before the controller has given a secret."""
    return spec(name, secret_files={"agent-secret": ""}, **changes)


async def test_a_reserved_pod_waits_for_its_secret(cluster: fake.Cluster, make: Make) -> None:
    """Its node holds it back; the launch makes the secret, and not a second pod."""
    ours = make()
    await ours.reserve(reservation())
    (seen,) = await ours.list()
    assert (api.InstanceState.STARTING, {}) == (seen.state, cluster.secrets)
    uid = cluster.pods["a1"]["metadata"]["uid"]

    await ours.launch(spec())
    await running(ours)
    assert uid == cluster.pods["a1"]["metadata"]["uid"]
    assert ["create", "create secrets"] == [v for v in cluster.verbs() if "create" in v]
    assert {"agent-secret": SECRET} == cluster.secrets["a1"]["stringData"]


@pytest.mark.parametrize("held_back", [True, False])
async def test_a_full_quota_refuses_the_reservation(
    cluster: fake.Cluster, make: Make, held_back: bool
) -> None:
    """Also of a pod that cannot be held back, of which only the server's opinion is asked."""
    more = {} if held_back else {"secret_files": {}}
    cluster.fail("create", "error-403-quota-pods")
    ours = make()
    with pytest.raises(api.NoCapacity):
        await ours.reserve(api.InstanceSpec(**{**_fields(reservation()), **more}))
    await ours.reserve(api.InstanceSpec(**{**_fields(reservation()), **more}))
    assert held_back == bool(cluster.pods)
    dry = ["dryRun=All" in path for verb, path in cluster.requests if verb == "create"]
    assert [not held_back] * 2 == dry


async def test_a_reserved_pod_whose_secret_is_refused_is_taken_back(
    cluster: fake.Cluster, make: Make
) -> None:
    """A right that is missing leaves nothing behind, and the node can go at once."""
    ours = make()
    await ours.reserve(reservation())
    cluster.fail("create secrets", "error-403-rbac-create")
    with pytest.raises(api.Unauthorized) as refused:
        await ours.launch(spec())
    assert refused.value.nothing_left
    assert {} == cluster.pods
    assert [] == list(await ours.list())


async def test_a_reserved_pod_that_nobody_launches_has_ended(
    cluster: fake.Cluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it died: the cluster's events tell, and not of a pod that we make ourselves."""
    monkeypatch.setattr(events, "_ADOPTED_S", 0.0)
    monkeypatch.setattr(events, "_FIRST_S", 0.0)
    monkeypatch.setattr(events, "_EVERY_S", 0.0)
    before = make()
    await before.reserve(reservation())

    async def missed() -> None:
        async with patience.limit(5):
            while not cluster.events:
                await asyncio.sleep(0.01)
        cluster.events[0]["message"] = (
            'MountVolume.SetUp failed for volume "agent-broker-secrets" : secret "a1" not found'
        )

    await missed()
    assert [api.InstanceState.STARTING] == [one.state for one in await before.list()]
    (seen,) = await make().list()
    assert seen.exit is not None
    assert (api.InstanceState.EXITED, "interrupted") == (seen.state, seen.exit.slug)
    with monkeypatch.context() as later:
        later.setattr(backend, "_MAKING_S", 0.0)  # nor is one made for ever, once it was given up
        forgetful = make()
        forgetful._made, forgetful._own = dict(before._made), dict(before._own)
        assert [api.InstanceState.EXITED] == [one.state for one in await forgetful.list()]
    await before.launch(spec())
    assert "interrupted" not in str(await before.list())


def _fields(told: api.InstanceSpec) -> dict[str, object]:
    return attrs.asdict(told, recurse=False)


async def test_a_launch_that_was_interrupted_is_finished(
    cluster: fake.Cluster, make: Make
) -> None:
    """A broker that died between pod and secret: the same order again makes the secret."""
    cluster.fail("create secrets", hang=True)
    first = asyncio.ensure_future(make().launch(spec()))
    async with patience.limit(5):
        while "create secrets" not in cluster.verbs():
            await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    uid = cluster.pods["a1"]["metadata"]["uid"]
    assert {} == cluster.secrets

    again = make()
    await again.launch(spec())

    await running(again)
    assert uid == cluster.pods["a1"]["metadata"]["uid"]


async def test_the_secret_of_an_earlier_pod_is_replaced(cluster: fake.Cluster, make: Make) -> None:
    """The collector may be slow: what it has not fetched yet does not stand in the way."""
    cluster.collects = False
    owner = {"kind": "Pod", "name": "a1", "uid": "of-yesterday"}
    cluster.secrets["a1"] = {"metadata": {"name": "a1", "ownerReferences": [owner]}}
    await make().launch(spec())

    owner = cluster.secrets["a1"]["metadata"]["ownerReferences"][0]
    assert owner["uid"] == cluster.pods["a1"]["metadata"]["uid"]


async def test_a_pod_held_by_a_finalizer_is_stopping(
    cluster: fake.Cluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call comes back, the list says who holds it, and to call again is right."""
    monkeypatch.setattr(backend, "_END_MARGIN_S", -0.8)
    ours = make()
    await ours.launch(spec())
    await running(ours)
    cluster.change("a1", lambda p: p["metadata"].update(finalizers=["example.com/hold"]))
    await ours.terminate("a1", grace_s=0)

    (seen,) = await ours.list()
    assert (seen.state, seen.detail) == (
        api.InstanceState.STOPPING,
        "held by finalizer example.com/hold",
    )
    await ours.terminate("a1", grace_s=0)
    cluster.release("a1")
    with pytest.raises(api.NotFound):
        await ours.terminate("a1", grace_s=0)


async def test_the_grace_is_given(cluster: fake.Cluster, make: Make) -> None:
    """In whole seconds, and never 0: that would remove the pod and leave its processes."""
    ours = make()
    graces = []
    for grace_s in (0, 2.2):
        await ours.launch(spec())
        await running(ours)
        await ours.terminate("a1", grace_s=grace_s)
        _, _, last = cluster._history[-1]
        graces.append(last["metadata"]["deletionGracePeriodSeconds"])

    assert [1, 3] == graces


async def test_a_slow_end_is_waited_for(cluster: fake.Cluster, make: Make) -> None:
    """The call returns when the kubelet has reported the end, not when the deletion began."""
    cluster.programs["a1"] = fake.Program(obeys=False)
    ours = make()
    await ours.launch(spec())
    await running(ours)
    await ours.terminate("a1", grace_s=3)

    assert {} == cluster.pods


async def test_a_token_that_was_renewed_is_read_again(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path
) -> None:
    """A 401 costs one more request; a token that stays wrong is the operator's matter."""
    token = tmp_path / "token"
    token.write_text("first\n")
    cluster.token = "first"
    ours = make(token_file=str(token))
    await ours.list()
    cluster.token = "second"
    token.write_text("second\n")
    await ours.launch(spec())
    await running(ours)

    cluster.token = "third"
    with pytest.raises(api.Unauthorized) as raised:
        await ours.list()
    assert "does not accept our credentials" in raised.value.reason


async def test_a_server_that_is_not_there(make: Make) -> None:
    """Refused connections and hanging answers are the platform's fault, in time."""
    with pytest.raises(api.Unavailable):
        await make(server="http://127.0.0.1:9").list()


@pytest.mark.parametrize(
    "how",
    [
        {"hang": True},
        {"reset": True, "times": 3},  # aiohttp asks a second time by itself
        {"body": b"<html>login</html>"},
        {"body": b"{}"},
        {"body": b"[]"},
    ],
    ids=str,
)
async def test_a_server_that_answers_nonsense(
    cluster: fake.Cluster, make: Make, how: dict[str, object]
) -> None:
    """An answer that is no list is no empty list."""
    ours = make(request_timeout_s=0.5, list_timeout_s=0.5)
    cluster.fail("list", **how)
    with pytest.raises(api.Unavailable):
        await ours.list()
    cluster.faults.clear()

    assert [] == list(await ours.list())


async def test_logs_of_any_bytes(cluster: fake.Cluster, make: Make) -> None:
    """Output that is no UTF-8 is shown; a container that waits has none."""
    ours = make()
    cluster.runs = False
    await ours.launch(spec("a0"))
    assert "" == await ours.logs("a0", tail=5)
    cluster.runs = True
    cluster.programs["a1"] = fake.Program(lines=("one", "tw\udcffo"))
    await ours.launch(spec())
    await running(ours)

    assert "tw\ufffdo\n" == await ours.logs("a1", tail=1)


async def test_what_the_server_ignores_is_said_once(
    cluster: fake.Cluster, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt field of a pod is created without it; the warning reaches the log."""
    options = settings.KubernetesTemplate(pod={"spec": {"fieldOfTomorrow": 1}})
    ours = make()
    with caplog.at_level(logging.WARNING):
        await ours.launch(spec("a1", options=options))
        await ours.launch(spec("a2", options=options))

    warned = [r for r in caplog.records if r.message == "API server warns"]
    assert ['299 - "unknown field \\"spec.fieldOfTomorrow\\""'] == [r.text for r in warned]


async def test_two_owners_in_one_namespace(cluster: fake.Cluster, make: Make) -> None:
    """Neither sees, takes or ends what is the other's."""
    ours = make()
    theirs = backend.KubernetesBackend(
        settings.KubernetesSettings(namespace="agents", server=cluster.url),
        owner="theirs",
        now=lambda: 0.0,
    )
    await ours.launch(spec())
    with pytest.raises(api.AlreadyExists):
        await theirs.launch(spec())
    with pytest.raises(api.NotFound):
        await theirs.terminate("a1", grace_s=0)
    assert [] == list(await theirs.list())
    await theirs.aclose()

    await running(ours)


async def test_in_a_pod_the_service_account_is_enough(tmp_path: pathlib.Path) -> None:
    """Server, authority, token and namespace are found where Kubernetes puts them."""
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "namespace").write_text("agents")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    found = await access.find(
        settings.KubernetesSettings(), clock=lambda: 0.0, environ=environ, account=tmp_path
    )

    assert ("https://[fd00::1]:6443", "agents") == (found.server, found.namespace)
    assert "abc" == await found.tokens.get()
    assert found.tls is not None
    assert "abc" not in repr(found)


async def test_a_token_is_read_again_after_a_minute(tmp_path: pathlib.Path) -> None:
    """Projected tokens rotate; before, the file is left alone."""
    now = [0.0]
    path = tmp_path / "token"
    path.write_text("one")
    tokens = access.FileToken(path, lambda: now[0])
    assert "one" == await tokens.get()
    path.write_text("two")
    now[0] = 59.0
    assert "one" == await tokens.get()
    assert "two" == await tokens.get(renew=True)
    path.write_text("three")
    now[0] = 120.0
    assert "three" == await tokens.get()


async def test_outside_of_a_cluster_somebody_has_to_say_where_it_is(
    tmp_path: pathlib.Path,
) -> None:
    """The hint names the settings."""
    with pytest.raises(api.Unauthorized, match="neither `kubeconfig` nor `server` is set"):
        await access.find(
            settings.KubernetesSettings(), clock=lambda: 0.0, environ={}, account=tmp_path
        )


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("going", [True, False])
async def test_only_our_own_pod_of_the_same_order_is_adopted(
    cluster: fake.Cluster, make: Make, marked: bool, same: bool, going: bool
) -> None:
    """Whoever has the name: with our marks, made of this order and not ending, or left alone."""
    cluster.collects = cluster.ends = cluster.runs = False
    await make().launch(spec())

    def change(found: fake.Object) -> None:
        if not marked:
            found["metadata"]["labels"]["agent-broker/owner"] = "somebody"
        if going:
            found["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"

    cluster.change("a1", change)
    before = (dict(cluster.pods), dict(cluster.secrets))
    order = spec() if same else spec(env={"MORE": "1"})
    if marked and same and not going:
        await make().launch(order)
    else:
        with pytest.raises(api.AlreadyExists):
            await make().launch(order)

    assert before == (cluster.pods, cluster.secrets)


async def test_a_pod_that_came_in_between_is_not_ended(cluster: fake.Cluster, make: Make) -> None:
    """What is deleted is the very pod that was seen, by its uid, not whoever has its name now."""
    ours = make()
    await ours.launch(spec())
    await running(ours)
    answer = cluster.pods["a1"]["metadata"]["uid"]

    def replace(_: object) -> bool:
        cluster.change("a1", lambda found: found["metadata"].update(uid="of-somebody-else"))
        return False

    cluster.fail("delete", "error-404-pod-delete", when=replace)
    with pytest.raises(api.NotFound):
        await ours.terminate("a1", grace_s=0)

    assert answer != cluster.pods["a1"]["metadata"]["uid"]
    assert "deletionTimestamp" not in cluster.pods["a1"]["metadata"]


@pytest.mark.parametrize("step", ["create", "create secrets"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_crash_at_any_step_of_a_launch_leaves_nothing_for_ever(
    cluster: fake.Cluster, make: Make, step: str, times: int
) -> None:
    """Killed before, between or after its requests: the next life ends all that it finds."""
    for _ in range(times):
        cluster.fail(step, hang=True, after=True)
        first = asyncio.ensure_future(make().launch(spec()))
        async with patience.limit(5):
            while cluster.faults:
                await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    again = make()
    for one in await again.list():
        await again.terminate(one.name, grace_s=0)
    async with patience.limit(5):
        while cluster.pods or cluster.secrets:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
async def test_patience_is_measured_by_our_clock(
    cluster: fake.Cluster, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """A cluster's clock that is ten minutes ahead or behind changes nothing."""
    monkeypatch.setattr(fake, "_now_text", lambda: fake.text_of(now[0] + ahead_s))
    now = [1_800_000_000.0]
    configured = settings.KubernetesSettings(
        namespace=cluster.namespace, server=cluster.url, start_patience_s=60.0
    )
    ours = backend.KubernetesBackend(configured, owner="ours", now=lambda: now[0])
    await ours.launch(spec(image="registry.invalid/nope:1"))

    async def state() -> tuple[api.InstanceState, str]:
        (seen,) = await ours.list()
        return seen.state, seen.detail

    async with patience.limit(5):
        while "cannot be pulled" not in (await state())[1]:
            await asyncio.sleep(0.01)
    now[0] += 55.0
    assert (await state())[0] is api.InstanceState.STARTING
    now[0] += 10.0
    assert (await state())[0] is api.InstanceState.EXITED
    await ours.aclose()
