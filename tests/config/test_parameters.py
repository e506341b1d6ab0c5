"""What builds may ask for, from the document to what each kind of backend would create."""

import json
import pathlib

import attrs
import pytest

from broker import config
from broker.cli import rendering
from broker.config import kinds, loading
from broker.core.demand import labels, parameters

GIB = 1 << 30
TEXT = """\
owner: o
controller: {url: 'http://c/'}
backends:
  docker: {kind: docker, hosts: [{url: "unix:///nowhere"}]}
  kubernetes: {kind: kubernetes, namespace: agents, server: "https://k/", token_file: /nowhere/t}
  mesos: {kind: mesos, master: "http://m:5050", name: broker}
  swarm: {kind: swarm, managers: [{url: "unix:///nowhere"}]}
templates:
  any:
    labels: any linux
    image: jenkins/inbound-agent:1
    mesos: {secrets: volume}
    resources: {memory: 1Gi, memory_reservation: 1Gi, cpu_shares: 2}
    parameters:
      image: {allow: ["golang:*"], default: "golang:1"}
      memory: {max: 8Gi}
      cpu: {max: 4}
      size: {values: {large: {memory: 6Gi, cpu: 3}}}
"""


@pytest.fixture(scope="module")
def settings():
    return _read(TEXT)


def _read(text):
    return loading.parse(
        text,
        kinds.classes(),
        environ={},
        base=pathlib.Path("/nowhere"),
        secrets=config.Secrets.UNREAD,
    )


def _rendered(settings, expression):
    policy = config.policy(settings, wall_now=0.0)
    (template,) = policy.templates
    asked = parameters.asked(labels.parse(expression), template)
    assert asked is not None
    assert not asked.complaint
    bound = parameters.bound(template, asked.labels)
    policy = attrs.evolve(policy, templates=(bound,))
    return rendering.render(settings, policy, template="any", now=0.0)


@pytest.mark.parametrize(
    ("expression", "image", "gib", "cores"),
    [
        ("any", "golang:1", 1, None),
        ("any && image=golang:1.22", "golang:1.22", 1, None),
        ("any && memory=4g && cpu=0.5", "golang:1", 4, 0.5),
        ("any && size=large && image=golang:1.22", "golang:1.22", 6, 3),
    ],
)
def test_every_kind_that_runs_images_makes_of_it_what_was_asked_for(
    settings, expression, image, gib, cores
):
    """Image, memory, cores are what all of them are told in the same words."""
    shown = _rendered(settings, expression)
    assert set(shown) == {"docker", "kubernetes", "mesos", "swarm"}
    assert all(image in text for text in shown.values())
    host = json.loads(shown["docker"][shown["docker"].index("{") :])["HostConfig"]
    assert host["Memory"] == gib * GIB
    service = json.loads(shown["swarm"][shown["swarm"].index("{") :])
    limits = service["TaskTemplate"]["Resources"]["Limits"]
    assert limits["MemoryBytes"] == gib * GIB
    if cores is not None:
        assert host["NanoCpus"] == limits["NanoCPUs"] == cores * 1_000_000_000
    assert f"memory: {gib * 1024}Mi" in shown["kubernetes"]
    assert f"-Xmx{gib * 256}m" in shown["mesos"]


def test_a_changed_value_is_another_revision(settings):
    """The agents that were started with the old one retire when they are idle."""
    (before,) = settings.templates
    text = TEXT.replace("memory: 6Gi", "memory: 5Gi")
    (after,) = _read(text).templates
    assert before.revision != after.revision


def test_nobody_asks_for_less_of_a_core_than_an_agent_needs(settings):
    """As of memory: where no ``min`` is set, one that cannot connect in time is refused to all."""
    (template,) = settings.templates
    for value, is_allowed in (("0.001", False), ("0.099", False), ("0.1", True), ("4", True)):
        assert (parameters.problem("cpu", template.parameters["cpu"], value) == "") is is_allowed
    (lower,) = _read(TEXT.replace("cpu: {max: 4}", "cpu: {min: 0.05, max: 4}")).templates
    assert not parameters.problem("cpu", lower.parameters["cpu"], "0.05")
