"""What the gatekeeper decided, on which numbers: the log everything else is a cache of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints

from schemas.event import EpochMs, Event, Frozen, Identifier, Sha256
from schemas.routing import Phase, RoutingState

DecisionKind = Literal[
    "genesis",  # the first state of an incarnation
    "stage",  # a candidate takes the shadow slot and is prepared and examined
    "reject",  # the candidate failed QA or its own evidence
    "mirror",  # the examined candidate gets unseen copies of users' queries
    "canary",  # the candidate gets its first share of real traffic
    "ramp",  # the share grows
    "promote",  # shadow becomes active
    "abort",  # the canary ended, active unchanged
    "bake_end",  # the watch after a promote ended well
    "rollback",  # an earlier release is restored
    "restore",  # a logged state is put back after Redis lost or changed it
    "adopt",  # a break-glass write is taken into the log
    "pause",
    "resume",
    "ab_start",  # a release that served before answers a share of users beside the active one
    "ab_end",  # that comparison ended with a report; active unchanged
]


class Decision(Event):
    """One epoch: the whole signed state and why it is so. The first record of an epoch in the log wins."""

    type: ClassVar[str] = "twinloop.decision.v1"

    decision_id: Identifier
    kind: DecisionKind
    epoch: Annotated[int, Field(ge=1)]
    state: RoutingState
    release: Sha256 | None = None
    """The release this decision is about."""
    reason: Identifier
    """A short code: `all_gates_cleared`, `error_margin`, `qa_pass_rate`, `manual`."""
    line: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    """The whole decision in one readable line: value, sign, threshold."""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    policy: Sha256
    """Digest of the policy in force."""
    input_offset: Annotated[int, Field(ge=0)]
    """The last record of `gate-inputs` this decision depends on."""
    previous: Sha256 | None
    """Digest of the decision before it, without signatures: a hash chain from genesis."""
    decided_at: EpochMs
    """From the logged tick, not from a clock."""
    software: Annotated[str, StringConstraints(max_length=64)]


class GateProgress(Frozen):
    """One gate while a stage runs."""

    name: Identifier
    line: Annotated[str, StringConstraints(max_length=500)]
    status: Literal["cleared", "open", "breached", "invalid"]
    values: dict[str, JsonValue] = Field(default_factory=dict)


class Progress(Event):
    """Where a running stage stands; says nothing new about routing."""

    type: ClassVar[str] = "twinloop.progress.v1"

    at: EpochMs
    epoch: Annotated[int, Field(ge=1)]
    phase: Phase
    release: Sha256 | None = None
    line: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    gates: tuple[GateProgress, ...] = ()
    needed: Annotated[str, StringConstraints(max_length=500)] = ""
