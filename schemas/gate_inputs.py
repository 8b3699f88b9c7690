"""Everything a decision may depend on, one record at a time: the only thing the judge reads.

Whoever replays `gate-inputs` from its first record reaches the same decisions, byte for byte. What cannot be
recomputed (a clock, a random number, a signature check, a blob's state, Redis) is looked at once, at the
edge, and what was found is written here before anybody acts on it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints

from schemas.answers import ErrorKind
from schemas.commands import Command
from schemas.event import Domain, EpochMs, Event, Frozen, Identifier, Sha256, Slot
from schemas.outcomes import CitationVerdict
from schemas.routing import RoutingState

Text500 = Annotated[str, StringConstraints(max_length=500)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Offset = Annotated[int, Field(ge=-1)]


class Genesis(Frozen):
    """The first record: the name of this life of the log and what it starts with. Later ones are ignored."""

    kind: Literal["genesis"] = "genesis"
    incarnation: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    release: Sha256
    """The release both slots start with."""
    rules: Sha256


class Tick(Frozen):
    """The only clock of the judge."""

    kind: Literal["tick"] = "tick"
    now: EpochMs


class PolicyChange(Frozen):
    """The thresholds a gatekeeper was started with, where they differ from those in force."""

    kind: Literal["policy"] = "policy"
    digest: Sha256
    policy: dict[str, JsonValue]
    software: Annotated[str, StringConstraints(max_length=64)]
    """Version of the code that decides from here on."""
    origin_partitions: Annotated[int, Field(ge=1)]
    """How many partitions' tallies make a whole window."""


class ArmCounts(Frozen):
    """One arm in one window; sums of unit means are real numbers between 0 and `units`."""

    queries: Count = 0
    units: Count = 0
    errors: Amount = 0.0
    missing: Count = 0
    answered: Count = 0
    latency: tuple[tuple[Count, Amount], ...] = ()
    """(bin, weight) in rising bin order; the bins are fixed by `twinloop.statistics.latency`."""
    latency_missing: Amount = 0.0
    toxic: Amount = 0.0
    toxic_missing: Amount = 0.0
    citations_required: Count = 0
    citations_valid: Count = 0
    new_keys: Count = 0


class ArmsCounts(Frozen):
    """Both arms of one scope."""

    active: ArmCounts = ArmCounts()
    shadow: ArmCounts = ArmCounts()


class WindowCounts(Frozen):
    """One closed window of assignment time, in seconds, all of one routing epoch."""

    start: Amount
    end: Amount
    epoch: Count
    canary_bp: Annotated[int, Field(ge=0, le=10_000)]
    total: ArmsCounts
    domains: dict[Domain, ArmsCounts] = Field(default_factory=dict)
    fresh: ArmsCounts | None = None
    """The units whose key no earlier window of this ramp step has counted; absent when that is every unit."""
    late: Count = 0
    duplicates: Count = 0
    classifiers: tuple[Annotated[str, StringConstraints(max_length=200)], ...] = ()
    """Name and version of every classifier behind the safety labels; a canary is judged by one."""


class Tally(Frozen):
    """What one partition of users' traffic, or of its copies, did in a window.

    The first by (purpose, partition, start, epoch) counts.
    """

    kind: Literal["tally"] = "tally"
    partition: Count
    window: WindowCounts
    """Without queries it is a heartbeat: nothing before its end will come from this partition."""
    purpose: Annotated[Literal["user", "mirror"], Field(exclude_if=lambda value: value == "user")] = "user"
    """`mirror`: what became of mirrored copies. They stand in the shadow's arm; those that did not come back are
    `missing` and no errors."""
    open_from: Offset = -1
    """Lowest offset of `assignments` in this partition whose window is still open; -1 where that is unknown."""


class CommandSeen(Frozen):
    """An order and whether signature and roles allow it; nonce and expiry are judged by the fold."""

    kind: Literal["command"] = "command"
    command: Command
    verdict: Literal["allowed", "refused"]
    detail: Text500 = ""
    source_offset: Offset = -1


class ReadinessSeen(Frozen):
    """What one process can answer with, logged when it changes and every few seconds."""

    kind: Literal["readiness"] = "readiness"
    worker: Identifier
    service: Literal["router", "inference"]
    slot: Slot | None = None
    epoch: Count
    releases: tuple[Sha256, ...] = ()
    problems: tuple[Text500, ...] = ()
    seen_at: EpochMs
    stopping: bool = False


class ProposalSeen(Frozen):
    """A candidate and what checking its signature, its digests and its evidence found."""

    kind: Literal["proposal"] = "proposal"
    release: Sha256
    parent: Sha256 | None
    rules: Sha256
    proposed_by: Identifier
    verdict: Literal["valid", "forged", "broken"]
    """`forged`: not signed by a trainer; `broken`: signed, but a part is missing or it names problems."""
    detail: Text500 = ""
    source_offset: Offset = -1


class ProbeAnswer(Frozen):
    """What an evaluation said about one probe, without its text."""

    run: Identifier
    """The examination: `qa-<incarnation>-<epoch>`."""
    side: Literal["candidate", "active"]
    probe: Identifier
    release: Sha256 | None
    error: ErrorKind | None = None
    cites: bool = False
    """At least one citation, and every one of them among the retrieved passages."""
    as_expected: bool | None = None
    """Whether the answer contains what the probe expects; absent where it expects nothing."""


class ProbeMeasurement(Frozen):
    """What an outcome said about one probe."""

    run: Identifier
    side: Literal["candidate", "active"]
    probe: Identifier
    release: Sha256
    error: ErrorKind | None = None
    latency_ms: Amount
    toxic: bool | None = None
    citation: CitationVerdict | None = None


class QaResults(Frozen):
    """Results of QA probes as they come in; the first by (run, side, probe) counts."""

    kind: Literal["qa"] = "qa"
    answers: tuple[ProbeAnswer, ...] = ()
    measurements: tuple[ProbeMeasurement, ...] = ()


class ProbesSent(Frozen):
    """The examination began: which probes there are and which of them need a citation."""

    kind: Literal["probes"] = "probes"
    run: Identifier
    digest: Sha256
    """Of the probe set."""
    probes: tuple[tuple[Identifier, bool], ...]
    """(probe id, needs a citation)"""


class BlobsChecked(Frozen):
    """Every blob of a release was read back from the store and hashed, or could not be."""

    kind: Literal["blobs"] = "blobs"
    release: Sha256
    epoch: Count
    """The epoch in force when the check was asked for."""
    ok: bool
    detail: Text500 = ""


class RedisSeen(Frozen):
    """The routing key is not what the log says it should be; logged when that changes."""

    kind: Literal["redis"] = "redis"
    status: Literal["missing", "behind", "foreign", "forged", "break-glass"]
    """`behind`: a lower epoch than was once installed; `foreign`: another incarnation; `forged`: no valid
    signature; `break-glass`: a higher epoch that an operator signed."""
    epoch: Count = 0
    """The epoch found, 0 where there is none."""
    reported: Count = 0
    """The highest epoch any reader has reported."""
    state: RoutingState | None = None
    """The whole state, with `break-glass`."""
    detail: Text500 = ""


class Applied(Frozen):
    """A decision's state was offered to Redis, and what came of it."""

    kind: Literal["applied"] = "applied"
    epoch: Count
    result: Literal["installed", "present", "refused"]
    started_at_us: Count = 0
    """Microseconds since 1970 UTC at which the write began: from here a swap is measured."""
    took_us: Count
    detail: Text500 = ""


class RatingCounts(Frozen):
    """How one release's answers of a window were rated."""

    release: Sha256
    rated: Count
    """Sticky keys that rated, each in one window of a canary and partition only."""
    down: Amount
    """Sum of each key's share of thumbs down."""


class RatingWindow(Frozen):
    """Ratings of one partition of `feedback` for the answers of a window, once they had time to come.

    The first by (partition, start, epoch) counts.
    """

    partition: Count
    start: Amount
    """Of the answers' times, in seconds."""
    end: Amount
    epoch: Count
    """The routing epoch the answers were given under."""
    counts: tuple[RatingCounts, ...]
    late: Count = 0
    """Ratings that came after their window had closed; counted, not used."""


class FeedbackCounts(Frozen):
    """How many feedback statuses were seen since the last such record: evidence, never a gate; or matured ratings."""

    kind: Literal["feedback"] = "feedback"
    counts: dict[Literal["accepted", "rejected", "quarantined", "counted", "trained"], Count]
    ratings: Annotated[RatingWindow | None, Field(exclude_if=lambda value: value is None)] = None
    """Users' ratings that have matured, for the guardrail of a canary."""


Body = Annotated[
    Genesis
    | Tick
    | PolicyChange
    | Tally
    | CommandSeen
    | ReadinessSeen
    | ProposalSeen
    | QaResults
    | ProbesSent
    | BlobsChecked
    | RedisSeen
    | Applied
    | FeedbackCounts,
    Field(discriminator="kind"),
]


class GateInput(Event):
    """One fact the judge may use, in the order in which it is judged."""

    type: ClassVar[str] = "twinloop.gate-input.v1"

    by: Identifier
    """The gatekeeper that wrote it."""
    body: Body
