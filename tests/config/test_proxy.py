"""A template's proxy: what agents are told, what is refused, what is warned of."""

import pytest

from broker import config
from broker.config import kinds, loading, rehearsal
from broker.config.errors import ConfigError
from tests.each import each

BASE = """
owner: o
controller: {url: "http://here.example/", user: u, token: "env:T", agent_url: "AGENTS"}
backends:
  docker: {kind: docker}
  process: {kind: process}
templates: {t: {labels: [a], image: i, proxy: {SAID}MORE}}
"""
URL = "http: 'http://proxy.example:3128'"


def settings(folder, said, *, more="", agents="https://jenkins.example/"):
    """Read a configuration whose template says this."""
    path = folder / "broker.yaml"
    text = BASE.replace("SAID", said).replace("AGENTS", agents)
    path.write_text(text.replace("MORE", f", {more}" if more else ""))
    return loading.load([path], kinds.classes(), environ={"T": "t"}, secrets=config.Secrets.UNREAD)


def order(read, *, style="entry-point", version=rehearsal.TODAYS):
    """Return what a launch would be given."""
    (template,) = config.policy(read, wall_now=0.0).templates
    around = rehearsal.Surroundings(controller_version=version)
    return rehearsal.order(template, "docker", owner="o", style=style, now=0.0, around=around)


def warned(read):
    return "\n".join(one.words() for one in read.warnings if "proxy" in one.words())


def refused(folder, said, **more):
    with pytest.raises(ConfigError) as caught:
        settings(folder, said, **more)
    return "\n".join(caught.value.lines)


def test_builds_and_the_jvm_are_told(tmp_path):
    """By variables and options; the controller and this machine are left out."""
    read = settings(tmp_path, f"{URL}, no_proxy: [.corp.example]")
    env = order(read).env
    assert env["http_proxy"] == env["https_proxy"] == "http://proxy.example:3128"
    assert env["no_proxy"] == "localhost,127.0.0.1,::1,jenkins.example,.corp.example"
    options = env["JENKINS_JAVA_OPTS"].split()
    assert "-Dhttps.proxyHost=proxy.example" in options
    assert "jenkins.example" in options[-1].split("|")
    assert not warned(read)
    assert set(options) <= set(order(read, style="command").argv)


def test_an_image_of_old_is_told_by_the_variable_that_it_knows(tmp_path):
    """Whose value builds inherit: they are to go that way anyway."""
    env = order(settings(tmp_path, URL), version="2.263.4").env
    assert "-Dhttp.proxyHost=proxy.example" in env["JAVA_OPTS"].split()


def test_what_reaches_the_controller_besides_its_url_is_left_out(tmp_path):
    """The tunnel of the agents' connection."""
    read = settings(tmp_path, URL, more="connect: {tunnel: 'gate.example:5000'}")
    assert order(read).env["no_proxy"].endswith("jenkins.example,gate.example")


def test_the_agent_itself_goes_by_way_of_it_where_that_is_said(tmp_path):
    """Then nothing of the controller is left out; unless the template does it."""
    env = order(settings(tmp_path, f"{URL}, agent: true")).env
    assert "jenkins.example" not in env["no_proxy"] + env["JENKINS_JAVA_OPTS"]
    said = warned(settings(tmp_path, f"{URL}, agent: true, no_proxy: [example]"))
    assert "proxy.agent: true, and example goes without the proxy" in said
    assert "localhost goes without" in warned(
        settings(tmp_path, f"{URL}, agent: true", agents="http://localhost:8080/")
    )


def test_the_templates_own_environment_wins(tmp_path):
    """And is warned of, where it says something else."""
    own = "environment: {http_proxy: 'http://own.example:1', https_proxy: 'http://proxy.example:3128'}"
    read = settings(tmp_path, URL, more=own)
    assert order(read).env["http_proxy"] == "http://own.example:1"
    assert "environment.http_proxy: it says otherwise than proxy" in warned(read)
    assert "environment.https_proxy" not in warned(read)


def test_the_templates_own_spelling_is_the_only_one(tmp_path):
    """Of two that differ in their case alone a build gets one, by chance."""
    own = "environment: {HTTP_PROXY: 'http://own.example:1', No_Proxy: '*', HTTPS_PROXY: 'http://proxy.example:3128'}"
    read = settings(tmp_path, URL, more=own)
    told = {name for name in order(read).env if name.lower().endswith("_proxy")}
    assert told == {"HTTP_PROXY", "No_Proxy", "HTTPS_PROXY"}
    said = warned(read)
    assert "environment.HTTP_PROXY: it says otherwise than proxy" in said
    assert "environment.HTTPS_PROXY: builds get it in place of https_proxy" in said


def test_the_templates_own_options_win(tmp_path):
    """Of two a JVM takes the last."""
    read = settings(tmp_path, URL, more="jvm_options: [-Dhttp.proxyHost=own]")
    assert order(read).env["JENKINS_JAVA_OPTS"].split()[-1] == "-Dhttp.proxyHost=own"
    assert "jvm_options[0]: proxy gives this option, too" in warned(read)


def test_what_java_cannot_be_told_is_said(tmp_path):
    """A network of which Java's patterns are too many."""
    assert "no word for 10.0.0.0/9" in warned(settings(tmp_path, f"{URL}, no_proxy: [10.0.0.0/9]"))


@each(
    ("said", "words"),
    [
        ("", "proxy: it names no proxy"),
        ("agent: true, https: 'http://p:1'", "proxy.agent: true, and there is no http"),
        ("http: 'http://u:hunter2@p:1'", "proxy.http: found a URL with a user (not shown)"),
        ("https: 'https://p:1'", "proxy.https: found 'https://p:1'; allowed: http://HOST:PORT"),
        (f"{URL}, no_proxy: [ok, 'a:1']", "proxy.no_proxy[1]: found 'a:1'"),
        ("http: 'http://[fe80::1%a b]:1'", "proxy.http: found 'http://[fe80::1%a b]:1'"),
        (f"{URL}, no_proxy: ['fe80::1%a,b|c']", "proxy.no_proxy[0]: found 'fe80::1%a,b|c'"),
    ],
)
def test_what_is_refused(tmp_path, said, words):
    """With its place; a password is never shown."""
    told = refused(tmp_path, said)
    assert words in told
    assert "hunter2" not in told


def test_a_changed_proxy_is_another_revision_and_none_is_the_old_one(tmp_path):
    """Agents that go by another way are replaced; who has no proxy notices nothing."""

    def revision(said):
        return config.policy(settings(tmp_path, said), wall_now=0.0).templates[0].revision

    assert revision(URL) == revision(f"{URL}/".replace("'/", "/'"))
    assert revision(URL) != revision(f"{URL}, agent: true")


def test_a_template_can_do_without_the_proxy_of_the_defaults(tmp_path):
    """By naming none."""
    path = tmp_path / "broker.yaml"
    path.write_text(
        BASE.replace("proxy: {SAID}MORE", "proxy: null").replace("AGENTS", "http://c/")
        + "defaults: {proxy: {"
        + URL
        + "}}\n"
    )
    read = loading.load([path], kinds.classes(), environ={"T": "t"})
    assert "http_proxy" not in order(read).env
