"""What a backend would create for an agent of a template, shown and not done.

For whoever writes a template: no controller and no platform is asked. Refuses to know kinds; the
registry says which of them can show their work.
"""

import contextlib

from backends import api as backends_api
from backends import registry
from broker import config
from broker.config import rehearsal, values
from broker.core import model


class NotShown(ValueError):  # noqa: N818 -- what it is
    """There is nothing to show, and why."""


def render(
    settings: config.Settings,
    policy: model.Policy,
    *,
    template: str,
    now: float,
    controller_version: str = rehearsal.TODAYS,
) -> dict[model.BackendName, str]:
    """Return the text for each backend of the template that can show it. Raises NotShown."""
    wanted = policy.template(template)
    if wanted is None:
        names = ", ".join(t.name for t in policy.templates)
        raise NotShown(f"no template {values.shown(template)}; known: {names}")
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
            work_dir=lambda instance: registry.work_dir(entry.kind, entry.settings, instance),
            shares=registry.kind(entry.kind).shares,
        ),
    )
