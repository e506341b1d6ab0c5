"""What users have on their controllers becomes a configuration that can be used, or is named."""

import copy
import pathlib
import random

import pytest
import yaml

from broker import config, importing
from broker.cli import main as cli
from broker.config import kinds, loading
from broker.importing import hiding
from tests.each import each

INPUTS = pathlib.Path(__file__).parent / "inputs"
NAMES = sorted(path.name for path in INPUTS.iterdir())
SECRETS = (
    "hunter2-hunter2",
    "{AQAAAB",
    "secret-word",
    "0123456789abcdefghij",
    "plain-text-secret",
    "bm90IGEgY2VydGlmaWNhdGU",
)


def text_of(name):
    """Return one of the inputs."""
    return (INPUTS / name).read_text()


def made(text):
    """Return what is made of a text."""
    return importing.convert(text, kinds.classes())


def settings_of(text, **environ):
    """Read a configuration as check-config does."""
    return loading.parse(text, kinds.classes(), environ=environ, secrets=config.Secrets.LOOKED_FOR)


def imported(name):
    """Return the plain data of what is made of an input, and what was said."""
    result = made(text_of(name))
    return yaml.safe_load(result.text), result


def clouds(*entries):
    """Return a file of Configuration as Code."""
    return yaml.safe_dump({"jenkins": {"clouds": list(entries)}})


def kubernetes(**template):
    """Return a cloud with one template."""
    return clouds({"kubernetes": {"name": "k", "templates": [template]}})


def template_of(text):
    """Return the first template that is made of a file, and what was said."""
    result = made(text)
    settings_of(result.text, SITE="x", MAX="7")
    return next(iter(yaml.safe_load(result.text)["templates"].values())), result


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_can_be_used_and_holds_no_secret(name):
    """Whatever was in the file: settings, comments, what is said, what is to be made."""
    result = made(text_of(name))
    settings = settings_of(result.text)
    assert settings.templates
    for secret in SECRETS:
        assert secret not in result.text
        assert secret not in "\n".join([*result.remarks, *result.create])


def test_agents_of_an_infrastructure():
    """The command of the agent stays where it finds its secret; yaml lies below the fields."""
    data, result = imported("infra-agents.yaml")
    backend, java = data["backends"]["build-cluster"], data["templates"]["java-21"]
    assert backend["token_file"] == "/etc/agent-broker/build-cluster-token"
    assert backend["ca_file"] == "/etc/agent-broker/build-cluster-ca.pem"
    assert (backend["namespace"], backend["cap"]) == ("agents", 120)
    assert (java["mode"], java["takes_unlabelled"]) == ("normal", True)
    assert java["retention"] == {"once": True, "idle": "5m"}
    assert java["resources"] == {
        "memory": "8G",
        "cpu_limit": 4,
        "memory_reservation": "8G",
        "cpu_shares": 2.5,
    }
    assert java["jvm_options"] == ["-XX:+PrintCommandLineFlags", "-Xmx512m"]
    assert "command" not in java
    pod = java["kubernetes"]["pod"]
    assert pod["spec"]["containers"][0]["command"] == ["/usr/local/bin/jenkins-agent"]
    assert pod["spec"]["tolerations"][0]["value"] == "true"
    assert pod["spec"]["securityContext"] == {"fsGroup": 1001}
    assert data["controller"]["url"] == "https://ci.example.com/"
    said = "\n".join(result.remarks)
    for word in ("JENKINS_SECRET", "directConnection", "idleMinutes 0", "mode NORMAL"):
        assert word in said
    assert any("build-cluster-ca.pem" in one for one in result.create)


def test_a_demo_of_the_docker_plugin():
    """Attached and SSH agents become inbound ones, and it is said what changes."""
    data, result = imported("docker-demo.yaml")
    attached, ssh = data["templates"]["attached"], data["templates"]["by-ssh"]
    assert attached["image"] == "jenkins/inbound-agent:latest"
    assert ssh["image"] == "jenkins/inbound-agent:latest-jdk17"
    assert attached["retention"] == {"once": True, "idle": "1m"}
    assert attached["environment"] == {"greeting": "hello"}
    assert attached["docker"]["docker_socket"] is True
    assert attached["docker"]["volumes"] == [
        {"target": "/scratch", "tmpfs": "64Mi"},
        {"name": "cache", "target": "/cache", "read_only": True},
    ]
    assert "mode" not in ssh
    assert "connector attach" in "\n".join(result.remarks)
    assert "SERVICE_PASSWORD" in "\n".join([*result.remarks, *result.create])


def test_a_service_on_mesos():
    """Sums of cores and memory, what today's Java refuses, and a secret as a file."""
    data, result = imported("dcos.xml")
    backend = data["backends"]["mesoscloud"]
    agent = data["templates"]["engine-inside"]
    assert backend["master"] == "zk://zk-1.example:2181,zk-2.example:2181/mesos"
    assert backend["secret_file"] == "/etc/agent-broker/mesoscloud-secret"
    assert agent["resources"] == {"memory": "1024Mi", "cpu_shares": 0.9}
    assert agent["executors"] == 4
    assert agent["retention"] == {"idle": "3m"}
    assert agent["jvm_options"] == [
        "-Xmx512m",
        "-Xms16m",
        "-Djava.net.preferIPv4Stack=true",
    ]
    mesos = agent["mesos"]
    assert mesos["constraints"] == [{"attribute": "rack", "operator": "IS", "value": "builds"}]
    assert mesos["docker_parameters"] == {"env": "EXTRA_OPTIONS=--debug"}
    assert mesos["uris"] == [{"value": "file:///etc/docker/docker.tar.gz", "extract": True}]
    assert (mesos["containerizer"], mesos["privileged"]) == ("docker", True)
    assert "wrapper.sh" in "\n".join(result.remarks)


def test_mesos_of_the_second_generation_keeps_its_variables():
    """In texts, in numbers and within durations."""
    result = made(text_of("mesos-2.yaml"))
    settings = settings_of(result.text, MASTER="http://m:5050", IDLE="4", CPUS="0.5")
    (template,) = settings.templates
    assert template.retention.once
    assert template.launch.resources.cpu_shares == 0.5
    assert settings.backends["mesos"].settings.master == "http://m:5050"


def test_docker_clouds_of_a_controllers_own_file():
    """Both plugins, with the classes of a controller's own file."""
    data, result = imported("docker-many.xml")
    one, other = data["backends"]["engine-one"], data["backends"]["other"]
    assert one["hosts"][0]["tls"] is True
    assert other["hosts"] == [{"url": "tcp://10.0.0.7:2375"}]
    assert data["controller"]["url"] == "http://jenkins.example.com:8080/"
    java, yad = data["templates"]["java-linux"], data["templates"]["yad"]
    assert java["backends"] == ["engine-one"]
    assert java["environment"] == {"A": "1", "FROM_NODE": "${X} stays"}
    assert java["resources"] == {"memory": "2048Mi", "cpu_limit": 1.5, "cpu_shares": 0.5}
    docker = java["docker"]
    assert docker["ports"] == ["8080", "18081:8081"]
    assert docker["dns"] == ["10.0.0.2", "10.0.0.3"]
    assert (docker["memory_swap"], docker["shm"], docker["pull"]) == ("4096Mi", "256Mi", "never")
    assert docker["cap_add"] == ["NET_ADMIN"]
    assert docker["docker"]["HostConfig"]["Privileged"] is True
    assert yad["retention"] == {"idle": "20m"}
    assert (yad["executors"], yad["connect_deadline"]) == (2, "120s")
    assert yad["docker"]["network"] == "host"
    assert any("registry-login" in one for one in result.create)


def test_a_cloud_of_the_swarm_plugin():
    """Every field of its templates is a setting, or is named with what it meant."""
    data, result = imported("docker-swarm.xml")
    backend = data["backends"]["docker-swarm"]
    assert "swarm" == backend["kind"]
    assert backend["managers"][0]["url"] == "tcp://manager.example.com:2376"
    assert backend["managers"][0]["tls"] is True
    java = data["templates"]["java-maven"]
    assert java["retention"] == {"once": True, "idle": "5m"}
    assert java["environment"] == {"A": "1"}
    assert java["resources"] == {
        "memory": "4096Mi", "memory_reservation": "1024Mi", "cpu_limit": 2, "cpu_shares": 0.5,
    }  # fmt: skip
    assert java["swarm"] == {
        "user": "1000",
        "cap_drop": [],
        "networks": ["builds"],
        "constraints": ["node.role==worker", "node.labels.pool==ci"],
        "platforms": ["linux/x86_64"],
        "dns": ["10.0.0.2", "10.0.0.3"],
        "dns_search": ["example.com"],
        "extra_hosts": ["nexus:10.0.0.9"],
        "volumes": [
            {"name": "/srv/maven", "target": "/home/jenkins/.m2"},
            {"target": "/scratch", "tmpfs": "64Mi"},
        ],
        "configs": [{"name": "settings", "target": "/etc/maven/settings.xml"}],
        "secrets": [
            {"name": "signing", "target": "/etc/signing.key"},
            {"name": "other", "target": "/run/secrets/token"},
        ],
        "labels": {"team": "ci", "stage": "test"},
    }
    assert data["templates"]["plain"]["swarm"]["user"] == "image"
    said = "\n".join(result.remarks)
    for words in ("published ports", "asked a volume driver", "fetched agent.jar", "C:\\cache"):
        assert words in result.text, words
    assert "API_TOKEN" in said
    assert any("registry-login" in one for one in result.create)
    assert any("swarm-tls" in one for one in result.create)


def test_several_namespaces_inheritance_and_a_file_that_is_partly_broken():
    """A backend for each namespace; parents are merged; a broken part costs itself."""
    data, result = imported("everything.yaml")
    assert [data["backends"][name]["namespace"] for name in data["backends"]] == [
        "ci",
        "builds",
        "bare",
    ]
    maven, base = data["templates"]["maven"], data["templates"]["base"]
    assert maven["backends"] == ["main-builds"]
    assert maven["retention"] == {"idle": "15m"}
    assert base["environment"] == {"SITE": "${SITE}", "KEPT": "${KEPT}"}
    pod = maven["kubernetes"]["pod"]["spec"]
    assert pod["priorityClassName"] == "low"  # of the parent's yaml, merged
    assert pod["dnsPolicy"] == "Default"
    side = pod["containers"][1]
    assert side["args"] == ["trap exit TERM; sleep infinity & wait"]
    assert {"name": "workspace", "mountPath": "/home/jenkins/agent", "subPath": "{name}"} in side[
        "volumeMounts"
    ]
    assert pod["volumes"][2]["secret"]["defaultMode"] == 0o440
    assert maven["connect"] == {"tunnel": "jenkins-agent.ci:50000"}
    said = "\n".join(result.remarks)
    for word in ("not YAML", "amazonEC2", "usageRestricted", "${SITE}", "nobody", "podRetention"):
        assert word in said
    assert "shoeSize" in result.text
    assert not any("SITE" in one for one in result.create)  # nobody reads it from the broker's


@each(
    ("fields", "path", "value"),
    [
        ({"label": "a b"}, ("labels",), "a b"),
        ({"label": "${SITE}"}, ("labels",), "${SITE}"),
        ({"instanceCap": "${MAX}"}, ("cap",), "${MAX}"),
        ({"instanceCap": 2147483647}, ("cap",), None),
        ({"idleMinutes": 0}, ("retention", "once"), True),
        ({"idleMinutes": 3}, ("retention",), {"idle": "3m"}),
        ({"nodeUsageMode": "EXCLUSIVE"}, ("mode",), None),
        ({"nodeUsageMode": ["EXCLUSIVE"]}, ("mode",), "normal"),
        ({"hostNetwork": True}, ("kubernetes", "pod", "spec", "hostNetwork"), True),
        ({"activeDeadlineSeconds": 600}, ("kubernetes", "active_deadline"), "600s"),
        ({"activeDeadlineSeconds": 1}, ("kubernetes", "active_deadline"), None),
        ({"runAsUser": 7}, ("kubernetes", "run_as_user"), 7),
        ({"containers": [{"name": "jnlp", "image": "i", "args": "-x"}]}, ("image",), "i"),
        ({"image": "old", "remoteFs": "/work"}, ("remote_fs",), "/work"),
        ({"yaml": "a: [", "label": "l"}, ("labels",), "l"),
        ({"inheritFrom": "n other", "name": ["n"], "label": "l"}, ("labels",), "l"),
    ],
)
def test_a_field_of_a_pod_template(fields, path, value):
    """As it is written in our words; what cannot be is left out, and everything else stays."""
    found, _ = template_of(kubernetes(**{"name": "n", **fields}))
    for key in path:
        found = None if found is None else found.get(key)
    assert found == value


def test_a_setting_that_check_config_refuses_stands_in_a_comment():
    """With the reason, and said aloud."""
    _, result = template_of(kubernetes(name="n", activeDeadlineSeconds=1))
    assert "#    active_deadline: 1s" in result.text
    assert any("active_deadline: left out" in remark for remark in result.remarks)


def test_of_a_pod_only_what_is_refused_is_left_out():
    """Also where two entries of one list are, and what stands beside them stays."""
    odd = {"key": "k", "operator": "Exists", "effect": "Never"}
    pod = {"spec": {"tolerations": [odd, {"key": "fine", "operator": "Exists"}, odd]}}
    containers = [
        {"name": "side", "image": "i", "resourceLimitCpu": "much", "resourceLimitMemory": "1Gi"}
    ]
    found, result = template_of(
        kubernetes(name="n", yaml=yaml.safe_dump(pod), containers=containers)
    )
    body = found["kubernetes"]["pod"]["spec"]
    side = next(one for one in body["containers"] if one["name"] == "side")
    assert side["resources"]["limits"] == {"memory": "1Gi"}
    assert [one.get("effect") for one in body["tolerations"]] == [None, None, None]
    assert any("resources.limits.cpu: left out" in remark for remark in result.remarks)


@each(
    ("text", "clean"),
    [
        ("run --password=a1b2 -v", "run --password=(removed) -v"),
        ("--env=DB_PASSWORD=a1b2;x", "--env=DB_PASSWORD=(removed);x"),
        ("--token a1b2", "--token (removed)"),
        ("API_KEY=$KEY --token ${T} --secret-file=/a/b", None),
        ("a token for you, 1 == 1", None),
        ("https://me:word@host/", "https://(removed)@host/"),
        ("{AQAAABAAAAAQabcd=}", "(removed)"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n", "(removed)"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_a_text(text, clean):
    """References and words of people stay."""
    assert hiding.cleaned(text) == (clean or text)


WRONG = ([], {}, {"a": {"b": "c"}}, ["x", 3], "", "x\ny", -1, 10**20, True, None, "${", "${A-b}")


def places(data, path=()):
    """Yield the path of every value."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*path, key)
            yield from places(value, (*path, key))


def replaced(data, path, value):
    """Return a copy with another value at a path."""
    data = copy.deepcopy(data)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


def cases():
    """Return clouds, as data, and the path of every value in them."""
    wholes = [
        yaml.safe_load(text_of(name))
        for name in ("infra-agents.yaml", "docker-demo.yaml", "mesos-2.yaml")
    ]
    inner = yaml.safe_load(text_of("everything.yaml"))["data"]["jobs.yaml"]
    wholes.append(yaml.safe_load(inner[inner.index("jenkins:") :]))
    clouds_ = [cloud for whole in wholes for cloud in whole["jenkins"]["clouds"]]
    files = [{"jenkins": {"clouds": [cloud]}} for cloud in clouds_]
    return [(data, path) for data in files for path in places(data) if len(path) > 4]


def check_wrong(data, path, value):
    """Whatever stands at a place: no crash, and what is made can be used."""
    try:
        result = made(yaml.safe_dump(replaced(data, path, value)))
    except importing.NotReadable:
        alone = {"templates", "mesosAgentSpecTemplates"} & set(path[-2:])  # the only one is wrong
        assert alone or "amazonEC2" in path
        return
    assert settings_of(result.text).templates, (path, value)


def test_a_value_of_the_wrong_kind_costs_itself():
    """A sample of all places."""
    dice = random.Random("wrong")
    for data, path in dice.choices(cases(), k=4):
        check_wrong(data, path, dice.choice(WRONG))


@pytest.mark.soak
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_no_value_of_the_wrong_kind_costs_more_than_itself(value):
    """Each place once, with one of the values."""
    for data, path in cases()[WRONG.index(value) :: len(WRONG)]:
        check_wrong(data, path, value)


@each(
    ("text", "words"),
    [
        ("", "no clouds"),
        ("jenkins: {numExecutors: 0}", "no clouds"),
        ("a: [", "not YAML"),
        ("<hudson>", "not XML"),
        ("<hudson><clouds/></hudson>", "no clouds"),
        ('<!DOCTYPE h [<!ENTITY a "b">]><hudson>&a;</hudson>', "document type"),
        ('<!DOCTYPE h SYSTEM "file:///etc/passwd"><hudson/>', "document type"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper"),
        (clouds({"amazonEC2": {"name": "x"}}), "nothing to import"),
    ],
)
def test_a_file_with_nothing_to_import_is_said_to_be_so(text, words):
    """In one line."""
    with pytest.raises(importing.NotReadable, match=words):
        made(text)


def test_the_command_prints_or_writes_a_new_file(tmp_path, capsys):
    """Never over another file; what matters is said on standard error."""
    source = tmp_path / "casc.yaml"
    source.write_text(text_of("docker-demo.yaml"))
    assert cli.main(["import", str(source)]) == 0
    printed = capsys.readouterr()
    assert "templates:\n  attached:" in printed.out
    assert "connector ssh" in printed.err
    assert "jenkins-token" in printed.err
    target = tmp_path / "broker.yaml"
    assert cli.main(["import", str(source), "--output", str(target)]) == 0
    assert target.read_text() == printed.out
    assert cli.main(["check-config", "-c", str(target)]) == 0
    target.write_text("mine")
    assert cli.main(["import", str(source), "--output", str(target)]) == 3
    assert target.read_text() == "mine"
    assert cli.main(["import", str(tmp_path / "none")]) == 2
    source.write_bytes(b"\xff\xfe")
    assert cli.main(["import", str(source)]) == 2


XML = "<?xml version='{}' encoding='{}'?>\n<hudson><clouds>{}</clouds></hudson>"
CLOUD = (
    "<com.nirima.jenkins.plugins.docker.DockerCloud><name>größe</name><templates>"
    "<com.nirima.jenkins.plugins.docker.DockerTemplate><labelString>l</labelString>"
    "<dockerTemplateBase><image>a:1</image></dockerTemplateBase>"
    "</com.nirima.jenkins.plugins.docker.DockerTemplate></templates>"
    "</com.nirima.jenkins.plugins.docker.DockerCloud>"
)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-8", "windows-1252", "UTF-16"])
def test_a_controllers_file_is_read_in_the_encoding_that_it_declares(tmp_path, capsys, encoding):
    """Of XML 1.0 and 1.1."""
    source = tmp_path / "config.xml"
    for version in ("1.0", "1.1"):
        source.write_bytes(XML.format(version, encoding, CLOUD).encode(encoding))
        assert cli.main(["import", str(source)]) == 0
        assert "gr" in capsys.readouterr().out
    text = importing.decoded(XML.format("1.1", encoding, CLOUD).encode(encoding))
    assert "größe" in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<?xml version='1.0' encoding='klingon'?><a/>", "its encoding is 'klingon'"),
        (b"<?xml version='1.0' encoding='zlib'?><a/>", "its encoding is 'zlib'"),
        (b"<?xml version='1.0'?><a>\xe4</a>", "not UTF-8 text, at byte 25"),
        (b"jenkins: \xe4", "not UTF-8 text, at byte 10"),
    ],
)
def test_a_file_in_no_encoding_is_said_to_be_so(tmp_path, capsys, data, words):
    """In one line, which names the file once."""
    source = tmp_path / "config.xml"
    source.write_bytes(data)
    assert cli.main(["import", str(source)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert line.count(str(source)) == 1


def test_credentials_that_are_not_named_are_not_named(tmp_path, capsys):
    """No empty name in a comment, and none in the list of what to make."""
    fields = {"connector": {"serverUrl": "tcp://e:2376", "tlsVerify": True, "credentialsId": ""}}
    template = {"labelString": "l", "dockerContainerLifecycle": {"image": "a:1"}}
    done = made(clouds({"yaDocker": {"name": "y", **fields, "templates": [template]}}))
    assert "credentialsId :" not in done.text
    assert not any("(was )" in one or "credentials )" in one for one in done.create)
    kubernetes = {"name": "k", "serverUrl": "https://k:6443", "templates": [{"label": "l"}]}
    done = made(clouds({"kubernetes": kubernetes}))
    assert not any("credentials )" in one for one in done.create)


def test_control_characters_are_spelt_so_the_result_can_be_read():
    """What a file holds by accident does not make a configuration that is refused."""
    text = clouds(
        {
            "kubernetes": {
                "name": "k",
                "credentialsId": "a\x1b[31mb",
                "templates": [
                    {"name": "t", "containers": [{"name": "jnlp", "image": "i\x1b[31m"}]}
                ],
            }
        }
    )
    result = made(text)

    assert result.text.replace("\n", "").isprintable()
    settings_of(result.text)


POD_OF_PEOPLE = """
spec:
  containers:
    - {name: maven, image: "maven:3.9", command: [sleep], args: [99d], workingDir: /w}
    - {name: db, image: "postgres:17"}
"""


@pytest.mark.parametrize("injects", [False, True])
def test_the_agent_s_container_is_the_agent_s_here(injects):
    """With what is put into it; its own command is used there only where nothing is."""
    told = {"label": "m", "yaml": POD_OF_PEOPLE, "agentContainer": "maven"}
    text = kubernetes(**told, **({"agentInjection": True} if injects else {}))
    template, result = template_of(text)
    section = template["kubernetes"]
    assert (section["agent_container"], template["image"]) == ("maven", "maven:3.9")
    assert template.get("inject", False) is injects
    containers = {one["name"]: one for one in section["pod"]["spec"]["containers"]}
    own = containers.get("maven", {})
    assert set(own) == (set() if injects else {"name", "command", "args"})
    backend = yaml.safe_load(result.text)["backends"]["k"]
    assert ("runtimes" in backend) is injects
    assert any("runtime build" in one for one in result.create) is injects
    assert ("remote_fs" in template) is not injects


def test_an_agent_s_container_that_the_pod_does_not_have_is_made():
    """Of the plugin's own image there, of the official one here."""
    template, _ = template_of(kubernetes(label="m", agentContainer="builder"))
    assert template["image"].startswith("jenkins/inbound-agent")
    assert template["kubernetes"]["agent_container"] == "builder"


def test_the_agent_s_container_in_the_controllers_own_file():
    """As config.xml has the two fields."""
    plugin = "org.csanchez.jenkins.plugins.kubernetes"
    text = f"""<?xml version='1.1' encoding='UTF-8'?><hudson><clouds>
    <{plugin}.KubernetesCloud plugin="kubernetes@4340"><name>k</name><templates>
    <{plugin}.PodTemplate><name>m</name><label>m</label>
    <agentContainer>maven</agentContainer><agentInjection>true</agentInjection>
    <containers><{plugin}.ContainerTemplate><name>maven</name><image>maven:3.9</image>
    <command>sleep</command><args>9999999</args></{plugin}.ContainerTemplate></containers>
    </{plugin}.PodTemplate></templates></{plugin}.KubernetesCloud></clouds></hudson>"""
    template, _ = template_of(text)
    assert template["kubernetes"]["agent_container"] == "maven"
    assert (template["inject"], template["image"]) == (True, "maven:3.9")
    assert "pod" not in template["kubernetes"]
