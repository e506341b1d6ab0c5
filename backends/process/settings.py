"""What a user may set for the process backend. No I/O, no import of the backend itself.

Every field says unit, default and the reason of the default. The values are checked here, so that
a wrong one is told when the configuration is read; ValueError names what is allowed.
"""

from collections.abc import Iterator

from attrs import field, frozen

from backends.kit import checks, names, workspaces
from backends.kit.remarks import Common


@frozen(kw_only=True)
class ProcessSettings:
    """Settings of the backend."""

    # Where instances live. None: "processes" in the broker's state directory, which survives a
    # restart of the broker as the agents do. Must allow hard links and not be mounted noexec.
    directory: str | None = field(default=None, validator=checks.absolute)
    # Instances at most. None: no limit here, the caps of the policy are enough.
    max_instances: int | None = field(default=None, validator=checks.between(0, 100_000))
    # Bytes of output kept per instance: the first quarter and the last part. 1 MiB holds the
    # stack traces of a failed start; build logs live in Jenkins, not here.
    max_output_bytes: int = field(default=1 << 20, validator=checks.between(4096, 1 << 30))
    # Seconds between SIGTERM and SIGKILL when somebody else ends the supervisor (a shutdown of
    # the machine); 10 s is what init systems commonly leave. The broker gives its own time.
    terminate_grace_s: float = field(default=10.0, validator=checks.between(0, 3600))
    # Seconds a program has to be executed; an idle machine needs 0.05.
    start_timeout_s: float = field(default=10.0, validator=checks.between(0.5, 600))
    # Seconds and bytes for one file, such as agent.jar (1.5 MB).
    download_timeout_s: float = field(default=120.0, validator=checks.between(1, 3600))
    max_file_bytes: int = field(default=256 << 20, validator=checks.between(1, 1 << 40))
    # A downloaded file is not asked for again within these seconds: a burst of launches costs the
    # controller one request. A controller cannot be upgraded faster.
    revalidate_after_s: float = field(default=5.0, validator=checks.between(0, 86400))
    # PATH of the agents. None: the broker's own, where the operator's java is.
    path: str | None = None
    # PEM file with the authorities that sign the servers' certificates. None: the system's.
    ca_file: str | None = field(default=None, validator=checks.absolute)
    # A cgroup v2 directory that is delegated to us, with memory and cpu in its subtree_control.
    # None: the supervisors watch the memory themselves, and CPU limits cannot be enforced.
    cgroup: str | None = field(default=None, validator=checks.absolute)


@frozen(kw_only=True)
class ProcessTemplate:
    """Settings of one template on this backend."""

    # Niceness of the agent, 0 to 19. 5: builds give way to the broker and the controller.
    nice: int = field(default=5, validator=checks.between(0, 19))
    # Where working directories are made, one per instance, removed with it. None: with the
    # instance. For builds that need a large or fast disk.
    working_directory: str | None = field(default=None, validator=checks.absolute)
    # Soft limit of open files, cut to the hard limit of the broker.
    max_open_files: int = field(default=16384, validator=checks.between(64, 1 << 20))

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where agents of this template would work together."""
        if common.remote_fs is not None and not names.is_own(common.remote_fs):
            yield workspaces.Shared(where=workspaces.normal(common.remote_fs))
