"""What check-config says of a Docker backend and its templates."""

import pytest

from backends.docker import settings
from backends.kit import remarks


def told(image: str = "x", **changes: object) -> dict[tuple[str | int, ...], remarks.Remark]:
    """Return what is said, by where."""
    options = settings.DockerTemplate(**changes)
    common = remarks.Common(settings=settings.DockerSettings(), name="t", image=image)
    return {remark.path: remark for remark in remarks.of_template(options, common)}


@pytest.mark.parametrize("image", ["https://reg.example/x", "X", "a b", "x:"])
def test_a_name_that_is_no_image(image):
    """Before any engine sees it."""
    assert told(image)[()].wrong


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
    with pytest.raises(ValueError, match=r"found a user \(not shown\)") as refused:
        settings.Host(url="https://bob:secret@build-1.example:2376")
    assert "secret" not in str(refused.value)
