"""The child that reads a kubeconfig: the official package in, one JSON document out.

Why that package: contexts, client certificates, exec plugins and token files are its business, and
people expect exactly what kubectl does. Why a child: it is large, and what it finds is small
(docs/decisions/0030-kubernetes-client.md). The document goes through a pipe to our parent and
nowhere else, secrets and all. Refuses to make requests, and to decide when to be asked again.
"""

import datetime as dt
import json
import logging
import os
import pathlib
from typing import Any

_PLACES = ("BearerToken", "authorization")  # where its releases of today and before keep it


def tell(path: str, context: str) -> None:
    """Write what a context of a kubeconfig says, or why it cannot be read."""
    # plugins and the package may print whatever they like: only we write to the parent
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as parent:
        os.dup2(2, 1)
        json.dump(read(path or None, context or None), parent)


def read(path: str | None, context: str | None) -> dict[str, Any]:
    """Return ``error``, or ``server``, ``namespace``, ``token`` and so on: see ``kubeconfig``."""
    import yaml  # noqa: PLC0415 -- as below
    from kubernetes import client, config  # noqa: PLC0415 -- large
    from kubernetes.config import kube_config  # noqa: PLC0415 -- as above

    said = _Said()
    logging.basicConfig(handlers=[said], level=logging.ERROR)
    made: Any = client.Configuration()
    try:
        merged: Any = kube_config.KubeConfigMerger(path or config.KUBE_CONFIG_DEFAULT_LOCATION)
        if merged.config is None:
            return {"error": "there is no such file"}
        loader: Any = kube_config.KubeConfigLoader(
            config_dict=merged.config, active_context=context, config_base_path=None
        )
        loader.load_and_set(made)
        found = {
            "server": made.host,
            "namespace": loader.current_context["context"].get("namespace"),
            "token": _token(made),
            "left_s": _left(getattr(loader, "expiry", None)),
            "verify": bool(made.verify_ssl),
            "authority": _text(made.ssl_ca_cert),
            "certificate": _text(made.cert_file),
            "key": _text(made.key_file),
        }
    except yaml.YAMLError:
        return {"error": "it is not YAML"}  # whose words quote the line
    except (config.ConfigException, OSError, ValueError) as error:
        return {"error": _shown(str(error))}
    if found["token"] is None and found["certificate"] is None and said.words:
        return {"error": _shown(said.words[-1])}  # of a plugin that failed
    return found


class _Said(logging.Handler):
    """Keeps what the package only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the words."""
        self.words.append(record.getMessage())


def _shown(words: str) -> str:
    """Leave out what the package quotes: whole entries, with their secrets."""
    return words.partition("{")[0].rstrip(" /'")


def _token(made: Any) -> str | None:
    for place in _PLACES:
        header = made.get_api_key_with_prefix(place)
        if header:
            return str(header).removeprefix("Bearer ")
    return None


def _left(expiry: dt.datetime | None) -> float | None:
    """Return for how many seconds a token is good, or None where nobody says so."""
    if expiry is None:
        return None
    return (expiry - dt.datetime.now(dt.UTC)).total_seconds()  # noqa: TID251 -- a wall-clock date, turned into a duration here


def _text(path: str | None) -> str | None:
    return pathlib.Path(path).read_text("utf-8") if path else None
