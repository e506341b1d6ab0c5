"""The examples of storage load, and become the objects that each platform has for them."""

import pathlib
import re

import pytest
import yaml

from broker.cli import rendering
from broker.config import kinds, loading, settings
from tests.each import each

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/storage"
NFS = {"type": "nfs", "o": "addr=nfs.example,rw,nfsvers=4.1", "device": ":/export/npm/0"}


def read(name: str, folder: pathlib.Path) -> settings.Settings:
    """Load an example, with its secret files in a folder of the test."""
    for file in ("jenkins-token", "tls.crt", "tls.key"):
        (folder / file).unlink(missing_ok=True)  # of an earlier time, and not to be written to
        (folder / file).write_text("abc")
        (folder / file).chmod(0o400)
    told = (EXAMPLES / f"{name}.yaml").read_text()
    told = told.replace("/run/secrets", str(folder)).replace("/etc/agent-broker", str(folder))
    path = folder / "broker.yaml"
    path.write_text(told)
    return loading.load(path, kinds.classes(), environ={})


@pytest.fixture
def shown(tmp_path: pathlib.Path):
    """Return what a template of an example becomes."""

    def render(name: str, template: str):
        loaded = read(name, tmp_path)
        policy = settings.policy(loaded, wall_now=0.0)
        (text,) = rendering.render(loaded, policy, template=template, now=0.0).values()
        (told,) = [one for one in yaml.safe_load_all(text) if one.get("kind") != "Secret"]
        return told

    return render


@each("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_each_loads_without_a_warning(name: str, tmp_path: pathlib.Path) -> None:
    """But for caches that agents share, which are told of."""
    told = [one.words() for one in read(name, tmp_path).warnings]
    assert [] == told, told


def test_an_export_of_nfs_is_a_volume_of_the_local_driver(shown) -> None:
    """The same on an engine and on a swarm, with the slot's folder on the server."""
    (docker,) = shown("docker", "nfs-slot")["HostConfig"]["Mounts"]
    (swarm,) = shown("swarm", "nfs-slot")["TaskTemplate"]["ContainerSpec"]["Mounts"]
    for mount in (docker, swarm):
        assert ("volume", "npm-0", "/home/jenkins/.npm", False) == (
            mount["Type"],
            mount["Source"],
            mount["Target"],
            mount["ReadOnly"],
        )
        assert {"Name": "local", "Options": NFS} == mount["VolumeOptions"]["DriverConfig"]
    (shared,) = shown("docker", "nfs-read-only")["HostConfig"]["Mounts"]
    assert ("maven-mirror", True) == (shared["Source"], shared["ReadOnly"])


def test_the_bounds_of_a_cache_are_the_brokers(shown) -> None:
    """An engine hears of the volume alone; no agent is retired for a change of them."""
    (cache,) = shown("docker", "bounded-cache")["HostConfig"]["Mounts"]
    assert {
        "Type": "volume",
        "Source": "m2-0",
        "Target": "/home/jenkins/.m2",
        "ReadOnly": False,
    } == cache
    (numbered,) = shown("swarm", "bounded-cache")["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert cache == numbered


@each(("template", "driver"), [("ebs", "rexray/ebs"), ("gce", "rexray/gcepd")])
def test_a_disk_of_a_cloud_is_a_volume_of_its_driver(shown, template: str, driver: str) -> None:
    """Of the agent on an engine, numbered on a swarm, which removes none."""
    (own,) = shown("docker", template)["HostConfig"]["Mounts"]
    assert ("ci-" + template + "-xxxxxx", "/work") == (own["Source"], own["Target"])
    (numbered,) = shown("swarm", template)["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert f"{template}-0" == numbered["Source"]
    for mount in (own, numbered):
        told = mount["VolumeOptions"]["DriverConfig"]
        assert (driver, "50") == (told["Name"], told["Options"]["size"])


@each(
    ("template", "driver", "volume"),
    [
        ("nfs-slot", "local", "npm-0"),
        ("ebs", "rexray/ebs", "ebs-0"),
        ("flocker", "flocker", "flocker-0"),
    ],
)
def test_mesos_is_told_the_driver(shown, template: str, driver: str, volume: str) -> None:
    (told,) = [
        one["source"]["docker_volume"]
        for one in shown("mesos", template)["container"]["volumes"]
        if "docker_volume" in one.get("source", {})
    ]
    assert (driver, volume) == (told["driver"], told["name"])
    if driver == "local":
        options = {one["key"]: one["value"] for one in told["driver_options"]["parameter"]}
        assert NFS == options


def test_pods_have_claims(shown) -> None:
    def volume(template: str, name: str):
        spec = shown("kubernetes", template)["spec"]
        return next(one for one in spec["volumes"] if one["name"] == name)

    assert "cache-0" == volume("claim-slot", "npm")["persistentVolumeClaim"]["claimName"]
    assert {"server": "nfs.example", "path": "/export/maven", "readOnly": True} == volume(
        "nfs-read-only", "maven"
    )["nfs"]
    claim = volume("ebs", "disk")["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert "50Gi" == claim["resources"]["requests"]["storage"]


def test_the_manual_names_each_template() -> None:
    """A table: what is wanted, and what shows it."""
    manual = (ROOT / "docs/storage.md").read_text()
    for path in EXAMPLES.glob("*.yaml"):
        for template in re.findall(
            r"^  ([a-z-]+):", path.read_text().split("templates:\n")[1], re.M
        ):
            assert f"`{template}`" in manual, template
