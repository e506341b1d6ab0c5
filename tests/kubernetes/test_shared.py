"""Files that agents share: made before the pod, one for each content, and removed when no one needs it."""

import asyncio
import base64
import logging
import pathlib
import time
from typing import Any

import attrs
import pytest
import yaml

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.pods import pod, shared
from tests import brought, patience
from tests.each import each
from tests.kubernetes import fake, machine, oracle, test_backend

FILES = {"ca-bundle.pem": b"of all\n" * 20_000, "ca-store.jks": b"\xfe\xed\x00" * 20_000}
OTHER = {**FILES, "ca-bundle.pem": b"of more\n" * 20_000}
HOUR = 3600.0


def spec(name: str = "a1", files: dict[str, bytes] | None = None, **told: Any) -> api.InstanceSpec:
    env = {"STORE": f"{api.FILES}/ca-store.jks"}
    return test_backend.spec(name, given_files=FILES if files is None else files, env=env, **told)


def broker(
    cluster: fake.Cluster, *, owner: str = "ours", late_s: float = 0.0
) -> backend.KubernetesBackend:
    configured = settings.KubernetesSettings(namespace=cluster.namespace, server=cluster.url)
    return backend.KubernetesBackend(configured, owner=owner, now=lambda: time.time() + late_s)


def asked(cluster: fake.Cluster, what: str) -> int:
    return cluster.verbs().count(what)


# --- what is made ---


def test_the_agent_alone_sees_them_by_their_names() -> None:
    """Read-only, beside its secret, and as text where they are text."""
    side = {"spec": {"containers": [{"name": "maven", "image": "m:1"}]}}
    options = settings.KubernetesTemplate(pod=side)
    made = pod.make(spec(options=options), owner="ours")
    assert made.shared is not None
    (volume,) = [v for v in made.pod["spec"]["volumes"] if "configMap" in v]
    assert volume["configMap"]["name"] == made.shared["metadata"]["name"]
    assert ["ca-bundle.pem", "ca-store.jks"] == [i["key"] for i in volume["configMap"]["items"]]
    mounts = {
        c["name"]: [m for m in c["volumeMounts"] if m["name"] == volume["name"]]
        for c in made.pod["spec"]["containers"]
    }
    assert mounts["maven"] == []
    assert [("/run/agent-broker-files", True)] == [
        (m["mountPath"], m["readOnly"]) for m in mounts["jnlp"]
    ]
    agent = next(c for c in made.pod["spec"]["containers"] if c["name"] == "jnlp")
    assert {"name": "STORE", "value": "/run/agent-broker-files/ca-store.jks"} in agent["env"]
    assert made.shared["immutable"] is True
    assert made.shared["data"] == {"ca-bundle.pem": FILES["ca-bundle.pem"].decode()}
    told = made.shared["binaryData"]["ca-store.jks"]
    assert base64.b64decode(told) == FILES["ca-store.jks"]
    assert "data" not in made.secret("uid-1")
    for one in (made.pod, made.shared):
        assert [] == oracle.problems(one)


def test_what_is_small_stays_in_the_secret() -> None:
    """Nobody needs a right for it."""
    made = pod.make(spec(files={"ca": b"x" * (64 << 10)}), owner="ours")
    assert made.shared is None
    assert "ca" in made.secret("uid-1")["data"]
    assert pod.make(spec(files={"ca": b"x" * ((64 << 10) + 1)}), owner="ours").shared is not None


def test_more_than_it_holds_is_refused() -> None:
    """With both numbers."""
    pod.make(spec(files={"ca": b"x" * (1 << 20)}), owner="ours")
    with pytest.raises(api.Rejected, match="have 1048577 bytes; allowed: 1048576"):
        pod.make(spec(files={"ca": b"x" * ((1 << 20) + 1)}), owner="ours")


@each("owner", ["ours", "Our Team/ä", "x" * 200, "ours-trust"])
def test_every_owner_has_names_of_its_own(owner: str) -> None:
    """That the API server takes, whatever the owner is called."""
    names = {
        str(pod.make(spec(files=files), owner=one).shared["metadata"]["name"])  # type: ignore[index]
        for one in (owner, "another")
        for files in (FILES, OTHER)
    }
    assert len(names) == 4
    assert all(len(name) <= 253 and fake._DNS.fullmatch(name) for name in names)


def test_other_files_are_the_same_pod() -> None:
    """A public authority that comes is no reason to take another order for it."""
    made = [pod.make(spec(files=files), owner="ours") for files in (FILES, OTHER)]
    assert made[0].digest == made[1].digest
    assert made[0].shared != made[1].shared


def test_people_are_shown_their_names() -> None:
    """As of a secret."""
    configured = settings.KubernetesSettings(namespace="n", server="https://k")
    *_, told = yaml.safe_load_all(pod.render(spec(), configured, owner="ours"))
    assert told["kind"] == "ConfigMap"
    assert {"ca-bundle.pem": "not shown"} == told["data"]


# --- when it is made ---


async def test_it_is_there_before_the_first_pod(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """And once for all."""
    ours = make()
    await ours.launch(spec("a1"))
    await ours.launch(spec("a2"))
    assert cluster.verbs()[:2] == ["create configmaps", "create"]
    assert asked(cluster, "create configmaps") == 1
    await test_backend.running(ours, "a2")
    (one,) = cluster.config_maps.values()
    assert pod.owner_labels("ours").items() <= one["metadata"]["labels"].items()
    assert await another(cluster) == 1


async def another(cluster: fake.Cluster) -> int:
    """Launch with a broker of the same owner; return how many there are then."""
    ours = broker(cluster)
    try:
        await ours.launch(spec("b1"))
        await test_backend.running(ours, "b1")
    finally:
        await ours.aclose()
    return len(cluster.config_maps)


async def test_a_reserved_pod_mounts_what_is_there(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """Its node waits for the secret alone; other files in between are for the next one."""
    ours = make()
    await ours.reserve(spec(secret_files={"agent-secret": ""}))
    assert len(cluster.config_maps) == 1
    await ours.launch(spec(files=OTHER))
    await test_backend.running(ours)
    assert len(cluster.pods) == 1


async def test_a_broker_that_ends_before_the_pod(cluster: fake.Cluster) -> None:
    """Leaves what the next one uses; if none does, it is removed when it is old."""
    first = broker(cluster)
    cluster.fail("create", reset=True)
    with pytest.raises(api.Unavailable):
        await first.launch(spec())
    await first.aclose()
    assert (len(cluster.config_maps), cluster.pods) == (1, {})
    assert await another(cluster) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"app": "theirs"}}, "is not ours"),
        ({"data": {"ca-bundle.pem": "mine"}}, "has other files"),
        ({"binaryData": None}, "has other files"),
        ({"immutable": False}, "has other files"),
    ],
)
async def test_what_somebody_else_made_is_not_mounted(
    cluster: fake.Cluster, make: test_backend.Make, change: dict[str, Any], words: str
) -> None:
    """Whoever could put authorities there would be trusted by every build."""
    theirs = pod.make(spec(), owner="ours").shared
    assert theirs is not None
    meta = {**theirs["metadata"], "uid": "theirs", "creationTimestamp": "2020-01-01T00:00:00Z"}
    meta |= {"labels": change.pop("labels", meta["labels"])}
    name = meta["name"]
    cluster.config_maps[name] = {**theirs, **change, "metadata": meta}
    with pytest.raises(api.Rejected, match=f"exists and {words}; hint: "):
        await make().launch(spec())
    assert cluster.pods == {}
    assert cluster.config_maps[name]["metadata"]["uid"] == "theirs"


async def test_without_the_right_this_template_waits_and_no_other(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """The right is named."""
    cluster.denied = {("create", "configmaps")}
    ours = make()
    with pytest.raises(api.Unauthorized, match="not allowed to create configmaps") as caught:
        await ours.launch(spec())
    assert caught.value.reach is api.Reach.TEMPLATE
    assert cluster.pods == {}
    await ours.launch(spec("a2", files={"ca": b"small"}))
    await test_backend.running(ours, "a2")


# --- when it is removed ---


async def aged(cluster: fake.Cluster, made: api.InstanceSpec, *, owner: str = "ours") -> str:
    """Put one there that nobody has needed for two hours; return its name."""
    one = pod.make(made, owner=owner).shared
    assert one is not None
    meta = {"creationTimestamp": fake.text_of(time.time() - 2 * HOUR), "uid": f"old-{owner}"}
    name = str(one["metadata"]["name"])
    cluster.config_maps[name] = {**one, "metadata": {**one["metadata"], **meta}}
    return name


async def test_what_no_pod_mounts_goes(cluster: fake.Cluster) -> None:
    """Only one's own, only the old, seldom, and by names and times alone."""
    theirs = await aged(cluster, spec(files=OTHER), owner="theirs")
    unneeded = await aged(cluster, spec(files=OTHER))
    ours = broker(cluster)
    try:
        await ours.list()
        assert asked(cluster, "list configmaps") == 0  # it has launched nothing of the kind
        await ours.launch(spec())
        for _ in range(3):
            await ours.list()
    finally:
        await ours.aclose()
    assert unneeded not in cluster.config_maps
    assert theirs in cluster.config_maps
    assert len(cluster.config_maps) == 2
    assert asked(cluster, "list configmaps") == 1


async def test_what_a_pod_mounts_stays(cluster: fake.Cluster, make: test_backend.Make) -> None:
    """However old it is, and whoever made the pod."""
    mounted = await aged(cluster, spec())
    await make().launch(spec("a1"))
    late = broker(cluster, late_s=3 * HOUR)
    try:
        await late.launch(spec("a2", files=OTHER))
        await late.list()
        assert mounted in cluster.config_maps
        assert asked(cluster, "list configmaps") == 2  # to adopt it, and to look
    finally:
        await late.aclose()


async def test_what_was_removed_is_made_anew(cluster: fake.Cluster) -> None:
    """When a launch needs it again, after an hour without one or after somebody else's doing."""
    late = [0.0]
    configured = settings.KubernetesSettings(namespace=cluster.namespace, server=cluster.url)
    ours = backend.KubernetesBackend(configured, owner="ours", now=lambda: time.time() + late[0])
    try:
        await ours.launch(spec("a1"))
        await test_backend.running(ours)
        await ours.terminate("a1", grace_s=0)
        late[0] = 2 * HOUR
        await ours.list()
        assert cluster.config_maps == {}
        await ours.launch(spec("a2"))
        assert len(cluster.config_maps) == 1
        cluster.config_maps.clear()
        late[0] += 601.0
        await ours.list()
        await ours.launch(spec("a3"))
        assert len(cluster.config_maps) == 1
    finally:
        await ours.aclose()


@pytest.mark.parametrize("right", ["list", "delete"])
async def test_without_the_right_to_look_all_stays(
    cluster: fake.Cluster,
    make: test_backend.Make,
    right: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Said once, and agents are listed as ever."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    cluster.denied = {(right, "configmaps")}
    unneeded = await aged(cluster, spec(files=OTHER))
    ours = make()
    await ours.launch(spec())
    for _ in range(3):
        assert len(await ours.list()) == 1
    assert unneeded in cluster.config_maps
    said = [r for r in caplog.records if "no agent needs" in r.getMessage()]
    assert 1 == len(said)


async def test_none_is_removed_while_a_launch_finds_it_there() -> None:
    """The one waits for the other."""
    made = shared.manifest("ours", {"o": "ours"}, FILES)
    name = made["metadata"]["name"]

    class Slow:
        def __init__(self) -> None:
            meta = {"uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z"}
            self.there = {name: {**made, "metadata": {**made["metadata"], **meta}}}
            self.looking = asyncio.Event()
            self.told = asyncio.Event()

        async def create_config_map(self, told: Any) -> None:
            called = told["metadata"]["name"]
            if called in self.there:
                raise api.AlreadyExists(called)
            self.there[called] = told

        async def find_config_map(self, name: str) -> Any:
            return self.there.get(name)

        async def config_maps(self, selector: str) -> list[dict[str, Any]]:
            self.looking.set()
            await self.told.wait()
            return list(self.there.values())

        async def delete_config_map(self, name: str, *, uid: str) -> None:
            del self.there[name]

    source, keeper = Slow(), shared.SharedFiles(labels={"o": "ours"}, selector="o=ours")
    other = shared.manifest("ours", {"o": "ours"}, OTHER)
    await keeper.provide(source, other, now=0.0)
    at = 2e9
    looking = asyncio.ensure_future(keeper.tidy(source, (), now=at))
    await patience.wait_for(source.looking.wait(), 5)
    launching = asyncio.ensure_future(keeper.provide(source, made, now=at))
    await asyncio.sleep(0)
    source.told.set()
    await patience.wait_for(asyncio.gather(looking, launching), 5)
    assert name in source.there


async def test_odd_ones_are_left_alone() -> None:
    """Without a name of ours, an age or a uid nothing is removed."""
    old = "2020-01-01T00:00:00Z"
    name = shared.manifest("ours", {}, FILES)["metadata"]["name"]
    odd: list[Any] = [
        {}, {"metadata": 7}, {"metadata": {"name": name}},
        {"metadata": {"name": "agent-broker-ours", "uid": "u", "creationTimestamp": old}},
        {"metadata": {"name": name, "uid": "u", "creationTimestamp": "then"}},
        {"metadata": {"name": name, "uid": ["u"], "creationTimestamp": old}},
        {"metadata": {"name": name, "uid": "u", "creationTimestamp": old, "deletionTimestamp": old}},
    ]  # fmt: skip

    assert [None] * len(odd) == [shared._seen(one) for one in odd]
    whole = {"name": name, "uid": "u", "creationTimestamp": old}
    assert shared._seen({"metadata": whole}) is not None


# --- inside ---


async def test_a_program_reads_them(tmp_path: pathlib.Path) -> None:
    """Byte for byte, where its variables say, and cannot write to them."""
    brought.need_images()
    node = machine.Machine(tmp_path / "node", {})
    words = 'cat "$STORE" | wc -c; wc -c < "$1/ca-bundle.pem"; touch "$1/x" 2>/dev/null || echo no'
    async with fake.Cluster(runner=node).serving() as cluster:
        ours = broker(cluster)
        try:
            told = attrs.evolve(
                spec(), argv=("/bin/sh", "-c", words, "agent", api.FILES), use_entry_point=False
            )
            await ours.launch(told)
            async with patience.limit(20):
                while (one := (await ours.list())[0]).state is not api.InstanceState.EXITED:
                    await asyncio.sleep(0.02)
            assert one.exit is not None
            assert (await ours.logs("a1", tail=9)).split() == ["60000", "140000", "no"]
        finally:
            await ours.aclose()
