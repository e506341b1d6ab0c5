"""Builds of a real Jenkins in images without Java, and what bringing it in costs at a start.

As root on a Debian with dpkg, gcc, musl-gcc, busybox-static and a JDK: ``python -m
benchmarks.brought_java --jenkins http://USER:TOKEN@HOST:PORT/ --engine unix:///PATH --runtime
FILE``

FILE is what ``agent-broker runtime build`` wrote. Makes images of Debian's packages and from
scratch, has a broker run a Pipeline in each, then starts agents with Java in the image and with
Java brought in, in turns, and prints two tables. The user may create jobs and nodes.
"""

# ruff: noqa: S101, S108, S310, S603, S607 -- its own programs, places in containers, Jenkins' URL

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from typing import IO
from xml.sax import saxutils

from attrs import frozen

from backends.docker.containers import runtimes
from backends.kit import runtime

_BASE = (
    *("libc6", "dash", "coreutils", "libacl1", "libattr1"),
    *("libgmp10", "libselinux1", "libpcre2-8-0"),
)
_GO = ("golang-1.19-go", "golang-1.19-src")
_PYTHON = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("zlib1g", "libexpat1", "libssl3"),
)
_NOT = ("doc", "locale", "man", "info")
_HI = '#include <stdio.h>\nint main(void) { puts("hello from the image"); return 0; }\n'
_MAIN = 'package main\nimport "fmt"\nfunc main() { fmt.Println("six times seven is", 6*7) }\n'
_LIBRARIES = "/lib/x86_64-linux-gnu"
_JAVA = "/usr/lib/jvm/java-17-openjdk-amd64"
_WAIT_S = 600.0
_FLOW = (
    '<flow-definition plugin="workflow-job"><definition plugin="workflow-cps" '
    'class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition"><script>{}</script>'
    "<sandbox>true</sandbox></definition></flow-definition>"
)
_NODE = {
    "numExecutors": "1",
    "remoteFS": "/tmp/w",
    "labelString": "none",
    "mode": "EXCLUSIVE",
    "type": "hudson.slaves.DumbSlave",
    "retentionStrategy": {"stapler-class": "hudson.slaves.RetentionStrategy$Always"},
    "nodeProperties": {"stapler-class-bag": "true"},
    "launcher": {"stapler-class": "hudson.slaves.JNLPLauncher"},
}


@frozen
class Image:
    """What an image lacks, and what a build does there."""

    lacks: str
    script: str
    user: str = "1000"


IMAGES = {
    "go": Image(
        "Java",
        "export GOCACHE=$PWD/c GO111MODULE=off; go version; go build -o m main.go; ./m",
    ),
    "python": Image("Java", "python3 -c 'import sys, json; print(sys.version_info[:2], 6 * 7)'"),
    "musl": Image("Java, glibc, sh, nohup, every command, /tmp, a locale", "/bin/hi"),
    "distroless": Image("Java, sh, nohup, every command, /tmp, a locale", "/bin/hi", "65532"),
    "scratch": Image("everything: it has one static file", "/hi"),
}


def unpacked(root: pathlib.Path, packages: tuple[str, ...], debs: pathlib.Path) -> None:
    """Make a root file system of Debian's packages."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            subprocess.run(
                ["apt-get", "download", "-q", package], cwd=debs, check=True, capture_output=True
            )
            found = sorted(debs.glob(f"{package}_*.deb"))
        into = ["tar", "-x", "--keep-directory-symlink", "-C", str(root)]
        into += [f"--exclude=./usr/share/{name}" for name in _NOT]
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", found[-1]], stdout=subprocess.PIPE
        ) as archive:
            subprocess.run(into, stdin=archive.stdout, check=True)
    (root / "tmp").mkdir(exist_ok=True, mode=0o1777)
    (root / "tmp").chmod(0o1777)
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")


def compiled(root: pathlib.Path, path: str, *compiler: str) -> None:
    """Put a program into a root file system."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*compiler, "-x", "c", "-", "-o", str(target)], input=_HI.encode(), check=True)


def copied(root: pathlib.Path, *names: str) -> None:
    """Copy files of this machine, with what links lead to."""
    for name in names:
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pathlib.Path(name).resolve(), target)
        target.chmod(0o755)


def grown(name: str, root: pathlib.Path, debs: pathlib.Path) -> None:
    """Make one image's root file system."""
    match name:
        case "go":
            unpacked(root, (*_BASE, *_GO), debs)
            (root / "usr/bin/go").symlink_to("../lib/go-1.19/bin/go")
        case "python":
            unpacked(root, (*_BASE, *_PYTHON), debs)
            (root / "usr/bin/python3").symlink_to("python3.11")
        case "musl":
            compiled(root, "/bin/hi", "musl-gcc", "-O1")
            copied(root, "/lib/ld-musl-x86_64.so.1")
        case "distroless":
            compiled(root, "/bin/hi", "gcc", "-O1")
            copied(root, "/lib64/ld-linux-x86-64.so.2", f"{_LIBRARIES}/libc.so.6")
            (root / "etc").mkdir()
            (root / "etc/passwd").write_text("nonroot:x:65532:65532::/nowhere:/bin/false\n")
        case "scratch":
            compiled(root, "/hi", "musl-gcc", "-O1", "-static")
        case "with-java":
            unpacked(root, (*_BASE, "zlib1g", "libstdc++6", "libgcc-s1"), debs)
            unwanted = shutil.ignore_patterns("jmods", "src.zip", "man", "docs", "include")
            shutil.copytree(_JAVA, root / _JAVA.lstrip("/"), symlinks=True, ignore=unwanted)
            shutil.copytree("/etc/java-17-openjdk", root / "etc/java-17-openjdk", symlinks=True)
        case _:
            raise ValueError(name)


class Engine:
    """The engine's own client."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, *words: str, stdin: IO[bytes] | None = None) -> str:
        """Return what the client prints, and what it complains of."""
        command = ["docker", "-H", self._url, *words]
        done = subprocess.run(command, capture_output=True, text=True, stdin=stdin, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {words[0]}: {done.stderr[-400:]}")
        return done.stdout + done.stderr

    def load(self, name: str, debs: pathlib.Path) -> None:
        """Make an image, unless it is there."""
        if self("images", "-q", f"without-java:{name}").strip():
            return
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder, "root")
            root.mkdir(mode=0o755)
            grown(name, root, debs)
            packed = ["tar", "-c", "-C", str(root), "."]
            with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
                self("import", "-", f"without-java:{name}", stdin=tar.stdout)

    def size(self, name: str) -> float:
        """Return megabytes."""
        return int(self("inspect", "-f", "{{.Size}}", f"without-java:{name}")) / 1e6

    def connected(self, container: str) -> tuple[float, float] | None:
        """Return seconds from the start to Connected, and of processor time; None: not yet."""
        there = json.loads(self("inspect", container))[0]
        lines = self("logs", "-t", container).splitlines()
        hits = [line.split()[0] for line in lines if line.endswith("Connected")]
        if not hits:
            return None
        pid, hertz = there["State"]["Pid"], os.sysconf("SC_CLK_TCK")
        used = 0.0
        for one in _family(pid):
            parts = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            used += (int(parts[11]) + int(parts[12])) / hertz
        return _moment(hits[0]) - _moment(there["State"]["StartedAt"]), used


def _family(pid: int) -> list[int]:
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(p for one in children.read_text().split() for p in _family(int(one)))]


def _moment(text: str) -> float:
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", text)).timestamp()


class Jenkins:
    """The controller, as far as is needed here."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path.rstrip('/')}/"
        self.user, self.token = parts.username or "", parts.password or ""

    def ask(self, path: str, data: bytes | None = None, kind: str = "application/xml") -> str:
        """Get, or post; return the body."""
        request = urllib.request.Request(self.url + path, data=data)
        word = base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode("utf-8", "replace"))

    def pipeline(self, name: str, script: str) -> None:
        """Create a job, or give it another script."""
        body = _FLOW.format(saxutils.escape(script))
        try:
            self.ask(f"createItem?name={name}", body.encode())
        except urllib.error.HTTPError:
            self.ask(f"job/{name}/config.xml", body.encode())

    def built(self, name: str) -> tuple[str, str]:
        """Build a job; return its result and its log."""
        number = json.loads(self.ask(f"job/{name}/api/json?tree=nextBuildNumber"))[
            "nextBuildNumber"
        ]
        self.ask(f"job/{name}/build", b"")
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            time.sleep(1)
            try:
                told = json.loads(self.ask(f"job/{name}/{number}/api/json?tree=result"))
            except urllib.error.HTTPError:
                continue
            if told["result"]:
                return told["result"], self.ask(f"job/{name}/{number}/consoleText")
        return "NEVER", self.ask("queue/api/json")

    def node(self, name: str) -> str:
        """Create a node; return its secret."""
        told = json.dumps({**_NODE, "name": name})
        form = urllib.parse.urlencode({"name": name, "type": _NODE["type"], "json": told})
        self.ask("computer/doCreateItem", form.encode(), "application/x-www-form-urlencoded")
        file = self.ask(f"computer/{name}/jenkins-agent.jnlp")
        found = re.search(r"<argument>([0-9a-f]{64})</argument>", file)
        assert found is not None, name
        return found[1]


def pipelines(engine: Engine, url: str, jenkins: Jenkins, archive: str) -> None:
    """Have a broker run a build in each image; print a table."""
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "owner": "without-java",
            "controller": {"url": jenkins.url, "user": jenkins.user, "token": "env:JENKINS_TOKEN"},
            "state_dir": f"{folder}/state",
            "listen": "127.0.0.1:0",
            "backends": {
                "docker": {
                    "kind": "docker",
                    "hosts": [{"url": url}],
                    "name_prefix": "wj-",
                    "runtimes": {"default": {"tar": archive}},
                }
            },
            "templates": {
                name: {
                    "labels": [f"wj-{name}"],
                    "image": f"without-java:{name}",
                    "inject": True,
                    "retention": {"once": True},
                    "docker": {"network": "host", "pull": "never", "user": image.user},
                }
                for name, image in IMAGES.items()
            },
        }
        configured = pathlib.Path(folder, "broker.yaml")
        configured.write_text(json.dumps(told))
        command = [sys.executable, "-m", "broker", "run", "--config", str(configured)]
        environment = {**os.environ, "JENKINS_TOKEN": jenkins.token}
        with pathlib.Path(folder, "log").open("wb") as log:
            broker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            print("| image | size | lacks | user | start to Connected | Pipeline |")
            print("|---|---|---|---|---|---|")
            for name, image in IMAGES.items():
                print(_row(engine, jenkins, name, image), flush=True)
        finally:
            broker.terminate()
            broker.wait()


def _row(engine: Engine, jenkins: Jenkins, name: str, image: Image) -> str:
    script = f"""node('wj-{name}') {{
  writeFile file: 'main.go', text: '''{_MAIN}'''
  sh '''{image.script}; echo ok > "name-\u00e9\u4e2d.txt"'''
  stash name: 's', includes: '*.txt'
  archiveArtifacts '*.txt'
}}"""
    jenkins.pipeline(f"wj-{name}", script)
    times: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2) and not times:
            for container in engine("ps", "-q", "--filter", "name=wj-").split():
                try:
                    if (took := engine.connected(container)) is not None:
                        times.append(took[0])
                except (RuntimeError, OSError):
                    continue  # gone meanwhile

    watcher = threading.Thread(target=look)
    watcher.start()
    result, log = jenkins.built(f"wj-{name}")
    over.set()
    watcher.join()
    if result != "SUCCESS":
        print(log[-1500:], file=sys.stderr)
    took = f"{times[0]:.2f} s" if times else "not seen"
    size = f"{engine.size(name):.0f} MB"
    return f"| {name} | {size} | {image.lacks} | {image.user} | {took} | {result} |"


def starts(engine: Engine, jenkins: Jenkins, archive: str, rounds: int) -> None:
    """Start agents both ways, in turns; print a table."""
    volume = runtimes.volume_of(runtime.read(archive))
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    tree = f"type=volume,src={volume},dst={runtime.ROOT},ro,volume-nocopy"
    with tempfile.TemporaryDirectory() as folder:
        jar = pathlib.Path(folder, "agent.jar")
        urllib.request.urlretrieve(f"{jenkins.url}jnlpJars/agent.jar", jar)
        jar.chmod(0o644)
        jar.parent.chmod(0o755)
        ways = {
            "Java in the image": [
                *("-v", f"{jar}:/agent.jar:ro", "without-java:with-java", f"{_JAVA}/bin/java"),
                *(*options, "-jar", "/agent.jar"),
            ],
            "brought in": [
                *("--mount", tree, "-e", "LC_ALL=C.UTF-8", "without-java:python", runtime.JAVA),
                *(*runtime.JVM_OPTIONS, *options, "-jar", runtime.JAR),
            ],
        }
        took: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, words in ways.items():
                one = _start(engine, jenkins, f"start-{os.getpid()}-{number}-{len(way)}", words)
                if number:  # the first ones fill the page cache
                    took[way].append(one)
    print("\n| | start to Connected, median | all | processor time, median | all |")
    print("|---|---|---|---|---|")
    for way, times in took.items():
        columns = [way]
        for column in zip(*times, strict=True):
            columns.append(f"{statistics.median(column):.2f} s")
            columns.append(" ".join(f"{one:.2f}" for one in column))
        print(f"| {' | '.join(columns)} |")


def _start(engine: Engine, jenkins: Jenkins, name: str, words: list[str]) -> tuple[float, float]:
    secret = jenkins.node(name)
    told = ["-url", jenkins.url, "-secret", secret, "-name", name, "-workDir", "/tmp/w"]
    engine("run", "-d", "--name", name, "--network", "host", *words, *told, "-noReconnect")
    try:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            if (took := engine.connected(name)) is not None:
                return took
            time.sleep(0.05)
        raise TimeoutError(name)
    finally:
        engine("rm", "-f", name)
        jenkins.ask(f"computer/{name}/doDelete", b"")


def main() -> None:
    """Do both."""
    parser = argparse.ArgumentParser(
        description="builds in images without Java, on a real Jenkins"
    )
    parser.add_argument("--jenkins", required=True, metavar="URL")
    parser.add_argument("--engine", required=True, metavar="URL")
    parser.add_argument("--runtime", required=True, metavar="FILE")
    parser.add_argument("--debs", type=pathlib.Path, help="a folder to keep packages in")
    parser.add_argument("--rounds", type=int, default=7, help="of starts; 0: none")
    parser.add_argument("--no-builds", action="store_true")
    told = parser.parse_args()
    engine, jenkins = Engine(told.engine), Jenkins(told.jenkins)
    with tempfile.TemporaryDirectory() as folder:
        debs = told.debs or pathlib.Path(folder)
        for name in (*IMAGES, "with-java"):
            engine.load(name, debs)
    if not told.no_builds:
        pipelines(engine, told.engine, jenkins, told.runtime)
    if told.rounds:
        starts(engine, jenkins, told.runtime, told.rounds)


if __name__ == "__main__":
    main()
