"""Who we are at a registry: passwords from files and variables, and from credential helpers.

Why not the SDK's own way to a helper: it waits for ever, and a helper asks clouds and key rings.
Read at each pull, so that a renewed password needs no restart. Refuses to know the SDK, and to say
a password to anybody but the engine.
"""

import json
import os
import pathlib
import subprocess

from backends import api
from backends.docker import settings

_HELPER_S = 30.0
_TOKEN_USER = "<token>"  # noqa: S105 -- of the helpers' protocol: the secret is an identity token
_NOT_THERE = "credentials not found"


def of_settings(login: settings.Registry, registry: str) -> dict[str, str]:
    """Return user and password of the backend's settings. Raises Unauthorized."""
    try:
        password = (
            os.environ[login.password_env]
            if login.password_env is not None
            else pathlib.Path(str(login.password_file)).read_text("utf-8").strip()
        )
    except (OSError, KeyError, ValueError) as error:
        raise api.Unauthorized(
            f"the password for registry {registry} cannot be read: {type(error).__name__}; "
            "hint: `registries` of the backend"
        ) from error
    return {"username": login.user, "password": password}


def of_helper(name: str, server: str) -> dict[str, str] | None:
    """Ask a credential helper of Docker; None if it knows nothing. Raises Unauthorized."""
    program = f"docker-credential-{name}"
    try:
        told = subprocess.run(  # noqa: S603 -- the operator's own program
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_S,
            check=False,
        )
        if told.returncode != 0:
            words = (told.stdout + told.stderr).decode("utf-8", "replace").strip()
            if _NOT_THERE in words:
                return None
            raise _refused(program, words or f"exit code {told.returncode}")
        found = json.loads(told.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except subprocess.TimeoutExpired as error:
        raise _refused(program, f"no answer within {_HELPER_S:g} s") from error
    except OSError as error:
        raise _refused(program, error.strerror or "it cannot be run") from error
    except (ValueError, KeyError, TypeError):
        raise _refused(program, "its answer is none") from None  # it may hold the secret
    if user == _TOKEN_USER:
        return {"serveraddress": server, "identitytoken": secret}
    return {"serveraddress": server, "username": user, "password": secret}


def _refused(program: str, words: str) -> api.Unauthorized:
    hint = "hint: the credential helper of the Docker configuration, in the broker's PATH"
    return api.Unauthorized(f"{program}: {words[:120]}; {hint}")
