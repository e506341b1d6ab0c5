"""The closed lists of label values. Whatever is on no list is counted under ``OTHER``.

So there are only so many series, and no remote text ever becomes a label.
Slugs are those of the core's enums, of calls those of the error trees; this file refuses to know
where they occur.
"""

from backends import api as backends_api
from broker.core import model
from broker.hook import messages as hook
from jnlp import errors as jnlp_errors

UNCONFIGURED = "(unconfigured)"
"""Label value for a template or backend that is not configured, or not known."""
OTHER = "other"
OK = "ok"
WITHDRAWN = "withdrawn"
"""A fresh look showed that an action would have been wrong."""


def _slugs(module: object, base: type) -> tuple[str, ...]:
    errors = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base))
    return tuple(sorted({str(vars(c)["slug"]) for c in errors}))


_CUT_SHORT = ("timeout", "cancelled")  # of calls
_BUG = model.Failure.BUG.slug

BACKEND_SLUGS = _slugs(backends_api, backends_api.BackendError)
CONTROLLER_SLUGS = _slugs(jnlp_errors, jnlp_errors.JenkinsError)
BACKEND_OUTCOMES = tuple(dict.fromkeys((OK, *BACKEND_SLUGS, *_CUT_SHORT, _BUG, OTHER)))
CONTROLLER_OUTCOMES = tuple(dict.fromkeys((OK, *CONTROLLER_SLUGS, *_CUT_SHORT, _BUG, OTHER)))
RESULTS = (OK, WITHDRAWN, *(failure.slug for failure in model.Failure), OTHER)
"""How an action ends."""
CYCLE_SLUGS = tuple(why.value for why in model.CycleFailure)
END_REASONS = tuple(cause.slug for cause in model.Cause)
"""Why an agent ended."""
ALARMING_ENDS = tuple(cause.slug for cause in model.Cause if cause.accident)
"""What alerts ask for: of these there is a series from the start, or an increase is missed."""
CALL_KINDS = (
    "look",  # queue and computers, asked together
    "peek",  # the queue's ids, at rest
    "item",
    "cancel-item",
    "build",  # that was gone soon: what came of it
    "glance",  # who works, of the computers alone: see ``retention.once``
    "idle-executors",  # of what looks free and is given nothing
    "create-node",
    "read-node",
    "secret",
    "cordon",
    "uncordon",
    "seal",
    "unseal",
    "delete-node",
    "release-node",
    "tell-builds",
    OTHER,
)
"""What is asked of the controller."""
BACKEND_VERBS = ("reserve", "launch", "list", "terminate", "capacity", "logs", "run")
WAIT_SPELLS = tuple(spell.value for spell in model.SPELLS)
"""What items wait for: reasons, and how far the agent of an item has come."""
LEFT_OUTCOMES = ("started", "cancelled", "elsewhere", "unknown", OTHER)
"""What became of an item that left the queue."""
HOOK_REFUSALS = tuple(why.value for why in hook.HookRefusal)
"""Why a message of the push hook is not taken."""
STARTS = ("warm", "cold")
"""``warm``: the agent was online before the item became buildable."""
