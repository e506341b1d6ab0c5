"""What the doctor finds on a (fake) cluster: each fault by its name, and nothing left behind."""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest

from backends.kit import finding
from backends.kubernetes import doctor, settings
from tests.kubernetes import fake, test_backend

Found = dict[str, finding.Finding]
OPTIONS = settings.KubernetesTemplate(image_pull_secrets=("registry",))


async def examined(
    cluster: fake.Cluster,
    *,
    late_s: float = 0.0,
    options: settings.KubernetesTemplate = OPTIONS,
    given_files: Mapping[str, bytes] | None = None,
    **told: Any,
) -> Found:
    """Return what is found, by check; of two findings of one check the worse."""
    configured = settings.KubernetesSettings(
        **{"namespace": cluster.namespace, "server": cluster.url, **told}
    )
    found: Found = {}
    async for one in doctor.examine(
        configured,
        owner="ours",
        orders={"maven": test_backend.spec("a1", options=options, given_files=given_files or {})},
        now=lambda: time.time() + late_s,
    ):
        if one.check not in found or found[one.check].verdict is finding.Grade.OK:
            found[one.check] = one
    return found


def bad(found: Found) -> dict[str, str]:
    return {
        check: one.verdict.value
        for check, one in found.items()
        if one.verdict is not finding.Grade.OK
    }


async def test_all_is_well(cluster: fake.Cluster, make: test_backend.Make) -> None:
    """Everything is looked at, the official client agrees, and no pod was made."""
    cluster.namespaces_readable = True
    cluster.quotas = []
    cluster.secrets["registry"] = {"metadata": {"name": "registry"}}
    ours = make()
    await ours.launch(test_backend.spec("a7"))
    found = await examined(cluster)

    assert {} == bad(found)
    assert [
        "version",
        "namespace",
        "rights",
        "quota",
        "nodes",
        "template maven",
        "second opinion",
    ] == list(found)
    assert "1 pod of ours" in found["second opinion"].text
    assert ["a7"] == list(cluster.pods)


@pytest.mark.parametrize(
    ("how", "check", "verdict", "words"),
    [
        ({"denied": {("create", "secrets")}}, "rights", "FAIL", "create secrets"),
        ({"denied": {("list", "events")}}, "rights", "warn", "list events; for why a pod does"),
        (
            {"quotas": [{"metadata": {"name": "q"}, "status": {"hard": {"pods": "10"}, "used": {"pods": "9"}}}]},
            "quota",
            "warn",
            "q: pods 9/10",
        ),
        ({"secrets": {}}, "template maven", "FAIL", "image pull secret registry is not there"),
        ({"token": "another"}, "access", "FAIL", "does not accept our credentials"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    cluster: fake.Cluster, how: dict[str, Any], check: str, verdict: str, words: str
) -> None:
    """One finding each, in words."""
    cluster.secrets["registry"] = {"metadata": {"name": "registry"}}
    for name, value in how.items():
        setattr(cluster, name, value)
    found = await examined(cluster)

    assert {check: verdict} == bad(found)
    assert words in found[check].text


async def test_the_least_rights_are_enough_for_it(cluster: fake.Cluster) -> None:
    """What may not be looked at is no fault."""
    cluster.denied = {("get", "secrets")}

    assert {} == bad(await examined(cluster))


@pytest.mark.parametrize(
    ("recording", "verdict", "words"),
    [
        ("error-403-quota-pods", "warn", "quota agents is used up"),
        ("error-403-pod-security", "FAIL", "violates PodSecurity"),
        ("error-403-serviceaccount-missing", "FAIL", "serviceaccount"),
        ("error-403-limitrange", "FAIL", "maximum memory usage"),
    ],
)
async def test_a_template_is_tried_and_not_made(
    cluster: fake.Cluster, recording: str, verdict: str, words: str
) -> None:
    """What the API server has against a pod is told in its words."""
    cluster.fail("create", recording, when=lambda request: request.query["dryRun"] == "All")
    found = await examined(cluster)

    assert {"template maven": verdict} == bad(found)
    assert words in found["template maven"].text
    assert {} == cluster.pods


async def test_an_absent_namespace(cluster: fake.Cluster) -> None:
    """Told first, and not hidden by what follows from it."""
    cluster.namespaces_readable = True
    found = await examined(cluster, namespace="absent")

    assert "not found" in found["namespace"].text
    assert "FAIL" == found["namespace"].verdict.value


async def test_a_clock_that_differs(cluster: fake.Cluster) -> None:
    """Patience is counted from the server's times, so a minute matters."""
    cluster.secrets["registry"] = {}
    found = await examined(cluster, late_s=60)

    assert {"clock": "warn"} == bad(found)
    assert "ahead of the API server's" in found["clock"].text


async def test_without_the_official_package(
    cluster: fake.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is looked at, and the hint says what to install."""
    cluster.secrets["registry"] = {}
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    found = await examined(cluster)

    assert {"second opinion": "warn"} == bad(found)
    assert "pip install kubernetes" == found["second opinion"].hint


async def test_a_server_that_is_not_there(cluster: fake.Cluster) -> None:
    """One finding, not one for each question."""
    found = await examined(cluster, server="http://127.0.0.1:9")

    assert {"access": "FAIL"} == bad(found)


async def test_a_kubeconfig_is_used_by_both(cluster: fake.Cluster, tmp_path: pathlib.Path) -> None:
    """The second opinion comes with the same context."""
    from tests.kubernetes import test_kubeconfig

    cluster.token = "t"
    cluster.secrets["registry"] = {}
    path = test_kubeconfig.write(tmp_path, cluster.url, {"token": "t"})
    found = await examined(cluster, kubeconfig=path, context="work", server=None)

    assert {} == bad(found)


async def test_the_command_looks_at_every_template(
    cluster: fake.Cluster, tmp_path: pathlib.Path
) -> None:
    """As the broker would order it: labels, image and secret file of the configuration."""
    from broker.cli import doctor as doctors
    from tests.kubernetes import test_config

    told = {"kind": "kubernetes", "namespace": cluster.namespace, "server": cluster.url}
    configured = test_config.loaded(tmp_path, {}, backend=told)
    found = [one.check async for one in doctors._beyond(configured, "cluster", time.time)]

    assert "template maven" in found
    assert {} == cluster.pods


async def test_steps_in_other_containers_are_looked_at(cluster: fake.Cluster) -> None:
    """The right is asked for where the backend serves them; a template that it does not is told."""
    cluster.denied = {("create", "pods/exec")}
    options = settings.KubernetesTemplate(in_container=True)
    serves = settings.InContainer(listen="0.0.0.0:8088", url="http://b:8088/")
    with_it = await examined(cluster, options=options, in_container=serves)
    without = await examined(cluster, options=options)

    assert "create pods/exec; for in-container" in with_it["rights"].text
    assert finding.Grade.OK is with_it["template maven"].verdict
    assert finding.Grade.OK is without["rights"].verdict
    assert "has no section `in_container`" in without["template maven"].text


@pytest.mark.parametrize(
    ("denied", "verdict", "words"),
    [
        (set(), "ok", "may be asked"),
        ({("get", "nodes/proxy")}, "warn", "missing in the cluster: get nodes/proxy"),
    ],
)
async def test_the_right_to_ask_kubelets_is_named_where_it_is_wanted(
    cluster: fake.Cluster, denied: set[tuple[str, str]], verdict: str, words: str
) -> None:
    """Whoever does not want them is not asked for it."""
    cluster.denied = denied
    told = (await examined(cluster, usage="kubelet"))["kubelets"]
    assert (verdict, True) == (told.verdict.value, words in told.text)
    assert "kubelets" not in await examined(cluster)


@pytest.mark.parametrize(
    ("denied", "verdict", "words"),
    [
        ([], None, ""),
        (["create"], "FAIL", "create configmaps; for `trust`: its agents cannot start"),
        (["list"], "FAIL", "list configmaps; for `trust`: its agents cannot start"),
        (["delete"], "warn", "delete configmaps; for `trust`: what no agent needs any more stays"),
    ],
)
async def test_the_right_to_share_files_is_named_where_a_template_has_some(
    cluster: fake.Cluster, denied: list[str], verdict: str | None, words: str
) -> None:
    """Whoever has none, or small ones, is not asked for it."""
    cluster.secrets["registry"] = {"metadata": {"name": "registry"}}
    cluster.denied = {(verb, "configmaps") for verb in denied}
    large = await examined(cluster, given_files={"ca": b"x" * (1 << 17)})

    assert ({} if verdict is None else {"template maven": verdict}) == bad(large)
    assert words in large["template maven"].text
    assert {} == bad(await examined(cluster, given_files={"ca": b"x"}))
    assert {} == cluster.config_maps
