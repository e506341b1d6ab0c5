"""The examples fit together: names, labels, ports, rights, and configurations that load.

The chart is rendered by a stand-in that knows the four forms its templates use and refuses others.
"""

import asyncio
import hashlib
import json
import pathlib
import re
import sys
from typing import Any

import pytest
import yaml

from backends import api
from backends.kubernetes import doctor
from backends.kubernetes.pods import pod
from broker import config, status
from broker.cli import rendering
from broker.config import kinds, loading
from tests.each import each
from tests.kubernetes import oracle, recorded
from tests.status import status_source

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "kubernetes"
BASE = EXAMPLES / "base"
CHART = EXAMPLES / "chart"
REPLICAS = EXAMPLES / "replicas"
READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, many times faster


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(text, READER) if document]


def base(folder: pathlib.Path = BASE) -> list[dict[str, Any]]:
    kustomization = yaml.load((folder / "kustomization.yaml").read_text(), READER)
    return [
        document
        for name in kustomization["resources"]
        for document in documents((folder / name).read_text())
    ]


def replicas() -> list[dict[str, Any]]:
    return base(REPLICAS)


def of_kind(found: list[dict[str, Any]], kind: str, *, lease: bool = False) -> dict[str, Any]:
    """Return the only one of a kind; what is about the lease stands beside what is about agents."""
    (one,) = [
        document
        for document in found
        if document["kind"] == kind and document["metadata"]["name"].endswith("-lease") is lease
    ]
    return one


def loaded(text: str, folder: pathlib.Path) -> config.Settings:
    """Load a configuration with the secret's file where this machine has one."""
    secret = folder / "secret"
    secret.unlink(missing_ok=True)  # of an earlier time, and not to be written to
    secret.write_text("abc")
    secret.chmod(0o440)
    path = folder / "broker.yaml"
    path.write_text(re.sub(r"file:/run/\S+", f"file:{secret}", text))
    return loading.load(path, kinds.classes(), environ={})


def unexpected(settings: config.Settings) -> list[str]:
    """Return the warnings but of three doors that are open within a cluster, for its policies."""
    doors = (
        "listen: whoever reaches",
        "connect.mode: not https: the agents' secrets",
        "in_container.url: not https: the agents' tokens",
    )
    told = [warning.words() for warning in settings.warnings]
    return [one for one in told if not any(door in one for door in doors)]


def over(below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Lay values over others, as Helm does: sections key by key."""
    return below | {
        key: over(below[key], value) if isinstance(value, dict) and key in below else value
        for key, value in values.items()
    }


def rendered(*more: str, **put_in: object) -> list[dict[str, Any]]:
    """Render the chart: values as they are, the release called ``agents`` in ``jenkins``."""
    values: dict[str, Any] = {}
    for name in ("values.yaml", *more):
        values = over(values, yaml.load((CHART / name).read_text(), READER))
    scope = {
        "Values": {**values, **put_in},
        "Release": {"Name": "agents", "Namespace": "jenkins"},
    }

    def value(path: str) -> Any:
        told: Any = scope
        for part in path.strip(".").split("."):
            told = told[part]
        return told

    def put(match: re.Match[str]) -> str:
        call = match[2].strip()
        if found := re.fullmatch(r"toYaml (\S+) \| nindent (\d+)", call):
            text = yaml.safe_dump(value(found[1]), sort_keys=False, width=4096).rstrip()
            return "\n" + "\n".join(" " * int(found[2]) + line for line in text.split("\n"))
        if found := re.fullmatch(r"toYaml (\S+) \| sha256sum \| quote", call):
            text = yaml.safe_dump(value(found[1]))
            return json.dumps(hashlib.sha256(text.encode()).hexdigest())
        if found := re.fullmatch(r"(\S+) \| quote", call):
            return json.dumps(value(found[1]))
        if found := re.fullmatch(r"\.\S+", call):
            return str(value(call))
        raise AssertionError(f"the stand-in does not know {match[0]}")

    text = ""
    for path in sorted((CHART / "templates").iterdir()):
        chosen = _IF.sub(lambda m: m[2] if value(m[1]) else "", path.read_text() + "\n")
        text += "---\n" + re.sub(r"(\s*\{\{-|\{\{)([^}]*)\}\}", put, chosen)
    return documents(text)


_IF = re.compile(r"[ ]*\{\{- if (\S+) \}\}\n(.*?)[ ]*\{\{- end \}\}\n", re.DOTALL)
GROUP = "coordination.k8s.io"
EXPLAINS = [
    {"apiGroups": [""], "resources": [resource], "verbs": ["list"]}
    for resource in ("events", "resourcequotas")
] + [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]},
    {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["list"]},
]


def test_the_rights_are_the_least_that_were_tried() -> None:
    """In the base and in the chart: the role that a real API server was asked with.

    Beside it only what a feature needs, each named here.
    """
    tried = of_kind(documents((recorded.FOLDER / "rbac-minimal.yaml").read_text()), "Role")

    for found in (base(), rendered(), replicas()):
        assert [*tried["rules"], *EXPLAINS] == of_kind(found, "Role")["rules"]
        binding, account = of_kind(found, "RoleBinding"), of_kind(found, "ServiceAccount")
        assert binding["roleRef"]["name"] == of_kind(found, "Role")["metadata"]["name"]
        assert binding["subjects"][0]["name"] == account["metadata"]["name"]
        assert not [d for d in found if d["kind"].startswith("Cluster")]


def test_each_right_is_needed_and_no_other_is_given() -> None:
    """The matrix of a real API server: without it a call of the broker failed, with it one works."""
    tried = json.loads((recorded.FOLDER / "rbac-matrix.json").read_text())["changes"]
    needed = {
        f"{'.'.join(filter(None, (resource, *rule['apiGroups'])))} {verb}"
        for rule in of_kind(base(), "Role")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    explains = {"events list", "resourcequotas list", "pods patch", "pods.metrics.k8s.io list"}
    for right in needed - explains:
        assert tried[f"without {right}"]
    assert (
        needed
        == {key.removeprefix("without ") for key in tried if key.startswith("without ")} | explains
    )
    assert {"list events": "ok"} == tried["plus events list"]


NODES = documents((EXAMPLES / "nodes" / "rbac.yaml").read_text())

TRUST = documents((EXAMPLES / "trust" / "rbac.yaml").read_text())

KUBELETS = documents((EXAMPLES / "kubelets" / "rbac.yaml").read_text())


def rights(rules: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return resource and verb of each right."""
    return sorted(
        (resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def test_the_manual_offers_the_least_and_all_that_is_used() -> None:
    """Its lists of rules: what was needed on a real API server, the roles and what is beside them."""
    manual = (EXAMPLES.parents[1] / "docs" / "backends" / "kubernetes.md").read_text()
    shown = {
        found[1]: rights(yaml.safe_load(found[2])["rules"])
        for found in re.finditer(
            r"<!-- ([\w ]+): tests\S+ [^>]+>\n```yaml\n(.+?)```", manual, re.DOTALL
        )
    }
    tried = of_kind(documents((recorded.FOLDER / "rbac-minimal.yaml").read_text()), "Role")
    least = [right for right in rights(tried["rules"]) if right != ("pods/log", "get")]

    assert shown == {
        "the least": least,
        "all": rights(of_kind(base(), "Role")["rules"]),
        "nodes": rights(of_kind(NODES, "ClusterRole")["rules"]),
        "trust": rights(of_kind(TRUST, "Role")["rules"]),
        "kubelets": rights(of_kind(KUBELETS, "ClusterRole")["rules"]),
    }


@pytest.mark.parametrize("found", [NODES, rendered(readNodes=True)], ids=["kustomize", "chart"])
def test_to_read_nodes_is_a_right_of_its_own(found: list[dict[str, Any]]) -> None:
    """One verb, for the very account that runs the broker, and only where it is switched on."""
    role, binding = of_kind(found, "ClusterRole"), of_kind(found, "ClusterRoleBinding")
    account = of_kind(base() if found is NODES else found, "ServiceAccount")["metadata"]["name"]

    assert [("nodes", "get")] == rights(role["rules"])
    assert role["metadata"]["name"] == binding["roleRef"]["name"]
    assert "ClusterRole" == binding["roleRef"]["kind"]
    assert [{"kind": "ServiceAccount", "name": account, "namespace": "jenkins"}] == (
        binding["subjects"]
    )


@pytest.mark.parametrize(
    "rules",
    [
        of_kind(documents((EXAMPLES / "exec" / "rbac.yaml").read_text()), "Role")["rules"],
        of_kind(rendered(inContainer=True), "Role")["rules"][-1:],
    ],
    ids=["kustomize", "chart"],
)
def test_exec_is_a_right_of_its_own(rules: list[dict[str, Any]]) -> None:
    """The two verbs that only together opened an exec, and only where it is switched on."""
    tried = json.loads((recorded.FOLDER / "rbac-matrix.json").read_text())["changes"]

    assert ({}, {}) == (tried["plus pods/exec get"], tried["plus pods/exec create"])
    assert {"exec (websocket)": "ok"} == tried["plus pods/exec get+create"]
    assert [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]}] == rules
    for found in (base(), rendered(), replicas()):
        assert "pods/exec" not in str(found)


@pytest.mark.parametrize(
    "rules",
    [
        of_kind(TRUST, "Role")["rules"],
        of_kind(rendered(trust=True), "Role")["rules"][-1:],
    ],
    ids=["kustomize", "chart"],
)
def test_files_that_agents_share_need_a_right_of_its_own(rules: list[dict[str, Any]]) -> None:
    """What the doctor looks for where a template has them, and only where it is switched on."""
    assert rights(rules) == sorted((one.resource, one.verb) for one in doctor.SHARED)
    for found in (base(), rendered(), replicas()):
        assert not any("configmaps" in str(d) for d in found if "Role" in d["kind"])


def test_the_configuration_with_steps_in_other_containers(tmp_path: pathlib.Path) -> None:
    """It loads, its port is the service's, the policy's and the container's, the steps exist."""
    settings = loaded((EXAMPLES / "exec" / "broker.yaml").read_text(), tmp_path)
    policy = config.policy(settings, wall_now=0.0)
    (backend,) = settings.backends.values()
    serves = backend.settings.in_container
    ports = re.findall(
        r"(?:port|containerPort): (\d+)", (EXAMPLES / "exec" / "kustomization.yaml").read_text()
    )
    (text,) = rendering.render(settings, policy, template="maven-golang", now=0.0).values()
    containers = {c["name"] for c in next(yaml.safe_load_all(text))["spec"]["containers"]}
    steps = re.findall(r"in-container (\S+)", (EXAMPLES / "exec" / "Jenkinsfile").read_text())

    assert not unexpected(settings)
    assert {serves.listen.rpartition(":")[2]} == set(ports)
    assert serves.url == f"http://jenkins.jenkins:{ports[0]}/"
    assert {"maven", "golang"} == set(steps) == containers - {"jnlp"}


def test_several_brokers_may_share_the_lease_that_they_ask_for(tmp_path: pathlib.Path) -> None:
    """The least: this very lease, by name, in the namespace where the configuration looks."""
    shared = (replicas(), rendered("values-replicas.yaml"))
    texts = (
        (REPLICAS / "broker.yaml").read_text(),
        of_kind(shared[1], "ConfigMap")["data"]["broker.yaml"],
    )
    for found, text in zip(shared, texts, strict=True):
        assert 2 == of_kind(found, "Deployment")["spec"]["replicas"]
        lease = loaded(text, tmp_path).high_availability
        role = of_kind(found, "Role", lease=True)
        assert lease is not None
        assert role["metadata"].get("namespace") == lease.settings.namespace
        assert role["rules"] == [
            {"apiGroups": [GROUP], "resources": ["leases"], "verbs": ["create"]},
            {
                "apiGroups": [GROUP],
                "resources": ["leases"],
                "resourceNames": [lease.name],
                "verbs": ["get", "update"],
            },
        ]
        binding = of_kind(found, "RoleBinding", lease=True)
        assert role["metadata"]["name"] == binding["roleRef"]["name"]
        account = of_kind(found, "ServiceAccount")["metadata"]["name"]
        assert account == binding["subjects"][0]["name"]


def test_a_single_broker_is_ended_before_the_next_is_started() -> None:
    """Two of one owner without a lease would refuse each other."""
    spec = of_kind(rendered(), "Deployment")["spec"]
    assert (1, {"type": "Recreate"}) == (spec["replicas"], spec["strategy"])


@each(
    "document",
    [
        *base(),
        *rendered(),
        *rendered("values-replicas.yaml", inContainer=True),
        *replicas(),
        *documents((EXAMPLES / "exec" / "rbac.yaml").read_text()),
        *TRUST,
        *NODES,
        *rendered(readNodes=True),
    ],
    ids=lambda found: f"{found['kind']}-{found['metadata']['name']}",
)
def test_every_manifest_is_what_the_api_expects(document: dict[str, Any]) -> None:
    """Each field known and of the right type, by the models made of Kubernetes' own OpenAPI."""
    assert [] == oracle.problems(document)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("StatefulSet", base()),
        ("Deployment", rendered("values-page.yaml")),
        ("Deployment", replicas()),
    ],
    ids=["base", "chart", "replicas"],
)
def test_what_a_pod_mounts_is_there(kind: str, found: list[dict[str, Any]]) -> None:
    """Volumes, config maps, ports, labels and accounts that are named exist."""
    body = of_kind(found, kind)
    template = body["spec"]["template"]
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    maps = {g["name"] for g in kustomization["configMapGenerator"]} | {
        d["metadata"]["name"] for d in found if d["kind"] == "ConfigMap"
    }
    volumes = {v["name"]: v for v in template["spec"]["volumes"]}
    claims = [c["metadata"]["name"] for c in body["spec"].get("volumeClaimTemplates", [])]
    for container in template["spec"]["containers"]:
        for mount in container["volumeMounts"]:
            assert mount["name"] in {*volumes, *claims}
    for volume in volumes.values():
        if "configMap" in volume:
            assert volume["configMap"]["name"] in maps
    labels = template["metadata"]["labels"]
    service = of_kind(found, "Service")
    assert body["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
    assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    account = of_kind(found, "ServiceAccount")["metadata"]["name"]
    assert account == template["spec"]["serviceAccountName"]


def test_the_controller_does_not_see_the_broker_s_token() -> None:
    """The service account is mounted into the broker's container alone."""
    spec = of_kind(base(), "StatefulSet")["spec"]["template"]["spec"]

    assert spec["automountServiceAccountToken"] is False
    sees = [
        c["name"]
        for c in spec["containers"]
        if any("serviceaccount" in m["mountPath"] for m in c["volumeMounts"])
    ]
    assert ["agent-broker"] == sees


@pytest.mark.parametrize("kind", ["NetworkPolicy", "PodDisruptionBudget"])
def test_policies_select_the_agents(kind: str) -> None:
    """By the mark that every pod of a broker has, in the namespace where they run."""
    policy = of_kind(base(), kind)
    spec = policy["spec"]
    selector = spec.get("podSelector") or spec["selector"]

    assert selector["matchLabels"].items() <= pod.MANAGED_BY.items()
    assert policy["metadata"]["namespace"] == of_kind(base(), "Role")["metadata"]["namespace"]


def test_the_service_monitor_finds_the_page() -> None:
    """A service with its labels has the port that it names."""
    monitor = yaml.safe_load((EXAMPLES / "monitoring" / "servicemonitor.yaml").read_text())
    service = of_kind(base(), "Service")

    assert monitor["spec"]["selector"]["matchLabels"].items() <= (
        service["metadata"]["labels"].items()
    )
    names = [p["name"] for p in service["spec"]["ports"]]
    assert all(endpoint["port"] in names for endpoint in monitor["spec"]["endpoints"])


def test_the_configuration_of_the_base(tmp_path: pathlib.Path) -> None:
    """It loads without a warning, serves the Jenkinsfile's label, and every template is a pod."""
    settings = loaded((BASE / "broker.yaml").read_text(), tmp_path)
    policy = config.policy(settings, wall_now=0.0)

    assert not unexpected(settings)
    label = re.search(r"label '([^']+)'", (EXAMPLES / "Jenkinsfile").read_text())
    assert label is not None
    wanted = set(label[1].split(" && "))
    assert [t.name for t in policy.templates if wanted <= t.labels] == ["maven-golang"]
    for template in policy.templates:
        shown = rendering.render(settings, policy, template=template.name, now=0.0)
        (text,) = shown.values()
        assert _restricted(next(yaml.safe_load_all(text)))


def _restricted(manifest: dict[str, Any]) -> bool:
    """What the Pod Security level of the namespace asks for, as recording 403-pod-security says."""
    spec = manifest["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
    return True


def test_the_configuration_of_the_chart(tmp_path: pathlib.Path) -> None:
    """What the chart puts into the config map loads, and names the namespace of the role."""
    found = rendered()
    text = of_kind(found, "ConfigMap")["data"]["broker.yaml"]
    settings = loaded(text, tmp_path)

    (backend,) = settings.backends.values()
    assert backend.settings.namespace == of_kind(found, "Role")["metadata"]["namespace"]


def test_the_broker_s_user_has_the_permissions_that_were_tried() -> None:
    """Those of the recording that did the whole life of a node."""
    folder = recorded.FOLDER.parent / "jenkins" / "permissions"
    tried = json.loads((folder / "03-broker-set.json").read_text())["granted_permissions"]
    casc = yaml.safe_load((BASE / "casc.yaml").read_text())
    entries = casc["jenkins"]["authorizationStrategy"]["globalMatrix"]["entries"]
    (user,) = [entry["user"] for entry in entries if "user" in entry]

    assert sorted(tried) == sorted(user["permissions"])


def test_a_pod_that_is_not_restricted_would_be_noticed() -> None:
    """The check above can fail."""
    spec = api.InstanceSpec(name="a", metadata={}, image="x")
    manifest = pod.make(spec, owner="o").pod
    manifest["spec"]["containers"][0]["securityContext"]["capabilities"] = {"drop": []}

    with pytest.raises(AssertionError):
        _restricted(manifest)


# --- the chart ---------------------------------------------------------------------------------

VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "as it is": ((), {}),
    "replicas": (("values-replicas.yaml",), {}),
    "page": (("values-page.yaml",), {}),
    "in-container": ((), {"inContainer": True}),
    "trust": ((), {"inContainer": True, "trust": True}),
    "nodes": ((), {"readNodes": True}),
    "bare": ((), {"networkPolicy": False, "createAgentsNamespace": False}),
    "pulled": ((), {"imagePullSecrets": [{"name": "registry"}]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_itself_renders_the_same(variant: str) -> None:
    """The stand-in is checked against Helm, where its library is installed."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    files, put_in = VARIANTS[variant]
    values: dict[str, Any] = {}
    for name in files:
        values = over(values, yaml.load((CHART / name).read_text(), READER))
    with helm.Chart.load(str(CHART)) as chart:
        made = chart.render({**values, **put_in}, name="agents", namespace="jenkins")
    theirs = [document for text in made.values() for document in documents(text)]

    def key(document: dict[str, Any]) -> str:
        for noted in (document, document.get("spec", {}).get("template", {})):
            noted.get("metadata", {}).get("annotations", {}).pop("checksum/config", None)
        if document["kind"] == "ConfigMap":
            document["data"] = {k: yaml.safe_load(v) for k, v in document["data"].items()}
        return json.dumps(document, sort_keys=True)

    assert sorted(map(key, theirs)) == sorted(map(key, rendered(*files, **put_in)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_cluster_takes_the_chart(variant: str) -> None:
    """Every namespace that it puts something into is the release's, or made by the chart."""
    files, put_in = VARIANTS[variant]
    found = rendered(*files, **put_in)
    made = {d["metadata"]["name"]: d for d in found if d["kind"] == "Namespace"}
    told = {d["metadata"].get("namespace", "jenkins") for d in found if d["kind"] != "Namespace"}

    assert {"jenkins", "jenkins-agents"} == told
    assert ({"jenkins-agents"} if put_in.get("createAgentsNamespace", True) else set()) == set(
        made
    )
    for namespace in made.values():
        labels, notes = (namespace["metadata"][key] for key in ("labels", "annotations"))
        assert "restricted" == labels["pod-security.kubernetes.io/enforce"]
        assert "keep" == notes["helm.sh/resource-policy"]  # running builds outlive the release


def test_the_commands_of_the_readme_name_values_that_there_are() -> None:
    """Files that exist, keys that the chart knows, the key of the secret that is mounted."""
    text = (EXAMPLES / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    keys = re.findall(r"--set ([\w.]+)=", text)
    assert keys
    assert set(keys) <= set(values)
    for name in re.findall(r"values-\w+\.yaml", text):
        assert (CHART / name).exists()
    assert f"generic {values['tokenSecret']} --from-file=token" in text
    token = values["config"]["controller"]["token"]
    assert token.endswith("/token")


def pod_of(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    body: dict[str, Any] = of_kind(found, kind)["spec"]["template"]["spec"]
    return body


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("Deployment", rendered()),
        ("Deployment", rendered("values-page.yaml", "values-replicas.yaml", inContainer=True)),
        ("Deployment", replicas()),
        ("StatefulSet", base()),
    ],
)
def test_the_broker_s_own_pod_is_restricted(kind: str, found: list[dict[str, Any]]) -> None:
    """The strictest level of Pod Security, a file system that is only read, an image that stays."""
    spec = pod_of(found, kind)
    assert _restricted({"spec": spec})
    broker = next(c for c in spec["containers"] if c["name"] == "agent-broker")
    assert broker["securityContext"]["readOnlyRootFilesystem"] is True
    assert "IfNotPresent" == broker["imagePullPolicy"]
    assert not broker["image"].endswith(":latest")
    assert "limits" in broker["resources"]
    for namespace in (d for d in found if d["kind"] == "Namespace"):
        assert (
            "restricted" == namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        )


def test_an_image_may_be_told_by_its_digest() -> None:
    """And be pulled with a secret."""
    image = f"registry.example/jenkins-agent-broker@sha256:{'0' * 64}"
    spec = pod_of(rendered(image=image, imagePullSecrets=[{"name": "r"}]), "Deployment")
    assert image == spec["containers"][0]["image"]
    assert [{"name": "r"}] == spec["imagePullSecrets"]


def selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = policy["spec"]["podSelector"].get("matchLabels", {})
    return wanted.items() <= labels.items()


@pytest.mark.parametrize("opened", [False, True])
def test_the_page_is_open_only_where_that_was_asked_for(
    opened: bool, tmp_path: pathlib.Path
) -> None:
    """By default it listens on loopback, has no service, and nobody's packets arrive."""
    found = rendered(*["values-page.yaml"] * opened)
    text = of_kind(found, "ConfigMap")["data"]["broker.yaml"]
    host, _ = loaded(text, tmp_path).listen or ("", 0)
    template = of_kind(found, "Deployment")["spec"]["template"]
    mine = [
        d
        for d in found
        if d["kind"] == "NetworkPolicy"
        and "namespace" not in d["metadata"]
        and selects(d, template["metadata"]["labels"])
    ]

    assert ("0.0.0.0" if opened else "127.0.0.1") == host
    assert opened == any(d["kind"] == "Service" for d in found)
    ports = [p["port"] for d in mine for rule in d["spec"]["ingress"] for p in rule["ports"]]
    assert ([8087] if opened else []) == ports
    assert all("Ingress" in d["spec"]["policyTypes"] for d in mine)
    assert mine
    assert "httpGet" not in str(template)


def test_agents_reach_what_they_need_and_nobody_reaches_them() -> None:
    """The controller of the configuration, names, and the world but no private network."""
    found = rendered()
    (policy,) = [d for d in found if d["kind"] == "NetworkPolicy" and "namespace" in d["metadata"]]
    url = yaml.safe_load(of_kind(found, "ConfigMap")["data"]["broker.yaml"])["controller"]["url"]

    assert selects(policy, pod.MANAGED_BY)
    assert [] == policy["spec"]["ingress"]
    assert {"Ingress", "Egress"} == set(policy["spec"]["policyTypes"])
    controller, names, world = policy["spec"]["egress"]
    assert url == f"http://jenkins.jenkins:{controller['ports'][0]['port']}/"
    assert {53} == {p["port"] for p in names["ports"]}
    assert "169.254.0.0/16" in world["to"][0]["ipBlock"]["except"]  # a cloud's own metadata


async def test_the_chart_s_probe_asks_the_page() -> None:
    """Healthy is 0, not ready and not there are not; with the program that the kubelet would run."""
    script = yaml.safe_load((CHART / "values.yaml").read_text())["probe"]
    assert "8087" in script

    async def asked(port: int, path: str) -> int:
        probe = script.replace("8087", str(port))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", probe, path, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    source = status_source.FixedSource(is_ready=(False, "nothing was read yet"))
    server = status.Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    port = int(url.rstrip("/").rpartition(":")[2])
    try:
        assert 0 == await asked(port, "/healthz")
        assert 0 != await asked(port, "/readyz")
        source.is_ready = (True, "")
        assert 0 == await asked(port, "/readyz")
    finally:
        await server.aclose()
    assert 0 != await asked(port, "/healthz")
