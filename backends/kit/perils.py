"""What gives a build the machine under its container, in words that all platforms share.

Pure. Refuses to know any platform's settings, and what is done about a peril; a template may be
meant to have one. What is listed here is said, what is not listed is not called safe.
"""

import posixpath
import re
from collections.abc import Iterable

from backends.kit import workspaces

_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")
_WITH_SOCKETS = re.compile(  # /var has the link /var/run
    "/|/var|/run(/(containerd|crio|podman|docker(/containerd)?|user(/[^/]+(/(docker|podman))?)?))?"
)
_LINK = "/var/run/"  # to /run on every Linux of today, and no mount shows it
_STATE = ("/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/kubelet")
_SYSTEM = ("/boot", "/dev", "/etc", "/home", "/proc", "/root", "/sys", "/usr", "/var/lib")
_CAPABILITIES = (
    *("ALL", "BPF", "DAC_READ_SEARCH", "MAC_ADMIN", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE"),
    *("SYS_PTRACE", "SYS_RAWIO"),
)
HINT = "a template of its own, for labels whose users may be that"


def is_root(host: str) -> str:
    """Say that nothing is between a build and a machine; ``host`` names it."""
    return f"every build of this template is root on {host}"


def has_socket(source: str | None) -> bool:
    """Tell whether an engine's socket is, or usually lies, at a path of the host or below it.

    A link that only that host has is not seen.
    """
    if not source or not source.startswith("/"):
        return False
    path = workspaces.normal(source)
    if f"{path}/".startswith(_LINK):
        path = path.removeprefix("/var")
    return posixpath.basename(path) in _SOCKETS or bool(_WITH_SOCKETS.fullmatch(path))


def of_folder(source: str | None, host: str) -> str | None:
    """Say what comes with a mounted path of the host; None for what is no peril known here."""
    if has_socket(source):
        return is_root(host)
    path = workspaces.normal(source) if source and source.startswith("/") else ""
    if path in _SYSTEM or any(f"{path}/".startswith(f"{state}/") for state in _STATE):
        return f"every build of this template reaches {path} of {host}"
    return None


def of_capabilities(names: Iterable[str], host: str) -> str | None:
    """Say what comes with a container's capabilities; None for those that stay in it."""
    for name in names:
        if name.upper().removeprefix("CAP_") in _CAPABILITIES:
            return f"{name[:32]}: {is_root(host)}"
    return None
