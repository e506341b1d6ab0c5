"""Who honours which setting of a template: proved by what a launch would make, not by a list."""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import yaml

from backends import registry
from backends.mesos import tasks
from backends.process import kernel, launching, proc
from broker import config
from broker.config import describing, honouring, kinds, loading, rehearsal
from broker.core import model
from tests.docker import certificates
from tests.each import each

HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:T'}\nlisten: off\n"
REAL = sorted(name for name, kind in registry.KINDS.items() if not kind.pretends)

# two values of each; between them only what honours it may make a difference
VALUES: Mapping[str, tuple[str, str]] = {
    "connect.mode": ("{connect: {mode: tcp}}", "{connect: {mode: websocket}}"),
    "connect.tunnel": ("{}", "{connect: {tunnel: 'h:1'}}"),
    "reconnect_for": ("{reconnect_for: 1m}", "{reconnect_for: 2m}"),
    "command": ("{command: [a]}", "{command: [b]}"),
    "java": ("{}", "{java: /jdk/bin/java}"),
    "jvm_options": ("{}", "{jvm_options: [-Da=b]}"),
    "heap_share": ("{resources: {memory: 1Gi}}", "{heap_share: 0.5, resources: {memory: 1Gi}}"),
    "image": ("{image: 'one:1'}", "{image: 'two:2'}"),
    "inject": ("{}", "{inject: true}"),
    "docker_pipelines.mode": (
        "{}",
        "{docker_pipelines: {mode: dind, acknowledge: builds-are-root-on-the-host}}",
    ),
    "remote_fs": ("{remote_fs: '/a/{name}'}", "{remote_fs: '/b/{name}'}"),
    "environment": ("{environment: {A: b}}", "{environment: {A: c}}"),
    "proxy.http": ("{}", "{proxy: {http: 'http://proxy:3128'}}"),
    "trust.ca_file": (
        "{trust: {ca_file: AUTHORITY}}",
        "{trust: {ca_file: AUTHORITY, java_tools: true}}",
    ),
    "resources.memory": ("{resources: {memory: 1Gi}}", "{resources: {memory: 2Gi}}"),
    "resources.memory_reservation": (
        "{resources: {memory: 4Gi, memory_reservation: 1Gi}}",
        "{resources: {memory: 4Gi, memory_reservation: 2Gi}}",
    ),
    "resources.cpu_limit": (
        "{resources: {cpu_shares: 1, cpu_limit: 2}}",
        "{resources: {cpu_shares: 1, cpu_limit: 3}}",
    ),
    "resources.cpu_shares": ("{resources: {cpu_shares: 1}}", "{resources: {cpu_shares: 2}}"),
}
# the same, where a kind needs more for it
OF_KIND = {
    ("swarm", "docker_pipelines.mode"): (
        "{swarm: {user: '0'}}",
        (
            "{swarm: {user: '0'}, "
            "docker_pipelines: {mode: socket, acknowledge: builds-are-root-on-the-host}}"
        ),
    ),
}
BACKENDS = {
    "docker": "{kind: docker, runtimes: {default: {tar: /r.tar}}}",
    "swarm": "{kind: swarm, runtimes: {default: {image: 'r:1'}}}",
    "kubernetes": "{kind: kubernetes, runtimes: {default: {image: 'r:1'}}}",
    "mesos": "{kind: mesos, master: 'http://m:5050', runtimes: {default: {uri: 'https://r/r.tar'}}}",
    "process": "{kind: process}",
}
# under which a setting is honoured that otherwise is not: more of the template, of the backend
UNLESS: Mapping[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    ("mesos", "trust.ca_file"): ({}, {"handover": {"listen": "h:1", "url": "https://h:1"}}),
    **{
        (kind, "reconnect_for"): ({"inject": True}, {})
        for kind in ("docker", "swarm", "kubernetes")
    },
    **{
        ("process", f"resources.{name}"): ({}, {"cgroup": "/cgroup"})
        for name in ("memory_reservation", "cpu_limit", "cpu_shares")
    },
    **{
        ("mesos", f"resources.{name}"): ({"mesos": {"limits": True, "secrets": "volume"}}, {})
        for name in ("memory_reservation", "cpu_limit")
    },
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name a file with an authority."""
    return str(certificates.Authority(tmp_path_factory.mktemp("ca"), "ours").file)


def parsed(kind: str, *more: Mapping[str, Any], backend: Mapping[str, Any] | None = None) -> Any:
    """Read a configuration with one template on one backend of a kind."""
    told: dict[str, Any] = {"labels": "l"}
    if kind != "process":
        told["image"] = "an/agent:1"
    if kind == "mesos":
        told["mesos"] = {"secrets": "volume"}
    for one in more:
        for key, value in one.items():
            below = told.get(key)
            both = isinstance(below, dict) and isinstance(value, dict)
            told[key] = {**below, **value} if both else value
    settings = {**yaml.safe_load(BACKENDS[kind]), "cap": 9, **(backend or {})}
    text = HEAD + yaml.safe_dump({"backends": {"b": settings}, "templates": {"t": told}})
    return loading.parse(text, kinds.classes(), environ={"T": "11secret"})


def made(kind: str, *more: Mapping[str, Any], backend: Mapping[str, Any] | None = None) -> str:
    """Return all that a launch would give to the platform, as text."""
    settings = parsed(kind, *more, backend=backend)
    (template,) = settings.templates
    spec = rehearsal.order(
        template,
        model.BackendName("b"),
        owner="o",
        style=registry.kind(kind).launch_style,
        now=0.0,
    )
    spec = attrs.evolve(spec, metadata={})  # its revision tells all settings apart
    configured = settings.backends["b"].settings
    if kind == "process":
        return of_process(spec, configured)
    if kind == "mesos":
        body = tasks.body(spec, configured, owner="o")
        labels = [one for one in body["labels"]["labels"] if "digest" not in one["key"]]
        return json.dumps([{**body, "labels": labels}, repr(tasks.need(spec))])
    text = registry.render(kind, configured, spec, owner="o")
    return "\n".join(line for line in text.splitlines() if "digest" not in line)


def of_process(spec: Any, configured: Any) -> str:
    """Return what its supervisor does: with the plan, and in the cgroup, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        stage, group = pathlib.Path(folder) / "stage", pathlib.Path(folder) / "group"
        for path in (stage, group):
            path.mkdir()
        files = ("memory.max", "memory.low", "cpu.max", "cpu.weight", "memory.oom.group")
        for name in files:
            (group / name).touch()
        places = launching.InstancePaths(
            home=stage,
            work=stage / "work" if spec.work_dir is None else pathlib.Path(spec.work_dir),
            shared=pathlib.Path(folder) / "shared",
            cgroup=str(group) if configured.cgroup else None,
        )
        launching.fill(
            stage, spec, places=places, files={}, configured=configured, owner="o", created_at=0.0
        )
        plan = json.loads((stage / "plan.json").read_text())
        kernel.Group(plan)
        kept = {name: (group / name).read_text() for name in files}
        # what only the cgroup is given is no effect by itself; memory is watched without one, too
        for key in ("cpu_max", "cpu_weight", "memory_reservation_bytes"):
            plan.pop(key)
        plan["env"].pop(proc.MARK)  # another one each time
        return json.dumps([plan, kept]).replace(folder, "")


def heard(kind: str, setting: str, authority: str, *, unless: bool = False) -> bool:
    """Tell whether the setting's two values make different instances; refused is not heard."""
    more, backend = UNLESS[kind, setting] if unless else ({}, {})
    try:
        one, other = (
            made(
                kind, yaml.safe_load(value.replace("AUTHORITY", authority)), more, backend=backend
            )
            for value in OF_KIND.get((kind, setting), VALUES[setting])
        )
    except config.ConfigError:
        return False
    return one != other


@each("kind", REAL)
def test_what_is_made_is_steady(kind: str) -> None:
    """Or a difference would say nothing."""
    assert made(kind) == made(kind)


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("setting", sorted(VALUES))
def test_the_table_says_who_honours_a_setting(kind: str, setting: str, authority: str) -> None:
    """By what is made of two values of it: always, never, or as far as the table says."""
    told = honouring.backends({kind: kinds.classes()[kind]}, setting)
    assert heard(kind, setting, authority) is (told == "all")
    assert ((kind, setting) in UNLESS) is told.startswith(f"{kind} ")
    if told.startswith(f"{kind} "):
        assert heard(kind, setting, authority, unless=True)


@pytest.mark.parametrize("kind", REAL)
def test_the_table_says_who_runs_checks(kind: str) -> None:
    """No launch shows them: a backend that cannot is refused."""
    try:
        parsed(kind, {"checks": {"ready": {"command": ["true"]}}})
        runs = True
    except config.ConfigError:
        runs = False
    told = honouring.backends({kind: kinds.classes()[kind]}, "checks.ready.command")
    assert runs is (told == "all")


def test_every_setting_of_a_launch_is_tried() -> None:
    """But what has its own tests: names, details of a section that is tried, what builds ask for."""
    rows = [line.split("`")[1] for line in describing.reference(kinds.classes()).splitlines()[2:]]
    fields = {attribute.name for attribute in attrs.fields(model.LaunchSettings)}
    ours = {"connection": "connect", "docker_pipelines": "docker_pipelines"}
    derived = {"agent_url", "platform", "inherits", "side_images"}
    for name in fields - derived:
        key = ours.get(name, name).removesuffix("_s")
        assert any(one == key or one.startswith(f"{key}.") for one in VALUES), name
        assert any(row.startswith(f"templates.NAME.{key}") for row in rows), name


@pytest.mark.parametrize(
    ("kind", "told", "words"),
    [
        ("process", {"resources": {"cpu_limit": 2}}, "a process is held to it by a cgroup alone"),
        ("process", {"parameters": {"cpu": {"max": 2}}}, "by a cgroup alone"),
        ("docker", {"java": "/jdk/bin/java"}, "the image starts its agent, with its own Java"),
        ("docker", {"command": ["a"], "jvm_options": ["-Xmx1g"]}, "not used beside `command`"),
        ("swarm", {"reconnect_for": "1h"}, "older ones know no such option"),
        (
            "mesos",
            {"resources": {"memory": "2Gi", "memory_reservation": "1Gi"}},
            "`memory` is what is reserved",
        ),
    ],
)
def test_a_setting_that_nobody_hears_is_told(
    kind: str, told: Mapping[str, Any], words: str
) -> None:
    """Where it stands."""
    (warning,) = [one for one in parsed(kind, told).warnings if words in one.text]
    assert warning.path[:2] == ("templates", "t")
    assert warning.path[2] in told


@pytest.mark.parametrize(
    ("kind", "setting"), sorted(key for key in UNLESS if not key[1].startswith("trust."))
)
def test_a_setting_that_is_heard_is_not_told(kind: str, setting: str) -> None:
    """Where what it needs is there."""
    value = yaml.safe_load(VALUES[setting][1])
    more, backend = UNLESS[kind, setting]
    words = [one.why for one in kinds.classes()[kind].unheard if one.setting == setting]
    for extra, told in (((), True), ((more,), False)):
        found = parsed(kind, value, *extra, backend={} if told else backend).warnings
        assert any(words[0] in one.text for one in found) is told
