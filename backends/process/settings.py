"""What a user may set for the process backend. No I/O, no import of the backend itself.

Every field says unit, default and the reason of the default. The values are checked here, so that
a wrong one is told when the configuration is read; ValueError names what is allowed.
"""

from collections.abc import Iterator

from attrs import frozen

from backends.kit import honoured, names, setting, workspaces
from backends.kit.remarks import Common, Remark


@frozen(kw_only=True)
class ProcessSettings:
    """Settings of the backend."""

    directory: str | None = setting.of(
        'Where instances live. None: "processes" in the broker\'s state directory, which '
        "survives a restart of the broker as the agents do. Must allow hard links and not "
        "be mounted noexec.",
        None,
        **setting.ABSOLUTE,
    )
    max_instances: int | None = setting.of(
        "Instances at most. None: no limit here, the caps of the policy are enough.",
        None,
        least=0,
        most=100_000,
    )
    max_output_bytes: int = setting.of(
        "Bytes of output kept per instance: the first quarter and the last part. 1 MiB "
        "holds the stack traces of a failed start; build logs live in Jenkins, not here.",
        1 << 20,
        least=4096,
        most=1 << 30,
    )
    terminate_grace_s: float = setting.of(
        "Seconds between SIGTERM and SIGKILL when somebody else ends the supervisor (a "
        "shutdown of the machine); 10 s is what init systems commonly leave. The broker "
        "gives its own time.",
        10.0,
        least=0,
        most=3600,
    )
    start_timeout_s: float = setting.of(
        "Seconds a program has to be executed; an idle machine needs 0.05.",
        10.0,
        least=0.5,
        most=600,
    )
    download_timeout_s: float = setting.of(
        "Seconds and bytes for one file, such as agent.jar (1.5 MB).", 120.0, least=1, most=3600
    )
    max_file_bytes: int = setting.of("", 256 << 20, least=1, most=1 << 40)
    revalidate_after_s: float = setting.of(
        "A downloaded file is not asked for again within these seconds: a burst of launches "
        "costs the controller one request. A controller cannot be upgraded faster.",
        5.0,
        least=0,
        most=86400,
    )
    path: str | None = setting.of(
        "PATH of the agents. None: the broker's own, where the operator's java is.", None
    )
    ca_file: str | None = setting.of(
        "PEM file with the authorities that sign the servers' certificates. None: the system's.",
        None,
        **setting.ABSOLUTE,
    )
    cgroup: str | None = setting.of(
        "A cgroup v2 directory that is delegated to us, with memory and cpu in its "
        "subtree_control. None: the supervisors watch the memory themselves, and CPU limits "
        "cannot be enforced.",
        None,
        **setting.ABSOLUTE,
    )


@frozen(kw_only=True)
class ProcessTemplate:
    """Settings of one template on this backend."""

    nice: int = setting.of(
        "Niceness of the agent, 0 to 19. 5: builds give way to the broker and the controller.",
        5,
        least=0,
        most=19,
    )
    working_directory: str | None = setting.of(
        "Where working directories are made, one per instance, removed with it. None: with "
        "the instance. For builds that need a large or fast disk.",
        None,
        **setting.ABSOLUTE,
    )
    max_open_files: int = setting.of(
        "Soft limit of open files, cut to the hard limit of the broker.",
        16384,
        least=64,
        most=1 << 20,
    )

    def remarks(self, common: Common) -> Iterator[Remark]:
        """Say what no process can be."""
        if common.asks_image:
            yield Remark(
                path=("parameters",),
                common=True,
                text="the process backend runs no images, and builds may ask for one",
                hint="another backend for this template, or no image among its parameters",
                wrong=common.sole,
            )

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where agents of this template would work together."""
        if common.remote_fs is not None and not names.is_own(common.remote_fs):
            yield workspaces.Shared(where=workspaces.normal(common.remote_fs))


def _has_cgroup(one: honoured.Circumstances) -> bool:
    return one.settings is not None and one.settings.cgroup is not None


_HELD_BY_A_CGROUP = "a process is held to it by a cgroup alone, and the backend has none"
UNHEARD = (
    honoured.Unheard(
        setting="image",
        why="the process backend runs no images",
        hint="leave it out, or give the template another backend",
        refused=True,
    ),
    *(
        honoured.Unheard(
            setting=f"resources.{name}",
            why=_HELD_BY_A_CGROUP,
            unless="with `cgroup` of the backend",
            heard=_has_cgroup,
            hint="`cgroup` of the backend",
        )
        for name in ("memory_reservation", "cpu_limit", "cpu_shares")
    ),
)
"""Of what a template says to every kind (``kit.honoured``)."""
