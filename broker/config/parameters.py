"""What builds may ask of a template: from the document to the parameters that the core sees.

Refuses to know labels of items, and what a backend makes of a value.
"""

from collections.abc import Iterator, Mapping

import attrs
from attrs import field, frozen

from broker.config import collector, shape, tree, values
from broker.core import model
from broker.core.demand import parameters
from jnlp import node as jnlp_node

_KINDS = {kind.value: kind for kind in model.ParameterKind}
_AMOUNTS = frozenset({model.ParameterKind.MEMORY, model.ParameterKind.CPU})
_LEAST_MEMORY = 64 << 20
"""Bytes; with less no Java begins, and who sets no `min` has not thought of it."""
_SETTINGS = {
    model.ParameterKind.IMAGE: ("allow",),
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
        for name, parameter in read.items():
            default = sections[name].default
            if default is None:
                continue
            problem = parameters.problem(name, parameter, default)
            if problem:
                self.notes.bad((*self.path, name, "default"), problem)
            else:
                launch = parameters.with_choice(launch, parameters.choice(parameter, default))
        return launch

    def _parameter(self, name: str, section: shape.Parameter) -> model.Parameter | None:
        kind = _KINDS.get(name, model.ParameterKind.CHOICE)
        path = (*self.path, name)
        before = len(self.notes.problems)
        self._check_name(path, name)
        self._check_settings(path, name, kind, section)
        least, most = self._limits(path, kind, section)
        if kind is model.ParameterKind.MEMORY and least is None:
            least = _LEAST_MEMORY
        if least is not None and most is not None and least > most:
            self.notes.bad((*path, "min"), "more than max")
        if len(self.notes.problems) > before:
            return None
        chosen = (section.values or {}).items()
        return model.Parameter(
            kind=kind,
            allow=section.allow or (),
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
        for attribute in attrs.fields(shape.Parameter):
            key = attribute.name
            if getattr(section, key) is not None and key not in {*wanted, "default"}:
                self.notes.bad(
                    (*path, key), f"not of {name}; allowed: {', '.join(wanted)}, default"
                )
        if kind not in _AMOUNTS and not getattr(section, wanted[0]):
            self.notes.bad(path, f"{wanted[0]}: found none; allowed: one or more")
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
                    allowed = "a size like 512Mi or 4g, a number of cores like 0.5"
                    self.notes.bad((*path, key), f"found {values.shown(told)}; allowed: {allowed}")
            yield amount
