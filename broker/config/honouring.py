"""Which backends honour what a template says to all of them: for the manual, and for a check.

What each kind leaves unheard it says itself (``backends.kit.honoured``); that it brings no Java or
files, has no pods or no Docker for builds is told by what else is known of it. Everything else of
a template is the broker's own affair, and alike on every backend. Refuses to know kinds by name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from backends.kit import honoured
from broker.config import collector, reading, shape, tree
from broker.config.settings import BackendSettings, KindClasses
from broker.core import model

_ALL = "all"
_OF_PODS = frozenset(
    {
        "parameters.NAME.container",
        "parameters.NAME.inherits",
        "parameters.NAME.values.NAME.inherits",
    }
)
_OF_IMAGES = frozenset(
    {
        "parameters.NAME.allow",
        "parameters.NAME.stands_for",
        "parameters.NAME.values.NAME.image",
    }
)
_CPU = "resources.cpu_limit"
"""What builds that ask for `cpu` are given."""
_BESIDE_A_COMMAND = ("java", "jvm_options", "heap_share", "reconnect_for")


def backends(kinds: Mapping[str, KindClasses], setting: str) -> str:
    """Return who honours a setting of a template, in words; ``setting`` as in the manual."""
    real = {name: kind for name, kind in sorted(kinds.items()) if not kind.pretends}
    found = {name: _of(kind, setting) for name, kind in real.items()}
    if set(found.values()) == {_ALL}:
        return _ALL
    told = (name if how == _ALL else f"{name} {how}" for name, how in found.items() if how)
    return "; ".join(told)


def _of(kind: KindClasses, setting: str) -> str:
    """Return ``all`` if a kind honours it, under which condition it does, or nothing."""
    fields = {one.name for one in attrs.fields(kind.settings)}
    if setting == "inject":
        return _ALL if "runtimes" in fields else ""
    if setting.startswith("docker_pipelines."):
        of_engine = setting.startswith("docker_pipelines.engine_")
        modes = (one for one, why in kind.pipelines.items() if not why)
        return _ALL if any(one != "socket" or not of_engine for one in modes) else ""
    if setting.startswith("trust."):
        few = f"with `{kind.given_needs}` of the backend" if kind.given_needs else ""
        return few if kind.given_refusal and not kind.given_most_bytes else _ALL
    if setting.startswith("checks."):
        return "" if kind.run_refusal else _ALL
    if setting in _OF_PODS:
        return _ALL if "pods" in fields else ""
    if setting in _OF_IMAGES:
        setting = "image"
    return next((one.unless for one in kind.unheard if one.setting == setting), _ALL)


@frozen(kw_only=True)
class Honouring:
    """Notes what of one template nobody, or not everybody, hears."""

    notes: collector.Notes
    path: tree.Path
    section: shape.Template
    told: frozenset[str]  # settings that differ from what they are by default

    @classmethod
    def of(cls, notes: collector.Notes, path: tree.Path, section: shape.Template) -> "Honouring":
        """Look at a template's section."""
        return cls(notes=notes, path=path, section=section, told=frozenset(_told(section)))

    def check(
        self,
        kinds: Mapping[str, KindClasses],
        backends: Mapping[model.BackendName, BackendSettings],
        platform: Mapping[model.BackendName, Any],
    ) -> None:
        """Note it; ``platform``: the template's settings for each of its backends."""
        if self.section.command is not None:
            for setting in _BESIDE_A_COMMAND:
                if setting in self.told:
                    self.notes.warn(
                        (*self.path, setting),
                        "not used beside `command`, which is given no agent.jar and no Java",
                        "leave it out, or write it into the command",
                    )
        for name, options in platform.items():
            entry = backends[name]
            around = honoured.Circumstances(
                settings=entry.settings,
                options=options,
                injects=self.section.inject is not None,
                told=self.told,
            )
            sole = all(backends[other].kind == entry.kind for other in platform)
            for one in kinds[entry.kind].unheard:
                asked = one.setting == _CPU and "cpu" in self.section.parameters
                if (asked or one.setting in self.told) and not one.heard(around):
                    self._note(one, name, sole=sole)

    def _note(self, one: honoured.Unheard, backend: model.BackendName, *, sole: bool) -> None:
        if self.section.command is not None and one.setting in _BESIDE_A_COMMAND:
            return  # told
        note = self.notes.bad if one.refused and sole else self.notes.warn
        text = one.why if one.refused else f"backend {backend} leaves it out: {one.why}"
        place = one.setting.split(".") if one.setting in self.told else ("parameters", "cpu")
        note((*self.path, *place), text, one.hint)


def _told(section: Any, before: str = "") -> Iterator[str]:
    for attribute in attrs.fields(type(section)):
        value = getattr(section, attribute.name)
        name = f"{before}{reading.key_of(attribute)}"
        if attrs.has(type(value)):
            yield from _told(value, f"{name}.")
        default = attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
            default = default.factory()
        if value != default:
            yield name
