"""Credentials out of a kubeconfig, by the official package where it is installed."""

import asyncio
import base64
import datetime as dt
import json
import os
import pathlib
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import yaml
from aiohttp import web

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.api import access, kubeconfig
from tests import patience, programs
from tests.kubernetes import fake

Make = Callable[..., backend.KubernetesBackend]
EXEC = "client.authentication.k8s.io/v1"


@attrs.define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def package() -> None:
    """The extra is there."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")


class Plugin:
    """An exec plugin: a script that notes each run and what it sees of whoever runs it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.told, self.runs, self.seen = folder / "told", folder / "runs", folder / "seen"
        self.script = folder / "plugin"
        self.runs.write_text("")
        self.does(f"cat {self.told}")

    def does(self, what: str) -> None:
        see = f"cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' '\\n' >{self.seen}"
        self.script.write_text(f"#!/bin/sh\necho $$ >>{self.runs}\n{see}\n{what}\n")
        self.script.chmod(self.script.stat().st_mode | stat.S_IXUSR)

    def tells(self, *, left_s: float | None = None, **status: str) -> None:
        if left_s is not None:
            end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=left_s)
            status["expirationTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        document = {"apiVersion": EXEC, "kind": "ExecCredential", "status": status}
        self.told.write_text(json.dumps(document))

    @property
    def user(self) -> dict[str, object]:
        run = {"apiVersion": EXEC, "command": str(self.script), "interactiveMode": "Never"}
        return {"exec": run}

    def count(self) -> int:
        return len(self.runs.read_text().splitlines())


@pytest.fixture
def plugin(tmp_path: pathlib.Path, package: None) -> Plugin:
    return Plugin(tmp_path)


async def opened(path: str, clock: Clock | None = None) -> access.Access:
    told = settings.ClusterSettings(kubeconfig=path, context="work")
    return await kubeconfig.load(told, clock=clock or Clock())


def write(folder: pathlib.Path, server: str, user: dict[str, object], **cluster: object) -> str:
    path = folder / "config"
    context = {"cluster": "c", "user": "u", "namespace": "agents"}
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "work", "context": context},
            {"name": "other", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    path.write_text(yaml.safe_dump(told))
    path.chmod(0o600)
    return str(path)


async def test_without_the_package_the_hint_says_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who names a kubeconfig is told about the extra."""
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(api.Unauthorized) as raised:
        await make(kubeconfig="/absent", server=None, namespace=None).list()

    assert raised.value.reason.endswith("hint: pip install kubernetes")


async def test_a_context_gives_server_namespace_and_token(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path
) -> None:
    """The one that is named, not the current one."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    cluster.token = "of-the-file"
    path = write(tmp_path, cluster.url, {"token": "of-the-file"})
    ours = make(kubeconfig=path, context="work", server=None, namespace=None)

    assert [] == list(await ours.list())
    assert "/namespaces/agents/pods" in cluster.requests[0][1]


async def test_requests_are_made_on_behalf_of_whom_the_file_names(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path, package: None
) -> None:
    """User, groups, identity and more, as kubectl sends them."""
    user = {
        "token": "t",
        "as": "system:serviceaccount:ci:broker",
        "as-uid": "u-1",
        "as-groups": ["ci", "builders"],
        "as-user-extra": {"Reason/Why": ["agents"]},
    }
    found = await opened(write(tmp_path, cluster.url, user))

    assert list(found.headers().items()) == [
        ("Accept-Encoding", "identity"),
        ("Impersonate-User", "system:serviceaccount:ci:broker"),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Group", "ci"),
        ("Impersonate-Group", "builders"),
        ("Impersonate-Extra-reason%2Fwhy", "agents"),
    ]


async def test_a_proxy_and_the_name_in_the_certificate(
    tmp_path: pathlib.Path, package: None
) -> None:
    """Both are the cluster's; the proxy's password is nobody's business."""
    more = {"proxy-url": "http://me:hunter2@proxy.example:3128", "tls-server-name": "kubernetes"}
    found = await opened(write(tmp_path, "http://127.0.0.1:9", {"token": "t"}, **more))

    assert (more["proxy-url"], "kubernetes") == (found.proxy, found.server_name)
    assert "hunter2" not in repr(found)


async def test_requests_go_through_the_proxy(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path, package: None
) -> None:
    """The one that the file names, and to the server behind it."""
    passed: list[str] = []

    async def proxy(request: web.Request) -> web.StreamResponse:
        passed.append(str(request.url))
        return web.json_response(
            {
                "apiVersion": "v1",
                "kind": "PodList",
                "metadata": {"resourceVersion": "1"},
                "items": [],
            }
        )

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", proxy)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]
    more = {"proxy-url": f"http://127.0.0.1:{port}"}
    path = write(tmp_path, "http://api.example:6443", {"token": "t"}, **more)
    ours = make(kubeconfig=path, context="work", server=None, namespace=None)
    try:
        await ours.list()
    finally:
        await runner.cleanup()
    assert passed[0].startswith("http://api.example:6443/api/v1/namespaces/agents/pods")


@pytest.mark.parametrize(
    ("user", "cluster_of", "words"),
    [
        ({}, {"proxy-url": "socks5://proxy:1080"}, "proxy-url: found socks5://; allowed: http"),
        ({"exec": {"interactiveMode": "Always"}}, {}, "interactiveMode Always: it asks a person"),
        ({"as": 7}, {}, "user u: as is not a text"),
        ({"as-groups": ["a\r\nX: y"], "as": "u"}, {}, "Impersonate-Group: its value has a char"),
    ],
)
async def test_what_cannot_be_obeyed_is_refused_in_words(
    user: dict[str, Any],
    cluster_of: dict[str, object],
    words: str,
    tmp_path: pathlib.Path,
    plugin: Plugin,
) -> None:
    """Nothing of a kubeconfig is passed over in silence."""
    whole = {**user}
    if "exec" in user:
        whole["exec"] = {**plugin.user["exec"], **user["exec"]}  # type: ignore[dict-item]
    path = write(tmp_path, "http://127.0.0.1:9", whole or {"token": "t"}, **cluster_of)
    with pytest.raises(api.Unauthorized, match=words):
        await opened(path)
    assert plugin.count() == 0


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("cluster", "insecure-skip-tls-verify", "false", "cluster c: insecure-skip-tls-verify is"),
        ("cluster", "insecure-skip-tls-verify", 0, "is not true or false"),
        ("cluster", "server", 5, "cluster c: server is not a text"),
        ("user", "token", ["t"], "user u: token is not a text"),
        ("user", "as-groups", "admins", "user u: as-groups is not a list"),
        ("context", "cluster", ["c"], "context work: cluster is not a text"),
        ("context", "namespace", True, "context work: namespace is not a text"),
        ("", "current-context", {"a": "b"}, "current-context is not a text"),
        ("", "clusters", 5, "it is not a section with lists of clusters"),
        ("", "users", [["u"]], "it is not a section|names user 'u', which is not in it"),
    ],
)
async def test_a_value_of_another_kind_is_told(
    section: str, key: str, value: object, words: str, tmp_path: pathlib.Path, package: None
) -> None:
    """As kubectl refuses it; above all the text "false" does not turn checking off."""
    path = pathlib.Path(write(tmp_path, "https://127.0.0.1:9", {"token": "t"}))
    told = yaml.safe_load(path.read_text())
    (told[f"{section}s"][0][section] if section else told)[key] = value
    path.write_text(yaml.safe_dump(told))

    with pytest.raises(api.Unauthorized, match=words) as found:
        await opened(str(path))
    assert "code" not in str(found.value)
    assert "object" not in str(found.value)


async def test_several_files_are_one(tmp_path: pathlib.Path, package: None) -> None:
    """As in the variable KUBECONFIG: what one lacks the other has."""
    whole = pathlib.Path(write(tmp_path, "http://127.0.0.1:9", {"token": "of-the-second"}))
    told = yaml.safe_load(whole.read_text())
    users = told.pop("users")
    whole.write_text(yaml.safe_dump(told))
    second = tmp_path / "second"
    second.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "users": users}))
    found = await opened(f"{whole}{os.pathsep}{second}")

    assert "of-the-second" == await found.tokens.get()


async def test_an_exec_plugin_is_asked_again_after_a_401(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path
) -> None:
    """Short-lived tokens of a cloud's login are renewed."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    token, plugin = tmp_path / "token", tmp_path / "plugin"
    told = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status":'
    plugin.write_text(f'#!/bin/sh\nprintf \'{told} {{"token": "%s"}}}}\' "$(cat {token})"\n')
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    path = write(tmp_path, cluster.url, {"exec": run | {"interactiveMode": "Never"}})
    token.write_text("first")
    cluster.token = "first"
    ours = make(kubeconfig=path, context="work", server=None, namespace=None)
    await ours.list()

    token.write_text("second")
    cluster.token = "second"
    assert [] == list(await ours.list())


async def test_a_token_is_renewed_before_it_expires(
    tmp_path: pathlib.Path, plugin: Plugin
) -> None:
    """Nothing has to be refused first; until then nobody is asked."""
    clock = Clock()
    plugin.tells(token="first", left_s=600)
    found = await opened(write(tmp_path, "http://127.0.0.1:9", plugin.user), clock)
    plugin.tells(token="second", left_s=600)
    clock.now += 470
    before = await found.tokens.get()
    clock.now += 20
    after = await found.tokens.get()

    assert ("first", "second", 2) == (before, after, plugin.count())


async def test_a_plugin_that_fails_in_time_does_no_harm(
    tmp_path: pathlib.Path, plugin: Plugin
) -> None:
    """What is still good is used; after a refusal the plugin's words are the reason."""
    clock = Clock()
    plugin.tells(token="first", left_s=600)
    found = await opened(write(tmp_path, "http://127.0.0.1:9", plugin.user), clock)
    plugin.does("echo the login has expired >&2; exit 3")
    clock.now += 500
    kept = [await found.tokens.get() for _ in range(3)]
    with pytest.raises(api.Unauthorized, match="the login has expired"):
        await found.tokens.get(renew=True)

    assert (["first"] * 3, 3) == (kept, plugin.count()), "not asked again at once"


async def test_many_refusals_at_once_are_one_reading(
    tmp_path: pathlib.Path, plugin: Plugin
) -> None:
    """A reading costs a second of processor time."""
    plugin.tells(token="first")
    found = await opened(write(tmp_path, "http://127.0.0.1:9", plugin.user))
    plugin.tells(token="second")
    tokens = await asyncio.gather(*(found.tokens.get(renew=True) for _ in range(10)))

    assert ({"second"}, 2) == (set(tokens), plugin.count())


async def test_nobody_sees_the_credentials_on_their_way(
    tmp_path: pathlib.Path, plugin: Plugin
) -> None:
    """The reader's command line and environment hold no secret, and its plugin no switch of ours."""
    plugin.tells(token="t0ken-of-plugin")
    user = plugin.user | {"client-key-data": base64.b64encode(b"k3y").decode()}
    await opened(write(tmp_path, "http://127.0.0.1:9", user))
    seen = plugin.seen.read_text()

    assert "credentials.tell" in seen
    assert "t0ken-of-plugin" not in seen
    assert "PYTHONPATH" not in seen or "PYTHONPATH" in os.environ


async def test_a_plugin_that_hangs_is_ended(tmp_path: pathlib.Path, plugin: Plugin) -> None:
    """With everything that it has started."""
    plugin.does("sleep 600")
    path = write(tmp_path, "http://127.0.0.1:9", plugin.user)
    reading = asyncio.ensure_future(opened(path))
    patient = patience.Patience(20)
    while not plugin.count():
        assert not patient.is_over()
        await asyncio.sleep(0.02)
    pid = int(plugin.runs.read_text())
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    while pathlib.Path(f"/proc/{pid}").exists():
        assert not patient.is_over()
        await asyncio.sleep(0.02)


async def test_a_reading_has_a_time_limit(
    tmp_path: pathlib.Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that waits for a person is said."""
    plugin.does("sleep 600")
    monkeypatch.setattr(kubeconfig, "_LIMIT_S", 0.1)
    with pytest.raises(api.Unauthorized, match="not read within"):
        await opened(write(tmp_path, "http://127.0.0.1:9", plugin.user))


@pytest.mark.parametrize(
    "where", ["", pytest.param(">&2", marks=pytest.mark.soak)], ids=["answer", "complaint"]
)
async def test_a_plugin_that_says_without_end(
    where: str, tmp_path: pathlib.Path, plugin: Plugin
) -> None:
    """Its reader has a limit of memory; without one this takes the machine's."""
    plugin.does(f"exec cat /dev/zero {where}")
    with pytest.raises(api.Unauthorized, match=r"config: .*allowed: 512 MiB"):
        await opened(write(tmp_path, "http://127.0.0.1:9", plugin.user))
    patient = patience.Patience(20)
    pid = int(plugin.runs.read_text())
    while pathlib.Path(f"/proc/{pid}").exists():
        assert not patient.is_over()
        await asyncio.sleep(0.02)


async def test_a_token_file_is_read_again_after_a_401(
    cluster: fake.Cluster, make: Make, tmp_path: pathlib.Path, package: None
) -> None:
    """Somebody else renews the file."""
    file = tmp_path / "token"
    file.write_text("first")
    cluster.token = "first"
    path = write(tmp_path, cluster.url, {"tokenFile": str(file)})
    ours = make(kubeconfig=path, context="work", server=None, namespace=None)
    await ours.list()

    file.write_text("second")
    cluster.token = "second"
    assert [] == list(await ours.list())


MAKE = """
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=ca \\
    -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem
for name in server client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out request.pem
    printf 'subjectAltName=IP:127.0.0.1\\nauthorityKeyIdentifier=keyid\\nsubjectKeyIdentifier=hash\\n' > extensions
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \\
        -extfile extensions -out $name.pem
done
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    programs.need("openssl")
    folder = tmp_path_factory.mktemp("authority")
    subprocess.run(
        ["sh", "-c", MAKE],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=patience.seconds(30),
    )
    return folder


def data(path: pathlib.Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
async def guarded(authority: pathlib.Path) -> Any:
    """An API server that asks for a client's certificate; yields its address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority / "ca.pem")
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def handle(request: web.Request) -> web.Response:
        subject = dict(pair for (pair,) in request.get_extra_info("peercert")["subject"])
        assert "client" == subject["commonName"]
        return web.json_response(
            {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield "https://{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


@pytest.mark.parametrize("way", ["inline", "files", "plugin"])
async def test_a_client_certificate(
    way: str,
    guarded: str,
    authority: pathlib.Path,
    make: Make,
    tmp_path: pathlib.Path,
    plugin: Plugin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written into the kubeconfig, in files beside it, or from a plugin; with its authority."""
    certificate, key, ca = (authority / name for name in ("client.pem", "client.key", "ca.pem"))
    plugin.tells(clientCertificateData=certificate.read_text(), clientKeyData=key.read_text())
    user = {
        "inline": {"client-certificate-data": data(certificate), "client-key-data": data(key)},
        "files": {"client-certificate": str(certificate), "client-key": str(key)},
        "plugin": plugin.user,
    }[way]
    trust = (
        {"certificate-authority": str(ca)}
        if way == "files"
        else {"certificate-authority-data": data(ca)}
    )
    path = write(tmp_path, guarded, user, **trust)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    ours = make(kubeconfig=path, context="work", server=None, namespace=None)

    assert [] == list(await ours.list())
    assert [] == list(scratch.iterdir()), "no key is left lying about"


async def test_what_is_quoted_holds_no_secret(tmp_path: pathlib.Path, package: None) -> None:
    """The package quotes a whole entry when one is written wrongly."""
    path = pathlib.Path(write(tmp_path, "http://127.0.0.1:9", {}))
    told = yaml.safe_load(path.read_text())
    told["users"] = [{"name": "u", "token": "s3cret-token"}]
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(api.Unauthorized, match="Expected key user") as wrong:
        await opened(str(path))
    path.write_text("users: [s3cret-token: x: y")
    with pytest.raises(api.Unauthorized, match="not YAML") as broken:
        await opened(str(path))

    assert "s3cret-token" not in f"{wrong.value.reason}{broken.value.reason}"


async def test_a_kubeconfig_that_is_not_there(tmp_path: pathlib.Path, package: None) -> None:
    """Said with its path."""
    with pytest.raises(api.Unauthorized, match="absent: there is no such file"):
        await opened(str(tmp_path / "absent"))


async def test_a_context_that_is_not_there(make: Make, tmp_path: pathlib.Path) -> None:
    """The operator's fault, in the package's words."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    path = write(tmp_path, "http://127.0.0.1:9", {})
    with pytest.raises(api.Unauthorized, match="kubeconfig"):
        await make(kubeconfig=path, context="absent", server=None, namespace=None).list()
