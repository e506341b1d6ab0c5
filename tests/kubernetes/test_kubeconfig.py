"""Credentials out of a kubeconfig, by the official package where it is installed."""

import pathlib
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from backends import api
from backends.kubernetes import backend
from tests.kubernetes import fake

Make = Callable[..., backend.KubernetesBackend]


def write(folder: pathlib.Path, server: str, user: dict[str, object]) -> str:
    path = folder / "config"
    context = {"cluster": "c", "user": "u", "namespace": "agents"}
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "work", "context": context},
            {"name": "other", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    path.write_text(yaml.safe_dump(told))
    return str(path)


async def test_without_the_package_the_hint_says_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who names a kubeconfig is told about the extra."""
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(api.Unauthorized) as raised:
        await make(kubeconfig="/absent", server=None, namespace=None).list()

    assert "jenkins-agent-broker[kubernetes]" in raised.value.reason


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


async def test_a_context_that_is_not_there(make: Make, tmp_path: pathlib.Path) -> None:
    """The operator's fault, in the package's words."""
    pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
    path = write(tmp_path, "http://127.0.0.1:9", {})
    with pytest.raises(api.Unauthorized, match="kubeconfig"):
        await make(kubeconfig=path, context="absent", server=None, namespace=None).list()


def test_the_package_is_not_imported_without_a_kubeconfig() -> None:
    """A broker inside the cluster does not pay for it."""
    code = (
        "import sys, backends.kubernetes.backend, broker.app;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('kubernetes', 'docker')))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == told.stdout
