"""Authorities for builds and the agents' JVM: files become a value, and what agents are given.

The template's own file is read with the configuration, and is part of the template's revision. The
public authorities are those of the broker's system at the moment of a launch. Refuses to know how
a certificate is told to whom (``jnlp.truststore``).
"""

import errno
import functools
import os
import pathlib
import ssl
from collections.abc import Iterator, Mapping

from broker import clock
from broker.config import collector, shape, tree
from broker.config.settings import Secrets
from jnlp import trust as jnlp_trust
from jnlp import truststore
from outside import counts, files, paths, text

_LIMIT = 1 << 20
"""Of a file, in bytes: several times what the whole world's authorities take."""
_MOST = 100
"""Certificates in a file of one's own; more are a bundle of public ones."""
_PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora and its kin
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


def read(
    notes: collector.Notes,
    path: tree.Path,
    section: shape.Template,
    *,
    base: pathlib.Path,
    secrets: Secrets,
) -> truststore.Trust | None:
    """Return whom a template's agents are to trust, if it says so; mistakes are noted."""
    told = section.trust
    if told is None:
        return None
    where = (*path, "trust")
    _check_beside(notes, path, section)
    public = None if told.public_file is None else str(base / told.public_file)
    if public is not None and not told.public:
        notes.bad((*where, "public_file"), "given beside public: false", "keep one of them")
    missing = secrets is not Secrets.NEEDED
    try:
        if told.public:
            public_certificates(public)
    except (OSError, ValueError) as error:
        note = notes.warn if missing else notes.bad
        found = "found none" if public is None else f"found {public}"
        note(
            (*where, "public_file"),
            f"{found}: {_reason(error)}; allowed: a PEM file with the public authorities",
            "the package ca-certificates has one; or name another" if public is None else "",
        )
    return truststore.Trust(
        certificates=_own(notes, (*where, "ca_file"), base / told.ca_file, missing=missing),
        public=told.public,
        java_tools=told.java_tools,
        public_file=public,
    )


def handed(trust: truststore.Trust | None) -> Mapping[str, bytes]:
    """Return the files for one agent. Raises OSError and ValueError."""
    if trust is None:
        return {}
    if not trust.public:
        return _handed(trust, None, ())
    there = _bundle(trust.public_file)
    seen = pathlib.Path(there).stat()
    return _handed(trust, there, (seen.st_mtime_ns, seen.st_size, seen.st_ino))


def public_certificates(told: str | None) -> tuple[str, ...]:
    """Return the public authorities as PEM texts. Raises OSError and ValueError."""
    return _public(pathlib.Path(_bundle(told)))


def size(trust: truststore.Trust) -> int:
    """Return how many bytes an agent is given as the files are now; 1 where one cannot be read."""
    try:
        return sum(map(len, handed(trust).values()))
    except (OSError, ValueError):
        return 1  # a mistake that is told already


def largest(trust: truststore.Trust) -> int:
    """Return the bytes of the largest file for an agent, as of now; 0 if none can be made."""
    try:
        return max(map(len, handed(trust).values()))
    except (OSError, ValueError):
        return 0  # a mistake that is told already


@functools.lru_cache(maxsize=8)
def _handed(trust: truststore.Trust, there: str | None, _: object) -> Mapping[str, bytes]:
    public = () if there is None else _public(pathlib.Path(there))
    return truststore.files(trust, public)


def _bundle(told: str | None) -> str:
    """Return the path of the public authorities: told, or the system's. Raises OSError."""
    if told is not None:
        return told
    compiled = ssl.get_default_verify_paths().openssl_cafile  # whatever SSL_CERT_FILE says
    for place in (compiled, *_PLACES):
        if paths.is_regular(place):
            return place
    raise OSError(errno.ENOENT, "this system has none where they usually are")


def _certificates(file: pathlib.Path) -> tuple[str, ...]:
    if paths.mode(file) is not None and not paths.is_regular(file):
        raise OSError(errno.EINVAL, "it is not a file", os.fspath(file))
    return jnlp_trust.certificates(files.read(file, limit=_LIMIT).decode("ascii", "replace"))


def _public(file: pathlib.Path) -> tuple[str, ...]:
    """Return the certificates of a file; a JVM reads no store with one that is none."""
    certificates = _certificates(file)
    for number, pem in enumerate(certificates, 1):
        if _read(pem) is None:
            raise ValueError(f"certificate {number} of {len(certificates)} cannot be read")
    return certificates


def _read(pem: str) -> ssl.SSLContext | None:
    """Return who trusts a certificate alone; None: it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=truststore.der(pem))
    except (ssl.SSLError, ValueError):
        return None
    return context


def _own(
    notes: collector.Notes, path: tree.Path, file: pathlib.Path, *, missing: bool
) -> tuple[str, ...]:
    """Return the certificates of a template's own file; each one's mistake is noted."""
    if missing and paths.mode(file) is None:
        notes.warn(path, f"not here: found {file}, and there is no such file")
        return ()
    try:
        certificates = _certificates(file)
        if b"PRIVATE KEY-----" in files.read(file, limit=_LIMIT):
            notes.bad(path, f"{file} holds a private key", "the certificates alone")
            return ()
    except (OSError, ValueError) as error:
        notes.bad(path, f"found {file}: {_reason(error)}")
        return ()
    if len(certificates) > _MOST:
        notes.bad(
            path,
            f"{file} holds {counts.told(len(certificates), 'certificate')}; allowed: {_MOST}",
            "your own alone: the public ones are added (public_file)",
        )
        return ()
    for number, pem in enumerate(certificates, 1):
        for wrong, words in _judged(pem):
            note = notes.bad if wrong else notes.warn
            note(path, f"certificate {number} of {len(certificates)} in {file}: {words}")
    return certificates


def _judged(pem: str) -> Iterator[tuple[bool, str]]:
    """Yield what is the matter with a certificate, and whether it is of no use at all."""
    context = _read(pem)
    if context is None:
        yield True, "it cannot be read"
        return
    found = context.get_ca_certs()
    if not found:
        yield False, "it is not an authority: few tools trust anybody by it"
        return
    until = str(found[0].get("notAfter", ""))
    if until and ssl.cert_time_to_seconds(until) < clock.Clock().wall():
        yield False, f"it was good until {text.clean(until, 32)}"


def _check_beside(notes: collector.Notes, path: tree.Path, section: shape.Template) -> None:
    """Note where the template says otherwise by itself, and wins."""
    told = section.trust is not None and section.trust.java_tools
    ours = {*truststore.VARIABLES, *((truststore.JAVA_TOOLS,) if told else ())}
    for name in sorted(ours & set(section.environment)):
        notes.warn(
            (*path, "environment", name), "trust gives it, too; this one wins", "leave one of them"
        )
    for number, option in enumerate(section.jvm_options):
        if option.startswith(f"{truststore.OPTION}="):
            notes.warn(
                (*path, "jvm_options", number),
                "trust gives this option, too; this one wins",
                "leave one of them",
            )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
