"""A small Java to be brought into images, and images that it comes into: this machine, in a way.

The tree has the layout of a real one (``broker.runtime.tree`` writes the archive); its ``java``
understands the command line of an agent, and its ``agent.jar`` is the simulated controller's
stand-in. What runs in an image is run in a mount namespace that shows this machine with the mounts
of a container, so a task or a pod that is brought its Java wrongly does not start.
"""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence

import pytest
from attrs import frozen

from backends.kit import runtime
from broker.runtime import tree
from broker.simulator import controller
from tests import programs


def unpacked(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpack an archive of our own; Pythons before 3.11.4 know no filters."""
    with tarfile.open(path) as tar:
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(folder, filter="tar")
        else:
            tar.extractall(folder)


_MOUNTED = pathlib.Path(__file__).with_name("mounted.py")
_PYTHON = os.path.realpath(sys.executable)
_AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
_JAVA = f"""\
#!{runtime.TOOLS}/sh
while [ $# -gt 0 ]; do
  case $1 in
  -jar) jar=$2; shift ;;
  -url) export JENKINS_URL="$2"; shift ;;
  -name) export JENKINS_AGENT_NAME="$2"; shift ;;
  -secret) export JENKINS_SECRET_FILE="${{2#@}}"; shift ;;
  -workDir) mkdir -p "$2" && test -w "$2" || {{ echo "no work directory $2"; exit 3; }}; shift ;;
  esac
  shift
done
test -w /tmp || {{ echo "nowhere for temporary files"; exit 3; }}
touch {runtime.ROOT}/mine 2>/dev/null && {{ echo "its Java can be written to"; exit 3; }}
command -v nohup >/dev/null || {{ echo "no nohup"; exit 3; }}
exec "{_PYTHON}" -S "$jar"
"""


@frozen
class Mount:
    """A folder of this machine at a place of the image."""

    source: str
    target: str
    read_only: bool = False


def archive(path: pathlib.Path) -> runtime.Manifest:
    """Write the archive of a small Java; skips where the machine has no static busybox."""
    busybox = programs.need("busybox")
    top = path.with_suffix(".tree") / runtime.ROOT.lstrip("/")
    (top / "jre" / "bin").mkdir(parents=True)
    (top / "bin").mkdir()
    java = top / "jre" / "bin" / "java"
    java.write_text(_JAVA)
    shutil.copy(_AGENT, top / "agent.jar")
    shutil.copy(busybox, top / "bin" / "busybox")
    (top / "bin" / "sh").symlink_to("busybox")
    nohup = top / "bin" / "nohup"
    nohup.write_text(f"#!{runtime.TOOLS}/sh\ntrap '' HUP\nexec \"$@\"\n")
    for one in (java, nohup, top / "bin" / "busybox"):
        one.chmod(0o755)
    found = [*tree.entries(path.with_suffix(".tree"))]
    manifest = runtime.Manifest(
        digest=tree.digest(found, platform="linux/amd64"),
        platform="linux/amd64",
        java="17",
        remoting="3309",
    )
    with path.open("wb") as file:
        tree.write(found, manifest, file)
    return manifest


@functools.cache
def _problem() -> str:
    """Return why nothing can be run in an image here; empty if it can."""
    done = subprocess.run(
        [sys.executable, "-IS", _MOUNTED, "/mnt", "[]", "/", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout or done.stderr


def need_images() -> None:
    """Skip where nothing can be run in an image: no rights to make mount namespaces."""
    if problem := _problem():
        pytest.skip(f"no mount namespace of our own: {problem}")


def inside(
    mounts: Sequence[Mount], argv: Sequence[str], *, folder: str = "/", root: pathlib.Path
) -> tuple[str, ...]:
    """Return a command that runs another one in an image; ``root`` is an empty folder for it."""
    told = json.dumps([(one.source, one.target, one.read_only) for one in mounts])
    return (sys.executable, "-IS", str(_MOUNTED), str(root), told, folder, *argv)
