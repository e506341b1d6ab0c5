"""The examples are read as a user's files would be; the pod keeps Marathon's published rules."""

import json
import pathlib
import re

import yaml

from backends import registry
from broker.config import reading

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
POD_MEMBERS = {
    "id",
    "labels",
    "user",
    "containers",
    "networks",
    "volumes",
    "scaling",
    "scheduling",
}
CONTAINER_MEMBERS = {
    "name",
    "resources",
    "image",
    "endpoints",
    "volumeMounts",
    "environment",
    "healthCheck",
    "exec",
}


def test_the_backend_sections_are_understood():
    """Every key of the examples is one of the settings, with a value that is allowed."""
    for name in ("mesos", "marathon"):
        told = yaml.safe_load((EXAMPLES / name / "broker.yaml").read_text())
        (backend,) = told["backends"].values()
        own = {key: value for key, value in backend.items() if key not in ("kind", "cap")}
        problems: list = []
        assert reading.read(registry.settings_class("mesos"), own, (), problems) is not None, (
            problems
        )
        sections = [
            told.get("defaults", {}).get("mesos"),
            *(one.get("mesos") for one in told["templates"].values()),
        ]
        for section in filter(None, sections):
            assert (
                reading.read(registry.template_settings_class("mesos"), section, (), problems)
                is not None
            ), problems
        assert [] == problems


def test_the_marathon_pod_is_whole():
    """Members, names, ports and volumes that refer to each other, as Marathon's pod schema asks."""
    pod = json.loads((EXAMPLES / "marathon" / "pod.json").read_text())
    assert set(pod) <= POD_MEMBERS
    assert re.fullmatch(r"(/[a-z0-9]([a-z0-9-]*[a-z0-9])?)+", pod["id"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert set(container) <= CONTAINER_MEMBERS
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", container["name"])
        assert container["resources"]["cpus"] > 0
        assert container["resources"]["mem"] >= 32
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        endpoints = {endpoint["name"] for endpoint in container["endpoints"]}
        assert container["healthCheck"]["http"]["endpoint"] in endpoints
        assert all(0 <= endpoint["hostPort"] <= 65535 for endpoint in container["endpoints"])
    assert {"kind": "fixed", "instances": 1} == pod["scaling"], (
        "one home, one framework id: never two"
    )


def test_the_pod_and_its_broker_agree():
    """Ports, paths of the configuration and of the state."""
    pod = json.loads((EXAMPLES / "marathon" / "pod.json").read_text())
    told = yaml.safe_load((EXAMPLES / "marathon" / "broker.yaml").read_text())
    controller, broker = pod["containers"]
    assert told["listen"].endswith(f":{broker['endpoints'][0]['containerPort']}")
    assert (
        told["controller"]["url"]
        == f"http://127.0.0.1:{controller['endpoints'][0]['containerPort']}/"
    )
    assert told["state_dir"] in [mount["mountPath"] for mount in broker["volumeMounts"]]
    door = told["backends"]["cluster"]["handover"]
    port = broker["endpoints"][1]["containerPort"]
    assert door["listen"].endswith(f":{port}")
    assert door["url"].endswith(f":{port}")
    assert "/" not in told["backends"]["cluster"]["role"], "no quota on a nested role"
    assert not pod["user"].isdigit(), "Mesos looks the name up on the agent's host"
    tunnel = told["templates"]["linux"]["connect"]["tunnel"]
    assert tunnel.endswith(f":{controller['endpoints'][1]['containerPort']}")


def test_manners_pay():
    """A small cluster: who suppresses and refuses for long is served sooner, with fewer calls."""
    from tests.mesos import many_frameworks

    good, rude = (
        many_frameworks.simulate(frameworks=100, seconds=30, manners=polite)
        for polite in (True, False)
    )
    assert good["median_s"] < rude["median_s"]
    assert good["p99_s"] < rude["p99_s"]
    assert good["calls_per_s"] < rude["calls_per_s"]
