"""Doors left open on the way to a cluster are said; files are opened safely; tokens are tokens."""

import json
import os
import pathlib
import ssl
import time
from typing import Any

import attrs
import pytest

from backends import api
from backends.kit import finding
from backends.kubernetes import doctor, settings
from backends.kubernetes.api import access, credentials, kubeconfig
from broker.config import errors as config_errors
from broker.config import kinds, loading
from outside import secrets
from tests.kubernetes import fake, test_kubeconfig
from tests.kubernetes.test_doctor import examined

CLEAR = (
    "not https: the token of the service account, and every agent's secret, travel in the clear"
)


def warnings(backend: str, more: str = "") -> list[str]:
    text = f"""\
owner: o
controller: {{url: "https://c/", user: u, token: "env:T"}}
listen: "off"
backends: {{b: {{kind: kubernetes, namespace: a, {backend}}}}}
templates: {{t: {{labels: l, image: i, connect: {{mode: websocket}}}}}}
{more}"""
    made = loading.parse(text, kinds.classes(), environ={"T": "11secret"})
    told = [warning.words() for warning in made.warnings]
    return [w for w in told if w.startswith(("backends.b", "high_availability"))]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("https://k.example", False),
        ("http://127.0.0.1:8001", False),
        ("http://[::1]:8001", False),
        ("http://localhost:8001", False),
        ("http://k.example:8080", True),
        ("http://10.0.0.1", True),
        ("http://localhost.evil.example", True),
    ],
)
def test_a_token_in_the_clear_is_said(server: str, said: bool) -> None:
    """Of the backend and of the lease; a proxy on this machine is none."""
    words = [f"backends.b.server: {CLEAR}; hint: https://HOST:PORT, with `ca_file`"] * said
    assert words == warnings(f"server: {server!r}")
    lease = f"high_availability: {{namespace: n, server: {server!r}}}\n"
    words = [w.replace("backends.b", "high_availability") for w in words]
    assert words == warnings("server: https://k", lease)


KINDS = ("clusters", "users", "contexts")


def test_a_file_that_others_may_read_is_said(tmp_path: pathlib.Path) -> None:
    """A token and a kubeconfig; closed ones are quiet."""
    secret = tmp_path / "secret"
    entries = {kind: [{"name": "n", kind[:-1]: {"server": "https://k"}}] for kind in KINDS}
    entries["contexts"][0]["context"] = {"cluster": "n", "user": "n"}
    secret.write_text(json.dumps({"current-context": "n", **entries}))
    for setting in ("token_file", "kubeconfig"):
        secret.chmod(0o640)
        assert [] == warnings(f"server: https://k, {setting}: {secret}")
        secret.chmod(0o644)
        (said,) = warnings(f"server: https://k, {setting}: {secret}")
        assert said.startswith(f"backends.b.{setting}: every user of this machine may read")
        lease = f"high_availability: {{namespace: n, server: https://k, {setting}: {secret}}}\n"
        (said,) = warnings("server: https://k", lease)
        assert said.startswith(f"high_availability.{setting}: every user")


def test_steps_in_the_clear_are_said() -> None:
    """The agents' tokens and the builds' variables go there."""
    serve = "in_container: {{listen: '0.0.0.0:8088', url: '{}'}}"
    (said,) = warnings("server: https://k, " + serve.format("http://jenkins.jenkins:8088/"))
    assert said.startswith("backends.b.in_container.url: not https: the agents' tokens")
    assert [] == warnings("server: https://k, " + serve.format("https://jenkins.jenkins:8088/"))


@pytest.mark.parametrize(
    "server", ["https://u:hunter22@k", "http://hunter22@k/x", "//u:hunter22@k"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(server: str) -> None:
    """No API server takes one, and it would stand in messages."""
    with pytest.raises(config_errors.ConfigError) as raised:
        warnings(f"server: {server!r}")
    assert "holds a user or password" in str(raised.value)
    assert "hunter22" not in str(raised.value)


async def test_the_doctor_says_what_is_open(
    cluster: fake.Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that nobody looks at is known once the kubeconfig was read."""
    token = tmp_path / "token"
    token.write_text("of-the-file")
    token.chmod(0o644)
    found = access.Access(
        server="http://k.example",
        namespace="agents",
        tokens=access.FileToken(token, time.monotonic),
        tls=ssl._create_unverified_context(),
    )
    told = settings.KubernetesSettings(token_file=str(token))
    said = [one.text for one in await doctor._doors(told, found)]
    assert ["is not https", "is not verified", "may read"] == [
        next(w for w in ("is not https", "is not verified", "may read") if w in text)
        for text in said
    ]
    closed = attrs.evolve(found, server="https://k", tls=ssl.create_default_context())
    token.chmod(0o600)
    assert [] == await doctor._doors(told, closed)
    token.chmod(0o644)
    on_wire = await examined(cluster, token_file=str(token))
    assert on_wire["open door"].verdict is finding.Grade.WARN


# --- files -------------------------------------------------------------------------------------


def _fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def _large(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


def _device(path: pathlib.Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: pathlib.Path) -> None:
    path.mkdir()


ODD = {"fifo": _fifo, "large": _large, "device": _device, "folder": _folder}


@pytest.mark.parametrize("how", ODD)
async def test_a_token_or_authority_that_is_no_plain_file_is_refused(
    how: str, tmp_path: pathlib.Path
) -> None:
    """At once, by name; nobody waits for a FIFO or reads a device."""
    path = tmp_path / "odd"
    ODD[how](path)
    token = access.FileToken(path, time.monotonic)
    with pytest.raises(api.Unauthorized, match=str(path)):
        await token.get()
    with pytest.raises(api.Unauthorized, match=str(path)):
        access.context(path, told=True)


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("where", ["itself", "tokenFile", "client-key", "certificate-authority"])
def test_a_kubeconfig_names_plain_files_alone(
    where: str, how: str, tmp_path: pathlib.Path
) -> None:
    """Itself, and what it names."""
    path, odd = _kubeconfig_with(where, how, tmp_path)
    assert str(odd) in credentials.read(path, "work")["error"]


async def test_what_is_no_plain_file_is_said_of_a_kubeconfig(tmp_path: pathlib.Path) -> None:
    """Nobody waits for the child that reads it."""
    path, odd = _kubeconfig_with("tokenFile", "fifo", tmp_path)
    began = time.monotonic()
    with pytest.raises(api.Unauthorized) as raised:
        await test_kubeconfig.opened(path)
    assert time.monotonic() - began < kubeconfig._LIMIT_S / 2
    assert str(odd) in raised.value.reason


def _kubeconfig_with(where: str, how: str, folder: pathlib.Path) -> tuple[str, pathlib.Path]:
    """Write one with something odd in it; return both."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    odd = folder / "odd"
    ODD[how](odd)
    user: dict[str, object] = {"token": "t" * 20}
    user |= {where: "odd"} if where in {"tokenFile", "client-key"} else {}
    authority = {where: "odd"} if where == "certificate-authority" else {}
    path = test_kubeconfig.write(folder, "https://k.example", user, **authority)
    return str(odd) if where == "itself" else path, odd


@pytest.mark.parametrize("content", ["", "two words", "two\nlines", "b\u00e4d", "a\0b"])
async def test_what_is_no_token_is_not_sent(content: str, tmp_path: pathlib.Path) -> None:
    """An error of the operator's, which names the file and not what is in it."""
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(api.Unauthorized) as raised:
        await access.FileToken(path, time.monotonic).get()
    assert str(path) in raised.value.reason
    assert not content or content not in raised.value.reason


async def test_each_renewed_token_is_kept_out_of_sight(tmp_path: pathlib.Path) -> None:
    """Also after hundreds of them, and when it is the oldest."""
    path = tmp_path / "token"
    token = access.FileToken(path, time.monotonic)
    path.write_text("the-first-of-many-tokens")
    await token.get()
    for number in range(600):
        secrets.register(f"another-secret-{number:04}")
        await token.get()
    assert "first" not in secrets.blanked("Bearer the-first-of-many-tokens")
    path.write_text("a-renewed-token")
    await token.get(renew=True)
    assert "renewed" not in secrets.blanked("Bearer a-renewed-token")


# --- what a kubeconfig holds -------------------------------------------------------------------


async def test_what_a_kubeconfig_holds_is_kept_out_of_sight(tmp_path: pathlib.Path) -> None:
    """Tokens, passwords, keys, environments of plugins and what they tell, proxies' passwords."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    plugin = test_kubeconfig.Plugin(tmp_path)
    plugin.tells(token="told-by-the-plugin")
    run: dict[str, Any] = dict(plugin.user["exec"])  # type: ignore[call-overload]
    run["env"] = [{"name": "X", "value": "of-the-environment"}]
    user: dict[str, object] = {"exec": run, "password": "of-the-user", "username": "known-to-all"}
    path = test_kubeconfig.write(
        tmp_path, "https://k.example", user, **{"proxy-url": "http://p:of-the-proxy@proxy:3128"}
    )
    await test_kubeconfig.opened(path)
    for secret in ("told-by-the-plugin", "of-the-environment", "of-the-user", "of-the-proxy"):
        assert "(hidden)" in secrets.blanked(f"x {secret} y"), secret
    assert "known-to-all" == secrets.blanked("known-to-all")


async def test_what_a_plugin_complains_of_is_told_clean(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its words do not reach our log by themselves, and hold neither secret nor control."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    plugin = test_kubeconfig.Plugin(tmp_path)
    plugin.does("printf 'no \\033[31mof-the-environment\\n' >&2; exit 3")
    run: dict[str, Any] = dict(plugin.user["exec"])  # type: ignore[call-overload]
    run["env"] = [{"name": "X", "value": "of-the-environment"}]
    path = test_kubeconfig.write(tmp_path, "https://k.example", {"exec": run})
    with pytest.raises(api.Unauthorized) as raised:
        await test_kubeconfig.opened(path)
    assert raised.value.reason.endswith("[31m(hidden)")
    assert "\033" not in raised.value.reason
    assert "of-the-environment" not in "".join(capfd.readouterr())
