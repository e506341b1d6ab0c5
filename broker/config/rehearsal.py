"""A launch of each template on each of its backends, gone through without controller and platform.

What can only fail is said when the configuration is read, not by the first build. Refuses to know
kinds: what makes a kind's instance is handed in.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping

import attrs
from attrs import Factory, frozen

from backends import api as backends_api
from broker.config.settings import BackendSettings, KindClasses
from broker.core import model
from broker.core.decide import spec
from broker.core.demand import parameters
from broker.core.fleet import marks
from jnlp import secret as jnlp_secret

_SUFFIX = "xxxxxx"
TODAYS = "2.462.1"
"""A controller since which launches have not changed."""
_SECRET = "not-shown"  # noqa: S105 -- stands where the controller's secret would be


@frozen(kw_only=True)
class Surroundings:
    """What a launch takes from controller and backend; without them, from those of today.

    ``work_dir``: where the backend has an instance of that name work; the rest as of a ``Site``.
    """

    controller_version: str = TODAYS
    route: backends_api.Route = Factory(backends_api.Route)
    authorities: tuple[str, ...] = ()
    work_dir: Callable[[str], str | None] = lambda _: None
    shares: bool = False
    trusted: Mapping[str, bytes] = Factory(dict)


def order(
    template: model.Template,
    backend: model.BackendName,
    *,
    owner: str,
    style: str,
    now: float,
    around: Surroundings | None = None,
) -> backends_api.InstanceSpec:
    """Return what a launch would be given, with a name and a secret that are none."""
    around = around or Surroundings()
    name = marks.node_name(owner, template.name, _SUFFIX)
    action = model.LaunchAgent(
        name=name,
        template=template.name,
        backend=backend,
        reason="shown",
        slot=0 if template.numbered else None,
    )
    site = spec.Site(
        owner=owner,
        style=spec.Style(style),
        shares=around.shares,
        controller_version=around.controller_version,
        jar_url=f"{template.launch.agent_url}jnlpJars/agent.jar",
        work_dir=around.work_dir(name),
        route=around.route,
        authorities=around.authorities,
        trusted=around.trusted,
        now=now,
    )
    wanted = spec.variant(action, template)
    return spec.instance(action, wanted, site, jnlp_secret.Secret(_SECRET))


def refusals(
    template: model.Template,
    backends: Mapping[model.BackendName, BackendSettings],
    kinds: Mapping[str, KindClasses],
    *,
    owner: str,
    asked: Collection[str] = (),
) -> Iterator[tuple[model.BackendName, str]]:
    """Yield the backends on which a template can have no agent for certain, each with why.

    ``asked``: what a build asks for, which has to change what is made there; what the template
    itself cannot have is no matter of it.
    """
    variant = parameters.bound(template, asked)
    for backend in template.backends:
        entry = backends.get(backend)  # None: it has mistakes of its own
        kind = kinds[entry.kind] if entry is not None else None
        if entry is None or kind is None or kind.maker is None:
            continue
        make = functools.partial(kind.maker, settings=entry.settings, owner=owner)
        plain, wish = (
            order(one, backend, owner=owner, style=kind.style, now=0.0)
            for one in (template, variant)
        )
        try:
            make(wish)
        except backends_api.Rejected as error:
            yield backend, error.reason
            continue
        with contextlib.suppress(backends_api.Rejected):
            for what in _unheard(plain, wish, make):
                words = f"it does not change {what}, for the template's section {entry.kind}"
                yield backend, f"{words} says otherwise"


def _unheard(
    plain: backends_api.InstanceSpec,
    wish: backends_api.InstanceSpec,
    make: Callable[[backends_api.InstanceSpec], object],
) -> Iterator[str]:
    """Say what is asked for and makes no difference, each thing alone. Raises Rejected."""
    derived = attrs.evolve(
        wish.resources,
        memory_bytes=plain.resources.memory_bytes,
        cpu_limit=plain.resources.cpu_limit,
    )
    base = attrs.evolve(plain, resources=derived)
    ways = {
        "the image": attrs.evolve(base, image=wish.image),
        "the images of its containers": attrs.evolve(base, side_images=wish.side_images),
        "its parts": attrs.evolve(base, inherits=wish.inherits),
        **{
            words: attrs.evolve(
                base, resources=attrs.evolve(derived, **{name: getattr(wish.resources, name)})
            )
            for name, words in (("memory_bytes", "the memory"), ("cpu_limit", "the cores"))
        },
    }
    made = None
    for what, one in ways.items():
        if one != base:
            made = make(base) if made is None else made
            if make(one) == made:
                yield what
