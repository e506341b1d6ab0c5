"""Docker for the builds of an agent: what each way of it costs, and where its parts are.

Pure. Why: ``docker build``, ``docker.image().inside`` and the like need an engine, and whoever may
command an engine commands the machine that it runs on. So a template says which way it wants, and
that it knows the cost. Refuses to know any platform; each says which ways it honours.

Rules:

* ``socket``: the very engine that the agent runs on. What its builds mount is looked up on that
  machine, so the working directory is one folder of it at the same path inside and outside,
  another one for each agent (``names.TOKEN``): made before the start, removed with the agent.
* ``dind``: an engine beside the agent, its own. Both see the working directory at one path, and
  the socket in a folder that nobody else has.
* What is mounted into an agent can be handed on to every container that its builds start
  (``--volumes-from``), so the agent's secret is nowhere among it.
"""

from attrs import frozen

from backends import api
from backends.kit import names

FOLDER = f"/srv/agent-broker/{names.TOKEN}"
"""Where agents with their engine's socket work, unless the template says ``remote_fs``."""
ENGINE = "/agent-broker/engine"
"""The folder with the socket of an engine beside the agent, in both containers."""
SOCKET = f"{ENGINE}/docker.sock"
DATA = "/var/lib/docker"
ENVIRONMENT = {"DOCKER_HOST": f"unix://{SOCKET}"}
"""Of an agent with an engine beside it, where the template does not say otherwise."""
STARTED_WITHIN_S = 90.0
"""For an engine beside the agent, from its start to its first answer."""
_USER = 1000
"""Whose socket that of an engine without root is, as the official images have it."""


@frozen(kw_only=True)
class Way:
    """One way of Docker for builds; ``acknowledged`` is what has to be said to have it."""

    cost: str
    acknowledged: str
    image: str = ""  # of the engine beside the agent


_ROOT = "builds-are-root-on-the-host"
WAYS: dict[api.PipelineMode, Way] = {
    "socket": Way(
        cost="every build of this template is root on the engine's host", acknowledged=_ROOT
    ),
    "dind": Way(
        cost="every build of this template commands a privileged engine, and so is root on its "
        "host",
        acknowledged=_ROOT,
        image="docker:dind",
    ),
    "dind-rootless": Way(
        cost="a privileged container, whose engine runs without root, stands beside each agent",
        acknowledged="a-privileged-container-beside-each-agent",
        image="docker:dind-rootless",
    ),
}
MODES: tuple[api.PipelineMode, ...] = tuple(WAYS)


def own_folder(spec: api.InstanceSpec) -> str:
    """Return the working directory with ``names.TOKEN`` in it. Raises Rejected.

    It has to be another one for each instance, and at the same path on the engine's host.
    """
    folder = spec.work_dir or ""
    if not folder.startswith("/") or spec.name not in folder:
        raise api.Rejected(
            "docker_pipelines: socket: the working directory has to be a folder for each agent; "
            f"hint: remote_fs: {FOLDER}"
        )
    return folder.replace(spec.name, names.TOKEN)


def image(pipelines: api.DockerPipelines) -> str:
    """Return the image of the engine beside an agent."""
    return pipelines.image or WAYS[pipelines.mode].image


def command(mode: api.PipelineMode, *, uid: int | None, gid: int | None) -> tuple[str, ...]:
    """Return how an engine beside the agent of that user is started. Raises Rejected.

    The entry script of the official images prepares what it needs for a command that begins so,
    and adds no port for the network.
    """
    program = ("dockerd", f"--host=unix://{SOCKET}")
    if mode == "dind-rootless":
        if uid not in {0, _USER}:
            raise api.Rejected(
                f"docker_pipelines: dind-rootless: its socket is that of user {_USER}, and the "
                f"agent's is {'known to its image only' if uid is None else uid}; hint: user "
                f"{_USER}, or mode dind"
            )
        return program
    if gid is None and uid != 0:
        raise api.Rejected(
            "docker_pipelines: dind: which group the agent has is known to its image only; hint: "
            "its user by number"
        )
    return (*program, f"--group={gid or 0}")
