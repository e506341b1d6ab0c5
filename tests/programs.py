"""Programs of the machine that a test uses: found, or the test is skipped by their name.

The run ends with one line on what was skipped for want of which program (``tests/conftest.py``).
"""

import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterable

import pytest

PACKAGES = {  # Debian's, of what is not on every Debian
    "bash": "bash",
    "busybox": "busybox-static",
    "chromium": "chromium",
    "curl": "curl",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fish": "fish",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "zsh": "zsh",
    "sshd": "openssh-server",
}

_WANT = re.compile(r"no program ([\w-]+) on this machine; apt-get install ([\w.-]+)")


def hearing() -> tuple[str, ...]:
    """Return what starts a program that is to hear a hang-up, as one of a container's runtime does.

    Nothing but where nohup runs the tests: whoever is started with a signal ignored, and most
    shells, cannot listen to it ever after.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        return ()
    return (shutil.which("env") or "env", "--default-signal=HUP")


def want(name: str) -> str:
    """Return the reason to skip for a program that is not there."""
    return f"no program {name} on this machine; apt-get install {PACKAGES[name]}"


def need(name: str) -> str:
    """Return where a program is, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(want(name))
    return found


def told(reasons: Iterable[str]) -> str:
    """Return one line on what was skipped for want of a program; empty if nothing was."""
    counts = Counter(found.groups() for found in map(_WANT.search, reasons) if found)
    parts = [
        f"{count} without {name} (apt-get install {package})"
        for (name, package), count in sorted(counts.items())
    ]
    return f"skipped for want of a program: {', '.join(parts)}" if parts else ""
