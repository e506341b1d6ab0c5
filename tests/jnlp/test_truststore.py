"""Files for builds and Java: keytool, a JVM, curl, Python and OpenSSL say whether they are good."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from jnlp import trust, truststore
from tests import https_server
from tests.docker import certificates

KEYTOOL = pytest.mark.skipif(shutil.which("keytool") is None, reason="needs keytool of a JDK")
JAVA = """
class Asks {
    public static void main(String[] told) throws Exception {
        System.out.write(new java.net.URL(told[0]).openStream().readAllBytes());
        System.out.flush();
    }
}
"""


@pytest.fixture
def authority(tmp_path):
    """An authority of one's own."""
    return certificates.Authority(tmp_path, "own")


@pytest.fixture
def folder(tmp_path, authority):
    """The files of an agent, in a folder with a blank in its name."""
    public = certificates.Authority(tmp_path, "public")
    told = [trust.certificates(pathlib.Path(one.file).read_text()) for one in (authority, public)]
    made = truststore.files(truststore.Trust(certificates=told[0]), told[1])
    place = tmp_path / "a folder"
    place.mkdir()
    for name, content in made.items():
        (place / name).write_bytes(content)
    return place


@pytest.fixture
def url(authority):
    """A server that nobody trusts but who knows the authority."""
    with https_server.serving(authority.signed("localhost", "DNS:localhost")) as address:
        yield address


def said(*words, env=None):
    done = subprocess.run(
        words,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **(env or {})},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.stdout, done.stderr.decode(), done.returncode


@KEYTOOL
@pytest.mark.parametrize("password", [["-storepass", truststore.PASSWORD], []])
def test_keytool_lists_every_certificate(folder, authority, password):
    """With the password, which the digest is checked by, and without."""
    out, err, code = said(
        "keytool", "-list", "-v", "-keystore", f"{folder}/ca-store.jks", *password
    )
    assert code == 0, (out, err)
    listed = out.decode()
    assert "Keystore type: JKS" in listed
    assert ["own-1", "public-1"] == sorted(re.findall(r"Alias name: (\S+)", listed))
    assert 2 == listed.count("trustedCertEntry")
    out, _, _ = said("keytool", "-printcert", "-file", authority.file)
    (print_,) = re.findall(r"SHA256: (\S+)", out.decode())
    assert print_ in listed


@KEYTOOL
def test_a_store_with_another_end_is_told_apart(folder):
    """So the digest is the one that Java makes."""
    path = folder / "ca-store.jks"
    made = path.read_bytes()
    path.write_bytes(made[:-1] + bytes([made[-1] ^ 1]))
    words = ("-keystore", str(path), "-storepass", truststore.PASSWORD)
    assert said("keytool", "-list", *words)[2] != 0


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java")
@pytest.mark.parametrize("by", ["option", "variable", "nothing"])
def test_a_jvm_trusts_it(tmp_path, folder, url, by):
    """By the agent's option, or by the variable for builds' Java; without either it does not."""
    (tmp_path / "Asks.java").write_text(JAVA)
    told = truststore.Trust(certificates=(), java_tools=True)
    options = truststore.jvm_options(str(folder)) if by == "option" else ()
    env = truststore.environment(told, str(folder)) if by == "variable" else {}
    out, err, _ = said("java", *options, str(tmp_path / "Asks.java"), url, env=env)
    if "Could not find or load main class" in err:
        pytest.skip("this Java runs no source files")
    assert (out == https_server.WORDS) == (by != "nothing"), err
    assert ("PKIX path building failed" in err) == (by == "nothing")


@pytest.mark.parametrize("is_told", [True, False])
def test_the_tools_of_builds_trust_it(folder, url, is_told):
    """Curl, Python, OpenSSL and git, each by its own variable."""
    env = {}
    if is_told:
        env = truststore.environment(truststore.Trust(certificates=()), str(folder))
    asks = f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"
    port = url.removesuffix("/").rpartition(":")[2]
    connect = f"openssl s_client -verify_return_error -connect localhost:{port} </dev/null"
    tools = {
        "curl": (["curl", "-sS", url], "well met"),
        "python": ([sys.executable, "-c", asks], "well met"),
        "openssl": (["sh", "-c", connect], "Verify return code: 0"),
    }
    for tool, (words, expected) in tools.items():
        if tool == "python" or shutil.which(tool):
            out, err, _ = said(*words, env=env)
            assert (expected in out.decode()) == is_told, (tool, err)
    if shutil.which("git"):
        _, err, _ = said("git", "ls-remote", f"{url}x.git", env=env)
        assert ("certificate" in err) != is_told, err


def test_everybody_is_named_the_file_that_they_take():
    """Node adds to its own, all others replace."""
    env = truststore.environment(truststore.Trust(certificates=()), "/f")
    assert env.pop("NODE_EXTRA_CA_CERTS") == "/f/ca-own.pem"
    assert {"/f/ca-bundle.pem"} == set(env.values())
    assert "JAVA_TOOL_OPTIONS" not in env


def test_the_same_certificates_make_the_same_files():
    """No time of the making, and no dice: a digest tells them apart."""
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    told = truststore.Trust(certificates=(pem,))
    assert truststore.files(told, (pem,)) == truststore.files(told, (pem,))
