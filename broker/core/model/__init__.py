"""The words of the core as frozen values: what is seen, what is wanted, what is to be done.

Nothing here decides, waits, reads a clock or knows a platform. Rules live in the sibling modules;
this file refuses to know them. Times named ``..._at`` are POSIX seconds on the broker's own clock
(``broker.clock``), durations end in ``_s``. Changes are made with ``attrs.evolve``.
"""

from broker.core.model.causes import SCOPES, Cause, CycleFailure, Failure, Scope
from broker.core.model.controller import (
    Computer,
    ControllerView,
    ItemId,
    KnownLabel,
    LabelSource,
    NodeName,
    QueueItem,
    Stage,
)
from broker.core.model.fleet import (
    CLOSED_LOOKS,
    CORDON_MARK,
    RETIRED_LABEL,
    Agent,
    BackendView,
    Expectation,
    Memory,
    Phase,
    Verb,
    retired_labels,
)
from broker.core.model.ledger import Backoff, BackoffKey, Bucket, Ledger, Trial
from broker.core.model.plan import (
    Action,
    CordonAgent,
    LaunchAgent,
    Plan,
    Refusal,
    Removal,
    RetireAgent,
    SweepInstance,
    SweepNode,
    TemplateCount,
    UncordonAgent,
    Unmet,
    WaitReason,
)
from broker.core.model.wanted import (
    BackendName,
    BackendPolicy,
    LaunchSettings,
    Policy,
    Retention,
    Template,
    TemplateName,
)
from broker.core.model.world import World

__all__ = [
    "CLOSED_LOOKS",
    "CORDON_MARK",
    "RETIRED_LABEL",
    "SCOPES",
    "Action",
    "Agent",
    "BackendName",
    "BackendPolicy",
    "BackendView",
    "Backoff",
    "BackoffKey",
    "Bucket",
    "Cause",
    "Computer",
    "ControllerView",
    "CordonAgent",
    "CycleFailure",
    "Expectation",
    "Failure",
    "ItemId",
    "KnownLabel",
    "LabelSource",
    "LaunchAgent",
    "LaunchSettings",
    "Ledger",
    "Memory",
    "NodeName",
    "Phase",
    "Plan",
    "Policy",
    "QueueItem",
    "Refusal",
    "Removal",
    "Retention",
    "RetireAgent",
    "Scope",
    "Stage",
    "SweepInstance",
    "SweepNode",
    "Template",
    "TemplateCount",
    "TemplateName",
    "Trial",
    "UncordonAgent",
    "Unmet",
    "Verb",
    "WaitReason",
    "World",
    "retired_labels",
]
