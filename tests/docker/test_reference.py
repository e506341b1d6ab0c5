"""Names of images, by the grammar of distribution/reference."""

import pytest

from backends.docker.engine import reference

GOOD = {
    "busybox": ("docker.io", "busybox", "latest"),
    "busybox:local": ("docker.io", "busybox", "local"),
    "jenkins/inbound-agent:latest-jdk21": ("docker.io", "jenkins/inbound-agent", "latest-jdk21"),
    "docker.io/library/x": ("docker.io", "docker.io/library/x", "latest"),
    "index.docker.io/x/y": ("docker.io", "index.docker.io/x/y", "latest"),
    "localhost/x": ("localhost", "localhost/x", "latest"),
    "localhost:5000/x:1": ("localhost:5000", "localhost:5000/x", "1"),
    "127.0.0.1:1/x:1": ("127.0.0.1:1", "127.0.0.1:1/x", "1"),
    "[2001:db8::1]:5000/x": ("[2001:db8::1]:5000", "[2001:db8::1]:5000/x", "latest"),
    "Registry.Example/x": ("Registry.Example", "Registry.Example/x", "latest"),
    "MYHOST/x": ("MYHOST", "MYHOST/x", "latest"),
    "reg.example/a/b/c-d_e.f__g---h": (
        "reg.example", "reg.example/a/b/c-d_e.f__g---h", "latest"),
    "x@sha256:" + "a" * 64: ("docker.io", "x", "sha256:" + "a" * 64),
    "r.example:5/x:1@sha256:" + "a" * 64: ("r.example:5", "r.example:5/x", "sha256:" + "a" * 64),
    "none:0": ("docker.io", "none", "0"),
}  # fmt: skip


@pytest.mark.parametrize("image", GOOD)
def test_a_name_is_taken_apart(image):
    """Registry, repository, tag or digest."""
    assert reference.problem(image) is None
    assert GOOD[image] == (reference.registry_of(image), *reference.to_pull(image))


@pytest.mark.parametrize("image", ["sha256:" + "0" * 64, "f" * 64])
def test_an_id_is_a_name_too(image):
    """Of what was loaded into the engine."""
    assert reference.problem(image) is None


@pytest.mark.parametrize(
    ("image", "words"),
    [("https://reg.example/x", "has a scheme"), ("docker://x", "has a scheme"), ("", "not the name of"),
     (" ", "not the name of"), ("x y", "not the name of"), ("busybox ", "not the name of"), ("x\n", "not the name of"),
     ("BusyBox", "hint: 'busybox'"), ("reg.example/Team/X:1", "upper case"), ("x:", "no tag"),
     ("x:a b", "no tag"), ("x:-a", "no tag"), ("x:" + "a" * 129, "no tag"), ("x@", "no digest"),
     ("x@sha256:abc", "no digest"), ("x@latest", "no digest"), ("/x", "not the name of"),
     ("reg.example//x", "not the name of"), ("reg.example/", "not the name of"), ("-reg.example/x", "no registry"),
     ("reg_.example/x", "no registry"), ("reg.example:x/y", "no registry"), ("a..b", "not the name of"),
     ("_x", "not the name of"), ("x_", "not the name of"), ("${IMAGE}", "upper case"), ("<image>", "not the name of"),
     ("größe", "not the name of"), ("a/" * 150 + "a", "has 301 characters"), ("x" * 5000, "5000")],
)  # fmt: skip
def test_what_is_no_name(image, words):
    """Said in words that help."""
    assert words in reference.problem(image)
