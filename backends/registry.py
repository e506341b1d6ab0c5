"""Which kinds of backends exist, and the one place that imports them, by name and when needed.

So a broker pays only for the platform it uses. Refuses to parse configuration.
"""

import importlib
import os
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import Factory, frozen

from backends import api, lease, read_only
from backends.kit import finding, honoured, names, runtime
from outside import quotes


@frozen(kw_only=True)
class Kind:
    """One kind; the three paths are ``module:attribute``, the settings' modules free of SDKs.

    The template settings may have an attribute ``lifetime_s``: the age in seconds at which the
    platform ends an instance whatever it does, or None.
    """

    name: str
    settings: str
    template_settings: str
    factory: str
    launch_style: Literal["command", "entry-point"]  # do we build the java command, or the image
    shares: bool = False  # its agents trust each other anyway, and have a directory in common
    maker: str | None = None  # (spec, settings, owner=) -> what a launch would create; Rejected
    renderer: str | None = None  # the same as text
    work_dir: str | None = None  # (settings, name) -> where it works, if the kind has a say in it
    alone: str = ""  # why two brokers of one owner cannot both reach the same agents
    lease_settings: str | None = None  # where the platform can hold a lease: how it is reached ...
    lease: str | None = None  # ... and (settings, name=) -> backends.lease.Lease
    # modes of ``docker_pipelines``, and why the kind does not honour one; empty: it does; what is
    # not named nobody may have
    pipelines: Mapping[str, str] = Factory(dict)
    # where an instance with the socket of its engine works unless its template says; it has
    # ``kit.names.TOKEN`` in it; empty: ``kit.pipelines.FOLDER``
    own_folder: str = ""
    # why it brings no ``InstanceSpec.given_files`` of more than ``given_most_bytes`` in all, and
    # what to do instead; empty: it does
    given_refusal: str = "it brings no files of ours into its instances"
    given_most_bytes: int = 0
    given_needs: str = ""  # a setting of the backend with which it brings any
    given_file_bytes: int = 0  # of one of them at most; 0: no matter
    # why ``api.run`` runs no command in its instances; empty: it does
    run_refusal: str = "this kind of backend runs no commands in its instances"
    # what it does not honour of the settings that templates have for every kind: a tuple of
    # ``kit.honoured.Unheard``
    unheard: str | None = None
    pretends: bool = False  # its instances are none: of a launch it honours nothing
    examiner: str | None = None  # (settings, owner=, orders=, now=) -> findings, for `doctor`
    deliverer: str | None = None  # (settings or None, url=) -> kit.runtime.Delivery, several
    cap: int = 50  # agents on a backend of it unless the configuration says: a queue that runs
    # away, or a mistake in a label, must not take everything that a platform has
    cap_per_core: int | None = None  # the same where agents run on the broker's own machine

    @property
    def runs(self) -> bool:
        """Whether a command can be run in its instances (``api.run``)."""
        return not self.run_refusal


_NOT_PRIVILEGED = "a service of a swarm cannot be privileged, and so no engine beside an agent"
_ALONE = "a task in a container of Docker is alone, and Mesos' own containers are not privileged"

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="memory",
            settings="backends.memory:MemorySettings",
            template_settings="backends.memory:MemoryTemplate",
            factory="backends.memory:create",
            launch_style="command",
            alone="its agents live inside one broker",
            pretends=True,
            run_refusal="",
        ),
        Kind(
            name="process",
            settings="backends.process.settings:ProcessSettings",
            template_settings="backends.process.settings:ProcessTemplate",
            factory="backends.process.backend:create",
            launch_style="command",
            shares=True,
            given_refusal="",
            cap=20,
            cap_per_core=4,
            alone="its agents are processes of one machine",
            unheard="backends.process.settings:UNHEARD",
            run_refusal="",
            examiner="backends.process.doctor:examine",
        ),
        Kind(
            name="docker",
            settings="backends.docker.settings:DockerSettings",
            template_settings="backends.docker.settings:DockerTemplate",
            factory="backends.docker.backend:create",
            launch_style="entry-point",
            unheard="backends.kit.honoured:BY_IMAGE",
            maker="backends.docker.containers.container:body",
            run_refusal="",
            renderer="backends.docker.containers.container:render",
            given_refusal="",
            pipelines={"socket": "", "dind": "", "dind-rootless": ""},
            examiner="backends.docker.doctor:examine",
            deliverer="backends.docker.delivery:deliveries",
        ),
        Kind(
            name="swarm",
            settings="backends.docker.swarm.settings:SwarmSettings",
            template_settings="backends.docker.swarm.settings:SwarmTemplate",
            factory="backends.docker.swarm.backend:create",
            launch_style="entry-point",
            unheard="backends.kit.honoured:BY_IMAGE",
            maker="backends.docker.swarm.service:body",
            run_refusal="",
            renderer="backends.docker.swarm.service:render",
            given_refusal="",
            given_file_bytes=511_999,  # a config of 20.10; since 24 twice as much
            pipelines={
                "socket": "",
                "dind": _NOT_PRIVILEGED,
                "dind-rootless": _NOT_PRIVILEGED,
            },
            own_folder=f"/var/lib/docker/volumes/{names.TOKEN}-work/_data",
            examiner="backends.docker.swarm.doctor:examine",
        ),
        Kind(
            name="kubernetes",
            settings="backends.kubernetes.settings:KubernetesSettings",
            template_settings="backends.kubernetes.settings:KubernetesTemplate",
            factory="backends.kubernetes.backend:create",
            launch_style="entry-point",
            unheard="backends.kit.honoured:BY_IMAGE",
            maker="backends.kubernetes.pods.pod:body",
            renderer="backends.kubernetes.pods.pod:render",
            given_refusal="a ConfigMap holds 1 MiB; hint: fewer authorities (public: false, "
            "public_file), or mount what trust-manager makes",
            given_most_bytes=1 << 20,
            pipelines={"socket": "", "dind": "", "dind-rootless": ""},
            lease_settings="backends.kubernetes.settings:ClusterSettings",
            lease="backends.kubernetes.api.lease:create",
            run_refusal="",
            examiner="backends.kubernetes.doctor:examine",
        ),
        Kind(
            name="mesos",
            run_refusal="no commands are run in tasks of Mesos: its agents can do so only in "
            "containers of their own, and not in those of Docker",
            settings="backends.mesos.settings:MesosSettings",
            template_settings="backends.mesos.settings:MesosTemplate",
            factory="backends.mesos.backend:create",
            launch_style="command",
            renderer="backends.mesos.tasks:render",
            given_refusal="the agents' hosts have to fetch the files from the broker; hint: "
            "`handover` of the backend, or a folder of the agents' hosts in `volumes`",
            given_needs="handover",
            pipelines={
                "socket": "Mesos removes no folder that is made for one task outside its sandbox",
                "dind": _ALONE,
                "dind-rootless": _ALONE,
            },
            work_dir="backends.mesos.tasks:work_dir",
            unheard="backends.mesos.settings:UNHEARD",
            examiner="backends.mesos.doctor:examine",
            alone="its framework id, by which the master knows the agents, is in one state_dir",
        ),
    )
}


def kind(name: str) -> Kind:
    """Return the kind of that name. Raises ValueError that names the known ones."""
    if name not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ValueError(f"no backend kind {quotes.shown(name)}; known kinds: {known}")
    return KINDS[name]


def default_cap(name: str) -> int:
    """Return how many agents a backend of a kind has at most unless the configuration says."""
    told = kind(name)
    if told.cap_per_core is None:
        return told.cap
    return min(told.cap, told.cap_per_core * len(os.sched_getaffinity(0)))


def settings_class(name: str) -> type[Any]:
    """Return the attrs class of a kind's settings; no SDK is imported."""
    return _load(kind(name).settings)  # type: ignore[no-any-return]  # a string decides


def template_settings_class(name: str) -> type[Any]:
    """Return the attrs class of what a template may set for a kind; no SDK is imported."""
    return _load(kind(name).template_settings)  # type: ignore[no-any-return]  # a string decides


def create(
    name: str,
    settings: Any,
    *,
    owner: str,
    store: api.Store,
    state_dir: pathlib.Path,
    now: Callable[[], float],
    reads_only: bool = False,
) -> api.Backend:
    """Build a backend of a kind; ``settings`` is an instance of its settings class.

    ``now`` gives POSIX seconds that never go back or leap: backends time their retries with it.
    One that ``reads_only`` leaves everything as it is, the store and its own platform's sessions
    too, also beside a broker at work: it is given to commands that look once.
    """
    factory = _load(kind(name).factory)
    backend: api.Backend = factory(
        settings,
        owner=owner,
        store=store,
        state_dir=state_dir,
        now=now,
        reading=reads_only,
    )
    return read_only.Reading(backend) if reads_only else backend


def lease_settings_class(name: str) -> type[Any] | None:
    """Return the attrs class that says how a kind's lease is reached; None without one."""
    path = kind(name).lease_settings
    return _load(path) if path is not None else None


def create_lease(name: str, settings: Any, *, called: str) -> lease.Lease:
    """Build the lease of a kind. Raises ValueError where the platform has none."""
    path = kind(name).lease
    if path is None:
        raise ValueError(f"backends of kind {name} hold no lease")
    made: lease.Lease = _load(path)(settings, name=called)
    return made


def maker(name: str) -> Callable[..., object] | None:
    """Return what makes of ``(spec, settings, owner=)`` all that a launch would create.

    Pure, and raises Rejected for a template that no platform is needed to refuse. None for a kind
    that cannot tell.
    """
    path = kind(name).maker
    if path is None:
        return None

    def make(spec: api.InstanceSpec, settings: Any, *, owner: str) -> object:
        return _load(path)(spec, settings, owner=owner)

    return make


def render(name: str, settings: Any, spec: api.InstanceSpec, *, owner: str) -> str:
    """Return what a launch would create, as text without secrets. Raises ValueError, Rejected."""
    renderer = kind(name).renderer
    if renderer is None:
        raise ValueError(f"backends of kind {name} have nothing to show")
    return str(_load(renderer)(spec, settings, owner=owner))


def unheard(name: str) -> tuple[honoured.Unheard, ...]:
    """Return what a kind leaves unheard of what templates say to every kind."""
    path = kind(name).unheard
    return tuple(_load(path)) if path is not None else ()


def work_dir(name: str, settings: Any, instance: str) -> str | None:
    """Return where an instance of a kind works; None if its image decides, or nothing is known."""
    path = kind(name).work_dir
    return _load(path)(settings, instance) if path is not None else None


def examine(
    name: str,
    settings: Any,
    *,
    owner: str,
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],
) -> AsyncIterator[finding.Finding]:
    """Return what stands between a configuration and its instances; ``orders`` by template.

    Raises ValueError for a kind without an examiner.
    """
    examiner = kind(name).examiner
    if examiner is None:
        raise ValueError(f"backends of kind {name} have nothing to examine")
    found: AsyncIterator[finding.Finding] = _load(examiner)(
        settings, owner=owner, orders=orders, now=now
    )
    return found


def deliveries(
    name: str, settings: Any | None, *, url: str | None = None
) -> Sequence[runtime.Delivery]:
    """Return the ways to the places of a backend where a runtime can be before an agent wants it.

    ``settings`` of the backend, or a ``url`` of one place. Raises ValueError for a kind that has
    none, and for a URL that is none.
    """
    path = kind(name).deliverer
    if path is None:
        raise ValueError(f"backends of kind {name} bring a runtime to their agents by themselves")
    ways: Sequence[runtime.Delivery] = _load(path)(settings, url=url)
    return ways


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
