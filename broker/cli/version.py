"""Which version this is, and of which commit.

Refuses to guess: what nobody wrote down is not said.
"""

import importlib.metadata
import json
import pathlib
import re
import subprocess

import broker
from outside import paths

_PACKAGE = pathlib.Path(broker.__file__).parent
_DISTRIBUTION = "jenkins-agent-broker"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHOWN = 12  # digits, as people quote them
_GIT_S = 5.0


def words() -> str:
    """Return the version, with the commit in brackets where it is known."""
    commit = of_build(_PACKAGE) or of_install() or of_checkout(_PACKAGE.parent)
    return f"{broker.__version__} ({commit[:_SHOWN]})" if commit else broker.__version__


def of_build(package: pathlib.Path) -> str:
    """Return the commit that the build wrote into a package (``setup.py``), or an empty text."""
    try:
        return _checked((package / "COMMIT").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return ""


def of_install() -> str:
    """Return the commit that pip noted when it installed from a repository, or an empty text."""
    try:
        told = importlib.metadata.distribution(_DISTRIBUTION).read_text("direct_url.json")
        return _checked(json.loads(told or "{}")["vcs_info"]["commit_id"])
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return ""


def of_checkout(root: pathlib.Path) -> str:
    """Return the commit of the repository whose top this is, or an empty text.

    A repository around an environment, in which we are installed, says nothing of us.
    """
    if not (paths.exists(root / ".git") and paths.exists(root / "pyproject.toml")):
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        ended = subprocess.run(  # noqa: S603 -- git, by fixed words
            command, capture_output=True, text=True, check=True, timeout=_GIT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return _checked(ended.stdout)


def _checked(told: object) -> str:
    found = _COMMIT.fullmatch(told.strip()) if isinstance(told, str) else None
    return found[0] if found else ""
