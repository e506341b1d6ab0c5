"""A kubeconfig that will not do is said by check-config: without network, plugin, or package."""

import copy
import os
import sys

import pytest
import yaml

from backends.kubernetes import settings
from backends.kubernetes.api import contexts

GOOD = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "prod",
    "clusters": [{"name": "c", "cluster": {"server": "https://k8s.example.com:6443"}}],
    "users": [{"name": "u", "user": {"token": "very-secret-token"}}],
    "contexts": [
        {"name": "prod", "context": {"cluster": "c", "user": "u"}},
        {"name": "lost", "context": {"cluster": "x", "user": "u"}},
        {"name": "nobody", "context": {"cluster": "c", "user": "y"}},
    ],
}


def found(path, context=None, **environment):
    return [(one.text, one.hint) for one in contexts.misfits(path, context, environment)]


def written(tmp_path, document, name="config"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    path.chmod(0o600)
    return str(path)


def changed(*keys, to):
    document = copy.deepcopy(GOOD)
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return document


def test_what_can_be_used_is_not_spoken_of(tmp_path):
    """Nothing is imported for it either."""
    before = set(sys.modules)
    assert [] == found(written(tmp_path, GOOD))
    nobody = {"cluster": "c"}  # as kubectl takes it: nobody knows who asks
    assert [] == found(written(tmp_path, changed("contexts", 0, "context", to=nobody)))
    assert not {name for name in set(sys.modules) - before if name.startswith("kubernetes")}


CLUSTER, USER = ("clusters", 0, "cluster"), ("users", 0, "user")


@pytest.mark.parametrize(
    ("document", "context", "text", "hint"),
    [
        ("a: [", None, "it is not YAML, line 1", ""),
        ("\x00", None, "it is not YAML", ""),
        ("[" * 5000, None, "it is nested too deeply", ""),
        ("- a", None, contexts.NOT_ONE, ""),
        ({"clusters": {"c": 1}}, None, contexts.NOT_ONE, ""),
        ("", None, "it has no current-context", "`context: NAME`"),
        (GOOD, "tset", "it has no context 'tset'", "it has 'prod', 'lost', 'nobody'"),
        (GOOD, "lost", "context 'lost' names cluster 'x', which is not in it", ""),
        (GOOD, "nobody", "context 'nobody' names user 'y', which is not in it", ""),
        (changed(*CLUSTER, "server", to=""), None, "the cluster of context 'prod' has no `server`", ""),
        (changed(*CLUSTER, "server", to=["x"]), None, "cluster c: server is not a text", ""),
        (changed(*CLUSTER, "insecure-skip-tls-verify", to="false"), None, "cluster c: insecure-skip-tls-verify is not true or false", ""),
        (changed(*CLUSTER, "proxy-url", to="socks5://p:1"), None, "proxy-url: found socks5://; allowed: http://HOST:PORT or https://", ""),
        (changed(*USER, to="admin"), None, "user u is not a section", ""),
        (changed(*USER, "exec", to={"interactiveMode": "Always"}), None, "its plugin has interactiveMode Always: it asks a person", "another user"),
    ],
)  # fmt: skip
def test_what_will_not_do_is_said(tmp_path, document, context, text, hint):
    """Where, what, and what to do; never a secret."""
    path = written(tmp_path, document)
    assert [(f"{path}: {text}", hint)] == found(path, context)


def test_a_file_that_is_not_here_may_be_elsewhere(tmp_path):
    """A pull request is checked where no cluster is known; of several files one may be missing."""
    absent, there = str(tmp_path / "none"), written(tmp_path, GOOD)
    assert [(f"{absent}: there is no such file here", "")] == found(absent)
    assert [] == found(os.pathsep.join([absent, there]))
    assert [] == found(None, KUBECONFIG=there)


def test_a_folder_is_no_kubeconfig(tmp_path):
    """The system's words, with the path."""
    ((text, _),) = found(str(tmp_path))
    assert text.startswith(f"{tmp_path}: ")


def test_of_several_files_the_first_that_names_a_thing_is_right(tmp_path):
    """As kubectl merges them."""
    first = written(tmp_path, {"current-context": "lost"}, "first")
    second = written(tmp_path, GOOD, "second")
    ((text, _),) = found(os.pathsep.join([first, second]))
    assert "context 'lost' names cluster" in text


def test_a_large_file_is_left_to_its_reader(tmp_path):
    """It would hold up whoever waits for a start."""
    assert [] == found(written(tmp_path, "a: [" + " " * (300 << 10)))


def test_it_is_a_remark_of_the_settings(tmp_path):
    """At the setting that names it; the cluster may be right for others."""
    path = written(tmp_path, GOOD)
    told = settings.KubernetesSettings(kubeconfig=path, context="tset")
    ((where, words, wrong),) = [(r.path, r.text, r.wrong) for r in told.remarks()]
    assert ("kubeconfig",) == where
    assert "has no context 'tset'" in words
    assert not wrong
