"""The closed lists of label values. Whatever is on no list is counted under ``OTHER``.

So every series is there from the start with zero, and no remote text ever becomes a label.
Slugs are taken from the error trees themselves; this file refuses to know where they occur.
"""

from backends import api as backends_api
from jnlp import errors as jnlp_errors

UNCONFIGURED = "(unconfigured)"
"""Label value for a template or backend that is not configured, or not known."""
OTHER = "other"
OK = "ok"


def _slugs(module: object, base: type) -> tuple[str, ...]:
    errors = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base))
    return tuple(sorted({str(vars(c)["slug"]) for c in errors}))


BACKEND_SLUGS = _slugs(backends_api, backends_api.BackendError)
CONTROLLER_SLUGS = _slugs(jnlp_errors, jnlp_errors.JenkinsError)
_CUT_SHORT = ("timeout", "cancelled", "bug")

BACKEND_OUTCOMES = tuple(dict.fromkeys((OK, *BACKEND_SLUGS, *_CUT_SHORT, OTHER)))
CONTROLLER_OUTCOMES = tuple(dict.fromkeys((OK, *CONTROLLER_SLUGS, *_CUT_SHORT, OTHER)))
RESULTS = tuple(
    dict.fromkeys((OK, "withdrawn", *BACKEND_SLUGS, *CONTROLLER_SLUGS, *_CUT_SHORT, OTHER))
)
"""How an action ends; ``withdrawn``: a fresh look showed that it would have been wrong."""
CYCLE_SLUGS = tuple(
    dict.fromkeys((*BACKEND_SLUGS, *CONTROLLER_SLUGS, *_CUT_SHORT, "state", OTHER))
)
"""Why a cycle fails; ``state``: the state directory could not be written."""

EXIT_SLUGS = (
    "exited",
    "killed",
    "out-of-memory",
    "image",
    "command",
    "network",
    "evicted",
    "platform-lost",
    "unknown",
)
"""``backends.api.Exit.slug``."""
END_REASONS = (
    "once",
    "once-unwitnessed",
    "max-builds",
    "max-age",
    "idle",
    "drift",
    "removed",
    "surplus",
    "closed",
    "yield",
    "drain",
    "drained",
    "swept",
    "connect-timeout",
    "lost-instance",
    *(f"lost-{slug}" for slug in EXIT_SLUGS),
    "lost-java",  # read from its last lines, whatever the platform says
    OTHER,
)
"""Why an agent ended: the slug of its retirement; ``swept`` for what was found left over."""
CALL_KINDS = (
    "look",  # queue and computers, asked together
    "peek",  # the queue's ids, at rest
    "item",
    "idle-executors",  # of what looks free and is given nothing
    "create-node",
    "read-node",
    "secret",
    "cordon",
    "uncordon",
    "seal",
    "unseal",
    "delete-node",
    OTHER,
)
"""What is asked of the controller."""
BACKEND_VERBS = ("launch", "list", "terminate", "capacity", "logs")
LEFT_OUTCOMES = ("started", "cancelled", "elsewhere", "unknown", OTHER)
"""What became of an item that left the queue."""
STARTS = ("warm", "cold")
"""``warm``: the agent was online before the item became buildable."""
