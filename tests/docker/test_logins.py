"""Docker's own configuration: what can be read is used, what cannot is said with file and entry."""

import base64
import json
import os
import pathlib
import resource
import time

import pytest

from backends import api
from backends.docker import settings
from backends.docker.engine import logins
from outside import secrets
from tests import patience

WHO = base64.b64encode(b"bob:secret-of-bob").decode()
BOB = {"serveraddress": "reg.example", "username": "bob", "password": "secret-of-bob"}


def config(folder: pathlib.Path, told: object) -> str:
    raw = told if isinstance(told, bytes) else json.dumps(told).encode()
    (folder / "config.json").write_bytes(raw)
    return str(folder)


@pytest.mark.parametrize(
    "auths",
    [{"reg.example": {"auth": WHO}}, {"https://reg.example/v2/": {"auth": WHO}},
     {"http://reg.example": {"auth": WHO}}, {"reg.example": {}, "https://reg.example": {"auth": WHO}},
     {"reg.example": {"username": "bob", "password": "secret-of-bob"}},
     {"reg.example": {"auth": WHO, "email": 5}}],
)  # fmt: skip
def test_a_login_is_found(auths, tmp_path):
    """However its registry is written."""
    assert BOB == logins.of_config(config(tmp_path, {"auths": auths}), "reg.example")


def test_the_public_registry_has_other_names(tmp_path):
    """That of the first version of its API."""
    folder = config(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": WHO}}})
    assert {**BOB, "serveraddress": "docker.io"} == logins.of_config(folder, "docker.io")


def test_a_token_outranks_a_password(tmp_path):
    """As for the client of Docker."""
    told = {"auths": {"reg.example": {"auth": WHO, "identitytoken": "token-of-bob"}}}
    assert (
        "token-of-bob" == logins.of_config(config(tmp_path, told), "reg.example")["identitytoken"]
    )
    assert "token-of-bob" not in secrets.blanked("it said token-of-bob")


BAD_ENTRIES = ["", 5, [], "x", {"auth": "<base64 of user:password>"}, {"auth": 5}, {"auth": "eA=="},
               {"auth": "!!!"}, {"auth": base64.b64encode(b"\xff:\xff").decode()}, {"auth": ["x"]},
               {"auth": base64.b64encode(b":x").decode()}, {"identitytoken": 5}]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ENTRIES, ids=repr)
def test_a_bad_entry_costs_that_registry(bad, tmp_path):
    """The message names file and entry, and nothing of what stands there."""
    folder = config(tmp_path, {"auths": {"bad.example": bad, "reg.example": {"auth": WHO}}})
    assert BOB == logins.of_config(folder, "reg.example")
    assert {} == logins.of_config(folder, "other.example")
    with pytest.raises(api.Unauthorized) as told:
        logins.of_config(folder, "bad.example")
    assert f"{tmp_path}/config.json: auths.bad.example: " in told.value.reason
    assert "base64 of user" not in told.value.reason


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b'{"auths": {} x}', "not JSON at character 14"), (b"{\n  'auths': 1}", "line 2"), (b"\xff\xfe{", "not JSON"),
     (b"[]", "no section"), (b"5", "no section"), (b'{"credHelpers": "ecr-login"}', "credHelpers"),
     (b'{"auths": []}', "auths"), (b'{"credsStore": {"a": 1}}', "no name of a helper"),
     (b'{"credsStore": "../../tmp/x"}', "no name of a helper"), (b"[" * 100_000, "not JSON"),
     (b'{"auths": {"a": ' + b"x" * (2 << 20), "larger than")],
    ids=lambda x: repr(x)[:30],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_said(raw, words, tmp_path):
    """Not taken for one without logins; a person has to act."""
    with pytest.raises(api.Unauthorized) as told:
        logins.of_config(config(tmp_path, raw), "reg.example")
    assert f"{tmp_path}/config.json" in told.value.reason
    assert words in told.value.reason


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"auths": null, "credHelpers": null}', b" \n"])
def test_a_file_that_says_nothing(raw, tmp_path):
    """Nothing is said to the registry."""
    assert {} == logins.of_config(config(tmp_path, raw), "reg.example")
    assert {} == logins.of_config(str(tmp_path / "missing"), "reg.example")


def test_a_mark_of_byte_order_is_no_mistake(tmp_path):
    """Editors write it."""
    raw = b"\xef\xbb\xbf" + json.dumps({"auths": {"reg.example": {"auth": WHO}}}).encode()
    assert BOB == logins.of_config(config(tmp_path, raw), "reg.example")


def test_a_pipe_or_device_is_not_opened(tmp_path):
    """It would hold up the pull for ever."""
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(api.Unauthorized, match="not a regular file"):
        logins.of_config(str(tmp_path), "reg.example")
    os.mkfifo(tmp_path / "password")
    for path in (tmp_path / "password", pathlib.Path("/dev/zero"), tmp_path):
        login = settings.Registry(user="bob", password_file=str(path))
        with pytest.raises(api.Unauthorized, match="not a regular file"):
            logins.of_settings(login, "reg.example")


def test_the_environment_says_where_else(tmp_path, monkeypatch):
    """As for the client of Docker."""
    monkeypatch.setenv(
        "DOCKER_CONFIG", config(tmp_path, {"auths": {"reg.example": {"auth": WHO}}})
    )
    assert BOB == logins.of_config(None, "reg.example")
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert {} == logins.of_config(None, "reg.example")


def test_a_variable_holds_logins_that_come_first(tmp_path, monkeypatch):
    """What it says of no registry the file says; what it says badly is its fault, by its name."""
    monkeypatch.setenv(
        "DOCKER_CONFIG", config(tmp_path, {"auths": {"other.example": {"auth": WHO}}})
    )
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"reg.example": {"auth": WHO}}}))
    assert BOB == logins.of_config(None, "reg.example")
    assert {**BOB, "serveraddress": "other.example"} == logins.of_config(None, "other.example")
    assert {} == logins.of_config(str(tmp_path / "of-the-settings"), "reg.example")
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", '{"auths": ')
    with pytest.raises(api.Unauthorized, match="DOCKER_AUTH_CONFIG"):
        logins.of_config(None, "reg.example")


def helper(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    program = folder / "docker-credential-odd"
    program.write_text(f"#!/bin/sh\necho $$ >>{folder}/pids\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def lives(pid: int) -> bool:
    try:
        told = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return told.rpartition(")")[2].split()[0] not in "ZX"


GOOD = """printf '{"Username":"bob","Secret":"secret-of-bob"}'"""


@pytest.mark.parametrize(
    ("does", "words"),
    [("exec cat /dev/zero", "more than 1048576 bytes"),
     ("exec cat /dev/zero >&2", "more than 1048576 bytes"),
     ("cat /dev/zero | head -c 3000000; exit 1", "more than 1048576 bytes"),
     ("trap '' TERM; while :; do printf x; sleep 0.1; done", "no answer within 1 s"),
     ("exec >&- 2>&-; exec sleep 600", "no answer within 1 s"),
     ("sleep 600 & exec sleep 600", "no answer within 1 s"),
     (f"{GOOD}; exec sleep 600", "no answer within 1 s"),
     ("printf '\\033[2J\\342\\200\\256\\nforged' >&2; exit 1", "forged"),
     ("exit 7", "exit code 7"), ("kill -9 $$", "exit code -9")],
    ids=["endless", "endless complaint", "much, then failure", "drip", "silence", "child",
         "answer without end", "steers terminals", "fails", "killed"],
)  # fmt: skip
def test_a_helper_that_does_not_end_or_says_too_much(does, words, tmp_path, monkeypatch):
    """Within its time, a megabyte, one clean line; and nothing of it runs on."""
    helper(tmp_path, monkeypatch, does)
    monkeypatch.setattr(logins, "_HELPER_S", 1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(api.Unauthorized) as told:
        logins.of_helper("odd", "reg.example")
    assert words in told.value.reason
    assert told.value.reason.isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert not any(map(lives, map(int, (tmp_path / "pids").read_text().split())))


HELPERS = {
    "nonsense": ("echo secret-of-bob?", "not JSON at character 1"),
    "nothing": (":", "not JSON, but empty"),
    "no text": ("printf '\\377\\376'", "not JSON"),
    "a list": ("echo '[\"secret-of-bob\"]'", "found no texts Username and Secret"),
    "null": ("""echo '{"Username":null,"Secret":"secret-of-bob"}'""", "found no texts Username"),
    "a number": ("""echo '{"Username":"bob","Secret":5}'""", "found no texts Username and Secret"),
    "no secret": ("""echo '{"Username":"secret-of-bob"}'""", "found no texts Username and Secret"),
    "hangs": ("exec sleep 600", "no answer within 1 s"),
    "fails": ("echo locked >&2; exit 3", "locked"),
    "too much": ("head -c 100000000 /dev/zero", "more than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", HELPERS)
@pytest.mark.parametrize("registry", ["reg.example", "docker.io"])
def test_a_bad_helper_costs_its_registry(registry, kind, tmp_path, monkeypatch):
    """File, entry, registry and what was found are said, and nothing that may be a secret."""
    does, words = HELPERS[kind]
    helper(tmp_path, monkeypatch, f"cat >/dev/null\n{does}")
    monkeypatch.setattr(logins, "_HELPER_S", 1.0 if kind == "hangs" else patience.seconds(30))
    told = {"credHelpers": {registry: "odd"}, "auths": {"other.example": {"auth": WHO}}}
    folder = config(tmp_path, told)
    assert {**BOB, "serveraddress": "other.example"} == logins.of_config(folder, "other.example")
    assert {} == logins.of_config(folder, "third.example")
    assert not (tmp_path / "pids").exists(), "it is asked of its registry alone"
    with pytest.raises(api.Unauthorized) as end:
        logins.of_config(folder, registry)
    for said in (f"{tmp_path}/config.json: credHelpers.{registry}", registry, words, "-odd: "):
        assert said in end.value.reason
    assert "secret-of-bob" not in end.value.reason
    assert api.Reach.TEMPLATE is end.value.reach


def test_a_helper_that_is_none_costs_its_registry(tmp_path):
    """No name of a program, or one that is not there."""
    told = {"credHelpers": {"reg.example": ["x"], "b.example": "is-not-there"}}
    folder = config(tmp_path, {**told, "auths": {"other.example": {"auth": WHO}}})
    with pytest.raises(api.Unauthorized, match=r"credHelpers\.reg\.example: found no name"):
        logins.of_config(folder, "reg.example")
    with pytest.raises(api.Unauthorized, match=r"b\.example.*is-not-there: No such file"):
        logins.of_config(folder, "b.example")
    assert BOB["username"] == logins.of_config(folder, "other.example")["username"]


def test_a_helper_that_gives_nothing_leaves_it_to_the_file(tmp_path, monkeypatch):
    """As one that does not know the registry: nobody logs in without a name."""
    helper(tmp_path, monkeypatch, """echo '{"Username":"","Secret":""}'""")
    told = {"credsStore": "odd", "auths": {"reg.example": {"auth": WHO}}}
    assert BOB == logins.of_config(config(tmp_path, told), "reg.example")


def test_what_a_helper_said_before_its_end_counts(tmp_path, monkeypatch):
    """A child of it that holds the pipe is not waited for, and ends with it."""
    helper(tmp_path, monkeypatch, f"sleep 600 & echo $! >>{tmp_path}/pids; {GOOD}")
    began = time.monotonic()
    assert BOB["password"] == logins.of_helper("odd", "reg.example")["password"]
    assert time.monotonic() - began < logins._HELPER_S / 2
    patient = patience.Patience(10)
    while any(map(lives, map(int, (tmp_path / "pids").read_text().split()))):
        assert not patient.is_over()
        time.sleep(0.02)


def test_whatever_is_sent_is_kept_out_of_every_text(tmp_path):
    """The password, what it was encoded as in the file, and the header."""
    login = logins.of_config(
        config(tmp_path, {"auths": {"reg.example": {"auth": WHO}}}), "reg.example"
    )
    header = logins.header(login)
    assert BOB == json.loads(base64.urlsafe_b64decode(header))
    for secret in ("secret-of-bob", WHO, header):
        assert secret not in secrets.blanked(f"x {secret} y")
