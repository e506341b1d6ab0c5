"""Authorities of a template: what is read, what is refused, and what agents are given."""

import pathlib
import subprocess

import pytest

from broker import config
from broker.config import kinds, loading, rehearsal, trusting
from broker.config.errors import ConfigError
from jnlp import truststore
from tests.docker import certificates
from tests.each import each

BASE = """
owner: o
controller: {url: "http://here.example/", user: u, token: "env:T"}
backends:
  docker: {kind: docker}
  process: {kind: process}
  pods: {kind: kubernetes, namespace: n, server: "https://k", token_file: /t}
  services: {kind: swarm}
  tasks: {kind: mesos, master: "http://127.0.0.1:5050"}
templates:
  t: {labels: [a], image: i, backends: [BACKEND], trust: {ca_file: own.pem, public_file: all.pem}}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a private authority and a public one."""
    for name in ("own", "all"):
        made = certificates.Authority(tmp_path, f"of-{name}")
        (tmp_path / f"{name}.pem").write_bytes(pathlib.Path(made.file).read_bytes())
    return tmp_path


def settings(
    folder, *, backend="docker", more="", secrets=config.Secrets.NEEDED, alone=False, kind=""
):
    path = folder / "broker.yaml"
    text = BASE.replace("BACKEND", backend).replace("kind: mesos", kind or "kind: mesos")
    if "trust:" in more or alone:
        text = text.replace(", trust: {ca_file: own.pem, public_file: all.pem}", "")
    more += ", trust: {ca_file: own.pem, public: false}" if alone else ""
    path.write_text(text.replace("image: i", f"image: i{more}"))
    return loading.load([path], kinds.classes(), environ={"T": "t"}, secrets=secrets)


def template(read):
    return config.policy(read, wall_now=0.0).templates[0]


def refused(folder, **more):
    with pytest.raises(ConfigError) as caught:
        settings(folder, **more)
    return "\n".join(caught.value.lines)


def warned(read):
    return "\n".join(one.words() for one in read.warnings if "templates.t" in one.words())


@each("style", ["entry-point", "command"])
def test_agents_are_told_by_variables_and_an_option(folder, style):
    """The files come with the launch."""
    one = template(settings(folder))
    spec = rehearsal.order(one, "docker", owner="o", style=style, now=0.0)
    assert spec.env["SSL_CERT_FILE"] == "${files}/ca-bundle.pem"
    told = spec.env["JENKINS_JAVA_OPTS"].split() if style == "entry-point" else spec.argv
    assert "-Djavax.net.ssl.trustStore=${files}/ca-store.jks" in told


def test_what_is_handed_over_is_both(folder):
    """The public ones as they are at the moment of the launch."""
    trust = template(settings(folder)).launch.trust
    handed = trusting.handed(trust)
    own, public = ((folder / name).read_text().strip() for name in ("own.pem", "all.pem"))
    assert handed[truststore.OWN].decode().strip() == own
    assert handed[truststore.BUNDLE].decode() == f"{own}\n{public}\n"
    assert trusting.handed(trust) is handed  # made once
    (folder / "all.pem").write_text(f"{public}\n{own}\n")
    assert trusting.handed(trust)[truststore.BUNDLE].decode() == f"{own}\n{public}\n{own}\n"


def test_of_nobody_nothing_is_handed_over():
    """Most templates have no such thing."""
    assert trusting.handed(None) == {}


def test_another_authority_is_another_revision_and_another_public_one_is_not(folder):
    """So agents are replaced for the one; the other comes with those that are started."""
    before = template(settings(folder)).revision
    text = (folder / "own.pem").read_text()
    (folder / "all.pem").write_text(text)
    assert before == template(settings(folder)).revision
    (folder / "own.pem").write_text(text + text)
    assert before != template(settings(folder)).revision


@pytest.mark.parametrize("backend", ["tasks"])
def test_who_brings_no_files_says_so(folder, backend):
    """With what to do instead."""
    told = refused(folder, backend=backend)
    assert f"templates.t.trust: backend {backend}, of kind" in told
    assert "does not honour it" in told
    assert "name the files in `environment` and `jvm_options`" in told


def test_hosts_of_mesos_fetch_them_where_they_reach_the_broker(folder):
    """Else it is said what is missing."""
    assert "hint: `handover` of the backend" in refused(folder, backend="tasks")
    reached = 'kind: mesos, handover: {listen: "h:1", url: "https://h:1"}'
    read = settings(folder, backend="tasks", kind=reached)
    assert template(read).launch.trust is not None


def test_a_file_that_no_config_of_a_swarm_holds_is_told(folder):
    """Before the first agent; what fits is taken."""
    assert template(settings(folder, backend="services")).launch.trust is not None
    pem = (folder / "all.pem").read_text()
    (folder / "all.pem").write_text(pem * (600_000 // len(pem)))
    told = refused(folder, backend="services")
    assert "templates.t.trust: a file of " in told
    assert "of kind swarm, takes 511999; hint: a smaller public_file" in told


def test_pods_share_the_public_ones(folder):
    """As many as a ConfigMap holds."""
    read = settings(folder, backend="pods")
    assert not warned(read)
    assert template(read).launch.trust.public
    pem = (folder / "all.pem").read_text()
    (folder / "all.pem").write_text(pem * ((700 << 10) // len(pem)))
    told = refused(folder, backend="pods")
    assert "templates.t.trust: backend pods, of kind kubernetes, does not honour it" in told
    assert "1 MiB" in told
    (folder / "all.pem").unlink()  # that is another mistake, and the only one
    assert "MiB" not in refused(folder, backend="pods")


def test_your_own_alone_are_small(folder):
    """Nothing public is looked for, then, nor handed over."""
    (folder / "all.pem").unlink()
    more = {"backend": "pods", "alone": True}
    trust = template(settings(folder, **more)).launch.trust
    handed = trusting.handed(trust)
    assert handed[truststore.BUNDLE] == handed[truststore.OWN]
    assert handed[truststore.STORE].count(b"own-") == 1
    assert sum(map(len, handed.values())) == trusting.size(trust) < 4096


def test_public_authorities_are_not_named_where_there_are_to_be_none(folder):
    """One of them is a mistake."""
    told = refused(folder, more=", trust: {ca_file: own.pem, public_file: all.pem, public: false}")
    assert "trust.public_file: given beside public: false" in told


@each(
    ("content", "words"),
    [
        (b"", "own.pem: it holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 of 1"),
        (None, "own.pem: No such file"),
        ("key", "own.pem holds a private key; hint: the certificates alone"),
        ("many", "own.pem holds 101 certificates; allowed: 100; hint: your own alone"),
        ("large", "own.pem: larger than"),
        ("second", "certificate 2 of 2 in"),
        ("folder", "own.pem: it is not a file"),
    ],
)
def test_files_that_are_refused(folder, content, words):
    """Each with its place, and a certificate with its position."""
    path, good = folder / "own.pem", (folder / "all.pem").read_bytes()
    path.unlink() if path.is_file() else path.rmdir()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(
            {
                "key": good + (folder / "of-own" / "ca.key").read_bytes(),
                "many": good * 101,
                "large": good + b"#" * (1 << 20),
                "second": good + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            }.get(content, content)
        )
    told = refused(folder)
    path.touch() if not path.exists() else None
    assert "templates.t.trust.ca_file" in told
    assert words in told


def test_the_public_ones_have_to_be_somewhere(folder):
    """Or agents would trust nobody else."""
    (folder / "all.pem").unlink()
    assert "trust.public_file: found" in refused(folder)
    read = settings(folder, secrets=config.Secrets.LOOKED_FOR)
    assert "trust.public_file: found" in warned(read)


@each("content", ["AAAA", "AA==AA", "A"])
def test_each_public_one_can_be_read(folder, content):
    """A JVM reads no store with one that is none: it would trust nobody."""
    good = (folder / "own.pem").read_text()
    odd = f"-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n"
    (folder / "all.pem").write_text(good + odd)
    words = "certificate 2 of 2 cannot be read; allowed: a PEM file"
    assert words in refused(folder)


def test_a_file_of_another_machine_is_warned_of(folder):
    """As of ``controller.ca_file``."""
    (folder / "own.pem").unlink()
    read = settings(folder, secrets=config.Secrets.LOOKED_FOR)
    assert "trust.ca_file: not here" in warned(read)


def test_what_is_no_authority_is_warned_of(folder):
    """A server's own certificate, and an authority that is too old."""
    pair = certificates.Authority(folder, "third").signed("server", "DNS:localhost")
    (folder / "own.pem").write_bytes(pathlib.Path(pair.cert).read_bytes())
    assert "it is not an authority" in warned(settings(folder))
    extensions = folder / "old.ext"
    extensions.write_text("basicConstraints=critical,CA:TRUE\n")
    request = pair.cert.replace(".pem", ".csr")
    own = ["-signkey", pair.key, "-extfile", extensions]
    command = ["openssl", "x509", "-req", "-in", request, *own, "-out", folder / "own.pem"]
    # a newer one makes none that ends before it begins, an older one knows no other way
    dates = ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
    ways = (dates, ["-days", "-1"])
    assert any(
        subprocess.run([*command, *way], check=False, capture_output=True).returncode == 0
        for way in ways
    )
    assert "certificate 1 of 1" in (told := warned(settings(folder)))
    assert "it was good until" in told


def test_the_templates_own_words_win(folder):
    """And are warned of."""
    more = (
        ", environment: {SSL_CERT_FILE: /mine, JAVA_TOOL_OPTIONS: -Da=b}"
        ", jvm_options: [-Djavax.net.ssl.trustStore=/mine]"
    )
    read = settings(folder, more=more)
    spec = rehearsal.order(template(read), "docker", owner="o", style="entry-point", now=0.0)
    assert spec.env["SSL_CERT_FILE"] == "/mine"
    assert spec.env["JENKINS_JAVA_OPTS"].split()[-1] == "-Djavax.net.ssl.trustStore=/mine"
    told = warned(read)
    assert "environment.SSL_CERT_FILE: trust gives it" in told
    assert "jvm_options[0]: trust gives this option" in told
    assert "JAVA_TOOL_OPTIONS" not in told


def test_the_systems_public_authorities_are_found(folder, monkeypatch):
    """Whatever SSL_CERT_FILE of the broker says."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    try:
        found = trusting.public_certificates(None)
    except OSError:
        pytest.skip("this system has no package ca-certificates")
    assert len(found) > 50
