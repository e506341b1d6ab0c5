"""A proxy as variables and options; Java, curl and Python say whether they are understood."""

import shutil
import socket
import subprocess
import threading
import urllib.request

import pytest

from jnlp import proxy, tunnel
from tests.each import each

PLAIN = "http://proxy.example:3128"
HOSTS = [
    ("jenkins.example.org", True),
    ("sub.jenkins.example.org", True),
    ("corp.example", True),
    ("a.corp.example", True),
    ("notcorp.example", False),
    ("10.1.2.3", True),
    ("11.1.2.3", False),
    ("172.31.0.1", True),
    ("172.32.0.1", False),
    ("192.0.2.7", True),
    ("192.0.2.8", False),
    ("localhost", True),
    ("127.0.0.1", True),
    ("[::1]", True),
    ("[2001:db8::7]", True),
    ("[2001:db8::8]", False),
    ("maven.example.net", False),
]
"""Hosts, and whether they are reached without the proxy."""
DIRECT = tuple(
    map(
        proxy.entry,
        (
            "Jenkins.example.org",
            "*.corp.example",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.0.2.7",
            "[2001:DB8::7]",
        ),
    )
)
BOTH = proxy.Proxy(http=PLAIN, https="http://secure.example:8080", direct=DIRECT)

JAVA = """
import java.net.*;
class Asks {
    public static void main(String[] told) throws Exception {
        for (String one : told) {
            Proxy chosen = ProxySelector.getDefault().select(new URI(one)).get(0);
            System.out.println(chosen.type() + " " + chosen.address());
        }
    }
}
"""


@each(
    ("text", "hint"),
    [
        ("http://u:hunter2@proxy:3128", "by their addresses"),
        ("u:hunter2@proxy:3128", "by their addresses"),
        ("http://proxy", "without a port"),
        ("http://proxy:0", "without a port"),
        ("https://proxy:3128", "plain HTTP"),
        ("socks5://proxy:1080", "plain HTTP"),
        ("proxy:3128", ""),
        ("http://proxy:3128/x", ""),
        ("http://proxy:3128?x", ""),
        ("http://proxy:99999", ""),
        ("http://[::1:3128", ""),
        ("http://a b:3128", ""),
        ("http://:3128", ""),
        ("", ""),
    ],
)
def test_proxies_that_are_refused(text, hint):
    """With what is allowed and a hint; a password is never quoted."""
    with pytest.raises(proxy.ProxySettingError) as caught:
        proxy.url(text)
    assert "http://HOST:PORT" in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in str(caught.value)


@each(
    ("text", "written"),
    [
        (PLAIN, PLAIN),
        (f"{PLAIN}/", PLAIN),
        ("HTTP://10.0.0.1:80", "http://10.0.0.1:80"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
    ],
)
def test_proxies_that_everybody_understands(text, written):
    """In one spelling, whose port is always there: agent.jar fails without."""
    assert written == proxy.url(text)


@each(
    ("text", "hint"),
    [
        ("a,b", "an entry for each"),
        ("a|b", "an entry for each"),
        ("a b", "an entry for each"),
        ("http://a", "the name alone"),
        ("a:80", "without a port"),
        ("10.0.0.1/8", "first address"),
        ("10.0.0/8", ""),
        ("300.1.1.1", ""),
        ("*", ""),
        ("a.*", ""),
        ("..a", ""),
        ("", ""),
    ],
)
def test_entries_that_are_refused(text, hint):
    """What some tools read in one way and some in another."""
    with pytest.raises(proxy.ProxySettingError) as caught:
        proxy.entry(text)
    assert hint in caught.value.hint


def test_small_letters_alone():
    """Which all tools read; a build would get one of two spellings, by chance."""
    told = proxy.environment(BOTH)
    assert set(proxy.VARIABLES) == set(told)
    assert not any(name.upper() in told for name in told)
    assert told["no_proxy"] == (
        "localhost,127.0.0.1,::1,jenkins.example.org,.corp.example,10.0.0.0/8,172.16.0.0/12,"
        "192.0.2.7,2001:db8::7"
    )


def test_one_scheme_alone():
    """Nothing is said of the other."""
    only = proxy.Proxy(https=PLAIN)
    assert "http_proxy" not in proxy.environment(only)
    assert not any(one.startswith("-Dhttp.proxyHost") for one in proxy.jvm_options(only))


def test_options_pass_through_scripts_that_split_at_blanks():
    """And of which none is a pattern of files that exist."""
    assert not any(set(one) & set(" \"'$\\`") for one in proxy.jvm_options(BOTH))
    assert all(one.startswith(proxy.OPTIONS) for one in proxy.jvm_options(BOTH))


def test_networks_java_cannot_be_told():
    """Too many patterns, or none."""
    entries = ("10.0.0.0/9", "10.0.0.0/12", "10.0.0.0/30", "0.0.0.0/0", "2001:db8::/32")
    assert ("10.0.0.0/9", "0.0.0.0/0", "2001:db8::/32") == proxy.untold(entries)


@each(
    ("connection", "hosts"),
    [
        (tunnel.Connection(), ("jenkins.example",)),
        (tunnel.connection(tunnel="gate.example:5000"), ("jenkins.example", "gate.example")),
        (tunnel.connection(tunnel=":5000"), ("jenkins.example",)),
        (
            tunnel.connection(
                tunnel.Transport.DIRECT, direct="[fe80::1]:5000", instance_identity="MIIB"
            ),
            ("jenkins.example", "fe80::1"),
        ),
    ],
)
def test_the_hosts_of_a_controller(connection, hosts):
    """All that the agent connects to."""
    assert hosts == proxy.controllers("https://Jenkins.example:8443/ci/", connection)


@each(("host", "direct"), HOSTS)
def test_what_goes_without_a_proxy(host, direct):
    """As Java, curl and Python have it."""
    entries = (*proxy.HERE, *DIRECT)
    assert direct == (proxy.covers(entries, host.strip("[]")) is not None)


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java")
def test_java_understands_it(tmp_path):
    """The JDK's own selector is asked, for both schemes."""
    program = tmp_path / "Asks.java"
    program.write_text(JAVA)
    asked = [f"{scheme}://{host}:50000/" for scheme in ("http", "https") for host, _ in HOSTS]
    done = subprocess.run(
        ["java", *proxy.jvm_options(BOTH), str(program), *asked],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Could not find or load main class" in done.stderr:
        pytest.skip("this Java runs no source files")
    told = dict(zip(asked, done.stdout.splitlines(), strict=True))
    for host, direct in HOSTS:
        chosen = {one: told[f"{one}://{host}:50000/"].partition(" ") for one in ("http", "https")}
        assert {"DIRECT" if direct else "HTTP"} == {kind for kind, _, _ in chosen.values()}, host
        if not direct:
            assert chosen["http"][2].startswith("proxy.example")
            assert chosen["https"][2].startswith("secure.example")


@each(("host", "direct"), [(h, d) for h, d in HOSTS if not h.startswith(("[", "10.", "172."))])
def test_python_understands_it(host, direct, monkeypatch):
    """Its library knows no networks before 3.15 or so: names and addresses alone are asked."""
    for name, value in proxy.environment(BOTH).items():
        monkeypatch.setenv(name, value)
    assert bool(direct) == bool(urllib.request.proxy_bypass(f"{host}:80"))


class Recording:
    """A proxy on the loopback that writes down what it is asked for, and refuses it."""

    def __enter__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.asked = []
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *raised):
        self.server.close()

    def _serve(self):
        while True:
            try:
                line, _ = self.server.accept()
            except OSError:
                return
            with line:
                self.asked.append(line.recv(65536).split(b"\r\n")[0].decode())
                line.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_understands_it():
    """It asks the proxy for what is not left out, and for nothing else."""
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    with Recording() as there:
        told = proxy.Proxy(http=there.url, https=there.url, direct=(proxy.entry("corp.example"),))
        for url in (
            "http://maven.example.net/a",
            "https://maven.example.net/b",
            f"http://a.corp.example:{port}/c",
            f"http://localhost:{port}/d",
        ):
            resolve = ["--resolve", f"a.corp.example:{port}:127.0.0.1"]
            subprocess.run(
                ["curl", "-s", "-m", "10", *resolve, url],
                env={"PATH": "/usr/bin:/bin", **proxy.environment(told)},
                check=False,
            )
    assert [
        "GET http://maven.example.net/a HTTP/1.1",
        "CONNECT maven.example.net:443 HTTP/1.1",
    ] == (there.asked)
