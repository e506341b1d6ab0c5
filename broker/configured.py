"""From a configuration file to settings, here or in a process of its own.

Why a process of its own: what reads a configuration (YAML, cattrs, the settings of every kind of
backend) is four megabytes that a broker never needs again. A child reads, and takes them along
when it ends; only the settings come back, through a pipe, secrets among them: nothing is written,
named in an argument or logged. Refuses to know what is right in a configuration.
"""

import os
import pathlib
import pickle
import subprocess
import sys
from typing import Any

from backends import registry
from backends.kit import interpreter
from broker import config
from jnlp import secret as jnlp_secret

_CHILD = "from broker import configured; configured.tell(sys.argv[1])"
_LIMIT_S = 120.0


def kinds() -> dict[str, config.KindClasses]:
    """Return the settings classes of every kind of backend; imports no SDK."""
    return {
        name: config.KindClasses(
            settings=registry.settings_class(name),
            template_settings=registry.template_settings_class(name),
            alone=kind.alone,
            lease=registry.lease_settings_class(name),
            cap=registry.default_cap(name),
        )
        for name, kind in registry.KINDS.items()
    }


def load(path: pathlib.Path, *, secrets: bool = True) -> config.Settings:
    """Read a file in this process; ``secrets`` only for what needs them.

    Raises ``config.ConfigError``.
    """
    from broker.config import loading  # noqa: PLC0415 -- a broker at work need not hold it

    return loading.load(path, kinds(), environ=os.environ, secrets=secrets)


def load_apart(path: pathlib.Path) -> config.Settings:
    """Read a file in a child; blocks until it has ended. Raises ``config.ConfigError``."""
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter
            interpreter.command(_CHILD, str(path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise config.ConfigError((f"{path}: not read: {_end_of(error)}",)) from error
    told: config.Settings | config.ConfigError = pickle.loads(done.stdout)  # noqa: S301 -- from our own child
    if isinstance(told, config.ConfigError):
        raise told
    return told


def _end_of(error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"that took over {_LIMIT_S:g} s"
        case subprocess.CalledProcessError():
            return f"the process that reads it ended with code {error.returncode}"
        case _:
            return f"no process can be started for it: {error}"


def tell(path: str) -> None:
    """Be the child: write what the file says, or what is wrong with it."""
    told: config.Settings | config.ConfigError
    try:
        told = load(pathlib.Path(path))
    except config.ConfigError as error:
        told = error
    try:
        _Pickler(sys.stdout.buffer, pickle.HIGHEST_PROTOCOL).dump(told)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # our parent has ended: no word of it belongs into its log
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Pickler(pickle.Pickler):
    """Writes secrets, too, which otherwise refuse: what it writes to is a pipe to our parent."""

    def reducer_override(self, value: object) -> Any:
        """Say how a value is made again."""
        if isinstance(value, jnlp_secret.Secret):
            return jnlp_secret.Secret, (value.reveal(),)
        return NotImplemented
