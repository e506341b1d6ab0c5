"""What a runtime's tree and its archive look like; nothing is run."""

import io
import os
import pathlib
import tarfile

import pytest

from backends.kit import runtime
from broker.runtime import tree

MANIFEST = runtime.Manifest(
    digest="a" * 64, platform="linux/amd64", java="17.0.15", remoting="3309.v27b_9314fd1a_4"
)


def grown(folder: pathlib.Path) -> pathlib.Path:
    """Make a small tree."""
    top = folder / "opt" / "agent"
    (top / "jre" / "bin").mkdir(parents=True)
    (top / "jre" / "bin" / "java").write_bytes(b"java")
    (top / "jre" / "bin" / "java").chmod(0o750)
    (top / "agent.jar").write_bytes(b"jar")
    (top / "agent.jsa").write_bytes(b"classes")
    (top / "bin").mkdir()
    (top / "bin" / "sh").symlink_to("busybox")
    return folder


def digest(folder: pathlib.Path, **changes: str) -> str:
    told = {"platform": "linux/amd64", **changes}
    return tree.digest(tree.entries(folder), **told)


def archive(folder: pathlib.Path, manifest: runtime.Manifest = MANIFEST) -> bytes:
    buffer = io.BytesIO()
    tree.write(tree.entries(folder), manifest, buffer)
    return buffer.getvalue()


def test_the_same_content_has_the_same_digest_and_archive(tmp_path):
    """Wherever it was made, by whom, when, in which order, with which umask."""
    one, other = grown(tmp_path / "one"), grown(tmp_path / "other")
    (other / "opt/agent/agent.jar").chmod(0o600)
    os.utime(other / "opt/agent/agent.jar", (1, 1))
    assert digest(one) == digest(other)
    assert archive(one) == archive(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "agent.jar").write_bytes(b"another jar"),
        lambda top: (top / "agent.jsa").write_bytes(b"other classes"),
        lambda top: (top / "agent.jar").chmod(0o755),
        lambda top: (top / "agent.jar").rename(top / "agent2.jar"),
        lambda top: (top / "more").write_bytes(b""),
        lambda top: (top / "more").mkdir(),
        lambda top: ((top / "bin/sh").unlink(), (top / "bin/sh").symlink_to("dash")),
    ],
    ids=["content", "classes", "mode", "name", "file", "folder", "link"],
)
def test_whatever_differs_changes_the_digest(tmp_path, change):
    """Content, mode, name and link of each entry count."""
    folder = grown(tmp_path)
    before = digest(folder)
    change(folder / "opt" / "agent")
    assert digest(folder) != before


def test_the_platform_changes_the_digest(tmp_path):
    """Two platforms may have the same files, but not the same runtime."""
    folder = grown(tmp_path)
    assert digest(folder) != digest(folder, platform="linux/arm64")


@pytest.mark.parametrize(
    "link", ["/etc/ssl/certs/java/cacerts", "../../../../etc/passwd", "../.."]
)
def test_a_link_out_of_the_tree_is_refused(tmp_path, link):
    """It would be whatever the image has there, or nothing."""
    folder = tmp_path / "opt" / "agent" / "jre"
    folder.mkdir(parents=True)
    (folder / "inside").symlink_to("../jre/lib")
    assert ["/opt/agent/jre", "/opt/agent/jre/inside"] == [e.path for e in tree.entries(tmp_path)]
    (folder / "out").symlink_to(link)
    with pytest.raises(ValueError, match="leads out of the tree"):
        list(tree.entries(tmp_path))


def test_the_manifest_comes_first_and_the_mark_last(tmp_path):
    """Half an archive has no mark; whoever reads only its head knows what it is."""
    path = tmp_path / "runtime.tar"
    path.write_bytes(archive(grown(tmp_path)))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    names = [f"/{member.name}" for member in members]
    assert [runtime.MANIFEST] == [n for n, m in zip(names, members, strict=True) if m.isreg()][:1]
    assert names[-1] == runtime.COMPLETE
    assert all(name == runtime.ROOT or name.startswith(f"{runtime.ROOT}/") for name in names)
    assert {(m.uid, m.gid, m.mtime) for m in members} == {(0, 0, tree.MOMENT)}
    modes = {f"/{m.name}": m.mode for m in members}
    assert (modes[runtime.JAVA], modes[runtime.JAR]) == (0o555, 0o444)
    assert runtime.read(path) == MANIFEST


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "not a tar archive"),
        (b"\0" * 20480, "not a manifest"),
        (b"{}", "not of format 1"),
        (b"{", "not JSON"),
        (b'{"format": 1}', "has no digest"),
        (b'{"format": 1, "digest": "../../etc"}', "has no digest"),
    ],
)
def test_what_is_no_runtime_is_said(tmp_path, content, words):
    """A file that is no archive, an archive of something else, a manifest that lies."""
    path = tmp_path / "runtime.tar"
    if content.startswith(b"{"):
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo(runtime.MANIFEST.lstrip("/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        runtime.read(path)


def test_a_pipe_is_not_opened(tmp_path):
    """It would hold up whoever reads it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        runtime.read(tmp_path / "pipe")


def test_tools_come_behind_the_images_own():
    """Once, whatever the image says."""
    assert runtime.search_path("/a:/b") == f"/a:/b:{runtime.TOOLS}"
    assert runtime.search_path(f"{runtime.TOOLS}:/b") == f"{runtime.TOOLS}:/b"


JAR = ["hudson/B.class", "META-INF/X", "io/jenkins/A.class"]


def test_classes_are_those_that_are_there_and_were_seen_loaded():
    """The JDK's own list first, as it is; of what was recorded nothing that is in neither."""
    known = ["# a comment", "java/lang/Object", "@lambda-form-invoker own", ""]
    recorded = ["# recorded", "java/net/Socket", "hudson/B", "hudson/Gone", "java/lang/Object"]
    expected = "java/lang/Object\n@lambda-form-invoker own\njava/net/Socket\nhudson/B\n"
    assert tree.classes_of(JAR, known, recorded, java="25.0.1") == expected


@pytest.mark.parametrize(
    ("java", "expected"), [("17.0.15", True), ("17", True), ("21.0.2", False)]
)
def test_what_one_java_compiles_for_itself_is_not_told_to_another(java, expected):
    """Its lambdas: another one writes them differently."""
    listed = tree.classes_of(JAR, [], ["@lambda-proxy hudson/B run"], java=java)
    assert ("@lambda-proxy" in listed) is expected


def test_a_c_library_looks_for_locales_in_the_tree():
    """And stays as long as it was; what looks like no C library is refused."""
    library = b"\x7fELF..\0/usr/lib/locale\0/usr/lib/locale/locale-archive\0.."
    moved = tree.relocated(library)
    assert runtime.LOCALES.encode() + b"\0" in moved
    assert len(moved) == len(library)
    with pytest.raises(ValueError, match="locales"):
        tree.relocated(moved)


def test_an_image_holds_the_archive_as_its_only_layer(tmp_path):
    """Named by what is in it, so the same archive is the same image."""
    path = tmp_path / "runtime.tar"
    path.write_bytes(archive(grown(tmp_path)))
    images = [io.BytesIO(), io.BytesIO()]
    for image in images:
        tree.write_image(path, "agent-runtime:1", image)
    assert images[0].getvalue() == images[1].getvalue()
    images[0].seek(0)
    with tarfile.open(fileobj=images[0]) as tar:
        layer = next(name for name in tar.getnames() if name.endswith("/layer.tar"))
        assert tar.extractfile(layer).read() == path.read_bytes()
