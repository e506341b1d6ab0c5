"""What a runtime's tree consists of, and what its archive looks like.

Pure rules, and the walk over a folder that they are applied to. Refuses to run programs, and to
know where the content comes from (``build``).

Rules:

* The digest is over paths, modes, links and contents of everything, and the platform: the same
  digest is the same content, byte by byte.
* An archive is the same for the same tree: sorted, owned by root, every time the same moment. The
  manifest comes first and ``.complete`` last (``backends.kit.runtime`` says what for).
* What is above the tree is not part of it: Mesos makes ``opt`` in a sandbox as root, then unpacks
  as the task's user, and fails at an entry whose time that user may not set.
"""

import hashlib
import io
import json
import os
import pathlib
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from attrs import frozen

from backends.kit import runtime

MOMENT = 1_577_836_800
"""POSIX seconds, of every file: the archive of classes holds the times of what it was made of."""
_ROOT = runtime.ROOT.lstrip("/")
_INSIDE = f"{runtime.ROOT}/"
_PIECE = 1 << 20
_OF_JDKS = ("java/", "javax/", "jdk/", "sun/", "com/sun/", "org/w3c/", "org/xml/", "org/ietf/")
_RECORDED_WITH = "17"
_LATER = (runtime.MANIFEST, runtime.COMPLETE)


@frozen(kw_only=True)
class TreeEntry:
    """A file, folder or link of a tree; ``path`` as containers see it."""

    path: str
    mode: int = 0o755
    link: str | None = None
    source: pathlib.Path | None = None  # of a file's content

    @property
    def is_file(self) -> bool:
        """Whether it has a content."""
        return self.source is not None


def entries(base: pathlib.Path) -> Iterator[TreeEntry]:
    """Yield what is in the tree below ``base`` (which has ``opt/agent`` in it), sorted.

    Every file is readable by everybody, and writable by nobody. Raises ValueError for what is
    neither a file, a folder nor a link, and for a link that leads out of the tree: what it means
    is another thing in each image.
    """
    top = base / _ROOT
    for path in sorted(top.rglob("*"), key=lambda one: one.relative_to(top).as_posix()):
        name = f"{runtime.ROOT}/{path.relative_to(top).as_posix()}"
        mode = path.lstat().st_mode
        if name in _LATER:
            continue
        if stat.S_ISLNK(mode):
            link = os.readlink(path)  # noqa: PTH115 -- as text
            if not posixpath.normpath(posixpath.join(name, "..", link)).startswith(_INSIDE):
                raise ValueError(f"{path} is a link that leads out of the tree, to {link}")
            yield TreeEntry(path=name, mode=0o777, link=link)
        elif stat.S_ISDIR(mode):
            yield TreeEntry(path=name)
        elif stat.S_ISREG(mode):
            yield TreeEntry(path=name, mode=0o555 if mode & 0o111 else 0o444, source=path)
        else:
            raise ValueError(f"{path} is neither a file, a folder nor a link")


def digest(found: Iterable[TreeEntry], *, platform: str) -> str:
    """Return what tells this content from every other, in hexadecimal."""
    total = hashlib.sha256(f"{platform}\0".encode())
    for entry in found:
        content = checksum(entry.source) if entry.source is not None else entry.link or ""
        total.update(f"{entry.path}\0{entry.mode:o}\0{content}\0".encode())
    return total.hexdigest()


def write(found: Iterable[TreeEntry], manifest: runtime.Manifest, file: BinaryIO) -> None:
    """Write the archive of a tree."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member(TreeEntry(path=_ROOT)))
        _add_text(tar, runtime.MANIFEST, manifest.text())
        for entry in found:
            member = _member(entry)
            if entry.source is None:
                tar.addfile(member)
                continue
            with entry.source.open("rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                tar.addfile(member, content)
        _add_text(tar, runtime.COMPLETE, f"{manifest.digest}\n")


def write_image(archive: pathlib.Path, name: str, file: BinaryIO) -> None:
    """Write an image that holds nothing but the tree, for ``docker load``.

    ``name`` is REPOSITORY:TAG. The same archive and name give the same image.
    """
    layer = checksum(archive)
    manifest = runtime.read(archive)
    system, _, architecture = manifest.platform.partition("/")
    configured = {
        "architecture": architecture,
        "os": system,
        "created": "2020-01-01T00:00:00Z",
        "config": {"Labels": {f"agent-broker.{key}": value for key, value in _labels(manifest)}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "agent-broker runtime"}],
    }
    told = json.dumps(configured, sort_keys=True)
    config_name = f"{hashlib.sha256(told.encode()).hexdigest()}.json"
    index = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{layer}/layer.tar"]}]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member(TreeEntry(path=layer)))
        member = _member(TreeEntry(path=f"{layer}/layer.tar", mode=0o444, source=archive))
        with archive.open("rb") as content:
            member.size = os.fstat(content.fileno()).st_size
            tar.addfile(member, content)
        _add_text(tar, config_name, told)
        _add_text(tar, "manifest.json", json.dumps(index))


def settle(base: pathlib.Path) -> None:
    """Give everything of a tree the same moment, and links too."""
    for path in (base, *base.rglob("*")):
        os.utime(path, (MOMENT, MOMENT), follow_symlinks=False)


def classes_of(
    jar: Iterable[str], known: Iterable[str], recorded: Iterable[str], *, java: str
) -> str:
    """Return the list of classes to archive: what every Java loads, then what agents do.

    ``jar``: names of the files in agent.jar; ``known``: lines of the JDK's own list; ``recorded``:
    lines of what was seen loaded (``classes.txt``), of which those of neither JDK nor agent.jar
    are left out; ``java``: the JDK's version.
    """
    own = {name.removesuffix(".class") for name in jar if name.endswith(".class")}
    lines = [line.rstrip() for line in known if line.strip() and not line.startswith("#")]
    for line in map(str.rstrip, recorded):
        if line.startswith("@"):
            if java.partition(".")[0] == _RECORDED_WITH:
                lines.append(line)
        elif line in own or line.startswith(_OF_JDKS):
            lines.append(line)
    return "\n".join(dict.fromkeys(lines)) + "\n"


def relocated(library: bytes) -> bytes:
    """Return a C library that looks for locales in the tree, and nowhere in the image.

    Told by a variable (LOCPATH) it would be told to every build, too. Raises ValueError for a
    library that has no such place, or several.
    """
    old = b"\0/usr/lib/locale\0"
    new = b"\0" + runtime.LOCALES.encode() + b"\0"
    if library.count(old) != 1 or len(new) > len(old):
        raise ValueError("it does not look for locales in /usr/lib/locale")
    return library.replace(old, new.ljust(len(old), b"\0"))


def _labels(manifest: runtime.Manifest) -> Iterator[tuple[str, str]]:
    yield "runtime", manifest.digest
    yield "java", manifest.java
    yield "remoting", manifest.remoting


def _member(entry: TreeEntry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(entry.path.lstrip("/"))
    member.mode, member.mtime = entry.mode, MOMENT
    if entry.link is not None:
        member.type, member.linkname = tarfile.SYMTYPE, entry.link
    elif not entry.is_file:
        member.type = tarfile.DIRTYPE
    return member


def _add_text(tar: tarfile.TarFile, path: str, content: str) -> None:
    data = content.encode()
    member = tarfile.TarInfo(path.lstrip("/"))
    member.mode, member.mtime, member.size = 0o444, MOMENT, len(data)
    tar.addfile(member, io.BytesIO(data))


def checksum(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def release_of(content: str) -> Mapping[str, str]:
    """Return what the file ``release`` of a JDK says: NAME="VALUE" in each line."""
    pairs = (line.partition("=") for line in content.splitlines())
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs if value}
