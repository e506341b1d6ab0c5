"""The pod that is made of a specification: golden files, and what holds for each."""

import json
import pathlib
import subprocess
from typing import Any

import attrs
import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from backends import api
from backends.kit import names, remarks, runtime
from backends.kubernetes import settings
from backends.kubernetes.exec import containers, incontainer
from backends.kubernetes.pods import merge, pod, states, volumes
from tests.each import each
from tests.kubernetes import recorded, test_merge
from tests.oracle import schemas

GOLDEN = pathlib.Path(__file__).parent / "golden"
SECRET = "0123456789abcdef-nobody-may-see"

PLAIN = api.InstanceSpec(
    name="ci-maven-abc123",
    metadata={"owner": "ci", "template": "maven", "node": "ci-maven-abc123", "created": "1"},
    use_entry_point=True,
    image="jenkins/inbound-agent:3283.v92c105e0f819-1",
    env={"JENKINS_SECRET": f"@{api.SECRETS}/agent-secret", "PRICE": "5$ $(HOME)"},
    secret_files={"agent-secret": SECRET},
)

MAVEN = settings.KubernetesTemplate(
    inherits=("docker-config", "spot"),
    pod={
        "metadata": {"labels": {"team": "build", "agent-broker/owner": "somebody"}},
        "spec": {
            "containers": [
                {"name": "jnlp", "env": [{"name": "TZ", "value": "UTC"}]},
                {
                    "name": "maven",
                    "image": "maven:3.9-eclipse-temurin-21",
                    "command": ["sleep", "infinity"],
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                },
                {
                    "name": "dind",
                    "image": "docker:27-dind",
                    "securityContext": {"privileged": True, "runAsUser": 0},
                },
            ],
            "volumes": [{"name": "workspace", "emptyDir": {"sizeLimit": "20Gi"}}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["git.example"]}],
            "topologyOfTomorrow": {"ring": 7},
        },
    },
    service_account="builder",
    node_selector={"kubernetes.io/arch": "amd64"},
    image_pull_secrets=("registry",),
    priority_class="builds",
)
PEOPLES = {
    "spec": {
        "containers": [
            {
                "name": "maven",
                "image": "maven:3.9",
                "command": ["sleep"],
                "args": ["99d"],
                "tty": True,
                "env": [{"name": "MAVEN_OPTS", "value": "-Xmx1g"}],
            },
            {"name": "postgres", "image": "postgres:17"},
        ]
    }
}
CHOSEN = settings.KubernetesTemplate(agent_container="maven", pod=PEOPLES)

FRAGMENTS = {
    "docker-config": {
        "spec": {
            "volumes": [{"name": "m2", "persistentVolumeClaim": {"claimName": "maven-cache"}}],
            "containers": [
                {"name": "maven", "volumeMounts": [{"name": "m2", "mountPath": "/root/.m2"}]}
            ],
        }
    },
    "spot": {"spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]}},
}

SERVED = incontainer.Served(url="http://jenkins.jenkins:8088/", authority="pem")
CASES = {
    "plain": PLAIN,
    "in-container": attrs.evolve(PLAIN, options=attrs.evolve(MAVEN, in_container=True)),
    "side-containers": attrs.evolve(
        PLAIN,
        options=MAVEN,
        resources=api.Resources(
            memory_bytes=1 << 30,
            memory_reservation_bytes=700_000_001,
            cpu_limit=2,
            cpu_shares=0.25,
        ),
    ),
    "agent-container": attrs.evolve(
        PLAIN,
        use_entry_point=False,
        image=None,
        argv=(runtime.JAVA, "-jar", runtime.JAR),
        runtime="default",
        options=CHOSEN,
    ),
    "own-command": attrs.evolve(
        PLAIN,
        argv=("/bin/sh", "-c", f"echo $$; cd {api.WORK} && exec ./agent"),
        use_entry_point=False,
        env={},
        secret_files={},
        options=settings.KubernetesTemplate(
            run_as_user=None,
            run_as_group=None,
            fs_group=None,
            restricted=False,
            active_deadline_s=None,
            work_directory="/data",
            image_pull_policy="Never",
        ),
    ),
}


def made(spec: api.InstanceSpec, owner: str = "ci") -> pod.Manifests:
    runtimes = {"default": settings.RuntimeImage(image="registry/agent-runtime:17")}
    return pod.make(spec, owner=owner, fragments=FRAGMENTS, served=SERVED, runtimes=runtimes)


def container(manifest: dict[str, Any], name: str = pod.AGENT) -> dict[str, Any]:
    return next(c for c in manifest["spec"]["containers"] if c["name"] == name)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    """The manifest is, to the letter, the one that was read and found right."""
    text = yaml.safe_dump(made(CASES[case]).pod, sort_keys=False)

    assert (GOLDEN / f"{case}.yaml").read_text() == text


@pytest.mark.parametrize("case", CASES)
def test_the_secret_is_in_its_own_object_only(case: str) -> None:
    """Neither the pod nor a ``repr`` shows it; the object belongs to the pod."""
    whole = made(CASES[case])

    assert SECRET not in json.dumps(whole.pod)
    assert SECRET not in repr(whole)
    secret = whole.secret("uid-1")
    assert [("Pod", whole.name, "uid-1")] == [
        (o["kind"], o["name"], o["uid"]) for o in secret["metadata"]["ownerReferences"]
    ]
    assert CASES[case].secret_files.items() <= secret["stringData"].items()


def test_small_files_of_ours_come_with_the_secret() -> None:
    """As they are, in the same folder; without a secret, too."""
    for secrets in (PLAIN.secret_files, {}):
        spec = attrs.evolve(
            PLAIN,
            secret_files=secrets,
            given_files={"ca.jks": b"\xfe\xed"},
            env={"STORE": f"{api.FILES}/ca.jks"},
        )
        made = pod.make(spec, owner="ci")
        (agent,) = made.pod["spec"]["containers"]
        (mount,) = [m for m in agent["volumeMounts"] if m["name"] == "agent-broker-secrets"]
        variables = {one["name"]: one["value"] for one in agent["env"]}
        assert variables["STORE"] == f"{mount['mountPath']}/ca.jks"
        secret = made.secret("uid-1")
        assert {"ca.jks": "/u0="} == secret["data"]
        assert dict(secrets) == secret["stringData"]


def test_only_the_agent_sees_the_secret() -> None:
    """A side container shares the working directory, not the secret."""
    manifest = made(CASES["side-containers"]).pod

    paths = {
        name: [m["mountPath"] for m in container(manifest, name)["volumeMounts"]]
        for name in ("jnlp", "maven", "dind")
    }
    assert paths == {
        "jnlp": ["/run/agent-broker", "/home/jenkins/agent"],
        "maven": ["/root/.m2", "/home/jenkins/agent"],
        "dind": ["/home/jenkins/agent"],
    }


def test_no_group_without_a_user() -> None:
    """A real runtime: "user group 1000 is specified without user", and the pod never starts."""
    images_own = attrs.evolve(PLAIN, options=settings.KubernetesTemplate(run_as_user=None))
    context = pod.make(images_own, owner="ours").pod["spec"]["securityContext"]
    assert {"runAsUser", "runAsGroup"}.isdisjoint(context)
    assert 1000 == context["fsGroup"]


def test_nobody_can_write_owner_marks_of_somebody_else() -> None:
    """Marks in a template are overwritten or dropped."""
    manifest = made(CASES["side-containers"]).pod

    ours = {k: v for k, v in manifest["metadata"]["labels"].items() if k.startswith("agent-b")}
    assert ours == {"agent-broker/owner": "ci", "agent-broker/template": "maven"}
    assert manifest["metadata"]["labels"]["team"] == "build"


def test_the_digest_tells_specifications_apart_but_not_secrets() -> None:
    """The same order again is known for the same, whatever the secret."""
    again = made(attrs.evolve(PLAIN, secret_files={"agent-secret": "another"}))
    other = made(attrs.evolve(PLAIN, env={}))

    assert made(PLAIN).digest == again.digest
    assert made(PLAIN).digest != other.digest


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ci-maven-abc123", "ci-maven-abc123"),
        ("a" * 63, "a" * 63),
        ("Agent_X.1", "agent-x-1-19df271f"),
        ("a.b", "a-b-2e7336dc"),
        ("A" * 63, "a" * 54 + "-1b58d00f"),
    ],
)
def test_pod_names(name: str, expected: str) -> None:
    """What Kubernetes allows stays; the rest becomes a name of its own, the same every time."""
    assert expected == pod.pod_name(name)


@hypothesis.given(st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z"))
def test_any_instance_name_gives_a_dns_name(name: str) -> None:
    """DNS-1123, 63 characters at most."""
    assert pod._DNS_LABEL.fullmatch(pod.pod_name(name))


@hypothesis.given(st.text(max_size=90), st.dictionaries(st.sampled_from(names.KEYS), st.text()))
def test_metadata_is_kept_whatever_it_holds(owner: str, metadata: dict[str, str]) -> None:
    """Annotations carry any text as ASCII; the owner becomes legal labels."""
    manifest = made(attrs.evolve(PLAIN, metadata=metadata), owner).pod

    kept = manifest["metadata"]["annotations"][pod.METADATA]
    assert kept.isascii()
    assert metadata == json.loads(kept)
    assert all(len(value) <= names.LABEL_MAX for value in manifest["metadata"]["labels"].values())


def expanded(text: str) -> str:
    """What Kubernetes makes of a value without any variable: ``$$`` is ``$``."""
    out, at = "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text) and text[at + 1] == "$":
            at += 1
        elif text[at] == "$" and at + 1 < len(text) and text[at + 1] == "(":
            end = text.find(")", at)
            assert end < 0, f"{text!r} refers to a variable"
        out += text[at]
        at += 1
    return out


@hypothesis.given(st.text(alphabet="$()a", max_size=12))
def test_values_arrive_as_they_are(value: str) -> None:
    """Kubernetes' own variables never touch our values and arguments."""
    manifest = made(attrs.evolve(PLAIN, env={"X": value}, argv=(value,))).pod

    agent = container(manifest)
    assert value == expanded(agent["env"][0]["value"])
    assert value == expanded(agent["args"][0])


@hypothesis.given(test_merge.LAYERS)
def test_whatever_a_user_writes_the_agent_stays_ours(layer: dict[str, Any]) -> None:
    """One agent's container, its secret mounted, the marks in place, never restarted."""
    mounted = [m["name"] for _, m in volumes.mounts(layer.get("spec") or {}) if m.get("name")]
    there = [{"name": name, "emptyDir": {}} for name in dict.fromkeys(mounted)]
    options = settings.KubernetesTemplate(pod=merge.merge(test_merge.spec(volumes=there), layer))
    manifest = made(attrs.evolve(PLAIN, options=options)).pod

    agents = [c for c in manifest["spec"]["containers"] if c["name"] == pod.AGENT]
    assert len(agents) == 1
    assert "/run/agent-broker" in [m["mountPath"] for m in agents[0]["volumeMounts"]]
    assert manifest["metadata"]["name"] == PLAIN.name
    assert manifest["spec"]["restartPolicy"] == "Never"
    assert pod.owner_labels("ci").items() <= manifest["metadata"]["labels"].items()


@pytest.mark.parametrize("told", [None, "Never", "OnFailure", "Always"])
def test_pods_are_restarted_only_if_asked_for(told: str | None) -> None:
    """``Never``, also where it is removed; a user may say otherwise, and the table knows both."""
    options = settings.KubernetesTemplate(pod={"spec": {"restartPolicy": told}})
    policy = made(attrs.evolve(PLAIN, options=options)).pod["spec"].get("restartPolicy")

    assert (told or "Never") == policy
    ended = next(
        thing
        for _, _, thing in recorded.events("pod-02")
        if any("terminated" in c["state"] for c in thing["status"].get("containerStatuses", []))
    )
    ended["spec"]["restartPolicy"] = policy
    over = states.see(ended).instance.state is api.InstanceState.EXITED
    assert (policy == "Never") == over


def body(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the body of the pod that is made of a template's ``pod.spec``."""
    options = settings.KubernetesTemplate(pod={"spec": told}, **changes)
    made_body: dict[str, Any] = made(attrs.evolve(PLAIN, options=options)).pod["spec"]
    return made_body


def volumes_at(made_body: dict[str, Any], path: str) -> dict[str, list[str]]:
    """Return what each container has mounted at a path."""
    return {
        c["name"]: [m["name"] for m in c["volumeMounts"] if m["mountPath"] == path]
        for c in made_body["containers"]
    }


@pytest.mark.parametrize("path", ["/home/jenkins/agent/", "/home//jenkins/agent", "/x"])
@pytest.mark.parametrize("work", ["/home/jenkins/agent", "/home/jenkins/agent/"])
def test_a_volume_of_the_users_own_at_the_working_directory_is_the_only_one(
    path: str, work: str
) -> None:
    """However the path is written: a runtime would lay the empty directory over it."""
    own = {"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}
    mount = {"name": "cache", "mountPath": path}
    pod_body = body(
        {"containers": [{"name": "jnlp", "volumeMounts": [mount]}], "volumes": [own]},
        work_directory=work,
    )

    expected = ["workspace"] if path == "/x" else ["cache"]
    assert {"jnlp": expected} == volumes_at(pod_body, "/home/jenkins/agent")
    assert "/home/jenkins/agent" == pod_body["containers"][0]["workingDir"]


@pytest.mark.parametrize("path", ["/run/agent-broker", "/run/agent-broker/"])
def test_nothing_lies_over_the_secret(path: str) -> None:
    """However its path is written."""
    mount = {"name": "workspace", "mountPath": path}
    pod_body = body({"containers": [{"name": "jnlp", "volumeMounts": [mount]}]})

    assert {"jnlp": ["agent-broker-secrets"]} == volumes_at(pod_body, "/run/agent-broker")


SIDE = {
    "name": "side",
    "image": "node:22",
    "volumeMounts": [{"name": "workspace-volume", "mountPath": "/home/jenkins/agent"}],
}


@pytest.mark.parametrize(
    ("volumes", "source"),
    [
        ([], {}),
        ([{"name": "workspace-volume", "emptyDir": {}}], {}),
        ([{"name": "workspace-volume", "emptyDir": {"medium": "Memory"}}], {"medium": "Memory"}),
        (
            [
                {"name": "workspace", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "workspace-volume", "emptyDir": {"medium": "Memory"}},
            ],
            {"sizeLimit": "1Gi"},
        ),
    ],
)
def test_the_plugins_name_of_the_working_directory_is_taken_for_ours(
    volumes: list[dict[str, Any]], source: dict[str, Any]
) -> None:
    """Declared or not; a side container sees what the agent checks out."""
    pod_body = body({"containers": [SIDE], "volumes": volumes})

    shared = {"jnlp": ["workspace"], "side": ["workspace"]}
    assert shared == volumes_at(pod_body, "/home/jenkins/agent")
    assert {"workspace": {"emptyDir": source}} == {
        v["name"]: {"emptyDir": v["emptyDir"]} for v in pod_body["volumes"] if "emptyDir" in v
    }


def test_a_volume_of_that_name_that_is_not_empty_is_the_users_own() -> None:
    """And who mounts it where the agent works is told that the agent's files are not there."""
    own = {"name": "workspace-volume", "nfs": {"server": "s", "path": "/{name}"}}
    told = {"spec": {"containers": [SIDE], "volumes": [own]}}
    pod_body = body(told["spec"])

    apart = {"jnlp": ["workspace"], "side": ["workspace-volume"]}
    assert apart == volumes_at(pod_body, "/home/jenkins/agent")
    common = remarks.Common(settings=settings.KubernetesSettings())
    (remark,) = settings.KubernetesTemplate(pod=told).remarks(common)
    assert "the container side has another volume at /home/jenkins/agent" in remark.text
    assert not remark.wrong


def test_containers_that_share_a_volume_of_their_own_are_told_nothing() -> None:
    """It is where the agent works that counts, not how the volume is called."""
    mount = {"volumeMounts": [{"name": "mine", "mountPath": "/home/jenkins/agent"}]}
    told = {
        "spec": {
            "containers": [{"name": "jnlp", **mount}, {**SIDE, **mount}],
            "volumes": [{"name": "mine", "emptyDir": {}}],
        }
    }
    common = remarks.Common(settings=settings.KubernetesSettings())
    assert [] == list(settings.KubernetesTemplate(pod=told).remarks(common))


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize(
    "mount",
    [
        {"volumeMounts": [{"name": "gone", "mountPath": "/x"}]},
        {"volumeDevices": [{"name": "gone", "devicePath": "/dev/x"}]},
    ],
)
def test_a_mount_of_no_volume_is_refused_without_a_cluster(
    kind: str, mount: dict[str, Any]
) -> None:
    """With both names, and those that there are."""
    with pytest.raises(api.Rejected, match=r"'c' mounts the volume 'gone'.* are: workspace"):
        body({kind: [{"name": "c", "image": "x", **mount}]})


@each(
    ("change", "words"),
    [
        ({"image": None}, "no image"),
        ({"files": (api.RemoteFile(url="http://x/a.jar", name="a.jar"),)}, "fetch no files"),
        ({"options": settings.KubernetesTemplate(inherits=("absent",))}, "docker-config, spot"),
        (
            {"options": settings.KubernetesTemplate(pod=test_merge.spec(containers=None))},
            "removes the container 'jnlp'",
        ),
        (
            {"options": settings.KubernetesTemplate(pod=test_merge.spec(volumes=None))},
            "removes the volume 'workspace'",
        ),
        (
            {"options": settings.KubernetesTemplate(pod={"spec": None})},
            "removes the section `spec`",
        ),
        ({"name": "-x"}, "not safe"),
        ({"secret_files": {"a/b": ""}}, "key of a secret"),
    ],
)
def test_what_cannot_be_a_pod_is_rejected(change: dict[str, Any], words: str) -> None:
    """With words that say what to change."""
    with pytest.raises(api.Rejected) as raised:
        made(attrs.evolve(PLAIN, **change))

    assert words in raised.value.reason


@pytest.mark.parametrize(
    "told",
    [
        {"pod": {"spec": {"os": {"name": "windows"}}}},
        {"pod": {"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}}},
        {"node_selector": {"kubernetes.io/os": "windows"}},
    ],
)
def test_a_windows_pod_gets_nothing_that_is_forbidden_there(told: dict[str, Any]) -> None:
    """What Kubernetes' own documentation lists for ``spec.os.name: windows``."""
    side = {"containers": [{"name": "side", "image": "x"}]}
    more = {"pod": {"spec": {**told.get("pod", {}).get("spec", {}), **side}}}
    options = settings.KubernetesTemplate(**{**told, **more})
    spec = api.InstanceSpec(
        name="a", metadata={}, image="x", options=options, secret_files={"agent-secret": "s"}
    )
    made = pod.make(spec, owner="o").pod["spec"]

    text = str(made)
    for forbidden in (
        "runAsUser", "runAsGroup", "fsGroup", "seccompProfile", "allowPrivilegeEscalation",
        "capabilities", "seLinuxOptions", "readOnlyRootFilesystem", "privileged",
    ):  # fmt: skip
        assert forbidden not in text
    assert {"agent-broker-secrets", "workspace"} == {v["name"] for v in made["volumes"]}


@pytest.mark.parametrize("path", ["C:/agent", "C:\\agent", "C:/agent/", "d:\\"])
def test_the_working_directory_of_a_windows_pod_may_have_a_drive(path: str) -> None:
    """In either way of writing it, as Windows takes it; a pod for Linux has no drives."""
    windows = settings.KubernetesTemplate(
        work_directory=path, node_selector={"kubernetes.io/os": "windows"}
    )
    spec = api.InstanceSpec(
        name="a", metadata={}, image="x", options=windows, env={"W": f"{api.WORK}/x"}
    )
    (agent,) = pod.make(spec, owner="o").pod["spec"]["containers"]
    plain = path.rstrip("/\\") if len(path) > 3 else path
    assert plain == agent["workingDir"]
    assert plain in [mount["mountPath"] for mount in agent["volumeMounts"]]
    assert {"name": "W", "value": f"{plain}/x"} in agent["env"]

    linux = settings.KubernetesTemplate(work_directory=path)
    with pytest.raises(api.Rejected, match="is a path of Windows, and the pod is for Linux"):
        pod.make(attrs.evolve(spec, options=linux), owner="o")


def test_a_windows_pod_has_no_in_container() -> None:
    """It needs a shell there."""
    options = settings.KubernetesTemplate(
        in_container=True, node_selector={"kubernetes.io/os": "windows"}
    )
    spec = api.InstanceSpec(
        name="a", metadata={}, image="x", options=options, secret_files={"agent-secret": "s"}
    )
    served = incontainer.Served(url="http://x/")
    with pytest.raises(api.Rejected, match="POSIX shell"):
        pod.make(spec, owner="o", served=served)


HOSTS = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-1", "node-2"]}
ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
ARM = {"key": "arch", "operator": "In", "values": ["arm64"]}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (None, [{"matchExpressions": [HOSTS]}]),
        ([], [{"matchExpressions": [HOSTS]}]),
        (
            [{"matchExpressions": [ZONE]}, {"matchFields": [ARM]}],
            [{"matchExpressions": [ZONE, HOSTS]},
             {"matchFields": [ARM], "matchExpressions": [HOSTS]}],
        ),
    ],
)  # fmt: skip
def test_nodes_that_are_to_be_avoided_are_left_to_others(terms, expected):
    """In every term, for one is enough; it is the same pod, for whoever looks for it again."""
    affinity = {"podAffinity": {"x": 1}}
    if terms is not None:
        required = {"nodeSelectorTerms": terms}
        affinity["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    options = settings.KubernetesTemplate(pod={"spec": {"affinity": affinity}})
    spec = attrs.evolve(PLAIN, options=options, avoid=("node-1", "node-2"))
    before = json.dumps(options.pod)
    made = pod.make(spec, owner="ci")
    told = made.pod["spec"]["affinity"]
    rules = told["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert ({"x": 1}, expected) == (told["podAffinity"], rules["nodeSelectorTerms"])
    assert made.digest == pod.make(attrs.evolve(spec, avoid=()), owner="ci").digest
    assert before == json.dumps(options.pod)


@pytest.mark.parametrize("all_containers", [True, False])
def test_a_pod_says_whether_all_its_containers_count(all_containers):
    """So that whoever looks at it later need not know its template."""
    options = settings.KubernetesTemplate(all_containers=all_containers)
    made = pod.make(attrs.evolve(PLAIN, options=options), owner="ci")
    assert all_containers is (pod.AGENT_ALONE not in made.pod["metadata"]["annotations"])


def test_a_build_may_use_the_grace_of_its_pod():
    """The hook waits, and the cluster waits for the hook; what the template says itself stays."""
    options = settings.KubernetesTemplate(drain_grace_s=900.0)
    body = pod.make(attrs.evolve(PLAIN, options=options), owner="ci").pod["spec"]
    hook = {"preStop": {"exec": {"command": ["sleep", "900"]}}}
    assert (900, hook) == (
        body["terminationGracePeriodSeconds"], body["containers"][0]["lifecycle"],
    )  # fmt: skip
    own = {"preStop": {"sleep": {"seconds": 5}}}
    said = {
        "terminationGracePeriodSeconds": 60,
        "containers": [{"name": "jnlp", "lifecycle": own}],
    }
    options = attrs.evolve(options, pod={"spec": said})
    body = pod.make(attrs.evolve(PLAIN, options=options), owner="ci").pod["spec"]
    assert (60, own) == (
        body["terminationGracePeriodSeconds"], body["containers"][0]["lifecycle"],
    )  # fmt: skip
    plain = pod.make(PLAIN, owner="ci").pod["spec"]
    assert "terminationGracePeriodSeconds" not in plain


# --- a Java that is brought in ---

BROUGHT = attrs.evolve(
    PLAIN,
    use_entry_point=False,
    image="golang:1.22",
    argv=(runtime.JAVA, "-jar", runtime.JAR, "$(HOME)"),
    runtime="default",
)


def brought(spec: api.InstanceSpec = BROUGHT, **told: Any) -> Any:
    runtimes = {"default": settings.RuntimeImage(image="registry/agent-runtime:17", **told)}
    return pod.make(spec, owner="ci", runtimes=runtimes).pod["spec"]


def test_an_init_container_copies_the_tree():
    """With its image's own program, in what the agent has, first; the agent has it read-only."""
    spec = attrs.evolve(BROUGHT, resources=api.Resources(memory_bytes=1 << 30))
    body = brought(spec, pull_policy="Never")
    (copy,), (agent,) = body["initContainers"], body["containers"]
    assert copy["image"] == "registry/agent-runtime:17"
    assert copy["imagePullPolicy"] == "Never"
    assert copy["command"][:2] == ["/opt/agent/bin/sh", "-c"]
    assert copy["resources"] == agent["resources"] != {}
    assert copy["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (to,) = copy["volumeMounts"]
    assert to["mountPath"] == copy["command"][-1] != runtime.ROOT
    assert {"name": to["name"], "mountPath": runtime.ROOT, "readOnly": True} in agent[
        "volumeMounts"
    ]
    assert {"name": to["name"], "emptyDir": {}} in body["volumes"]


def test_an_image_volume_is_mounted_as_it_is():
    """Nothing is copied."""
    body = brought(mount=True, pull_policy="Always")
    (agent,) = body["containers"]
    assert "initContainers" not in body
    (volume,) = (v for v in body["volumes"] if "image" in v)
    assert volume["image"] == {"reference": "registry/agent-runtime:17", "pullPolicy": "Always"}
    (mount,) = (m for m in agent["volumeMounts"] if m["name"] == volume["name"])
    assert (mount["mountPath"], mount["subPath"]) == (runtime.ROOT, "opt/agent")


def test_the_agent_finds_the_tools_behind_its_images_own():
    """Whose search path only the image knows: a shell of the tree's own adds to it."""
    (agent,) = brought()["containers"]
    shell, flag, script, *words = agent["command"]
    assert (shell, flag) == (f"{runtime.TOOLS}/sh", "-c")
    assert words == [runtime.JAVA, "-jar", runtime.JAR, "$$(HOME)"]
    assert "$(" not in script
    told = subprocess.run(
        ["/bin/sh", "-c", script, "/bin/sh", "-c", "echo $PATH; echo $0", "a b"],
        env={"PATH": "/image/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == "/image/bin:/opt/agent/bin\na b\n"


def test_temporary_files_have_a_place_unless_the_template_has_one():
    """Images from scratch have none, and a sealed root cannot be written to."""
    body = brought()
    assert {"name": "agent-broker-tmp", "emptyDir": {}} in body["volumes"]
    own = {"spec": {"containers": [{"name": "jnlp", "volumeMounts": [
        {"name": "big", "mountPath": "/tmp"}]}], "volumes": [{"name": "big", "emptyDir": {}}]}}  # fmt: skip
    options = settings.KubernetesTemplate(pod=own)
    (agent,) = brought(attrs.evolve(BROUGHT, options=options))["containers"]
    assert [m["name"] for m in agent["volumeMounts"] if m["mountPath"] == "/tmp"] == ["big"]


def test_a_container_of_a_pod_of_people_becomes_the_agent():
    """With Java in it, and the agent in the place of what only waited; all else stays theirs."""
    spec = attrs.evolve(
        BROUGHT,
        image=None,
        options=CHOSEN,
        env={"JENKINS_URL": "http://j/"},
        secret_files=PLAIN.secret_files,
        resources=api.Resources(memory_bytes=2 << 30),
    )
    body = brought(spec)
    (copy,), (agent, side) = body["initContainers"], body["containers"]
    assert (agent["name"], agent["image"], side["name"]) == ("maven", "maven:3.9", "postgres")
    assert agent["command"][-4:] == [runtime.JAVA, "-jar", runtime.JAR, "$$(HOME)"]
    assert "args" not in agent
    assert copy["resources"] == agent["resources"] == {"limits": {"memory": "2048Mi"}}
    assert [one["name"] for one in agent["env"]] == ["JENKINS_URL", "MAVEN_OPTS"]
    paths = {mount["mountPath"] for mount in agent["volumeMounts"]}
    assert {"/opt/agent", "/run/agent-broker", "/home/jenkins/agent", "/tmp"} == paths
    assert [m["name"] for m in side["volumeMounts"]] == ["workspace"]
    runtimes = {"default": settings.RuntimeImage(image="r:1")}
    whole = pod.make(spec, owner="ci", runtimes=runtimes).pod
    assert schemas.problems(whole) == []
    assert states.agent_container(whole) == "maven"


def test_steps_run_beside_the_agent_s_container_whatever_it_is_called():
    """In the others, and a container that is called as the agent's usually is."""
    whole = pod.make(attrs.evolve(PLAIN, options=CHOSEN), owner="ci").pod
    itself, other = containers.obstacle(whole, "maven"), containers.obstacle(whole, "postgres")
    assert itself is not None
    assert other is not None
    assert (itself.text, itself.is_final) == ("maven is this container itself", True)
    assert not other.is_final
    assert "others there: postgres" in str(containers.obstacle(whole, "jnlp"))


def test_without_java_to_bring_the_container_starts_as_its_pod_says():
    """It is the people's own affair then that it becomes an agent."""
    made_pod = pod.make(attrs.evolve(PLAIN, image=None, options=CHOSEN), owner="ci").pod
    agent = container(made_pod, "maven")
    assert (agent["command"], agent["args"]) == (["sleep"], ["99d"])
    assert [c["name"] for c in made_pod["spec"]["containers"]] == ["maven", "postgres"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"initContainers": [{"name": "maven", "image": "i"}]}, "an init container"),
        ({}, "no image.*in the container 'maven'"),
    ],
)
def test_a_container_that_cannot_be_the_agent_s_is_refused(told: Any, words: str) -> None:
    """One that ends before the agent begins, and one that nobody gave an image."""
    options = settings.KubernetesTemplate(agent_container="maven", pod={"spec": told})
    with pytest.raises(api.Rejected, match=words):
        pod.make(attrs.evolve(PLAIN, image=None, options=options), owner="ci")


def test_what_is_odd_about_the_agent_s_container_is_said():
    """A name that nobody has, the usual one beside it, and words that are not used."""
    common = remarks.Common(settings=settings.KubernetesSettings(), image="i")

    def said(options: settings.KubernetesTemplate, **told: Any) -> list[tuple[Any, bool]]:
        found = options.remarks(attrs.evolve(common, **told))
        return [(one.path[0], one.wrong) for one in found]

    assert said(CHOSEN) == []
    assert said(attrs.evolve(CHOSEN, agent_container="mavn")) == [("agent_container", False)]
    two = {
        "spec": {"containers": [*PEOPLES["spec"]["containers"], {"name": "jnlp", "image": "i"}]}
    }
    assert said(attrs.evolve(CHOSEN, pod=two)) == [("agent_container", False)]
    assert said(CHOSEN, injects=True) == []
    usual = {"spec": {"containers": [{"name": "jnlp", "command": ["tini"]}]}}
    wrapped = settings.KubernetesTemplate(pod=usual)
    assert (said(wrapped), said(wrapped, injects=True)) == ([], [("pod", False)])


def test_a_read_only_root_leaves_places_to_write_to():
    """Of the agent alone, unless its pod says otherwise; java needs one for temporary files."""
    told = settings.KubernetesTemplate(read_only_root=True, pod=PEOPLES)
    made_pod = pod.make(attrs.evolve(PLAIN, options=told), owner="ci").pod
    agent, side = container(made_pod), container(made_pod, "postgres")
    assert agent["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "agent-broker-tmp", "mountPath": "/tmp"} in agent["volumeMounts"]
    assert "readOnlyRootFilesystem" not in side["securityContext"]
    assert schemas.problems(made_pod) == []
    own = {"spec": {"containers": [
        {"name": "jnlp", "securityContext": {"readOnlyRootFilesystem": False}}]}}  # fmt: skip
    said = pod.make(attrs.evolve(PLAIN, options=attrs.evolve(told, pod=own)), owner="ci").pod
    assert container(said)["securityContext"]["readOnlyRootFilesystem"] is False
    windows = attrs.evolve(told, pod={"spec": {"os": {"name": "windows"}}})
    with pytest.raises(api.Rejected, match="for Linux"):
        pod.make(attrs.evolve(PLAIN, options=windows), owner="ci")


def test_what_confines_a_pod_is_in_its_own_words():
    """Groups, SELinux, AppArmor, seccomp: as the published schemas have them, beside ours."""
    context = {
        "supplementalGroups": [5000],
        "seLinuxOptions": {"type": "ci_t"},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "ci"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "ci.json"},
    }
    options = settings.KubernetesTemplate(pod={"spec": {"securityContext": context}})
    made_pod = pod.make(attrs.evolve(PLAIN, options=options), owner="ci").pod
    assert schemas.problems(made_pod) == []
    found = made_pod["spec"]["securityContext"]
    assert context.items() <= found.items()
    assert (found["runAsUser"], found["runAsGroup"], found["runAsNonRoot"]) == (1000, 1000, True)


def test_a_runtime_that_cannot_be_is_refused():
    """One that nobody configured, and one in a pod for Windows."""
    with pytest.raises(api.Rejected, match="no runtime 'default'"):
        pod.make(BROUGHT, owner="ci")
    windows = settings.KubernetesTemplate(
        pod={"spec": {"os": {"name": "windows"}}}, work_directory="C:\\jenkins"
    )
    with pytest.raises(api.Rejected, match="for Linux"):
        brought(attrs.evolve(BROUGHT, options=windows))


@pytest.mark.parametrize("mount", [False, True])
def test_what_brings_java_is_what_the_published_schemas_allow(mount):
    """Of the release that has image volumes."""
    runtimes = {"default": settings.RuntimeImage(image="r:1", mount=mount, pull_policy="Never")}
    made = pod.make(BROUGHT, owner="ci", runtimes=runtimes)
    assert schemas.problems(made.pod) == []
