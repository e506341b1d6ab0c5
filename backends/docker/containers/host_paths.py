"""Places of the host that belong to one agent, or that several would work in: pure.

A folder of the host or a volume that is named by its agent (``names.TOKEN``) is made with the
container and removed with it. The engine itself makes both: a missing folder of a bind, and a
named volume, which gets our mark, so that only what we had made is removed. Which they are stands
in labels of the container: as long as it is there, so is the list of what has to go with it.

Refuses to know engines.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from backends.kit import names, workspaces

LABEL = "agent-broker.places"


@frozen(kw_only=True)
class Belongings:
    """What goes with a container: ``folders`` as (directory, entry in it), and named volumes."""

    folders: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.folders or self.volumes)

    def label(self) -> dict[str, str]:
        """Return the label that says so."""
        if not self:
            return {}
        told = {"folders": [list(pair) for pair in self.folders], "volumes": list(self.volumes)}
        return {LABEL: json.dumps(told)}


def read(labels: Mapping[str, str], name: str) -> Belongings:
    """Return what goes with a container of ours, as far as it is named by the instance."""
    try:
        told = json.loads(labels.get(LABEL, "{}"))
        folders = tuple((str(above), str(entry)) for above, entry in told.get("folders", ()))
        volumes = tuple(str(volume) for volume in told.get("volumes", ()))
    except (ValueError, TypeError, AttributeError):
        return Belongings()
    if not name:
        return Belongings()
    return Belongings(
        folders=tuple(
            (above, entry)
            for above, entry in folders
            if name in entry and "/" not in entry and above == workspaces.normal(above)
        ),
        volumes=tuple(volume for volume in volumes if name in volume),
    )


def settled(
    host: Mapping[str, Any], name: str, marks: Mapping[str, str]
) -> tuple[dict[str, Any], Belongings]:
    """Return a HostConfig with the instance's name in its mounts, and what goes with it.

    Binds of an agent's own folder are given in the engine's short form: only for that it makes
    what is missing. Own volumes get ``marks`` as labels.
    """
    folders: dict[tuple[str, str], None] = {}
    volumes: dict[str, None] = {}
    binds: list[Any] = []
    mounts: list[Any] = []
    for bind in _list(host.get("Binds")):
        source = str(bind).partition(":")[0]
        if source.startswith("/") and names.is_own(source):
            folders[_folder(source, name)] = None
        binds.append(names.named(bind, name))
    for mount in _list(host.get("Mounts")):
        mounted = names.named(mount, name)
        source = str(mount.get("Source") or "") if isinstance(mount, Mapping) else ""
        if source and names.is_own(source) and mount.get("Type") == "bind":
            folders[_folder(source, name)] = None
            mode = ":ro" if mount.get("ReadOnly") else ""
            binds.append(f"{mounted['Source']}:{mounted['Target']}{mode}")
            continue
        if source and names.is_own(source) and mount.get("Type") == "volume":
            volumes[mounted["Source"]] = None
            options = mounted.get("VolumeOptions") or {}
            labels = {**(options.get("Labels") or {}), **marks}
            mounted = {**mounted, "VolumeOptions": {**options, "Labels": labels}}
        mounts.append(mounted)
    host_config = {**host}
    for key, found in (("Binds", binds), ("Mounts", mounts)):
        if found or host.get(key):
            host_config[key] = found
        if not found:
            host_config.pop(key, None)
    return host_config, Belongings(folders=tuple(folders), volumes=tuple(volumes))


Path = tuple[str | int, ...]


def mounts(host: Mapping[str, Any], typed: Sequence[Path]) -> Iterator[workspaces.Mount]:
    """Yield what a HostConfig mounts; the first of its Mounts are of the settings ``typed``.

    Never complains about what it cannot read: the engine does.
    """
    for number, mount in enumerate(_list(host.get("Mounts"))):
        if not isinstance(mount, Mapping):
            continue
        raw: Path = ("docker", "HostConfig", "Mounts", number)
        yield workspaces.Mount(
            target=str(mount.get("Target") or ""),
            source=_source(mount),
            path=typed[number] if number < len(typed) else raw,
            read_only=mount.get("ReadOnly") is True,
        )
    for number, bind in enumerate(_list(host.get("Binds"))):
        source, _, rest = str(bind).partition(":")
        target, _, options = rest.partition(":")
        yield workspaces.Mount(
            target=target or source,
            source=source if target else None,  # a target alone is an anonymous volume
            path=("docker", "HostConfig", "Binds", number),
            read_only="ro" in options.split(","),
        )


def _source(mount: Mapping[str, Any]) -> str | None:
    """Return the same text for the same place; None for what is made with the container."""
    if mount.get("Type") not in {"bind", "volume"}:
        return None
    config = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
    options = config.get("Options") or {}
    if options.get("device") and options.get("type") != "tmpfs":
        return str(options["device"])  # whatever the volume is called, this is behind it
    return str(mount["Source"]) if mount.get("Source") else None


def _folder(source: str, name: str) -> tuple[str, str]:
    """Return the directory that stays, and the first entry below it that is the agent's own."""
    above, parts = "/", workspaces.normal(source).strip("/").split("/")
    while not names.is_own(parts[0]):
        above = posixpath.join(above, parts.pop(0))
    return above, str(names.named(parts[0], name))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
