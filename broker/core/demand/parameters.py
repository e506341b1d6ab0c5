"""What items ask of a template by labels like ``image=golang:1.22``, and what that makes of it.

A template says what may be asked for (``model.Parameter``). Of an expression the fewest such
labels are taken with which it matches the template's own; an agent that is started for them
carries just these beside the template's labels, so the controller's own matching stays the truth,
and a variant is known again by its node. Pure; refuses to know items, caps and backends.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

import attrs
from attrs import frozen

from broker.core import model
from broker.core.demand import globs, images, labels

MOST_ASKED = 6
"""Labels with a parameter's name in one expression; more are not read for one template."""
_FEWEST_FIRST = tuple(
    tuple(
        sum(1 << place for place in chosen)
        for number in range(size + 1)
        for chosen in itertools.combinations(range(size), number)
    )
    for size in range(MOST_ASKED + 1)
)
"""All ways to take some of so many labels, as bits, the fewest first."""
NONE: frozenset[str] = frozenset()
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(k|m|g|t|Ki|Mi|Gi|Ti)")
_CORES = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_POWERS = {"k": 10, "m": 20, "g": 30, "t": 40}


@frozen
class Asked:
    """What an expression asks of a template: labels beside its own, or what is wrong with them."""

    labels: frozenset[str] = NONE
    complaint: str = ""


def asked(expression: labels.Expression, template: model.Template) -> Asked | None:
    """Return what an expression asks of a template; None if it asks for something else."""
    own = tuple(sorted(template.asked(expression.atoms())))
    if not own:
        return Asked() if expression.matches(template.labels) else None
    if len(own) > MOST_ASKED:
        if not expression.matches(template.labels | frozenset(own)):
            return None
        return Asked(
            complaint=f"it names {len(own)} values of parameters of template {template.name}, "
            f"{MOST_ASKED} are read"
        )
    complaint = ""
    fits = expression.truth(own, template.labels)
    for number in _FEWEST_FIRST[len(own)]:
        if fits >> number & 1:
            chosen = tuple(label for place, label in enumerate(own) if number >> place & 1)
            problem = _problem(chosen, template)
            if not problem:
                return Asked(frozenset(chosen))
            complaint = complaint or problem
    return Asked(complaint=complaint) if complaint else None


def of_agent(agent_labels: Iterable[str], template: model.Template) -> Asked:
    """Return what another agent like one would ask of its template, as that is today.

    The labels are the node's: whoever may configure it writes them, and what was allowed when it
    was started may be so no more.
    """
    chosen = tuple(sorted(template.asked(frozenset(agent_labels))))
    problem = _problem(chosen, template)
    return Asked(complaint=problem) if problem else Asked(frozenset(chosen))


def bound(template: model.Template, asked_labels: Iterable[str]) -> model.Template:
    """Return the variant of a template: with these labels, and what they stand for.

    They are allowed ones. The warm pool is the template's own.
    """
    chosen = frozenset(asked_labels)
    if not chosen:
        return template
    values = {name: value for name, _, value in (text.partition("=") for text in sorted(chosen))}
    launch = with_values(template.launch, template.parameters, values)
    return attrs.evolve(template, labels=template.labels | chosen, launch=launch, min_idle=0)


def with_values(
    launch: model.LaunchSettings,
    allowed: Mapping[str, model.Parameter],
    values: Mapping[str, str],
) -> model.LaunchSettings:
    """Return how an agent is started with allowed values, by their parameters' names.

    What has a name of its own is stronger than what a word of a list stands for.
    """
    known = [(allowed[name], value) for name, value in values.items() if name in allowed]
    for parameter, value in sorted(known, key=lambda one: not _is_list(one[0])):
        launch = with_choice(launch, choice(parameter, value))
    return launch


def clash(allowed: Mapping[str, model.Parameter], values: Mapping[str, str]) -> str:
    """Say which two allowed values set the same, and neither is stronger; empty if none do."""
    first: dict[object, str] = {}
    for name, value in values.items():
        parameter = allowed[name]
        for what in _sets(choice(parameter, value)):
            other = first.setdefault((what, _is_list(parameter)), name)
            if other != name:
                return f"{other} and {name} both set {what}"
    return ""


def choice(parameter: model.Parameter, value: str) -> model.Choice:
    """Return what an allowed value stands for."""
    match parameter.kind:
        case model.ParameterKind.IMAGE:
            return model.Choice(
                image=_image(parameter, value),
                container=parameter.container,
                inherits=parameter.inherits,
            )
        case model.ParameterKind.MEMORY:
            return model.Choice(memory_bytes=_bytes(value))
        case model.ParameterKind.CPU:
            return model.Choice(cpu=float(value))
        case model.ParameterKind.CHOICE:
            return parameter.values.get(value, model.Choice())


def _is_list(parameter: model.Parameter) -> bool:
    return parameter.kind is model.ParameterKind.CHOICE


def _sets(chosen: model.Choice) -> Iterator[str]:
    """Say what of an agent a choice sets, but for what it adds."""
    if chosen.image is not None:
        yield "the image" + (f" of {chosen.container}" if chosen.container is not None else "")
    if chosen.memory_bytes is not None:
        yield "the memory"
    if chosen.cpu is not None:
        yield "the cores"


def with_choice(launch: model.LaunchSettings, chosen: model.Choice) -> model.LaunchSettings:
    """Return how an agent is started with a choice; what it leaves open stays the template's.

    A reservation is never more than the limit, which a scheduler would refuse.
    """
    resources = launch.resources
    if chosen.memory_bytes is not None:
        reserved = resources.memory_reservation_bytes
        resources = attrs.evolve(
            resources,
            memory_bytes=chosen.memory_bytes,
            memory_reservation_bytes=min(reserved, chosen.memory_bytes) if reserved else reserved,
        )
    if chosen.cpu is not None:
        shares = resources.cpu_shares
        resources = attrs.evolve(
            resources,
            cpu_limit=chosen.cpu,
            cpu_shares=min(shares, chosen.cpu) if shares else shares,
        )
    launch = attrs.evolve(
        launch, resources=resources, inherits=(*launch.inherits, *chosen.inherits)
    )
    if chosen.image is None:
        return launch
    if chosen.container is None:
        return attrs.evolve(launch, image=chosen.image)
    side_images = {**launch.side_images, chosen.container: chosen.image}
    return attrs.evolve(launch, side_images=side_images)


def amount(kind: model.ParameterKind, text: str) -> float | None:
    """Return an amount in bytes or cores, as its kind has it; None for what is none."""
    match kind:
        case model.ParameterKind.MEMORY:
            return _bytes(text) if _SIZE.fullmatch(text) else None
        case model.ParameterKind.CPU:
            return float(text) if _CORES.fullmatch(text) else None
        case _:
            return None


def problem(name: str, parameter: model.Parameter, value: str) -> str:
    """Return what is wrong with a value that is asked for, and what is allowed; empty if nothing.

    Memory as Docker writes it (``512m``, ``4g``) or Kubernetes (``512Mi``); cores as ``0.5``.
    """
    is_allowed = False
    match parameter.kind:
        case model.ParameterKind.IMAGE:
            is_allowed = _allows_image(parameter, value)
        case model.ParameterKind.MEMORY | model.ParameterKind.CPU:
            is_allowed = _within(parameter, amount(parameter.kind, value))
        case model.ParameterKind.CHOICE:
            is_allowed = value in parameter.values
    return (
        "" if is_allowed else f"{name}={value[:128]} is not allowed, but {words(name, parameter)}"
    )


def words(name: str, parameter: model.Parameter) -> str:
    """Say what may be asked for, for people."""
    match parameter.kind:
        case model.ParameterKind.IMAGE:
            return _listed(f"{name}={pattern}" for pattern in parameter.allow)
        case model.ParameterKind.CHOICE:
            return _listed(f"{name}={value}" for value in parameter.values)
        case model.ParameterKind.MEMORY:
            least, most = (
                None if at is None else _size(at) for at in (parameter.least, parameter.most)
            )
        case model.ParameterKind.CPU:
            least, most = (
                None if at is None else f"{at:g}" for at in (parameter.least, parameter.most)
            )
    is_memory = parameter.kind is model.ParameterKind.MEMORY
    text = f"{name}=SIZE (512Mi or 4g, say)" if is_memory else f"{name}=CORES (0.5 or 2, say)"
    text += f" from {least}" if least is not None else ""
    return text + (f" up to {most}" if most is not None else "")


def all_words(template: model.Template) -> str:
    """Say what may be asked of a template; empty if nothing."""
    return "; ".join(words(name, one) for name, one in template.parameters.items())


def _problem(chosen: Iterable[str], template: model.Template) -> str:
    values: dict[str, str] = {}
    for label in chosen:
        name, _, value = label.partition("=")
        if name in values:
            return f"it asks for two values of {name}, {values[name][:128]} and {value[:128]}"
        values[name] = value
    found = next(_problems(values.items(), template), "")
    return found or clash(template.parameters, values)


def _problems(values: Iterable[tuple[str, str]], template: model.Template) -> Iterator[str]:
    for name, value in values:
        text = problem(name, template.parameters[name], value)
        if text:
            yield f"of template {template.name} {text}"


def _image(parameter: model.Parameter, value: str) -> str:
    """Return the image that a value stands for, with its tag."""
    form = model.VALUE if parameter.stands_for is None else parameter.stands_for
    return images.tagged(form.replace(model.VALUE, value))


def _allows_image(parameter: model.Parameter, value: str) -> bool:
    """Return whether an image may be asked for; a part of one stays that part."""
    if parameter.stands_for is None:
        return images.is_allowed(parameter.allow, value)
    return (
        images.is_tag(value)
        and globs.any_matches(parameter.allow, value)
        and images.is_image(_image(parameter, value))
    )


def _within(parameter: model.Parameter, value: float | None) -> bool:
    least, most = parameter.least, parameter.most
    if value is None:
        return False
    return value > 0 and (least is None or value >= least) and (most is None or value <= most)


def _bytes(value: str) -> int:
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("this is not a size")
    return int(float(found[1]) * (1 << _POWERS[found[2][0].lower()]))


def _size(size: float) -> str:
    for unit, power in (("Gi", 30), ("Mi", 20), ("Ki", 10)):
        if size % (1 << power) == 0:
            return f"{int(size) >> power}{unit}"
    return f"{size:.0f}"


def _listed(parts: Iterable[str]) -> str:
    some = list(itertools.islice(parts, 7))
    return ", ".join(some[:6]) + ", ..." * (len(some) > 6) or "none"
