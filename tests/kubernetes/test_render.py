"""``agent-broker render``: the pod that would be created, without a cluster or a controller."""

import pathlib

import pytest
import yaml

from backends.kubernetes.pods import states
from broker.cli import main as cli

CONFIG = """
owner: ci
controller: {url: "http://jenkins:8080/", agent_url: "http://jenkins.ci:8080/"}
backends:
  cluster:
    kind: kubernetes
    namespace: agents
    pods:
      spot: {spec: {tolerations: [{key: spot, operator: Exists}]}}
  here: {kind: process}
templates:
  maven:
    labels: maven
    backends: [cluster, here]
    image: jenkins/inbound-agent
    resources: {memory: 1Gi}
    kubernetes:
      inherits: [spot]
      active_deadline: never
      pod: {spec: {containers: [{name: maven, image: "maven:3.9"}]}}
  local: {labels: local, backends: [here]}
"""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "broker.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_the_manifest_is_printed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As YAML that a person, or kubectl's dry run, can read; of the secret only what it holds."""
    assert 0 == cli.main(["render", "maven", "--config", config])

    text = capsys.readouterr().out
    pod, secret = yaml.safe_load_all(text)
    assert ("Secret", pod["metadata"]["name"]) == (secret["kind"], secret["metadata"]["name"])
    assert {"agent-secret": "not shown"} == secret["stringData"]
    assert ["jnlp", "maven"] == [c["name"] for c in pod["spec"]["containers"]]
    assert [{"key": "spot", "operator": "Exists"}] == pod["spec"]["tolerations"]
    assert "activeDeadlineSeconds" not in pod["spec"]
    env = {e["name"]: e["value"] for e in pod["spec"]["containers"][0]["env"]}
    assert env["JENKINS_SECRET"] == "@/run/agent-broker/agent-secret"
    assert env["JENKINS_URL"] == "http://jenkins.ci:8080/"
    assert states.is_ours(pod, "ci")


@pytest.mark.parametrize(
    ("template", "words"),
    [("absent", "known: maven, local"), ("local", "kind process have nothing to show")],
)
def test_nothing_to_show_says_why(
    config: str, capsys: pytest.CaptureFixture[str], template: str, words: str
) -> None:
    """Exit code 2, one line."""
    assert 2 == cli.main(["render", template, "--config", config])
    assert words in capsys.readouterr().err
