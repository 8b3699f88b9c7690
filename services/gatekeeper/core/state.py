"""What the judge remembers: one frozen value that is plain JSON, so that a checkpoint is the value itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator

from schemas.event import EpochMs, Frozen, Identifier, Sha256, Slot
from schemas.gate_inputs import ProbeAnswer, ProbeMeasurement
from schemas.routing import RoutingState
from services.gatekeeper.core.policy import GatePolicy
from twinloop.statistics.canary_state import CanaryState
from twinloop.statistics.mirror import MirrorState
from twinloop.statistics.ratings import RatingState
from twinloop.statistics.tally import TallyMerger
from twinloop.statistics.triggers import TriggerState


def _as_canary(value: Any) -> CanaryState:
    return value if isinstance(value, CanaryState) else CanaryState.from_json(value)


def _as_triggers(value: Any) -> TriggerState:
    return value if isinstance(value, TriggerState) else TriggerState.from_json(value)


def _as_mirror(value: Any) -> MirrorState:
    return value if isinstance(value, MirrorState) else MirrorState.from_json(value)


def _as_ratings(value: Any) -> RatingState:
    return value if isinstance(value, RatingState) else RatingState.from_json(value)


def _as_merger(value: Any) -> TallyMerger:
    return value if isinstance(value, TallyMerger) else TallyMerger.from_json(value)


CanaryMemory = Annotated[
    CanaryState, PlainValidator(_as_canary), PlainSerializer(lambda s: s.to_json(), return_type=dict)
]
TriggerMemory = Annotated[
    TriggerState, PlainValidator(_as_triggers), PlainSerializer(lambda s: s.to_json(), return_type=dict)
]
MirrorMemory = Annotated[
    MirrorState, PlainValidator(_as_mirror), PlainSerializer(lambda s: s.to_json(), return_type=dict)
]
RatingMemory = Annotated[
    RatingState, PlainValidator(_as_ratings), PlainSerializer(lambda s: s.to_json(), return_type=dict)
]
MergerMemory = Annotated[
    TallyMerger, PlainValidator(_as_merger), PlainSerializer(lambda s: s.to_json(), return_type=dict)
]
Histogram = tuple[tuple[int, float], ...]


class Candidate(Frozen):
    """A proposed release that may be staged."""

    release: Sha256
    parent: Sha256 | None
    rules: Sha256
    proposed_offset: int


class Preparing(Frozen):
    """The candidate stands in the shadow slot; workers load and verify it."""

    name: Literal["preparing"] = "preparing"
    candidate: Candidate
    since: EpochMs


class Examining(Frozen):
    """The candidate answers the QA probes."""

    name: Literal["examining"] = "examining"
    candidate: Candidate
    since: EpochMs
    run: Identifier
    sent_at: EpochMs | None = None
    """When the probe set was logged; absent while the edge has not begun."""
    probe_digest: Sha256 | None = None
    probes: dict[Identifier, bool] = Field(default_factory=dict)
    """Probe id to whether it needs a citation."""
    answers: dict[str, ProbeAnswer] = Field(default_factory=dict)
    """By `side/probe`."""
    measurements: dict[str, ProbeMeasurement] = Field(default_factory=dict)


class Mirroring(Frozen):
    """The candidate answers copies of users' queries, and nobody sees its answers."""

    name: Literal["mirroring"] = "mirroring"
    candidate: Candidate
    since: EpochMs
    first_epoch: int
    """Tallies of earlier epochs belong to no mirroring or to an earlier one."""
    memory: MirrorMemory
    qa: dict[str, Any]
    """The examination's verdict, for the canary's evidence."""
    held_since: EpochMs | None = None
    held_by: str | None = None
    """Why the stage holds; each reason has its own patience."""
    paused_ms: int = 0


class CanaryRun(Frozen):
    """The candidate answers a share of users' queries."""

    name: Literal["canary"] = "canary"
    candidate: Candidate
    since: EpochMs
    salt: str
    step: int
    """Index into the ramp; shares an operator jumped to count as the step they reached."""
    step_since: EpochMs
    step_units: int
    """Shadow units of the canary when the step began."""
    first_epoch: int
    """Tallies of earlier epochs belong to no canary or to an earlier one."""
    memory: CanaryMemory
    qa: dict[str, Any] = Field(default_factory=dict)
    """Summary of the QA dry run, repeated in the promotion's evidence."""
    mirror: dict[str, Any] | None = None
    """Summary of the mirrored traffic before it, where there was some."""
    ratings: RatingMemory | None = None
    """What users' ratings say; absent until the first matured window."""
    approved_by: str | None = None
    forced_by: str | None = None
    checking_since: EpochMs | None = None
    """When the outgoing release's blobs were asked for."""
    paused_ms: int = 0
    classifier: str | None = None
    """What labels the answers of this canary; absent until the first labelled window."""
    fixed_n: dict[str, Any] | None = None
    """What the classical tests said at their size; absent before, and where no policy asks for them."""


class ForceOrder(Frozen):
    """One approver ordered a promotion past the gates; another one has to agree."""

    release: Sha256
    actor: Identifier
    key_id: Identifier
    detail: str


class Forcing(Frozen):
    """An approver ordered the promotion of a candidate under examination; only the blob check is still out."""

    name: Literal["forcing"] = "forcing"
    candidate: Candidate
    by: str
    detail: str
    since: EpochMs


class Bake(Frozen):
    """The watch after a promote."""

    name: Literal["bake"] = "bake"
    release: Sha256
    since: EpochMs
    mirror: MirrorMemory | None = None
    """What the old slot's copies say beside the users' answers; absent where nothing is copied."""


class Returning(Frozen):
    """A rollback's target is not resident yet and is prepared in the shadow slot first."""

    name: Literal["returning"] = "returning"
    target: Sha256
    rules: Sha256
    reason: str
    detail: str
    since: EpochMs


class AbTest(Frozen):
    """A release that served before answers a share of users' queries, to be compared with the active one."""

    name: Literal["ab_test"] = "ab_test"
    release: Sha256
    since: EpochMs
    units: int
    """Shadow units at which it ends, fixed in advance."""
    first_epoch: int
    """Tallies of earlier epochs belong to earlier traffic."""
    memory: CanaryMemory
    classifier: str | None = None
    """What labels the answers; absent until the first labelled window."""


Stage = Annotated[
    Preparing | Examining | Mirroring | CanaryRun | Forcing | Bake | Returning | AbTest,
    Field(discriminator="name"),
]


class Worker(Frozen):
    """The last thing one process said about itself."""

    service: Literal["router", "inference"]
    slot: Slot | None
    epoch: int
    releases: tuple[Sha256, ...]
    problems: tuple[str, ...]
    seen_at: EpochMs
    """The judge's own time at which it was logged: workers' clocks are not compared with it."""


class Card(Frozen):
    """What must be known of a release to route to it again."""

    rules: Sha256
    parent: Sha256 | None
    outcome: Literal["waiting", "staged", "serving", "served", "failed", "superseded", "returned"]
    """`returned`: ended without being judged bad, so its feedback may be trained again."""


class JudgeState(Frozen):
    """Everything the next decision depends on."""

    now: EpochMs = 0
    offset: int = -1
    """The last record of `gate-inputs` that was folded in."""
    policy: GatePolicy | None = None
    next_policy: GatePolicy | None = None
    """Takes effect when no stage is running, so that no canary is judged by two policies."""
    software: str = "unknown"
    routing: RoutingState | None = None
    """The last decided state, unsigned."""
    last_decision: Sha256 | None = None
    """Digest of the last decision without signatures."""
    applied_epoch: int = 0
    """The highest epoch that is known to have been installed."""
    repair_epoch: int = 0
    """Epoch of the last restore or adoption: while it is not applied, the key is known to be wrong."""
    paused_by: str | None = None
    paused_at: EpochMs | None = None
    stage: Stage | None = None
    waiting: Candidate | None = None
    """The newest proposal that waits for its turn."""
    cards: dict[Sha256, Card] = Field(default_factory=dict)
    served: tuple[Sha256, ...] = ()
    """Releases in the order in which they became active; the active one is last."""
    revoked: tuple[Sha256, ...] = ()
    active_since_epoch: int = 0
    """Tallies of earlier epochs belong to an earlier active release."""
    workers: dict[Identifier, Worker] = Field(default_factory=dict)
    command_offset: int = -1
    """The last record of `commands` that was carried out or refused."""
    proposal_offset: int = -1
    """The last record of `releases` that was taken note of."""
    nonces: dict[Identifier, EpochMs] = Field(default_factory=dict)
    """Nonces of commands until those expire."""
    merger: MergerMemory = TallyMerger((0,))
    """Windows that some partition has not passed yet."""
    copies: MergerMemory = TallyMerger((0,))
    """The same for windows of mirrored copies."""
    open_from: dict[int, int] = Field(default_factory=dict)
    """By partition: the lowest offset of `assignments` whose window was still open at its last tally."""
    shares: dict[int, int] = Field(default_factory=dict)
    """Canary basis points by routing epoch, of the latest epochs."""
    baseline: Histogram = ()
    """Active latencies, the yardstick of the next canary."""
    triggers: TriggerMemory | None = None
    rollback_at: EpochMs | None = None
    """When the last automatic rollback was decided."""
    alarm: str | None = None
    """A rollback trigger that fired with nothing to roll back to, told once."""
    progress_at: EpochMs = 0
    has_untold_window: bool = False
    """Whether a window closed in a running stage since the last progress line; only where the policy asks for one."""
    force_order: ForceOrder | None = None
    feedback: dict[str, int] = Field(default_factory=dict)
    """Feedback statuses since the last promote."""


def to_plain(state: JudgeState) -> dict[str, Any]:
    """The state as plain JSON values."""
    return state.model_dump(mode="json")


def from_plain(data: dict[str, Any]) -> JudgeState:
    """The state that `to_plain` described; folding on from it gives the same bytes."""
    return JudgeState.model_validate(data)
