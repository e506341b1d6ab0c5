"""What check-config says about doors left open, and what it does not."""

import os

import pytest

from backends.kit.remarks import Common
from backends.mesos import settings


def said(**told) -> list[str]:
    return [one.text for one in settings.MesosSettings(**told).remarks()]


@pytest.mark.parametrize(
    ("master", "more", "warns"),
    [
        ("http://m1:5050", {}, True),
        ("m1:5050", {}, True),
        ("https://m1:5050,http://m2:5050", {}, True),
        ("https://m1:5050,https://m2:5050", {}, False),
        ("http://127.0.0.1:5050", {}, False),
        ("http://localhost:5050", {}, False),
        ("zk://z1,z2/mesos", {}, True),
        ("zk://z1,z2/mesos", {"ca_file": "/ca.pem"}, False),
    ],
)
def test_a_secret_in_the_clear(tmp_path, master, more, warns):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    told = {"master": master, "principal": "p", "secret_file": str(secret), **more}
    expected = ["the framework's secret, and every agent's, travel in the clear"]
    assert (expected if warns else []) == said(**told)
    assert [] == said(master=master, **more), "without a secret of ours nothing is said"


def test_a_file_that_everybody_reads(tmp_path):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    told = {"master": "https://m", "principal": "p", "secret_file": str(secret)}
    assert [] == said(**told)
    os.chmod(secret, 0o644)
    assert ["every user of this machine may read it"] == said(**told)
    assert [] == said(**told | {"secret_file": str(tmp_path / "none")})
    assert ["it is not used without `principal`"] == said(
        master="https://m", secret_file=str(tmp_path / "none")
    )


DOOR = settings.Handover(listen="0.0.0.0:8088", url="http://broker:8088")


@pytest.mark.parametrize(
    ("url", "warns"),
    [("http://broker:8088", True), ("https://broker", False), ("http://127.0.0.1:1", False)],
)
def test_a_handover_in_the_clear(url, warns):
    door = settings.Handover(listen=":8088", url=url)
    expected = ["the agents' secrets travel in the clear"]
    assert (expected if warns else []) == said(master="https://m", handover=door)


@pytest.mark.parametrize(
    "told",
    [
        {"listen": "8088", "url": "http://a"},
        {"listen": ":8088", "url": "ftp://a"},
        {"listen": ":8088", "url": "http://u@a"},
        {"listen": ":8088", "url": "https://a", "cert_file": "/c"},
        {"listen": ":8088", "url": "http://a", "cert_file": "/c", "key_file": "/k"},
        {"listen": ":8088", "url": "https://a", "cert_file": "c", "key_file": "/k"},
    ],
)
def test_a_handover_that_cannot_be(told):
    with pytest.raises(ValueError, match=r"listen|url|cert_file"):
        settings.Handover(**told)


@pytest.mark.parametrize(
    ("told", "door", "words", "wrong"),
    [
        ({}, DOOR, [], False),
        ({"secrets": "fetch", "containerizer": "docker"}, DOOR, [], False),
        ({}, None, ["no way"], True),
        ({"secrets": "fetch"}, None, ["no way"], True),
        ({"secrets": "volume"}, None, ["the pages of master and agents"], False),
        ({"secrets": "environment"}, None, ["processes at each start"], False),
        ({"secrets": "environment", "containerizer": "docker"}, DOOR, ["while it runs"], False),
    ],
)
def test_the_way_of_the_agents_secret(told, door, words, wrong):
    common = Common(settings=settings.MesosSettings(master="https://m", handover=door))
    found = list(settings.MesosTemplate(**told).remarks(common))
    assert len(words) == len(found)
    assert all(word in one.text for word, one in zip(words, found, strict=True))
    assert [wrong] * len(found) == [one.wrong for one in found]


def test_a_fixed_port_has_one_agent():
    """A range has more, as long as it is not used up."""
    network = settings.Network(ports=(1, 2, 3), host_ports=("31000", "31001-31009", "0"))
    common = Common(settings=settings.MesosSettings(master="https://m", handover=DOOR))
    (remark,) = settings.MesosTemplate(network=network).remarks(common)
    assert (("network", "host_ports", 0), False) == (remark.path, remark.wrong)
