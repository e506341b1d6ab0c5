"""From a specification to a service."""

import json
import re

import attrs
import hypothesis
import pytest
from hypothesis import strategies as st

from backends import api
from backends.docker.containers import caches
from backends.docker.swarm import service, settings
from backends.kit import names, remarks, runtime

SECRET = "5ecret" * 10
SPEC = api.InstanceSpec(
    name="a1",
    metadata={names.OWNER: "ours", names.TEMPLATE: "t"},
    argv=("agent", api.SECRETS, api.WORK),
    image="registry.example/agent:1",
    env={"HOME": api.WORK},
    secret_files={"secret": SECRET},
    resources=api.Resources(
        memory_bytes=1 << 30, memory_reservation_bytes=1 << 29, cpu_limit=2, cpu_shares=0.5
    ),
)
SAFE = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)


def made(options=None, **changes):
    return service.plan(
        attrs.evolve(SPEC, options=options or settings.SwarmTemplate(), **changes), owner="ours"
    )


def inner(plan, **given):
    return plan.complete(plan.image, given)["TaskTemplate"]["ContainerSpec"]


def test_an_agent_is_one_task_that_is_never_started_again():
    body = made().body
    assert {"Replicated": {"Replicas": 1}} == body["Mode"]
    assert {"Condition": "none"} == body["TaskTemplate"]["RestartPolicy"]
    assert {"Test": ["NONE"]} == body["TaskTemplate"]["ContainerSpec"]["Healthcheck"]


def test_limits_and_reservations_are_told_apart():
    assert made().body["TaskTemplate"]["Resources"] == {
        "Limits": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1 << 30, "Pids": 8192},
        "Reservations": {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 29},
    }


def test_nothing_new_is_gained_unless_the_template_says_so():
    """In the words of the API from 1.44 on; managers before it leave them out."""
    assert inner(made())["Privileges"] == {"NoNewPrivileges": True}
    opened = settings.SwarmTemplate(no_new_privileges=False)
    assert "Privileges" not in inner(made(opened))
    raw = {"TaskTemplate": {"ContainerSpec": {"Privileges": {"SELinuxContext": {"Type": "ci_t"}}}}}
    both = inner(made(settings.SwarmTemplate(service=raw)))["Privileges"]
    assert both == {"NoNewPrivileges": True, "SELinuxContext": {"Type": "ci_t"}}


@pytest.mark.parametrize(
    ("told", "work_dir", "targets"),
    [
        ((), None, ["/tmp", "/home/jenkins/agent"]),
        ((), "/work", ["/tmp", "/work"]),
        (("/home", "/tmp/"), None, ["/home", "/tmp"]),
    ],
)
def test_a_read_only_root_has_places_to_write_to(told, work_dir, targets):
    """Of the template, or of the agent's own: they go with it."""
    volumes = tuple(settings.Volume(target=path) for path in told)
    options = settings.SwarmTemplate(read_only_root=True, volumes=volumes)
    container = inner(made(options, work_dir=work_dir))
    assert container["ReadOnly"] is True
    assert [mount["Target"] for mount in container["Mounts"]] == targets
    assert {mount["Type"] for mount in container["Mounts"]} == {"volume"}
    assert "ReadOnly" not in inner(made())


def test_the_secret_is_a_file_of_the_user_and_nowhere_else():
    plan = made()
    assert SECRET not in repr(plan) + json.dumps(plan.body)
    (file,) = inner(plan, secret=("id1", "called"))["Secrets"]
    assert {
        "Name": f"{service.SECRETS}/secret", "UID": "1000", "GID": "1000", "Mode": 0o400,
    } == file["File"]  # fmt: skip
    (file,) = inner(made(settings.SwarmTemplate(user="jenkins")), secret=("i", "c"))["Secrets"]
    assert 0o444 == file["File"]["Mode"], "who that is only the image knows"


def test_files_of_ours_are_configs_named_by_owner_and_content():
    """Everybody in the container may read them; what they hold is no part of what it is."""
    files = {"ca.pem": b"one", "ca.jks": b"\xfe\xed"}
    plan = made(given_files=files, env={"STORE": f"{api.FILES}/ca.jks"})
    assert "STORE=/agent-broker/files/ca.jks" in inner(plan)["Env"]
    told = inner(plan)["Configs"]
    assert ["/agent-broker/files/ca.pem", "/agent-broker/files/ca.jks"] == [
        one["File"]["Name"] for one in told
    ]
    assert {0o444} == {one["File"]["Mode"] for one in told}
    assert [one["ConfigName"] for one in told] == [one.name for one in plan.given]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", one.name) for one in plan.given)
    another = made(given_files={**files, "ca.pem": b"two"}, env={"STORE": f"{api.FILES}/ca.jks"})
    assert plan.digest == another.digest
    assert plan.given[1].name == another.given[1].name
    assert plan.given[0].name != another.given[0].name
    theirs = service.plan(attrs.evolve(SPEC, given_files=files), owner="theirs")
    assert {one.name for one in theirs.given}.isdisjoint(one.name for one in plan.given)
    assert repr(b"one") not in repr(plan)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ca.pem", b"", "has 0 bytes"),
        ("ca.pem", bytes(512_000), "holds 1 to 511999"),
        ("a/b", b"x", "is not a plain name"),
    ],
)
def test_files_that_no_config_holds_are_refused(name, content, words):
    with pytest.raises(api.Rejected, match=words):
        made(given_files={name: content})


def test_places_are_put_into_words_and_environment():
    told = inner(made())
    assert ["agent", service.SECRETS, service.WORK] == told["Command"]
    assert [f"HOME={service.WORK}"] == told["Env"]
    assert ["agent", service.SECRETS, service.WORK] == inner(made(use_entry_point=True))["Args"]


def test_whose_it_is_stands_on_service_and_container():
    body = made(settings.SwarmTemplate(labels={"team": "x", "agent-broker.owner": "them"})).body
    for labels in (body["Labels"], body["TaskTemplate"]["ContainerSpec"]["Labels"]):
        assert "x" == labels["team"]
        assert labels.items() >= service.owner_labels("ours").items()
        assert SPEC.metadata == service.read_metadata(labels)


def test_where_it_may_run():
    options = settings.SwarmTemplate(
        constraints=("node.role==worker",),
        spread=("node.labels.rack",),
        platforms=("linux/amd64", "linux"),
    )
    placement = made(options, avoid=("sick-1",)).body["TaskTemplate"]["Placement"]
    assert placement == {
        "Constraints": ["node.role==worker", "node.hostname!=sick-1"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}],
        "Platforms": [{"OS": "linux", "Architecture": "amd64"}, {"OS": "linux"}],
    }


def test_what_is_to_be_avoided_is_no_part_of_what_it_is():
    assert made().digest == made(avoid=("n",)).digest
    assert made().digest == made(secret_files={"secret": "other"}).digest
    assert made().digest != made(env={}).digest
    config = settings.Config(name="c", target="/etc/c")
    assert made().digest != made(settings.SwarmTemplate(configs=(config,))).digest


def test_mounts_configs_and_the_raw_section():
    options = settings.SwarmTemplate(
        volumes=(
            settings.Volume(target="/v", name="vv", driver="nfs", driver_options={"o": "x"}),
            settings.Volume(target="/t", tmpfs_bytes=1 << 20),
            settings.Volume(target="/b", name="/srv", read_only=True),
            settings.Volume(target="/own"),
        ),
        configs=(settings.Config(name="c", target="/etc/c", mode="0400"),),
        secrets=(settings.LentSecret(name="s", target="/etc/s"),),
        service={"TaskTemplate": {"ContainerSpec": {"Hostname": "h"}}, "Labels": {"l": "1"}},
    )
    plan = made(options)
    told = plan.complete("i", {}, service.LentIds(secrets={"s": "id8"}, configs={"c": "id9"}))[
        "TaskTemplate"
    ]["ContainerSpec"]
    kinds = [(m["Type"], m.get("Source")) for m in told["Mounts"]]
    assert [("volume", "vv"), ("tmpfs", None), ("bind", "/srv"), ("volume", "")] == kinds
    assert ("id9", 0o400) == (told["Configs"][0]["ConfigID"], told["Configs"][0]["File"]["Mode"])
    (lent,) = told["Secrets"]
    assert {"Name": "/etc/s", "UID": "1000", "GID": "1000", "Mode": 0o400} == lent["File"]
    assert ("id8", "s") == (lent["SecretID"], lent["SecretName"])
    assert "h" == told["Hostname"]
    assert "1" == plan.body["Labels"]["l"]


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
@hypothesis.given(SAFE, SAFE)
def test_a_service_is_called_as_managers_want_it(one, two):
    """A DNS label without upper case; two instances never share one."""
    first, second = (service.service_name(name, prefix="p-") for name in (one, two))
    assert re.fullmatch(r"[a-z0-9](?:[-_]*[a-z0-9]+)*", first)
    assert len(first) <= 63
    assert (first == second) == (one == two)


def test_what_people_call_it_stays_readable():
    assert "ci-maven-x7f3" == service.service_name("ci-maven-x7f3", prefix="")


def test_a_secret_has_a_legal_name_of_its_own_each_time():
    first, second = (service.secret_name("s" * 63, "f", token) for token in ("a" * 16, "b" * 16))
    assert first != second
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9]", first)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "set `image`"),
        ({"image": "BAD NAME"}, "not the name of an image|upper case"),
        ({"files": (api.RemoteFile(url="http://x", name="agent.jar"),)}, "an image that holds"),
        ({"secret_files": {"a/b": "x"}}, "not a plain name"),
        ({"secret_files": {"s": "x" * 512_000}}, "500 kB"),
        ({"name": "a/b"}, "not safe"),
    ],
)
def test_what_a_swarm_cannot_do_is_refused_before_it_is_asked(changes, words):
    with pytest.raises(api.Rejected, match=words):
        made(**changes)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"Mode": {"ReplicatedJob": {}}}, "one task"),
        ({"TaskTemplate": {"RestartPolicy": {"Condition": "any"}}}, "start a dead agent again"),
        ({"TaskTemplate": {"ContainerSpec": {"Env": ["A=b"]}}}, "replaces what the broker"),
        ({"TaskTemplate": {"ContainerSpec": {"Secrets": []}}}, "the agent's own secret"),
    ],
)
def test_what_the_raw_section_may_not_say(raw, words):
    common = remarks.Common(settings=settings.SwarmSettings(), image="i")
    found = list(remarks.of_template(settings.SwarmTemplate(service=raw), common))
    assert [one for one in found if one.wrong and words in one.text], found


def test_an_ordinary_template_has_no_remarks():
    common = remarks.Common(settings=settings.SwarmSettings(), image="i")
    assert [] == list(remarks.of_template(settings.SwarmTemplate(), common))


def test_a_limit_of_one_engine_is_none_of_a_swarm():
    from backends.docker.settings import Host

    with pytest.raises(ValueError, match="max_instances"):
        settings.SwarmSettings(managers=(Host(max_instances=3),))


def test_a_folder_of_the_nodes_brings_java():
    """Read-only; the shell of the tree adds its tools to a search path only the image knows."""
    spec = attrs.evolve(SPEC, argv=(runtime.JAVA,), runtime="default", options=None)
    runtimes = {"default": settings.SwarmRuntime(folder="/srv/agent")}
    told = inner(service.plan(spec, owner="ours", runtimes=runtimes))
    assert told["Command"] == list(runtime.started([runtime.JAVA]))
    assert told["Mounts"] == [
        {"Type": "bind", "Target": "/opt/agent", "ReadOnly": True, "Source": "/srv/agent"}
    ]
    with pytest.raises(api.Rejected, match="no runtime 'default'"):
        service.plan(spec, owner="ours")


@pytest.mark.parametrize("brought", [{"image": "java:1"}, {"tar": "/srv/java.tar"}])
def test_a_volume_of_the_nodes_brings_java(brought):
    """Which one, and which nodes do not have it, is told later; it is the same instance before."""
    spec = attrs.evolve(SPEC, argv=(runtime.JAVA,), runtime="default", options=None)
    runtimes = {"default": settings.SwarmRuntime(**brought)}
    plan = service.plan(spec, owner="ours", runtimes=runtimes)
    told = plan.with_volume("v-1", ["n1"])
    assert told.digest == plan.digest
    assert inner(told)["Mounts"] == [
        {
            "Type": "volume", "Source": "v-1", "Target": "/opt/agent", "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True},
        }
    ]  # fmt: skip
    body = told.body
    assert body["TaskTemplate"]["Placement"] == {"Constraints": ["node.id!=n1"]}
    for labels in (body["Labels"], inner(told)["Labels"]):
        assert labels[service.RUNTIME] == "v-1"
        assert labels.items() >= plan.body["Labels"].items()
    configured = settings.SwarmSettings(runtimes=runtimes)
    shown = json.loads(service.render(spec, configured, owner="ours"))
    (mount,) = shown["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert mount["Source"] == "(named by its content)"


def test_a_runtime_comes_in_one_of_three_ways():
    """Neither none nor two; which nodes get it can be said of an image alone."""
    for told in ({}, {"tar": "/a", "folder": "/b"}, {"tar": "/a", "image": "b"}):
        with pytest.raises(ValueError, match="exactly one"):
            settings.SwarmRuntime(**told)
    with pytest.raises(ValueError, match="which nodes an image comes to"):
        settings.SwarmRuntime(tar="/a", constraints=("node.role==worker",))
    with pytest.raises(ValueError, match="upper case"):
        settings.SwarmRuntime(image="Java")


def test_ports_are_published_on_the_node_or_on_every_node():
    """Random ones have no number yet; the ingress network needs a virtual address."""
    told = ("8080", "15353:53/udp", "9000-9001")
    spec = made(settings.SwarmTemplate(ports=told)).body["EndpointSpec"]
    assert "dnsrr" == spec["Mode"]
    assert spec["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 8080, "PublishMode": "host"},
        {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 15353, "PublishMode": "host"},
        {"Protocol": "tcp", "TargetPort": 9000, "PublishMode": "host"},
        {"Protocol": "tcp", "TargetPort": 9001, "PublishMode": "host"},
    ]
    spec = made(settings.SwarmTemplate(ports=("80",), publish_mode="ingress")).body["EndpointSpec"]
    assert ("vip", "ingress") == (spec["Mode"], spec["Ports"][0]["PublishMode"])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ports": ("127.0.0.1::80",)}, "no address"),
        ({"ports": ("8000-8001:80",)}, "chooses from no range"),
        ({"ports": ("80:80", "80:81")}, "has that port of the node"),
        ({"ports": ("80",), "networks": ("host",)}, "the network `host`"),
    ],
)
def test_what_a_swarm_cannot_publish(told, words):
    """It is said when the file is read."""
    with pytest.raises(ValueError, match=words):
        settings.SwarmTemplate(**told)


@pytest.mark.parametrize(
    ("mode", "words"), [("host", "of each node"), ("ingress", "of the swarm")]
)
def test_a_fixed_port_has_one_agent(mode, words):
    """It works, until the second one."""
    template = settings.SwarmTemplate(ports=("80", "18080:8080"), publish_mode=mode)
    (remark,) = template.remarks(remarks.Common(settings=settings.SwarmSettings(), image="i"))
    assert ("ports", 1) == remark.path
    assert words in remark.text


def cached(**bounds):
    told = settings.Volume(name="m2-3", target="/c", **bounds)
    other = settings.Volume(name="xx", target="/x")
    return made(settings.SwarmTemplate(volumes=(told, other)))


def test_a_cache_says_when_it_was_made_and_whose_it_is():
    """By labels of the volume that a node makes; the specification is the same at any time."""
    plain, bounded = cached(), cached(max_age_s=86_400, max_size_bytes=1 << 30)
    assert plain.digest == bounded.digest
    assert plain == plain.with_caches(5.0)
    cache, other = inner(bounded.with_caches(1_796_057_281.5))["Mounts"]
    labels = cache["VolumeOptions"]["Labels"]
    assert 1_796_057_281.0 == caches.made_at(labels, service.owner_labels("ours"))
    assert "VolumeOptions" not in other


def test_what_a_service_replaces_is_no_cache():
    told = settings.Volume(name="m2-3", target="/c", max_age_s=86_400)
    raw = {"TaskTemplate": {"ContainerSpec": {"Mounts": []}}}
    assert () == made(settings.SwarmTemplate(volumes=(told,), service=raw)).caches


@pytest.mark.parametrize("name", ["m2", "/srv/{slot}", None])
def test_bounds_of_what_others_may_have_are_refused(name):
    told = settings.Volume(name=name, target="/c", max_age_s=86_400)
    common = remarks.Common(settings=None)
    (found,) = settings.SwarmTemplate(volumes=(told,)).remarks(common)
    assert (("volumes", 0, "max_age"), True) == (found.path, found.wrong)
    fits = attrs.evolve(told, name="m2-{slot}")
    assert [] == list(settings.SwarmTemplate(volumes=(fits,)).remarks(common))
