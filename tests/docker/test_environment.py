"""Which engine is meant where the settings name none: as Docker's own client reads it."""

import hashlib
import json
import pathlib
import shutil
import subprocess

import attrs
import pytest

from backends import api
from backends.docker import backend, settings
from backends.docker.engine import environment

LOCAL = "unix:///var/run/docker.sock"


def context(home: pathlib.Path, name: str, endpoint: object, *certificates: str) -> str:
    """Keep a context as Docker does; return the folder of its certificates."""
    number = hashlib.sha256(name.encode()).hexdigest()
    meta = home / "contexts/meta" / number / "meta.json"
    meta.parent.mkdir(parents=True)
    told = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    meta.write_text(endpoint if isinstance(endpoint, str) else json.dumps(told))
    folder = home / "contexts/tls" / number / "docker"
    for file in certificates:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("-")
    return str(folder)


def found(home: pathlib.Path, **variables: str) -> environment.FoundEngine:
    return environment.engine(None, {"DOCKER_CONFIG": str(home), **variables})


@pytest.mark.parametrize(
    ("variables", "url", "by"),
    [
        ({}, LOCAL, ""),
        ({"DOCKER_HOST": ""}, LOCAL, ""),
        ({"DOCKER_HOST": " unix:///run/user/1000/docker.sock "},
         "unix:///run/user/1000/docker.sock", "DOCKER_HOST"),
        ({"DOCKER_HOST": "unix://"}, LOCAL, "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://build-1"}, "tcp://build-1:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://build-1:"}, "tcp://build-1:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://"}, "tcp://localhost:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://:9"}, "tcp://localhost:9", "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://[::1]"}, "tcp://[::1]:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://build-1:9/engine"}, "tcp://build-1:9/engine", "DOCKER_HOST"),
        ({"DOCKER_HOST": "build-1:2376"}, "tcp://build-1:2376", "DOCKER_HOST"),
        ({"DOCKER_HOST": "ssh://ci@build-1:22/run/d.sock"}, "ssh://ci@build-1:22/run/d.sock",
         "DOCKER_HOST"),
        ({"DOCKER_HOST": "ssh://build-1", "DOCKER_TLS_VERIFY": "1"}, "ssh://build-1",
         "DOCKER_HOST"),
        ({"DOCKER_HOST": "tcp://build-1:9", "DOCKER_CONTEXT": "one"}, "tcp://build-1:9",
         "DOCKER_HOST"),
        ({"DOCKER_CONTEXT": "one"}, "ssh://one", "the context one, by DOCKER_CONTEXT"),
        ({"DOCKER_CONTEXT": "default"}, LOCAL, ""),
    ],
)  # fmt: skip
def test_variables_come_before_contexts(
    tmp_path: pathlib.Path, variables: dict[str, str], url: str, by: str
) -> None:
    """And an address is completed as Docker completes it."""
    context(tmp_path, "one", {"Host": "ssh://one"})
    engine = found(tmp_path, **variables)
    assert (engine.host.url, engine.told_by, engine.host.tls) == (url, by, False)


def test_the_current_context_counts_where_no_variable_says_more(tmp_path: pathlib.Path) -> None:
    """Its name is in the configuration."""
    context(tmp_path, "two", {"Host": "tcp://two:2375", "SkipTLSVerify": False})
    (tmp_path / "config.json").write_text('{"currentContext": "two", "auths": {}}')
    engine = found(tmp_path)
    assert engine.host == settings.Host(url="tcp://two:2375")
    assert engine.told_by == f"the context two, by currentContext in {tmp_path / 'config.json'}"
    assert found(tmp_path, DOCKER_CONTEXT="default").host.url == LOCAL
    assert found(tmp_path, DOCKER_HOST="unix:///d").host.url == "unix:///d"


@pytest.mark.parametrize("config", ["{", '{"currentContext": 7}', "[]"])
def test_a_configuration_that_cannot_be_read_counts_for_none(
    tmp_path: pathlib.Path, config: str
) -> None:
    """As for Docker, which warns of it."""
    (tmp_path / "config.json").write_text(config)
    engine = found(tmp_path)
    assert engine.host.url == LOCAL
    assert str(tmp_path / "config.json") in engine.complaint


def test_a_context_has_its_certificates(tmp_path: pathlib.Path) -> None:
    """A certificate without its key counts for nothing, nor does a file of another name."""
    whole = context(tmp_path, "w1", {"Host": "tcp://w:2376"}, "ca.pem", "cert.pem", "key.pem")
    context(tmp_path, "w2", {"host": "tcp://w:2376"}, "ca.pem", "cert.pem", "odd.pem")
    context(tmp_path, "w3", {}, "ca.pem")
    assert found(tmp_path, DOCKER_CONTEXT="w1").host == settings.Host(
        url="tcp://w:2376",
        tls=True,
        ca_file=f"{whole}/ca.pem",
        cert_file=f"{whole}/cert.pem",
        key_file=f"{whole}/key.pem",
    )
    half = found(tmp_path, DOCKER_CONTEXT="w2").host
    assert (half.tls, half.cert_file, pathlib.Path(half.ca_file).name) == (True, None, "ca.pem")
    assert found(tmp_path, DOCKER_CONTEXT="w3").host == settings.Host(url=LOCAL)


def test_variables_name_certificates(tmp_path: pathlib.Path) -> None:
    """In the folder of DOCKER_CERT_PATH, else in that of the configuration."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("-")
    told = {"DOCKER_HOST": "tcp://b:2376", "DOCKER_TLS_VERIFY": "1"}
    host = found(tmp_path, **told).host
    assert host.tls
    assert host.key_file == str(tmp_path / "key.pem")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/ca.pem").write_text("-")
    host = found(tmp_path, **told, DOCKER_CERT_PATH=str(tmp_path / "more")).host
    assert (host.ca_file, host.cert_file) == (str(tmp_path / "more/ca.pem"), None)
    assert found(tmp_path, DOCKER_TLS_VERIFY="1").host.url == "tcp://localhost:2376"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DOCKER_HOST": "npipe:////./pipe/docker_engine"}, "npipe:// is of Windows"),
        ({"DOCKER_HOST": "fd://3"}, "DOCKER_HOST: found 'fd://3'"),
        (
            {"DOCKER_HOST": "gopher://x"},
            "allowed: unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST",
        ),
        ({"DOCKER_HOST": "tcp://b:99999"}, "DOCKER_HOST: found 'tcp://b:99999'"),
        ({"DOCKER_HOST": "ssh://me:5ecret@b"}, "DOCKER_HOST: found 'ssh://(hidden)@b'"),
        ({"DOCKER_HOST": "ssh://-oProxyCommand=x"}, "DOCKER_HOST: found"),
        ({"DOCKER_HOST": "tcp://b:1", "DOCKER_TLS": "1"}, "DOCKER_TLS: its certificate would not"),
        ({"DOCKER_HOST": "tcp://b:1", "DOCKER_TLS_VERIFY": "1"}, "ca.pem; hint: DOCKER_CERT_PATH"),
        ({"DOCKER_CONTEXT": "nowhere"}, "DOCKER_CONTEXT: there is no context 'nowhere' in /"),
        ({"DOCKER_CONTEXT": "../x"}, "found '../x', which is not a name of a context"),
        ({"DOCKER_CONTEXT": "lax"}, "context 'lax': SkipTLSVerify is not obeyed"),
        ({"DOCKER_CONTEXT": "windows"}, "context 'windows': found 'npipe:////./pipe/x'"),
        ({"DOCKER_CONTEXT": "cut"}, "meta.json: not JSON at character 2"),
        ({"DOCKER_CONTEXT": "odd"}, "meta.json: Host: found no text"),
        ({"DOCKER_CONTEXT": "other"}, "the context 'other' names no engine"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_in_words(
    tmp_path: pathlib.Path, variables: dict[str, str], words: str
) -> None:
    """With who named it; no password is told."""
    context(tmp_path, "lax", {"Host": "tcp://b:2376", "SkipTLSVerify": True})
    context(tmp_path, "windows", {"Host": "npipe:////./pipe/x"})
    context(tmp_path, "cut", "{")
    context(tmp_path, "odd", {"Host": 7})
    context(tmp_path, "other", '{"Endpoints": {"kubernetes": {}}}')
    with pytest.raises(ValueError) as refused:
        found(tmp_path, **variables)
    assert words in str(refused.value)
    assert "5ecret" not in str(refused.value)


async def test_the_backend_says_why_it_has_no_engine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of anybody, the local engine neither; other backends serve."""
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    made = backend.create(
        settings.DockerSettings(docker_config=str(tmp_path)),
        owner="ours", store=None, state_dir=None, now=lambda: 0.0,
    )  # fmt: skip
    with pytest.raises(api.Unauthorized, match="there is no context 'nowhere'"):
        await made.list()
    await made.aclose()


def test_the_settings_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``hosts`` is all that counts where it is given."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    hosts = (settings.Host(url="unix:///here"),)
    told = settings.DockerSettings(hosts=hosts)
    made = backend.create(told, owner="ours", store=None, state_dir=None, now=lambda: 0.0)
    assert [place.host.url for place in made._pool.everywhere] == ["unix:///here"]
    made = backend.create(
        attrs.evolve(told, hosts=()), owner="ours", store=None, state_dir=None, now=lambda: 0.0
    )
    assert [place.host.url for place in made._pool.everywhere] == ["tcp://elsewhere:2375"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"DOCKER_HOST": "unix://"},
        {"DOCKER_HOST": "tcp://build-1"},
        {"DOCKER_HOST": "build-1:7"},
        {"DOCKER_HOST": "tcp://[::1]:"},
        {"DOCKER_HOST": "ssh://me@there/run/d.sock"},
        {"DOCKER_HOST": "tcp://build-1:7", "DOCKER_CONTEXT": "plain"},
        {"DOCKER_CONTEXT": "plain"},
        {"DOCKER_CONTEXT": "made"},
        {"DOCKER_CONTEXT": "default"},
    ],
)
def test_dockers_own_client_means_the_same(
    tmp_path: pathlib.Path, variables: dict[str, str]
) -> None:
    """Asked of the real one, which also makes a context here that we then read."""
    client = shutil.which("docker")
    if client is None:
        pytest.skip("no docker client on this machine")
    ours = {"DOCKER_CONFIG": str(tmp_path), **variables}
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    subprocess.run(
        [client, "context", "create", "made", "--docker", "host=tcp://made:2376"],
        env=plain, check=True, capture_output=True,
    )  # fmt: skip
    context(tmp_path, "plain", {"Host": "ssh://plain"})
    (tmp_path / "config.json").write_text('{"currentContext": "plain"}')
    shown = subprocess.run(
        [client, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        env=plain | ours, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert environment.engine(None, ours).host.url == shown.stdout.strip()
