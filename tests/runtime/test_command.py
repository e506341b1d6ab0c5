"""``runtime build``: what it refuses, and what it makes, as a user runs it."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from backends.kit import runtime
from broker.runtime import build
from tests.cli.test_cli import ran
from tests.docker import engines

SOURCE = """package hudson.remoting;
public class Launcher {
    public static void main(String[] words) { System.out.println("this is Java " + words[0]); }
}
"""


def jar_of(folder: pathlib.Path, classes: dict[str, bytes]) -> pathlib.Path:
    """Write a jar that looks like agent.jar."""
    path = folder / "agent.jar"
    with zipfile.ZipFile(path, "w") as jar:
        manifest = "Manifest-Version: 1.0\nMain-Class: hudson.remoting.Launcher\nVersion: 3309.x\n"
        jar.writestr("META-INF/MANIFEST.MF", manifest)
        for name, content in classes.items():
            jar.writestr(name, content)
    return path


def jdk_for(folder: pathlib.Path, release: str) -> pathlib.Path:
    """Make a folder that says of itself what it is."""
    path = folder / "jdk"
    path.mkdir()
    (path / "release").write_text(release)
    return path


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ('OS_ARCH="riscv64"\nOS_NAME="Linux"\n', "a JDK for linux/riscv64"),
        ('OS_ARCH="x86_64"\nOS_NAME="Windows"\n', "a JDK for windows/x86_64"),
    ],
)
async def test_a_jdk_of_another_platform_is_refused_before_it_runs(tmp_path, release, words):
    """It says which one it is, and what would help; no file is left."""
    if shutil.which("busybox") is None:
        engines.absent("no busybox")
    jar = jar_of(tmp_path, {"hudson/remoting/Launcher.class": b""})
    code, _, err = await ran(
        *("runtime", "build", "--jar", str(jar), "--output", str(tmp_path / "out.tar")),
        *("--jdk", str(jdk_for(tmp_path, release))),
    )
    assert code == 1
    assert words in err
    assert "hint: build it on a machine of that platform" in err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["agent.jar", "jdk"]


async def test_a_folder_that_is_no_jdk_is_refused(tmp_path):
    """By its name."""
    if shutil.which("busybox") is None:
        engines.absent("no busybox")
    jar = jar_of(tmp_path, {"hudson/remoting/Launcher.class": b""})
    code, _, err = await ran(
        *("runtime", "build", "--jar", str(jar), "--output", str(tmp_path / "out.tar")),
        *("--jdk", str(tmp_path)),
    )
    assert code == 1
    assert "not a JDK" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "where to? hint: --output FILE, --engine URL or --backend NAME"),
        (("--engine", "nonsense"), 2, "allowed: unix:///PATH, tcp://HOST:PORT or ssh://"),
        (("--engine", "unix:///nowhere"), 1, "unix:///nowhere: [Errno 2] No such file"),
        (("--backend", "other"), 2, "no backend 'other'; there are: local"),
        (("--backend", "local"), 2, "bring a runtime to their agents by themselves"),
    ],
)
async def test_where_it_cannot_be_brought_is_said_before_it_is_made(tmp_path, words, code, said):
    """No minute is spent on what nobody takes."""
    config = tmp_path / "broker.yaml"
    config.write_text(
        f"owner: o\ncontroller: {{url: 'http://127.0.0.1:1/'}}\nstate_dir: {tmp_path}\n"
        "backends: {local: {kind: process}}\ntemplates: {linux: {labels: linux}}\n"
    )
    jar = jar_of(tmp_path, {"hudson/remoting/Launcher.class": b""})
    told = ("runtime", "build", "--config", str(config), "--jar", str(jar))
    ended, _, err = await ran(*told, *words)
    assert ended == code
    assert said in err
    assert "making a Java" not in err


def test_docker_is_imported_only_where_an_engine_is_named():
    """A broker that knows no Docker builds a runtime all the same."""
    program = (
        "import sys\n"
        "from broker.cli import main, runtimes\n"
        "sys.exit(any(name.startswith(('backends.docker', 'urllib3')) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_docker_that_needs_an_image_to_have_libraries_is_refused(tmp_path):
    """Before anything is made; a static one is taken."""
    if shutil.which("busybox") is None:
        engines.absent("no busybox")
    jar = jar_of(tmp_path, {"hudson/remoting/Launcher.class": b""})
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\n")
    told = ("runtime", "build", "--jar", str(jar), "--output", str(tmp_path / "out.tar"))
    code, _, err = await ran(*told, "--jdk", str(tmp_path), "--docker", str(program))
    assert code == 1
    assert "docker is not static; hint: docker/docker of an archive in https://" in err
    shutil.copyfile(shutil.which("busybox"), program)
    code, _, err = await ran(*told, "--jdk", str(tmp_path), "--docker", str(program))
    assert "not a JDK" in err, "the next thing that is wrong"


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_what_it_makes_is_the_same_each_time_and_runs_in_an_image_of_nothing_else(tmp_path):
    """Byte by byte; an engine loads its image, whose Java takes the archive of classes."""
    address = engines.address()
    for name in ("busybox", "patchelf", "jlink", "javac", "docker"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} on this machine")
    (tmp_path / "Launcher.java").write_text(SOURCE)
    subprocess.run(["javac", "-d", tmp_path / "c", tmp_path / "Launcher.java"], check=True)
    path = "hudson/remoting/Launcher.class"
    jar = jar_of(tmp_path, {path: (tmp_path / "c" / path).read_bytes()})
    told = ("runtime", "build", "--json", "--jar", str(jar), "--output")
    image = "agent-runtime-of-tests:1"
    outcomes = []
    for number in range(2):
        code, out, err = await ran(*told, str(tmp_path / f"{number}.tar"))
        assert code == 0, err
        outcomes.append({**json.loads(out), "path": ""})
    assert outcomes[0]["platform"] == build.platform_here()
    if outcomes[0]["varies"] is None:
        assert outcomes[0] == outcomes[1]
        assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    code, _, err = await ran(*told, str(tmp_path / "image.tar"), "--image", image)
    assert code == 0, err
    with tarfile.open(tmp_path / "image.tar") as packed:
        assert "manifest.json" in packed.getnames()
    docker = ("docker", "-H", address)
    subprocess.run([*docker, "load", "-i", tmp_path / "image.tar"], check=True)
    try:
        java = (runtime.JAVA, *runtime.JVM_OPTIONS, "-Xshare:on", "-jar", runtime.JAR, "at work")
        said = subprocess.run(
            [*docker, "run", "--rm", "--network", "none", "--user", "4242", image, *java],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.stdout == "this is Java at work\n", said.stderr
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([*docker, "rmi", image], check=True, capture_output=True)
