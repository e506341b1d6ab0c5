"""What pyproject.toml cannot say: of which commit a build is, for ``agent-broker --version``.

From git, or where there is no repository from the variable AGENT_BROKER_COMMIT or the source
archive; nothing when nobody knows.
"""

import os
import pathlib
import re
import subprocess

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = pathlib.Path(__file__).resolve().parent
COMMIT = pathlib.Path("broker", "COMMIT")


def known() -> str:
    """Return the commit of the sources, or an empty text."""
    told = os.environ.get("AGENT_BROKER_COMMIT", "")
    if not told and (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 -- git, by fixed words
        except (OSError, subprocess.CalledProcessError):
            told = ""
    elif not told and (ROOT / COMMIT).exists():
        told = (ROOT / COMMIT).read_text()
    found = re.fullmatch(r"[0-9a-f]{7,64}", told.strip())
    return found[0] if found else ""


def write(folder: str) -> None:
    """Leave the commit beside the sources of a build."""
    path = pathlib.Path(folder) / COMMIT
    if commit := known():
        path.unlink(missing_ok=True)  # it may be a link to that of the sources
        path.write_text(f"{commit}\n")


class BuildPackages(build_py):
    """The packages, and the commit."""

    def run(self) -> None:
        """Build them."""
        super().run()
        if not self.editable_mode:
            write(self.build_lib)


class SourceArchive(sdist):
    """The sources, and the commit."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Lay them out."""
        super().make_release_tree(base_dir, files)
        write(base_dir)


setup(cmdclass={"build_py": BuildPackages, "sdist": SourceArchive})
