"""What check-config says about doors left open, and what it does not."""

import os

import pytest

from backends.mesos import settings
from backends.remarks import Common

COMMON = Common(settings=None)


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


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, []),
        ({"secrets": "volume"}, []),
        ({"secrets": "environment"}, ["at each start"]),
        ({"secrets": "environment", "containerizer": "docker"}, ["while it runs"]),
    ],
)
def test_the_way_of_the_agents_secret(told, words):
    found = [one.text for one in settings.MesosTemplate(**told).remarks(COMMON)]
    assert len(words) == len(found)
    assert all(word in text for word, text in zip(words, found, strict=True))
