"""An agent in an image without Java: what the platform is given."""

import pytest

from backends.kit import runtime
from broker import config
from broker.config import kinds, loading, rehearsal
from broker.config.errors import ConfigError

BASE = """
owner: o
controller: {url: "http://jenkins.example/", user: u, token: "env:T"}
backends: {docker: {kind: docker, runtimes: {default: {tar: /j.tar}, old: {folder: /j}}}, here: {kind: process}}
templates: {t: {labels: [a], image: "golang:1", backends: [docker], %s}}
"""


def settings(folder, said, backends="[docker]"):
    """Read a configuration whose template says this."""
    path = folder / "broker.yaml"
    path.write_text((BASE % said).replace("backends: [docker]", f"backends: {backends}"))
    return loading.load([path], kinds.classes(), environ={"T": "t"}, secrets=config.Secrets.UNREAD)


def order(folder, said):
    """Return what a launch would be given."""
    read = settings(folder, said)
    (template,) = config.policy(read, wall_now=0.0).templates
    return rehearsal.order(template, "docker", owner="o", style="entry-point", now=0.0)


def test_java_and_jar_are_those_of_the_runtime(tmp_path):
    """Nothing is fetched, nothing is left to the image's entry point."""
    spec = order(tmp_path, "inject: true")
    assert (spec.runtime, spec.use_entry_point, spec.files) == ("default", False, ())
    assert spec.argv[0] == runtime.JAVA
    assert spec.argv[spec.argv.index("-jar") + 1] == runtime.JAR
    assert set(runtime.JVM_OPTIONS) <= set(spec.argv[: spec.argv.index("-jar")])
    assert spec.env["LC_ALL"] == "C.UTF-8"
    assert spec.env["HOME"] == spec.argv[spec.argv.index("-workDir") + 1]


def test_the_templates_environment_wins(tmp_path):
    """Over what images lack."""
    spec = order(tmp_path, "inject: old, environment: {LC_ALL: C, HOME: /root}")
    assert (spec.runtime, spec.env) == ("old", {"LC_ALL": "C", "HOME": "/root"})


def test_without_it_nothing_changes(tmp_path):
    """The image brings its own."""
    spec = order(tmp_path, "cap: 3")
    assert (spec.runtime, spec.use_entry_point) == (None, True)


@pytest.mark.parametrize(
    ("said", "backends", "words"),
    [
        ("inject: none", "[docker]", "no runtime 'none'; its runtimes: default, old"),
        ("inject: true", "[docker, here]", "backend here, of kind process, brings no Java"),
        ("inject: true, command: [x]", "[docker]", "command: given beside inject"),
        ("inject: true, java: /usr/bin/java", "[docker]", "java: given beside inject"),
        ("inject: false", "[docker]", "true, or the name of a runtime"),
        ("inject: 3", "[docker]", "true, or the name of a runtime"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_read(tmp_path, said, backends, words):
    """Never silently."""
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, said, backends)
    assert words in "\n".join(caught.value.lines)
