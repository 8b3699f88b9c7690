"""What the API answers with and what it takes: documented models, refusing unknown fields where they are taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from schemas.decisions import Decision, GateProgress
from schemas.documents import DocumentChange
from schemas.event import Domain, EpochMs, Identifier, Sha256, Slot
from schemas.feedback import Disposition
from schemas.routing import Phase
from services.api.core.examples import ACTIVE as PARENT
from services.api.core.examples import CANDIDATE as RELEASE
from services.api.core.examples import DECISION
from twinloop.api_tokens import TokenRole

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Taken(BaseModel):
    """A request body."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Told(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


def example(**values: Any) -> ConfigDict:
    """Model settings with one example for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Problem(Told):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow") | example(
        type="urn:twinloop:problem:no-evidence",
        title="Conflict",
        status=409,
        detail="the gates have not cleared; two approvers together may force it",
        missing=["promote:error_margin: canary error 0.8 % <= 1.0 % + 5 pts, e=7.2 < 20, n=212"],
    )

    type: str = "about:blank"
    """`about:blank`, or `urn:twinloop:problem:` and a code a program may test for."""
    title: str
    """The status in words."""
    status: int
    detail: str = ""
    """What was wrong with this very call, and what to do next."""


class Whoami(Told):
    """Whose token this is."""

    model_config = example(actor="ada", role="operator")

    actor: str
    role: TokenRole


class SlotView(Told):
    """One twin."""

    slot: Slot
    release: Sha256


class WorkerView(Told):
    """What one process last said about itself."""

    worker: str
    service: Literal["router", "inference"]
    slot: Slot | None
    epoch: int
    releases: tuple[Sha256, ...]
    problems: tuple[str, ...]
    said_at: EpochMs
    stopping: bool


class PauseView(Told):
    """Who paused, when and why."""

    line: str
    since: EpochMs


class LagView(Told):
    """Records of a topic that a consumer group has still to read."""

    group: str
    topic: str
    records: int


class LetterView(Told):
    """A record nobody could read: where it came from and why, never its bytes."""

    topic: str
    partition: int
    offset: int
    service: str
    error: str
    at: EpochMs


class FeedbackView(Told):
    """How many feedbacks stand at which status, and why some were refused."""

    statuses: dict[Disposition, int]
    refusals: dict[str, int]
    """Reason codes of rejected and quarantined feedback."""


class WishView(Told):
    """One approver forced the staged candidate; another one has to agree."""

    actor: str
    release: Sha256
    at: EpochMs


class WaitingView(Told):
    """What waits for a person beside changes, in short: `/review` has the rest."""

    approval: Sha256 | None
    """A candidate whose gates have cleared and that waits for an approver."""
    forced: WishView | None
    """Half of a forced promotion: an approval by a second approver completes it, past the gates."""
    feedback: int
    """Feedback kept aside since the topic begins."""


class StatusView(Told):
    """What serves, what is being judged, and what is in trouble."""

    model_config = example(
        at=1_790_000_040_000,
        caught_up=True,
        incarnation="0" * 31 + "1",
        epoch=4,
        phase="canary",
        active={"slot": "blue", "release": PARENT},
        shadow={"slot": "green", "release": RELEASE},
        previous=None,
        revoked=[],
        canary_share=0.05,
        mirror_share=0.0,
        candidate=RELEASE,
        line="canary 5 %: error 0.8 % <= 1.0 % + 5 pts, e=7.2 of 20, n=212",
        needed="88 shadow queries",
        paused=None,
        open_changes=0,
        waiting={"approval": None, "forced": None, "feedback": 2},
        workers=[],
        feedback={"statuses": {"accepted": 12}, "refusals": {}},
        lag=[{"group": "twinloop.router", "topic": "queries", "records": 0}],
        dead_letters=0,
        dead_letter_topics={},
        recent_dead_letters=[],
    )

    at: EpochMs
    caught_up: bool
    """False while the API is still reading what was logged before it started."""
    incarnation: str | None
    epoch: int
    phase: Phase | None
    """Absent before the first decision."""
    active: SlotView | None
    shadow: SlotView | None
    previous: Sha256 | None
    revoked: tuple[Sha256, ...]
    canary_share: float
    """Share of subjects the shadow answers, from 0 to 0.1."""
    mirror_share: float
    candidate: Sha256 | None
    """The release in examination or canary."""
    line: str
    """The last decision or progress in one readable line."""
    needed: str
    """What the running stage still waits for."""
    paused: PauseView | None
    open_changes: int
    """Proposed changes of rules and prompt that wait for another person."""
    waiting: WaitingView
    """What waits for a person; a page that shows it asks again when this changes."""
    workers: tuple[WorkerView, ...]
    feedback: FeedbackView
    lag: tuple[LagView, ...]
    dead_letters: int
    dead_letter_topics: dict[str, int]
    recent_dead_letters: tuple[LetterView, ...]


class GateView(Told):
    """One gate now: its line says value, sign and limit."""

    name: str
    status: Literal["cleared", "open", "breached", "invalid"]
    line: str
    values: dict[str, JsonValue]


class GatePointView(Told):
    """One gate at one time."""

    e: float | None
    threshold: float | None
    shadow: float | None
    active: float | None
    low: float | None
    high: float | None
    n: float
    share: float | None = None
    """Share of the shadow's units that count against the gate; `low` to `high` is its interval at every look."""
    share_active: float | None = None
    """The same of the active arm, and its interval; null where the gate has one arm."""
    low_active: float | None = None
    high_active: float | None = None


class SeriesPointView(Told):
    """Every gate at one time."""

    at: EpochMs
    gates: dict[str, GatePointView]


class AbTestView(Told):
    """The running A/B test, or the last one, and what ended ones found."""

    model_config = example(
        release=PARENT,
        running=True,
        active=RELEASE,
        share=0.1,
        units=2000,
        started_at=1_790_000_040_000,
        line="A/B 412 of 2000 units: error 0.8 % <= 1.0 % + 5 pts, e=7.2 of 20, n=412",
        needed="1588 more units",
        gates=[
            {"name": "promote:error_margin", "status": "open", "line": "error 0.8 %", "values": {"e": 7.2}}
        ],
        reports=[],
    )

    release: Sha256 | None
    """The one that is compared; it is not promoted, whatever is found."""
    running: bool
    active: Sha256 | None
    """The one it is compared with."""
    share: float
    """Of subjects that it answers now, of 1."""
    units: int | None
    """Its counted users at which the test ends."""
    started_at: EpochMs | None
    line: str
    needed: str
    gates: tuple[GateView, ...]
    reports: tuple[Decision, ...]
    """Decisions that ended tests, newest first: `evidence` holds the gates' verdict, valid at any moment, and the
    fixed-n tests, which hold where `units_reached`."""


class CanaryView(Told):
    """The running canary, or the last one."""

    model_config = example(
        release=RELEASE,
        running=True,
        share=0.05,
        started_at=1_790_000_040_000,
        line="canary 5 %: error 0.8 % <= 1.0 % + 5 pts, e=7.2 of 20, n=212",
        needed="88 shadow queries",
        gates=[
            {"name": "promote:error_margin", "status": "open", "line": "error 0.8 %", "values": {"e": 7.2}}
        ],
        series=[],
        ended=None,
    )

    release: Sha256 | None
    running: bool
    share: float
    started_at: EpochMs | None
    line: str
    needed: str
    gates: tuple[GateView, ...]
    series: tuple[SeriesPointView, ...]
    ended: Decision | None
    """The decision that ended it."""


class QaView(Told):
    """The running examination and the last one that was judged."""

    model_config = example(
        running=False,
        release=RELEASE,
        line="QA 120 of 200 probes back, 118 passed, 9 s",
        rows=[],
        judged=None,
    )

    running: bool
    release: Sha256 | None
    line: str
    rows: tuple[dict[str, JsonValue], ...]
    """Limits of the last judged examination: name, count, n, limit, rate, ci_low, ci_high, is_passed, line."""
    judged: Decision | None


class HistoryView(Told):
    """Decisions, newest first."""

    model_config = example(decisions=[DECISION], before=4)

    decisions: tuple[Decision, ...]
    before: int | None
    """Pass it as `before` to get the next older ones; absent where there are none."""


class DomainLearning(Told):
    """What training a release on one domain measured, as exact matches between 0 and 1."""

    rows: int
    documents: int
    new: float | None
    """New facts, after the training."""
    kept_before: float | None
    """Rows learnt earlier, before ..."""
    kept_after: float | None
    """... and after: the difference is what was forgotten."""
    general_before: float | None
    general_after: float | None


class KeptKnowledge(Told):
    """Exact answers to one body of earlier knowledge before a release's training and after it, between 0 and 1."""

    domain: Domain
    knowledge: str
    """`update RELEASE` for what one earlier release was taught, or what else was asked."""
    rows: int | None
    """Questions asked, where that is known."""
    before: float | None
    after: float | None
    untouched: bool
    """The domain's adapter is the parent's, byte for byte: nothing can have been lost."""


class ReleaseView(Told):
    """A release, where it comes from and what became of it."""

    release: Sha256
    parent: Sha256 | None
    roles: tuple[Literal["active", "shadow", "previous", "revoked"], ...]
    outcome: str
    """The last thing that was decided about it; `waiting` where nothing was."""
    made_at: EpochMs | None
    proposed_by: str
    domains: dict[Domain, DomainLearning]
    forgetting: tuple[KeptKnowledge, ...]
    """The forgetting matrix: every domain and every earlier update of it, before and after the training."""
    problems: tuple[str, ...]


class ReleasesView(Told):
    """Releases, newest first."""

    model_config = example(
        releases=[
            {
                "release": RELEASE,
                "parent": PARENT,
                "roles": ["shadow"],
                "outcome": "canary",
                "made_at": 1_790_000_030_000,
                "proposed_by": "trainer-0",
                "domains": {
                    "law": {
                        "rows": 40,
                        "documents": 3,
                        "new": 0.95,
                        "kept_before": 0.92,
                        "kept_after": 0.9,
                        "general_before": 0.7,
                        "general_after": 0.7,
                    }
                },
                "forgetting": [
                    {
                        "domain": "law",
                        "knowledge": f"update {PARENT}",
                        "rows": 32,
                        "before": 0.92,
                        "after": 0.9,
                        "untouched": False,
                    },
                    {
                        "domain": "med",
                        "knowledge": "everything",
                        "rows": None,
                        "before": None,
                        "after": None,
                        "untouched": True,
                    },
                ],
                "problems": [],
            }
        ]
    )

    releases: tuple[ReleaseView, ...]


class ReviewedFeedback(Told):
    """Feedback kept aside for a person."""

    feedback_id: Identifier
    query_id: Identifier
    rater: str
    reason: str
    detector: str
    at: EpochMs
    question: str
    correction: str | None


class ReviewView(Told):
    """What waits for a person."""

    model_config = example(approval=None, forced=None, feedback=[], feedback_total=0)

    approval: Sha256 | None
    """A candidate whose gates have cleared and that waits for an approver."""
    forced: WishView | None
    """Half of a forced promotion."""
    feedback: tuple[ReviewedFeedback, ...]
    feedback_total: int


class OrderView(Told):
    """What became of an order."""

    model_config = example(
        nonce="5d3c9b7e8a7f4a1f9f0c2b1a3d4e5f60",
        action="rollback",
        result="accepted",
        detail="to c40ffd4b",
        decision=None,
    )

    nonce: Identifier
    action: str
    result: Literal["accepted", "pending", "waits_for_another"]
    """`pending`: published, but nobody has said anything about it yet; `/history` will."""
    detail: str
    decision: Decision | None
    """The decision it led to, where it leads to one at once."""


class Order(Taken):
    """Why something is ordered."""

    model_config = example(reason="incident 4711")

    reason: Reason
    """It is kept in the log for ever."""


class RollbackOrder(Order):
    """Which release to restore."""

    model_config = example(reason="wrong dosages in med")

    release: Sha256 | None = None
    """The release that served before, where absent."""


class CandidateOrder(Order):
    """An order about the staged candidate."""

    model_config = example(reason="reviewed by hand")

    release: Sha256 | None = None
    """Refused unless it is the staged candidate."""


class SwapOrder(CandidateOrder):
    """Make the shadow active."""

    model_config = example(reason="hot fix, reviewed by hand", force=False)

    force: bool = False
    """Promote although the gates have not cleared; a second approver has to force it too, or approve."""


class AbTestOrder(Order):
    """Compare a release that served before with the active one, on users."""

    model_config = example(reason="shorter answers", release=PARENT, basis_points=1000, units=2000)

    release: Sha256 | None = None
    """The previous one where none is named."""
    basis_points: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Subjects that it answers, out of 10,000."""
    units: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Its counted users before the test ends, fixed in advance; the gatekeeper's `canary.max_shadow` bounds it."""


class CanaryOrder(Order):
    """Grow the canary's share."""

    model_config = example(reason="more traffic, please", basis_points=500)

    basis_points: Annotated[int, Field(ge=1, le=1000)]
    """Out of 10,000 subjects."""


class TrainOrder(Order):
    """Train on what waits."""

    model_config = example(reason="fresh documents")

    domain: Domain | None = None
    """One domain only."""


class Question(Taken):
    """A question."""

    model_config = example(question="What is the enforcing court of statute Markemfan?")

    question: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    subject: Identifier | None = None
    """The sticky unit of canary assignment, a session or a user."""
    domain: Domain | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=120_000)] = 10_000
    canary_opt_out: bool = False


class Ingest(Taken):
    """Documents to put into the indexes or take out of them."""

    model_config = example(
        documents=[
            {
                "op": "upsert",
                "document_id": "law-0042",
                "domain": "law",
                "changed_at": 1_790_000_000_000,
                "text": "The notice period of contract Zorvan is 42 days",
                "provenance": {
                    "source": "contract register",
                    "licence": "internal",
                    "publisher": "legal department",
                    "retrieved_at": 1_790_000_000_000,
                },
            }
        ]
    )

    documents: Annotated[tuple[DocumentChange, ...], Field(min_length=1, max_length=100)]


class Published(Told):
    """What Kafka has acknowledged."""

    model_config = example(published=1)

    published: int


def gate_view(gate: GateProgress) -> GateView:
    return GateView(name=gate.name, status=gate.status, line=gate.line, values=dict(gate.values))
