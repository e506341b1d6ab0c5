"""What a backend would create for an agent of a template, shown and not done.

For whoever writes a template: no controller and no platform is asked. Refuses to know kinds; the
registry says which of them can show their work.
"""

import contextlib
from collections.abc import Mapping

from backends import api as backends_api
from backends import registry
from broker import config
from broker.config import rehearsal, trusting, values
from broker.core import model
from broker.core.demand import labels, parameters


class NotShown(ValueError):  # noqa: N818 -- what it is
    """There is nothing to show, and why."""


def render(
    settings: config.Settings,
    policy: model.Policy,
    *,
    template: str,
    now: float,
    label: str = "",
    controller_version: str = rehearsal.TODAYS,
) -> dict[model.BackendName, str]:
    """Return the text for each backend of the template that can show it. Raises NotShown.

    ``label``: of a build that asks for it; empty: of one that asks for nothing.
    """
    wanted = policy.template(template)
    if wanted is None:
        names = ", ".join(t.name for t in policy.templates)
        raise NotShown(f"no template {values.shown(template)}; known: {names}")
    if label.strip():
        wanted = _variant(wanted, label)
    shown: dict[model.BackendName, str] = {}
    for name in wanted.backends:
        entry = settings.backends[name]
        if registry.kind(entry.kind).renderer is None:
            continue
        wish = order(settings, wanted, name, now, controller_version=controller_version)
        try:
            shown[name] = registry.render(entry.kind, entry.settings, wish, owner=settings.owner)
        except backends_api.Rejected as error:
            raise NotShown(f"template {template}, backend {name}: {error.reason}") from error
    if not shown:
        kinds = sorted({settings.backends[name].kind for name in wanted.backends})
        raise NotShown(f"backends of kind {', '.join(kinds)} have nothing to show")
    return shown


def _variant(template: model.Template, label: str) -> model.Template:
    """Return what a build with that label gets of a template. Raises NotShown."""
    try:
        asked = parameters.asked(labels.parse(label), template)
    except labels.LabelError as error:
        raise NotShown(f"the label {values.shown(label)} is malformed: {error}") from error
    if asked is None:
        raise NotShown(
            f"template {template.name} does not serve {values.shown(label)}; it has "
            f"{', '.join(sorted(template.labels)) or 'no label'}"
        )
    if asked.complaint:
        raise NotShown(asked.complaint)
    return parameters.bound(template, asked.labels)


def order(
    settings: config.Settings,
    template: model.Template,
    backend: model.BackendName,
    now: float,
    *,
    controller_version: str = rehearsal.TODAYS,
) -> backends_api.InstanceSpec:
    """Return what a launch would be given, with a name and a secret that are none."""
    authorities: tuple[str, ...] = ()
    with contextlib.suppress(OSError, ValueError):  # said when the configuration is read
        authorities = settings.controller.authorities()
    trusted: Mapping[str, bytes] = {}
    with contextlib.suppress(OSError, ValueError):  # likewise
        trusted = trusting.handed(template.launch.trust)
    entry = settings.backends[backend]
    return rehearsal.order(
        template,
        backend,
        owner=settings.owner,
        style=registry.kind(entry.kind).launch_style,
        now=now,
        around=rehearsal.Surroundings(
            controller_version=controller_version,
            route=settings.controller.route(),
            authorities=authorities,
            trusted=trusted,
            work_dir=lambda instance: registry.work_dir(entry.kind, entry.settings, instance),
            shares=registry.kind(entry.kind).shares,
        ),
    )
