"""Wrong configurations of people, of every kind: each is refused in one run, with the right line."""

import pathlib

import pytest
import yaml

from broker.cli import main as cli

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "wrong.yaml").read_text())
GOOD = "owner: o\ncontroller: {url: http://c/}\ndefaults: {}\n"
TEMPLATE = "templates: {z: {labels: z}}\n"


def whole(case):
    if "whole" in case:
        return case["whole"]
    ending = "" if "templates:" in case["text"] else TEMPLATE
    if "kind: docker" in case["text"]:
        ending = ending.replace("labels: z", "labels: z, image: a")
    return GOOD + case["text"] + ending


def told(text, folder, capsys):
    """Return what the command says of a file, line by line, without its name."""
    path = folder / "broker.yaml"
    path.write_text(text)
    assert cli.main(["check-config", "-c", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return [line.removeprefix(f"agent-broker: {path}:") for line in err.splitlines()]


def test_there_are_enough():
    """A list that lost its content does not pass as success."""
    assert len(CASES) >= 40
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_is_refused_with_its_line(case, tmp_path, capsys):
    """And says nothing else, so that one mistake is one line."""
    (line,) = told(whole(case), tmp_path, capsys)
    assert line.startswith(case["told"])
    assert case.get("hint", "") in line.partition("hint: ")[2]
    assert "hunter2" not in line
    assert line.isprintable()


MANY = """\
owner: Team A
controller:
  url: c.example
  token: hunter2
  proxy: socks5://p:1080
listen: everywhere
backends:
  d: {kind: docker, hosts: [{url: "npipe:////./pipe/docker_engine"}, {tls: true}], timeout: 5}
  m: {kind: mesos, master: "m:x", role: "a b"}
  k: {kind: kubernetes, namespace: CI}
  p: {kind: proces}
  good: {kind: docker}
templates:
  a: {labels: "x&&y", image: "Maven:3", backends: [good]}
  b: {labels: "", executors: 0, retention: {idle: 5}, backends: [d]}
  c:
    labels: c
    image: https://r.example/a
    backends: [x, good]
    resources: {memory: 2 gigabytes}
    docker: {ports: ["80:70000"], pids: 1}
    warm: {min_idle: 100000000}
"""
EXPECTED = """\
1: owner
3: controller.url
4: controller.token
5: controller.proxy
6: listen
8: backends.d.hosts[0].url
8: backends.d.hosts[1].tls
8: backends.d.timeout
9: backends.m.master
9: backends.m.role
10: backends.k.namespace
11: backends.p.kind
14: templates.a.labels[0]
14: templates.a.image
15: templates.b.executors
15: templates.b.retention.idle
15: templates.b.labels
19: templates.c.backends[0]
20: templates.c.resources.memory
21: templates.c.docker.pids
21: templates.c.docker.ports
22: templates.c.warm.min_idle
"""


def test_many_at_once_are_told_in_one_run(tmp_path, capsys):
    """In the order of the file; a backend with mistakes of its own is there for its templates."""
    lines = told(MANY, tmp_path, capsys)
    assert [": ".join(line.split(": ")[:2]) for line in lines] == EXPECTED.splitlines()
