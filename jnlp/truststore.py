"""Whom builds and the agent's JVM trust: files, variables and options, made from certificates.

Pure. Refuses to read files, to judge certificates, and to know how files reach an agent.

Facts:

* The tools of builds know one file that replaces what they trust otherwise, so the public
  authorities have to be in it, too: OpenSSL, Go and Ruby ``SSL_CERT_FILE``, Python's requests and
  pip ``REQUESTS_CA_BUNDLE``, curl ``CURL_CA_BUNDLE``, git ``GIT_SSL_CAINFO``. Node adds what
  ``NODE_EXTRA_CA_CERTS`` names to its own.
* A JVM trusts one store, and there is no option that adds to its own: the store has everything.
* The format is the JDK's JKS (``sun.security.provider.JavaKeyStore``): numbers are big-endian and
  texts begin with their length; magic, version 2, count; of each trusted certificate a 2, an
  alias, milliseconds, ``X.509`` and the DER; at the end the SHA-1 of password (UTF-16),
  ``Mighty Aphrodite`` and all before. Every Java reads it by default, whatever
  ``keystore.type`` says (``keystore.type.compat``), and without the password, too. ``keytool`` is
  the oracle in ``tests/jnlp/test_truststore.py``.
"""

import base64
import hashlib
import struct
from collections.abc import Iterable, Sequence

from attrs import frozen

OWN = "ca-own.pem"
BUNDLE = "ca-bundle.pem"
STORE = "ca-store.jks"
VARIABLES = {
    "SSL_CERT_FILE": BUNDLE,
    "REQUESTS_CA_BUNDLE": BUNDLE,
    "CURL_CA_BUNDLE": BUNDLE,
    "GIT_SSL_CAINFO": BUNDLE,
    "NODE_EXTRA_CA_CERTS": OWN,
}
"""Which variable names which file."""
JAVA_TOOLS = "JAVA_TOOL_OPTIONS"
OPTION = "-Djavax.net.ssl.trustStore"
PASSWORD = "changeit"  # noqa: S105 -- the JDK's own for what is no secret
_MAGIC = 0xFEEDFEED
_VERSION = 2
_TRUSTED = 2


@frozen(kw_only=True)
class Trust:
    """What agents of a template are to trust besides the public authorities."""

    certificates: tuple[str, ...]  # PEM texts, each one certificate (``trust.certificates``)
    public: bool = True  # and not these alone
    java_tools: bool = False  # every JVM of the builds, too
    public_file: str | None = None  # PEM on the broker's machine; None: that of its system


def der(pem: str) -> bytes:
    """Return a certificate as it is in binary. Raises ValueError."""
    body = "".join(line for line in pem.split("\n") if not line.startswith("-----"))
    return base64.b64decode("".join(body.split()), validate=True)


def store(own: Sequence[bytes], public: Sequence[bytes]) -> bytes:
    """Return a store of trusted certificates (DER) that every Java reads."""
    entries = [(f"own-{n}", one) for n, one in enumerate(own, 1)]
    entries += [(f"public-{n}", one) for n, one in enumerate(public, 1)]
    written = struct.pack(">III", _MAGIC, _VERSION, len(entries))
    written += b"".join(
        struct.pack(">I", _TRUSTED)
        + _text(alias)
        + struct.pack(">Q", 0)
        + _text("X.509")
        + struct.pack(">I", len(one))
        + one
        for alias, one in entries
    )
    salt = PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite"
    return written + hashlib.sha1(salt + written, usedforsecurity=False).digest()


def files(trust: Trust, public: Iterable[str]) -> dict[str, bytes]:
    """Return the files for an agent, by name; ``public``: PEM texts. Raises ValueError."""
    theirs = tuple(public) if trust.public else ()
    return {
        OWN: _joined(trust.certificates),
        BUNDLE: _joined((*trust.certificates, *theirs)),
        STORE: store([der(one) for one in trust.certificates], [der(one) for one in theirs]),
    }


def environment(trust: Trust, folder: str) -> dict[str, str]:
    """Return the variables for builds; ``folder``: where the files are, as the agent sees it."""
    env = {name: f"{folder}/{file}" for name, file in VARIABLES.items()}
    if trust.java_tools:
        # in quotes, which a JVM takes away: the path may have a blank
        env[JAVA_TOOLS] = f"{OPTION}='{folder}/{STORE}'"
    return env


def jvm_options(folder: str) -> tuple[str, ...]:
    """Return the options for the agent's JVM."""
    return (f"{OPTION}={folder}/{STORE}",)


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")


def _joined(certificates: Iterable[str]) -> bytes:
    return "".join(f"{one.strip()}\n" for one in certificates).encode("ascii")
