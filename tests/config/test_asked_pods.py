"""Pods that a build puts together by its label, from the document to the pod that is created."""

import json
import pathlib

import pytest
import yaml

from broker import config
from broker.cli import rendering
from broker.config import kinds, loading

TEXT = """\
owner: o
controller: {url: 'http://c/'}
backends:
  kubernetes:
    kind: kubernetes
    namespace: agents
    server: "https://k/"
    token_file: /nowhere/t
    pods:
      maven: {spec: {containers: [{name: maven, image: "maven:3", command: [sleep, infinity]}]}}
      golang: {spec: {containers: [{name: golang, image: "golang:1", command: [sleep, infinity]}]}}
      big: {spec: {nodeSelector: {pool: big}}}
  docker: {kind: docker, hosts: [{url: "unix:///nowhere"}]}
templates:
  pod:
    labels: pod
    backends: [kubernetes]
    image: jenkins/inbound-agent:1
    parameters:
      image: {allow: ["jenkins/*"]}
      maven: {stands_for: "maven:{value}", allow: ["3.*"], container: maven, inherits: [maven]}
      golang: {stands_for: "golang:{value}", allow: ["1.*"], container: golang, inherits: [golang]}
      where: {values: {big: {inherits: [big]}, here: {}}}
"""


def _read(text):
    return loading.parse(
        text,
        kinds.classes(),
        environ={},
        base=pathlib.Path("/nowhere"),
        secrets=config.Secrets.UNREAD,
    )


def _rendered(label):
    settings = _read(TEXT)
    policy = config.policy(settings, wall_now=0.0)
    shown = rendering.render(settings, policy, template="pod", label=label, now=0.0)
    return next(yaml.safe_load_all(shown["kubernetes"]))["spec"]


def _images(spec):
    return {one["name"]: one["image"] for one in spec["containers"]}


def test_the_pod_of_the_talk_is_one_label():
    """Agent, maven and golang, named by the build; it is put where the build wants it."""
    spec = _rendered("golang=1.22 && pod && maven=3.9 && where=big")
    assert _images(spec) == {
        "jnlp": "jenkins/inbound-agent:1",
        "maven": "maven:3.9",
        "golang": "golang:1.22",
    }
    assert spec["nodeSelector"] == {"pool": "big"}
    work = [one["volumeMounts"][-1]["mountPath"] for one in spec["containers"]]
    assert work == ["/home/jenkins/agent"] * 3


def test_who_asks_for_nothing_gets_nothing_of_it():
    """And who asks for the agent's own image gets no container beside it."""
    assert _images(_rendered("")) == {"jnlp": "jenkins/inbound-agent:1"}
    assert _images(_rendered("pod && image=jenkins/other:2")) == {"jnlp": "jenkins/other:2"}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("pod && maven=4", "maven=4 is not allowed, but maven=3.*"),
        ("other", "template pod does not serve 'other'; it has pod"),
        ("pod && (", "is malformed"),
    ],
)
def test_what_cannot_be_shown_is_said(label, words):
    """As the build would be told."""
    with pytest.raises(rendering.NotShown, match=words.replace("*", r"\*")):
        _rendered(label)


@pytest.mark.parametrize(
    ("before", "after", "place", "words"),
    [
        (
            "container: maven, inherits: [maven]",
            "container: maven",
            "maven.allow[0]",
            "maven=3.1 on backend kubernetes: an image for the container 'maven' is asked for",
        ),
        ("inherits: [big]", "inherits: [bug]", "where.values.big.inherits", "found 'bug'"),
        (
            "[kubernetes]",
            "[docker]",
            "maven.container",
            "backend docker, of kind docker, has no pods",
        ),
        (
            "image: jenkins/inbound-agent:1",
            'image: a\n    kubernetes: {pod: {spec: {containers: [{name: jnlp, image: "b"}]}}}',
            "image.allow[0]",
            "image=jenkins/1 on backend kubernetes: it does not change the image, for the template's",
        ),
    ],
)
def test_what_a_build_may_ask_for_is_tried_when_it_is_declared(before, after, place, words):
    """Each listed choice, each limit, an image of each pattern; what would fail is refused."""
    assert TEXT.count(before) == 1
    with pytest.raises(config.ConfigError) as raised:
        _read(TEXT.replace(before, after))
    assert f"templates.pod.parameters.{place}: {words}" in str(raised.value)


def test_what_a_choice_opens_is_warned_of():
    """Whoever may write jobs may ask for it."""
    peril = "big: {spec: {hostNetwork: true, nodeSelector: {pool: big}}}"
    settings = _read(TEXT.replace("big: {spec: {nodeSelector: {pool: big}}}", peril))
    warnings = [one.placed() for one in settings.warnings]
    assert any("parameters.where.values.big.inherits: " in one for one in warnings), warnings


@pytest.mark.parametrize(
    ("parameters", "raw", "words"),
    [
        (
            {"image": {"allow": ["b"]}},
            {"Image": "c"},
            "image=b on backend docker: it does not change the image, ",
        ),
        (
            {"size": {"values": {"big": {"memory": "8Gi", "cpu": 4}}}},
            {"HostConfig": {"NanoCpus": 1}},
            "size=big on backend docker: it does not change the cores, ",
        ),
        (
            {"memory": {"max": "4g"}},
            {"HostConfig": {"Memory": 1 << 30}},
            "memory=4g on backend docker: it does not change the memory, ",
        ),
    ],
)
def test_a_raw_section_that_wins_over_what_is_asked_for_is_refused(parameters, raw, words):
    """On other platforms as well, and each thing alone: it would be another one than was asked for."""
    box = {
        "labels": "box",
        "backends": ["docker"],
        "image": "a",
        "parameters": parameters,
        "docker": {"docker": raw},
    }
    text = TEXT[: TEXT.index("templates:")] + json.dumps({"templates": {"box": box}})[1:-1]
    with pytest.raises(config.ConfigError, match=words):
        _read(text)
