"""What check-config says of a Docker backend and its templates."""

import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.kit import remarks


def told(image: str = "x", **changes: object) -> dict[tuple[str | int, ...], remarks.Remark]:
    """Return what is said, by where."""
    options = settings.DockerTemplate(**changes)
    common = remarks.Common(settings=settings.DockerSettings(), name="t", image=image)
    return {remark.path: remark for remark in remarks.of_template(options, common)}


@pytest.mark.parametrize("image", ["https://reg.example/x", "X", "a b", "x:"])
def test_a_name_that_is_no_image(image):
    """Before any engine sees it."""
    remark = told(image)["image",]
    assert remark.wrong
    assert remark.common, "it stands with the template, not with what is of Docker"


@pytest.mark.parametrize(
    "host",
    [{"AutoRemove": True}, {"AutoRemove": "yes"}, {"RestartPolicy": {"Name": "always"}},
     {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, {"RestartPolicy": "always"}],
    ids=repr,
)  # fmt: skip
def test_what_would_hide_an_agents_death_is_refused(host):
    """Who ends is looked at by the broker, removed by the broker, and never started again."""
    (key,) = host
    assert told(docker={"HostConfig": host})["docker", "HostConfig", key].wrong


@pytest.mark.parametrize(
    "host",
    [{"AutoRemove": False}, {"RestartPolicy": {"Name": "no"}}, {"RestartPolicy": {"Name": ""}},
     {"RestartPolicy": {}}, {"RestartPolicy": None}, {"Runtime": "runsc"}, None, []],
    ids=repr,
)  # fmt: skip
def test_what_changes_nothing_is_left_alone(host):
    """As is what nobody here knows."""
    assert {} == told(docker={"HostConfig": host, "StopSignal": "SIGINT"})


@pytest.mark.parametrize(
    ("raw", "path", "word"),
    [({"hostconfig": {"AutoRemove": True}}, ("docker", "hostconfig"), "HostConfig"),
     ({"HostConfig": {"autoremove": True}}, ("docker", "HostConfig", "autoremove"), "AutoRemove"),
     ({"HostConfig": {"MOUNTS": []}}, ("docker", "HostConfig", "MOUNTS"), "Mounts"),
     ({"labels": {"agent-broker.owner": "x"}}, ("docker", "labels"), "Labels"),
     ({"env": ["X=Y"]}, ("docker", "env"), "Env")],
)  # fmt: skip
def test_words_that_only_an_engine_would_take_for_ours(raw, path, word):
    """It reads them in upper and lower case alike: what is checked here would be passed by."""
    remark = told(docker=raw)[path]
    assert (True, word) == (remark.wrong, remark.hint)


@pytest.mark.parametrize(
    ("raw", "path", "text"),
    [({"HostConfig": {"Memory": "1g"}}, ("HostConfig", "Memory"), "'1g'; allowed: a whole number"),
     ({"HostConfig": {"Init": "true"}}, ("HostConfig", "Init"), "'true'; allowed: true or false"),
     ({"HostConfig": {"Dns": "1.1.1.1"}}, ("HostConfig", "Dns"), "'1.1.1.1'; allowed: a list of texts"),
     ({"Labels": {"build": 42}}, ("Labels", "build"), "42; allowed: a text"),
     ({"Cmd": ["sleep", 60]}, ("Cmd", 1), "60; allowed: a text"),
     ({"User": 1000}, ("User",), "1000; allowed: a text")],
)  # fmt: skip
def test_a_value_of_another_kind_than_the_engine_takes(raw, path, text):
    """It would refuse the whole container."""
    remark = told(docker=raw)["docker", *path]
    assert (True, f"found {text}") == (remark.wrong, remark.text)


def test_a_text_where_engines_take_it_for_a_list_is_fine():
    """As they say of a command."""
    assert {} == told(docker={"Cmd": "sleep 60", "Healthcheck": {"Interval": 1}})


@pytest.mark.parametrize("name", ["~/cache", "./cache", "cache/x", "-x", ""])
def test_what_is_neither_a_volume_nor_a_path(name):
    """No engine resolves it from anywhere."""
    with pytest.raises(ValueError, match="allowed: letters, digits"):
        settings.Volume(name=name, target="/x")


@pytest.mark.parametrize("name", ["m2", "m2.{name}", "{name}-m2", "/srv/m2", "/srv/{name}", None])
def test_what_is_one(name):
    """With the agent's name in it or not."""
    assert name == settings.Volume(name=name, target="/x").name


def test_there_is_no_port_of_that_number():
    """On either side."""
    for port in ("65536", "8080:65536", "99999:8080/tcp"):
        with pytest.raises(ValueError, match="allowed: ports from 1 to 65535"):
            settings.DockerTemplate(ports=(port,))
    assert settings.DockerTemplate(ports=("65535", ":8080/udp")).ports


@pytest.mark.parametrize(
    ("url", "told_groups", "user", "said"),
    [("unix:///s", (), "1000", False), ("tcp://h:2376", (), "1000", True),
     ("tcp://h:2376", ("998",), "1000", False), ("tcp://h:2376", (), None, False)],
)  # fmt: skip
def test_whose_socket_cannot_be_seen_needs_the_groups_number(url, told_groups, user, said):
    """Or the agents find a socket that they may not use."""
    options = settings.DockerTemplate(docker_socket=True, groups=told_groups, user=user)
    configured = settings.DockerSettings(hosts=(settings.Host(url=url, tls="tcp" in url),))
    common = remarks.Common(settings=configured, name="t", image="x")
    texts = [r.text for r in remarks.of_template(options, common) if "which group" in r.text]
    assert said is bool(texts)


def test_a_folder_is_the_users_own_however_its_path_is_written():
    """Nothing of it is given to anybody."""
    own = settings.Volume(name="/srv/{name}", target="/home/jenkins//agent/", read_only=True)
    spec = api.InstanceSpec(
        name="a", metadata={}, image="x", options=settings.DockerTemplate(volumes=(own,))
    )
    assert ("/home/jenkins",) == container.plan(spec, owner="o").folders


def test_doors_that_are_open():
    """An engine without TLS on the network; a socket and a secured engine are none."""
    hosts = [
        settings.Host(url="tcp://build-1.example:2375"), settings.Host(),
        settings.Host(url="http://127.0.0.1:2375"),
        settings.Host(url="tcp://build-1.example:2376", tls=True),
        settings.Host(url="https://build-1.example:2376"),
    ]  # fmt: skip
    found = list(remarks.of_settings(settings.DockerSettings(hosts=tuple(hosts))))
    assert [("hosts", 0, "url"), ("hosts", 2, "url")] == [remark.path for remark in found]
    assert not any(remark.wrong for remark in found)


def test_an_address_has_no_password():
    """It would stand in messages; certificates say who we are."""
    with pytest.raises(ValueError, match=r"\(hidden\)@") as refused:
        settings.Host(url="https://bob:secret@build-1.example:2376")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seccomp=/etc/ci.json", "give the text of the profile"),
        ("seccomp={", "give the text"),
        ("apparmor=", "allowed: apparmor=PROFILE"),
        ("no-new-privileges", "a setting of its own"),
        ("label:type:x", "allowed"),
        ("systempaths=unconfined", "allowed"),
    ],
)
def test_what_no_engine_would_take_for_a_confinement_is_refused(text, words):
    """Where it is written, not at each start."""
    with pytest.raises(ValueError, match=words):
        settings.DockerTemplate(security_opt=(text,))


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("apparmor=docker-ci", False),
        ("label=type:ci_t", False),
        ('seccomp={"defaultAction": "SCMP_ACT_ERRNO"}', False),
        ("seccomp=builtin", False),
        ("seccomp=unconfined", True),
        ("apparmor=unconfined", True),
        ("label=disable", True),
    ],
)
def test_a_container_without_confinement_is_said(text, opens):
    """As what opens a door, whoever asked for it."""
    assert (("security_opt",) in told(security_opt=(text,))) is opens


@pytest.mark.parametrize(
    ("ports", "said"),
    [(("18080:8080",), True), (("8080", "8000-8010:80", "127.0.0.1::81"), False)],
)
def test_a_fixed_port_has_one_agent(ports, said):
    """A template that never has two, or a pool of hosts, is left alone."""
    assert said == (("ports", 0) in told(ports=ports))
    options = settings.DockerTemplate(ports=ports)
    one = remarks.Common(settings=settings.DockerSettings(), name="t", image="x", alone=True)
    assert [] == list(remarks.of_template(options, one))
    hosts = (settings.Host(), settings.Host(url="unix:///b"))
    pool = remarks.Common(settings=settings.DockerSettings(hosts=hosts), name="t", image="x")
    assert [] == list(remarks.of_template(options, pool))


@pytest.mark.parametrize(
    ("volume", "more", "is_told"),
    [
        ({"name": "m2-{slot}"}, {}, True),
        ({"name": "/srv/m2-{slot}"}, {}, True),
        ({"name": "m2-{slot}", "writable_by_user": True}, {}, False),
        ({"name": "m2-{slot}", "read_only": True}, {}, False),
        ({"name": "m2-{slot}", "driver_options": {"type": "nfs"}}, {}, False),
        ({"name": "m2-{slot}"}, {"user": "0"}, False),
        ({"name": "m2-{slot}"}, {"user": None}, False),
        ({"name": "m2-{name}"}, {}, False),
        ({"name": "m2"}, {}, False),
    ],
)
def test_a_cache_that_its_agent_cannot_write_to(volume, more, is_told):
    """Whoever names a slot wants to write there: it has one agent at a time."""
    said = told(volumes=(settings.Volume(target="/m2", **volume),), **more)
    assert is_told == (("volumes", 0) in said and "its cache" in said["volumes", 0].text)
