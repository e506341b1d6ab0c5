"""What builds may ask of a template: from the document to the parameters that the core sees.

Refuses to know labels of items, and what a backend makes of a value.
"""

from collections.abc import Iterator, Mapping

import attrs
from attrs import field, frozen

from backends.kit import setting
from broker.config import collector, shape, tree, values
from broker.config.settings import BackendSettings
from broker.core import model
from broker.core.demand import globs, images, parameters
from jnlp import node as jnlp_node

_KINDS = {kind.value: kind for kind in model.ParameterKind}
_AMOUNTS = frozenset({model.ParameterKind.MEMORY, model.ParameterKind.CPU})
_LEAST = {model.ParameterKind.MEMORY: float(64 << 20), model.ParameterKind.CPU: 0.1}
"""Bytes and cores; with less no Java begins in time. Who sets no `min` has not thought of it."""
_LEAST_CORES = 0.01
"""With less the kernel starts nothing: a thousandth of a second in each tenth."""
_MOST_MEMORY = 1 << 50
_LIKE = {
    model.ParameterKind.MEMORY: "a size like 512Mi or 4g",
    model.ParameterKind.CPU: "a number of cores like 0.5",
}
_FORM = "[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]"
_SETTINGS = {
    model.ParameterKind.IMAGE: ("allow", "stands_for", "container", "inherits"),
    model.ParameterKind.MEMORY: ("min", "max"),
    model.ParameterKind.CPU: ("min", "max"),
    model.ParameterKind.CHOICE: ("values",),
}


@frozen(kw_only=True)
class Parameters:
    """Reads the parameters of one template."""

    notes: collector.Notes
    path: tree.Path
    labels: tuple[str, ...] = field(factory=tuple)  # of the template

    def read(self, sections: Mapping[str, shape.Parameter]) -> dict[str, model.Parameter]:
        """Return those that are good; note what is wrong with the others."""
        read = {name: self._parameter(name, section) for name, section in sections.items()}
        return {name: parameter for name, parameter in read.items() if parameter is not None}

    def defaulted(
        self,
        launch: model.LaunchSettings,
        sections: Mapping[str, shape.Parameter],
        read: Mapping[str, model.Parameter],
    ) -> model.LaunchSettings:
        """Return how an agent is started for those who ask for nothing."""
        chosen = {}
        for name, parameter in read.items():
            default = sections[name].default
            problem = default is not None and parameters.problem(name, parameter, default)
            if problem:
                self.notes.bad((*self.path, name, "default"), problem)
            elif default is not None:
                chosen[name] = default
        clash = parameters.clash(read, chosen)
        if clash:
            self.notes.bad(self.path, f"of the defaults {clash}", "keep one of them")
            return launch
        return parameters.with_values(launch, read, chosen)

    def check_backends(
        self,
        sections: Mapping[str, shape.Parameter],
        backends: Mapping[model.BackendName, BackendSettings],
    ) -> None:
        """Note where pods are asked for that are none, or have no such part."""
        wanted = [
            ((*self.path, name, "container"), "")
            for name, section in sections.items()
            if section.container is not None
        ]
        wanted += [
            ((*self.path, *place), part)
            for place, inherits in inherited(sections)
            for part in inherits
        ]
        for backend, entry in backends.items():
            pods = getattr(entry.settings, "pods", None)
            for path, part in wanted:
                if pods is None:
                    self.notes.bad(
                        path,
                        f"backend {backend}, of kind {entry.kind}, has no pods",
                        "leave it out, or choose other backends for this template",
                    )
                elif part and part not in pods:
                    known = ", ".join(sorted(pods)) or "none"
                    self.notes.bad(
                        path,
                        f"found {values.shown(part)}; allowed: {known}",
                        f"backends.{backend}.pods",
                    )

    def examples(
        self, sections: Mapping[str, shape.Parameter], read: Mapping[str, model.Parameter]
    ) -> Iterator[tuple[tree.Path, str]]:
        """Yield what builds may ask for, with its place: all that is listed, limits, images.

        Of images one of each form: a platform refuses what a name has, and no name alone.
        """
        for name, parameter in read.items():
            section, path = sections[name], (*self.path, name)
            told: list[tuple[tree.Path, str | None]] = [
                ((*path, "min"), section.min),
                ((*path, "max"), section.max),
                *(((*path, "values", value), value) for value in parameter.values),
                *self._images(path, parameter),
            ]
            for place, value in told:
                if value is not None and not parameters.problem(name, parameter, value):
                    yield place, f"{name}={value}"

    def _images(
        self, path: tree.Path, parameter: model.Parameter
    ) -> Iterator[tuple[tree.Path, str]]:
        forms = set()
        for number, pattern in enumerate(parameter.allow):
            example = _example(parameter.stands_for, pattern)
            form = images.form(example or "")
            if example is not None and form not in forms:
                forms.add(form)
                yield (*path, "allow", number), example

    def _parameter(self, name: str, section: shape.Parameter) -> model.Parameter | None:
        kind = _kind(name, section)
        path = (*self.path, name)
        before = len(self.notes.problems)
        self._check_name(path, name)
        self._check_settings(path, name, kind, section)
        least, most = self._limits(path, kind, section)
        if section.min is None:
            least = _LEAST.get(kind)
        elif kind is model.ParameterKind.CPU and least is not None and least < _LEAST_CORES:
            found = values.shown(section.min)
            self.notes.bad((*path, "min"), f"found {found}; allowed: {_LEAST_CORES} or more")
        if section.min is not None and least is not None and most is not None and least > most:
            self.notes.bad((*path, "min"), "more than max")
        self._check_most(path, kind, section, most)
        if len(self.notes.problems) > before:
            return None
        chosen = (section.values or {}).items()
        return model.Parameter(
            kind=kind,
            allow=section.allow or (),
            stands_for=section.stands_for,
            container=section.container,
            inherits=section.inherits,
            least=least,
            most=most,
            values={value: model.Choice(**attrs.asdict(choice)) for value, choice in chosen},
        )

    def _check_name(self, path: tree.Path, name: str) -> None:
        if "=" in name or jnlp_node.label_problems(name):
            self.notes.bad(path, "a name is a label without blanks, quotes and '='")
        for label in self.labels:
            if label.startswith(f"{name}="):
                self.notes.bad(
                    path, f"the template has the label {values.shown(label)} of its own"
                )

    def _check_settings(
        self,
        path: tree.Path,
        name: str,
        kind: model.ParameterKind,
        section: shape.Parameter,
    ) -> None:
        wanted = _SETTINGS[kind]
        if kind not in _AMOUNTS and _is_number(section.default):
            self.notes.bad(
                (*path, "default"),
                f"found the number {section.default}; allowed: a text",
                f'default: "{section.default}", for 1.20 is no more than 1.2 to YAML',
            )
        for attribute in attrs.fields(shape.Parameter):
            key = attribute.name
            if getattr(section, key) not in (None, ()) and key not in {*wanted, "default"}:
                self.notes.bad(
                    (*path, key), f"not of {name}; allowed: {', '.join(wanted)}, default"
                )
        self._check_patterns(path, section)
        needed = "max" if kind in _AMOUNTS else wanted[0]
        if not getattr(section, needed):
            self.notes.bad((*path, needed), "missing, and builds could ask for nothing")
        if section.stands_for is not None and not _is_form(section.stands_for):
            self.notes.bad(
                (*path, "stands_for"),
                f"found {values.shown(section.stands_for)}; allowed: the name of an image with "
                f"one {model.VALUE} in it, behind the registry",
                f"maven:{model.VALUE}",
            )
        for value in section.values or {}:
            if not value or jnlp_node.label_problems(f"{name}={value}"):
                self.notes.bad((*path, "values", value), "no label can have this value")

    def _limits(
        self, path: tree.Path, kind: model.ParameterKind, section: shape.Parameter
    ) -> Iterator[float | None]:
        for key, told in (("min", section.min), ("max", section.max)):
            amount = None
            if told is not None and kind in _AMOUNTS:
                amount = parameters.amount(kind, told)
                if amount is None:
                    self.notes.bad(
                        (*path, key), f"found {values.shown(told)}; allowed: {_LIKE[kind]}"
                    )
            yield amount

    def _check_most(
        self,
        path: tree.Path,
        kind: model.ParameterKind,
        section: shape.Parameter,
        most: float | None,
    ) -> None:
        """Note a limit that nobody could ask for something within, or no platform gives."""
        if most is None:
            return
        is_memory = kind is model.ParameterKind.MEMORY
        least = _LEAST.get(kind, 0) if section.min is None else 0
        allowed = ""
        if most == 0 or most < least:
            words = setting.size(int(least)) if is_memory else f"{least:g}"
            allowed = f"{words} or more" if least else "more than 0"
        elif is_memory and most > _MOST_MEMORY:
            allowed = f"{setting.size(_MOST_MEMORY)} at most"
        if allowed:
            found = values.shown(section.max)
            self.notes.bad((*path, "max"), f"found {found}; allowed: {allowed}")

    def _check_patterns(self, path: tree.Path, section: shape.Parameter) -> None:
        """Note patterns that stand for nothing that a build could ask for."""
        for number, pattern in enumerate(section.allow or ()):
            if _example(section.stands_for, pattern) is None:
                self.notes.bad(
                    (*path, "allow", number),
                    f"found {values.shown(pattern)}, and no image is called so; allowed: "
                    + (_FORM if section.stands_for is None else "a tag, or a part of a name")
                    + ", * and ? in it",
                    "without the scheme" * ("://" in pattern),
                )


def _example(form: str | None, pattern: str) -> str | None:
    """Return a value that an image's pattern stands for; None if there is none."""
    if form is None:
        return images.example(pattern)
    value = globs.filled(pattern, "1")
    is_one = images.is_tag(value) and images.is_image(form.replace(model.VALUE, value))
    return value if is_one else None


def inherited(
    sections: Mapping[str, shape.Parameter],
) -> Iterator[tuple[tree.Path, tuple[str, ...]]]:
    """Yield the parts of a backend's settings that builds may ask for, with their places."""
    for name, section in sections.items():
        if section.inherits:
            yield (name, "inherits"), section.inherits
        for value, choice in (section.values or {}).items():
            if choice.inherits:
                yield (name, "values", value, "inherits"), choice.inherits


def _is_number(default: object) -> bool:
    return isinstance(default, shape.Number)


def _kind(name: str, section: shape.Parameter) -> model.ParameterKind:
    if name in _KINDS and name != model.ParameterKind.CHOICE.value:
        return _KINDS[name]
    if section.allow or section.stands_for or section.container:
        return model.ParameterKind.IMAGE
    return model.ParameterKind.CHOICE


def _is_form(form: str) -> bool:
    """Return whether a form makes an image of a value, and never another registry."""
    before, token, after = form.partition(model.VALUE)
    is_behind = "/" in before or "/" not in after
    return bool(token) and is_behind and images.is_image(f"{before}1{after}")
