"""Credentials out of a kubeconfig, read by the official package.

Why that package: contexts, client certificates, exec plugins and token files are its business, and
people expect exactly what kubectl does. It is imported only here, and only when a kubeconfig is
configured, because it is large (docs/decisions/0030-kubernetes-client.md). Refuses to make
requests with it.
"""

import asyncio
import pathlib
import ssl
from typing import Any

from backends import api
from backends.kubernetes import access, settings

_MISSING = (
    "a kubeconfig needs the official package; hint: pip install jenkins-agent-broker[kubernetes]"
)
_PLACES = ("BearerToken", "authorization")  # where its releases of today and before keep it


class PackageToken:
    """The token of a loaded kubeconfig; exec plugins and token files are asked again to renew."""

    def __init__(self, told: settings.Cluster, loaded: Any) -> None:
        self._told = told
        self._loaded = loaded

    async def get(self, *, renew: bool = False) -> str | None:
        """Return the token; after it was refused, read everything again."""
        if renew:
            self._loaded = await asyncio.to_thread(_load, self._told)
        for place in _PLACES:
            header = self._loaded.get_api_key_with_prefix(place)
            if header:
                return str(header).removeprefix("Bearer ")
        return None


async def load(told: settings.Cluster) -> access.Access:
    """Return how to reach the cluster of a context. Raises Unauthorized."""
    loaded = await asyncio.to_thread(_load, told)
    namespace = await asyncio.to_thread(_namespace, told)
    tls = None
    if loaded.host.startswith("https:"):
        tls = _tls(loaded)
    return access.Access(
        server=(told.server or loaded.host).rstrip("/"),
        namespace=told.namespace or namespace,
        tokens=PackageToken(told, loaded),
        tls=tls,
    )


def _load(told: settings.Cluster) -> Any:
    """Read the file with the package; blocking, since plugins are run."""
    try:
        from kubernetes import client, config  # noqa: PLC0415 -- large, and only needed here
    except ImportError as error:
        raise api.Unauthorized(_MISSING) from error
    loaded = client.Configuration()
    try:
        config.load_kube_config(
            config_file=told.kubeconfig,
            context=told.context,
            client_configuration=loaded,
            persist_config=False,
        )
    except config.ConfigException as error:
        raise api.Unauthorized(f"kubeconfig {told.kubeconfig or ''}: {error}") from error
    return loaded


def _namespace(told: settings.Cluster) -> str:
    from kubernetes import config  # noqa: PLC0415 -- as above

    contexts, active = config.list_kube_config_contexts(config_file=told.kubeconfig)
    chosen = next((c for c in contexts if c["name"] == told.context), active)
    return str(chosen["context"].get("namespace") or "default")


def _tls(loaded: Any) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=loaded.ssl_ca_cert)
        if not loaded.verify_ssl:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        if loaded.cert_file:
            key = pathlib.Path(loaded.key_file) if loaded.key_file else None
            made.load_cert_chain(loaded.cert_file, key)
    except (OSError, ssl.SSLError) as error:
        raise api.Unauthorized(
            f"cannot use the certificates of the kubeconfig: {error}"
        ) from error
    return made
