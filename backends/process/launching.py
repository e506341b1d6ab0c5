"""From a specification to a directory that a supervisor can work with, and the supervisor's start.

Blocking; refuses to know asyncio, HTTP and other instances.
"""

import hashlib
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from backends import api
from backends.kit import names
from backends.process import kernel, proc, settings
from outside import files as outside_files
from outside import quotes

_SUPERVISOR = pathlib.Path(__file__).with_name("supervisor.py")
_TOKENS = re.compile("|".join(map(re.escape, (api.SECRETS, api.WORK, api.FILES, api.SHARED))))
_PERIOD_US = 100_000  # of cpu.max, the kernel's default
_REPORT_MAX = 65536


@frozen(kw_only=True)
class InstancePaths:
    """The paths of one instance."""

    home: pathlib.Path
    work: pathlib.Path
    shared: pathlib.Path
    cgroup: str | None = None
    outside: pathlib.Path | None = None  # what goes with it beside its own directory

    @property
    def own_work(self) -> bool:
        """The working directory lies in the instance's own directory."""
        return self.work.is_relative_to(self.home)


def check(spec: api.InstanceSpec) -> settings.ProcessTemplate:
    """Return the template's settings; raises Rejected for what a process cannot be."""
    problem = names.name_problem(spec.name)
    if problem is None and spec.image is not None:
        problem = (
            f"the process backend runs no images, image {quotes.shown(spec.image)} was asked for; "
            "hint: remove `image` from the template or give it another backend"
        )
    if problem is None and (spec.use_entry_point or not spec.argv):
        problem = "the process backend needs a command; hint: set `command` in the template"
    for name in (*spec.secret_files, *spec.given_files, *(file.name for file in spec.files)):
        if problem is None and names.name_problem(name) is not None:
            problem = (
                f"the file name {quotes.shown(name)} is not a plain name; hint: no '/', no spaces"
            )
    options = spec.options if spec.options is not None else settings.ProcessTemplate()
    if problem is None and not isinstance(options, settings.ProcessTemplate):
        problem = f"the template's options are {type(options).__name__}, not ProcessTemplate"
    if problem is not None:
        raise api.Rejected(problem)
    return options


def digest(spec: api.InstanceSpec) -> str:
    """Return what tells two specifications apart; secrets are left out."""
    parts = [spec.name, sorted(spec.metadata.items()), spec.argv, sorted(spec.env.items())]
    parts.append([(file.url, file.name) for file in spec.files])
    parts.append([repr(spec.resources), repr(spec.options)])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def fill(
    stage: pathlib.Path,
    spec: api.InstanceSpec,
    *,
    places: InstancePaths,
    files: Mapping[str, pathlib.Path],
    configured: settings.ProcessSettings,
    owner: str,
    created_at: float,
) -> None:
    """Write everything an instance needs into a staging directory; raises OSError."""
    template = check(spec)
    token = secrets.token_hex(8)
    _write(
        stage / "instance.json",
        json.dumps(
            {
                "name": spec.name,
                "owner": owner,
                "metadata": dict(spec.metadata),
                "created_at": created_at,
                "uptime": proc.uptime_s(),
                "boot": kernel.boot_id(),
                "token": token,
                "digest": digest(spec),
                "work": None if places.outside is None else str(places.outside),
                "cgroup": places.cgroup,
            }
        ),
    )
    for folder in ("secrets", "files", "tmp"):
        (stage / folder).mkdir(mode=0o700)
    if places.own_work:
        (stage / "work").mkdir(mode=0o700)
    else:  # the path that the controller was told leads there, too
        (stage / "work").symlink_to(places.work)
    outside_files.make_private(places.shared)
    for name, content in spec.secret_files.items():
        _write(stage / "secrets" / name, content)
    for name, data in spec.given_files.items():
        _write(stage / "files" / name, data)
    for name, source in files.items():
        try:
            os.link(source, stage / "files" / name)
        except OSError:  # another file system, or too many links
            shutil.copyfile(source, stage / "files" / name)
    _write(
        stage / "plan.json",
        json.dumps(_plan(spec, template, configured, places=places, token=token)),
    )


def _plan(
    spec: api.InstanceSpec,
    template: settings.ProcessTemplate,
    configured: settings.ProcessSettings,
    *,
    places: InstancePaths,
    token: str,
) -> dict[str, Any]:
    """Return what the supervisor is told; the keys are its own."""
    where = {
        api.SECRETS: str(places.home / "secrets"),
        api.WORK: str(places.work),
        api.FILES: str(places.home / "files"),
        api.SHARED: str(places.shared),
    }

    def put(text: str) -> str:
        return _TOKENS.sub(lambda match: where[match.group()], text)

    path = os.environ.get("PATH", os.defpath) if configured.path is None else configured.path
    limits = spec.resources
    return {
        "argv": [put(word) for word in spec.argv],
        "env": {
            "PATH": path,
            "HOME": str(places.work),
            "TMPDIR": str(places.home / "tmp"),
            "LANG": "C.UTF-8",
            **{key: put(value) for key, value in spec.env.items()},
            proc.MARK: token,
        },
        "work": str(places.work),
        "nice": template.nice,
        "max_open_files": template.max_open_files,
        "max_output_bytes": configured.max_output_bytes,
        "grace_s": configured.terminate_grace_s,
        "memory_bytes": limits.memory_bytes,
        "memory_reservation_bytes": limits.memory_reservation_bytes,
        "cpu_max": None
        if limits.cpu_limit is None
        else f"{max(1000, int(limits.cpu_limit * _PERIOD_US))} {_PERIOD_US}",
        "cpu_weight": None
        if limits.cpu_shares is None
        else min(10_000, max(1, int(limits.cpu_shares * 100))),  # 100 is the weight of others
        "cgroup": places.cgroup,
    }


def _write(path: pathlib.Path, content: str | bytes) -> None:
    """Create a file that only we can read."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogateescape")
        stream.write(content)


def start_supervisor(home: pathlib.Path, *, timeout_s: float) -> dict[str, Any]:
    """Start the supervisor of a filled directory and return its report (see supervisor.py).

    Raises OSError when it cannot be started, TimeoutError when it says nothing in time; it may
    still start then, and the directory tells.
    """
    end = time.monotonic() + timeout_s
    with subprocess.Popen(  # noqa: S603 -- our own file, no shell
        [sys.executable, "-I", "-S", str(_SUPERVISOR), str(home)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
        bufsize=0,
    ) as launcher:
        assert launcher.stdout is not None  # noqa: S101 -- a pipe was asked for; this is for mypy
        poll = select.poll()
        poll.register(launcher.stdout, select.POLLIN)
        text = b""
        while not text.endswith(b"\n"):
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                launcher.kill()
                raise TimeoutError(f"the supervisor process did not start within {timeout_s:g} s")
            part = launcher.stdout.read(_REPORT_MAX)
            if not part:
                raise OSError("the supervisor process ended without a word")
            text += part
    report = json.loads(text)
    return report if isinstance(report, dict) else {}
