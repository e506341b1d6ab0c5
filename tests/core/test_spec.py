"""From a decided launch to a node and an instance: what both sides are told."""

import attrs
import pytest

from backends import api
from broker.core import model
from broker.core.decide import spec
from broker.core.fleet import marks
from broker.core.model import BackendName, NodeName, TemplateName
from jnlp import secret as secrets
from jnlp import tunnel

NAME = NodeName("o-maven-x1")
SECRET = secrets.Secret("5ec2e7" * 10 + "abcd")
CONNECTION = tunnel.Connection(transport=tunnel.Transport.TCP, tunnel="gate:5000")
ROUTE = api.Route(ca_file="/etc/ca.pem")
LAUNCH = model.LaunchAgent(
    name=NAME, template=TemplateName("maven"), backend=BackendName("local"), reason="r"
)

FAST = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def launch(*own: str, memory: int | None = None, **more: object) -> model.LaunchSettings:
    return model.LaunchSettings(
        connection=tunnel.Connection(),
        agent_url="http://c/",
        jvm_options=own,
        resources=api.Resources(memory_bytes=memory),
        **more,
    )


def test_an_agent_starts_fast_by_default():
    """The first compiler, the simplest collector; the heap is the JVM's choice without a limit."""
    assert FAST == spec.jvm_options(launch())


@pytest.mark.parametrize(
    ("memory", "share", "heap"),
    [(2 << 30, 0.25, "-Xmx512m"), (1 << 30, 0.5, "-Xmx512m"), (128 << 20, 0.25, "-Xmx64m")],
)
def test_the_heap_is_a_share_of_the_limit(memory, share, heap):
    """So that a build beside it does not die for the agent's heap; never less than 64 MiB."""
    assert (*FAST, heap) == spec.jvm_options(launch(memory=memory, heap_share=share))


@pytest.mark.parametrize("own", ["-Xmx1g", "-XX:MaxRAMPercentage=50", "-XX:MaxHeapSize=1g"])
def test_a_heap_of_the_templates_own(own):
    """Is not told twice."""
    assert (*FAST, own) == spec.jvm_options(launch(own, memory=2 << 30))


def test_a_collector_of_the_templates_own():
    """A JVM with two collectors does not start."""
    assert (FAST[0], "-XX:+UseG1GC") == spec.jvm_options(launch("-XX:+UseG1GC"))


def test_the_templates_own_come_last():
    """Of two options of one name a JVM takes the last."""
    own = "-XX:TieredStopAtLevel=4"
    assert own == spec.jvm_options(launch(own))[-1]


def test_an_instance_is_told_where_it_must_not_run():
    """As its order says."""
    ordered = attrs.evolve(LAUNCH, avoid=("north", "south"))
    assert ("north", "south") == spec.instance(ordered, template(), site(), SECRET).avoid
    assert () == instance().avoid


# --- the whole of both ---


def template(**more):
    settings = {
        "connection": CONNECTION,
        "agent_url": "https://c/",
        "remote_fs": "/data/{name}",
        "image": "maven:3",
        "environment": {"WHO": "{name}", "JENKINS_URL": "mine"},
        "resources": api.Resources(memory_bytes=1 << 30),
        "jvm_options": ("-Dx=1",),
        "java": "/opt/java",
        "platform": {BackendName("local"): "of local", BackendName("other"): "of other"},
        "reconnect_for_s": 60.0,
        **more,
    }
    return model.Template(
        name=TemplateName("maven"),
        labels=frozenset({"maven", "linux", "a"}),
        backends=(BackendName("local"),),
        revision="r7",
        executors=3,
        exclusive=False,
        launch=model.LaunchSettings(**settings),
    )


def site(**more):
    fields = {
        "owner": "o",
        "style": spec.Style.COMMAND,
        "controller_version": "2.541.3",
        "jar_url": "https://c/jnlpJars/agent.jar",
        "work_dir": "/tmp/o-maven-x1",
        "authorities": ("PEM",),
        "route": ROUTE,
        "now": 1_000_000.4,
        **more,
    }
    return spec.Site(**fields)


def instance(of_template=None, **more):
    return spec.instance(LAUNCH, of_template or template(), site(**more), SECRET)


MARKS = marks.Marks(
    owner="o",
    template=TemplateName("maven"),
    backend=BackendName("local"),
    revision="r7",
    created_at=1_000_000.4,
)


def test_the_node_is_what_the_template_says():
    """Sorted labels, executors, mode, tunnel; its description says whose it is."""
    node = spec.definition(LAUNCH, template(), site())
    assert "o-maven-x1" == node.name
    assert MARKS.description() == node.description
    assert 3 == node.executors
    assert "/data/o-maven-x1" == node.remote_fs
    assert ("a", "linux", "maven") == node.labels
    assert node.exclusive is False
    assert CONNECTION == node.connection


def test_both_sides_carry_the_same_marks():
    """Whoever finds one of them knows the other."""
    made = instance()
    assert "o-maven-x1" == made.name
    assert MARKS.metadata(NAME) == made.metadata
    assert attrs.evolve(MARKS, created_at=1_000_000.0) == marks.from_metadata(made.metadata)


@pytest.mark.parametrize(
    ("remote_fs", "work_dir", "root", "own"),
    [
        ("/data/{name}", "/tmp/w", "/data/o-maven-x1", "/data/o-maven-x1"),
        ("/data", "/tmp/w", "/data", "/data"),
        (None, "/tmp/w", "/tmp/w", None),
        (None, None, "/home/jenkins/agent", None),
    ],
)
def test_where_the_agent_works(remote_fs, work_dir, root, own):
    """Where the template says, else where the backend has it, else where the images have it.

    Node and agent are told the same; the backend only what the template wants.
    """
    wanted = template(remote_fs=remote_fs)
    assert root == spec.definition(LAUNCH, wanted, site(work_dir=work_dir)).remote_fs
    made = instance(wanted, work_dir=work_dir)
    assert own == made.work_dir
    assert root == made.argv[made.argv.index("-workDir") + 1]


def test_a_backend_that_brings_nothing_gets_java_and_the_jar():
    """The secret is in a file alone; the jar is fetched the way that the settings say."""
    made = instance()
    assert (
        "/opt/java", *FAST, "-Xmx256m", "-Dx=1", "-jar", "${files}/agent.jar", "-url", "https://c/",
        "-tunnel", "gate:5000", "-workDir", "/data/o-maven-x1", "-noReconnectAfter", "60s",
        "-cert", "PEM", "-secret", "@${secrets}/agent-secret", "-name", "o-maven-x1",
    ) == made.argv  # fmt: skip
    jar = api.RemoteFile(url="https://c/jnlpJars/agent.jar", name="agent.jar", route=ROUTE)
    assert (jar,) == made.files
    assert {"agent-secret": SECRET.reveal()} == made.secret_files
    assert made.use_entry_point is False
    assert "maven:3" == made.image
    assert api.Resources(memory_bytes=1 << 30) == made.resources
    assert "of local" == made.options
    assert {"WHO": "o-maven-x1", "JENKINS_URL": "mine"} == made.env


def test_a_directory_in_common_holds_the_jars_that_agents_load():
    """Half the time until a new agent is online; there is none where instances share nothing."""
    argv = instance(shares=True).argv
    assert "${shared}/jars" == argv[argv.index("-jar-cache") + 1]
    assert "-jar-cache" not in instance().argv


def test_an_old_controllers_jar_is_called_as_it_can_be():
    """By its own version, not by what is newest."""
    argv = instance(controller_version="2.263.4").argv
    assert "hudson.remoting.jnlp.Main" in argv
    assert "-noReconnectAfter" not in argv


def test_an_image_with_an_entry_point_is_told_by_variables():
    """It brings its jar; the template's own environment has the last word."""
    made = instance(style=spec.Style.ENTRY_POINT)
    assert made.use_entry_point
    assert () == made.files
    assert ("-cert", "PEM") == made.argv
    assert f"{' '.join(FAST)} -Xmx256m -Dx=1" == made.env["JENKINS_JAVA_OPTS"]
    assert "@${secrets}/agent-secret" == made.env["JENKINS_SECRET"]
    assert "gate:5000" == made.env["JENKINS_TUNNEL"]
    assert "mine" == made.env["JENKINS_URL"]
    assert "o-maven-x1" == made.env["WHO"]


def test_an_old_image_is_given_the_templates_options_alone():
    """What it knows is JAVA_OPTS, which every Java tool of a build takes for its own."""
    made = instance(style=spec.Style.ENTRY_POINT, controller_version="2.263.4")
    assert "-Dx=1" == made.env["JAVA_OPTS"]


@pytest.mark.parametrize("style", spec.Style)
def test_a_program_of_the_templates_own(style):
    """Runs as it is in either style: no jar, no entry point, the secret as a path."""
    made = instance(template(command=("/run", "me")), style=style)
    assert ("/run", "me") == made.argv
    assert made.use_entry_point is False
    assert () == made.files
    assert "${secrets}/agent-secret" == made.env["JENKINS_SECRET_FILE"]
    assert {"agent-secret": SECRET.reveal()} == made.secret_files


def test_no_options_of_another_backend():
    """A template that runs on two is told each one's own."""
    assert instance(template(platform={BackendName("other"): "x"})).options is None
