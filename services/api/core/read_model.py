"""What the API knows: a fold of the topics people look at, bounded in memory.

Nothing here decides: the gatekeeper's log is the truth and this is what it said so far. Every method takes one event
and is called in the order of its topic; a record read twice changes nothing that shows.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from schemas.audit import AuditEntry
from schemas.decisions import Decision, Progress
from schemas.event import EpochMs, Sha256
from schemas.feedback import FeedbackStatus, QuarantinedFeedback
from schemas.readiness import Readiness
from schemas.releases import ReleaseProposed
from schemas.routing import RoutingState
from services.api.core.gate_series import GateSeries
from twinloop.changes.change_log import ChangeEvent, ChangeLog
from twinloop.orders import WAITS_FOR_ANOTHER, nonce_of

V = TypeVar("V")

KEPT_DECISIONS = 5_000
KEPT_PROGRESS = 300
KEPT_FEEDBACK_IDS = 200_000
KEPT_REVIEWS = 500
KEPT_LETTERS = 50
KEPT_ORDERS = 20_000
KEPT_RELEASES = 1_000


@dataclass(frozen=True)
class Logged:
    """One record of `decisions` and its place there."""

    offset: int
    event: Decision | Progress


@dataclass(frozen=True)
class DeadLetter:
    """Where a record nobody could read came from, and why; never its bytes."""

    topic: str
    partition: int
    offset: int
    service: str
    error: str
    at: EpochMs


@dataclass(frozen=True)
class OrderOutcome:
    """What became of an order so far."""

    entry: AuditEntry | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class SwapWish:
    """One approver forced the staged candidate; another one has to agree."""

    actor: str
    release: Sha256
    at: EpochMs


@dataclass(frozen=True)
class GroupLag:
    """Records of a topic that a consumer group has still to read."""

    group: str
    topic: str
    records: int


class ReadModel:
    """Mutable and not thread-safe: its owner locks it."""

    def __init__(self) -> None:
        self.version = 0
        """Grows with every change."""
        self.decisions: deque[Logged] = deque(maxlen=KEPT_DECISIONS)
        self.progress: deque[Logged] = deque(maxlen=KEPT_PROGRESS)
        self.paused: Decision | None = None
        self.staged: Decision | None = None
        """The decision that staged the candidate in force; None while steady or baking."""
        self.examined: Decision | None = None
        """The last decision that an examination led to."""
        self.canary = GateSeries()
        """The running canary, or the last one."""
        self.ab_test = GateSeries()
        """The running A/B test, or the last one."""
        self.proposals: OrderedDict[str, ReleaseProposed] = OrderedDict()
        self.outcomes: dict[str, str] = {}
        """By release: the last thing that was decided about it."""
        self.workers: dict[str, Readiness] = {}
        self.feedback: OrderedDict[str, FeedbackStatus] = OrderedDict()
        self.statuses: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.quarantined: deque[QuarantinedFeedback] = deque(maxlen=KEPT_REVIEWS)
        self.quarantined_ever = 0
        """How many were kept aside; `quarantined` holds the newest of them."""
        self.letters: deque[DeadLetter] = deque(maxlen=KEPT_LETTERS)
        self.letter_counts: Counter[str] = Counter()
        self.changes = ChangeLog()
        """Proposed changes of rules and prompt."""
        self.lag: tuple[GroupLag, ...] = ()
        self._orders: OrderedDict[str, OrderOutcome] = OrderedDict()
        self.wish: SwapWish | None = None
        """The open half of a forced promotion."""

    @property
    def state(self) -> RoutingState | None:
        """The last decided routing state."""
        last = self.last_decision
        return last.state if last is not None else None

    @property
    def last_decision(self) -> Decision | None:
        if not self.decisions:
            return None
        event = self.decisions[-1].event
        return event if isinstance(event, Decision) else None

    @property
    def candidate(self) -> Sha256 | None:
        """The release in examination or canary."""
        return self.staged.release if self.staged is not None else None

    def since(self, offset: int) -> list[Logged]:
        """Decisions and progress after this place in the log, in order."""
        found: list[Logged] = []
        for log in (self.decisions, self.progress):
            found += takewhile(lambda each: each.offset > offset, reversed(log))
        return sorted(found, key=lambda each: each.offset)

    def order(self, nonce: str) -> OrderOutcome:
        return self._orders.get(nonce, OrderOutcome())

    def take_decision(self, decision: Decision, offset: int) -> bool:
        """True where this is the first record of its epoch, which is the one that holds."""
        last = self.last_decision
        if last is not None and decision.epoch <= last.epoch:
            return False
        self._touch()
        self.decisions.append(Logged(offset, decision))
        nonce = decision.evidence.get("command")
        if isinstance(nonce, str):
            self._note_order(nonce, decision=decision)
        # What a release became is not changed by comparing it with another one.
        if decision.release is not None and decision.kind not in ("ab_start", "ab_end"):
            self.outcomes[decision.release] = decision.kind
        self._follow_stage(decision)
        return True

    def take_progress(self, progress: Progress, offset: int) -> bool:
        if self.progress and offset <= self.progress[-1].offset:
            return False
        self._touch()
        self.progress.append(Logged(offset, progress))
        for series in (self.canary, self.ab_test):
            # The same release may have been compared after its canary: what has ended says nothing more.
            if progress.phase == "canary" and progress.release == series.release and series.ended is None:
                series.add(progress)
        return True

    def take_proposal(self, proposal: ReleaseProposed) -> None:
        self._touch()
        _keep(self.proposals, proposal.release_id, proposal, KEPT_RELEASES)

    def take_readiness(self, readiness: Readiness) -> None:
        self._touch()
        self.workers[readiness.worker] = readiness

    def forget_silent(self, *, now_ms: int, after_ms: int) -> None:
        """Drop processes that said nothing for so long: they are gone, under this name at least."""
        gone = [name for name, said in self.workers.items() if now_ms - said.at > after_ms]
        for name in gone:
            self._touch()
            del self.workers[name]

    def take_feedback_status(self, status: FeedbackStatus) -> None:
        """The last status of an id holds; each id counts once, under that status."""
        before = self.feedback.get(status.feedback_id)
        if before is not None and status.at < before.at:
            return
        self._touch()
        if before is not None:
            self.statuses[before.status] -= 1
            self.refusals -= Counter(_refusal(before))
        self.statuses[status.status] += 1
        self.refusals += Counter(_refusal(status))
        _keep(self.feedback, status.feedback_id, status, KEPT_FEEDBACK_IDS)

    def take_quarantined(self, quarantined: QuarantinedFeedback) -> None:
        self._touch()
        self.quarantined.append(quarantined)
        self.quarantined_ever += 1

    def take_change(self, event: ChangeEvent) -> None:
        self._touch()
        self.changes.take(event)

    def take_dead_letter(self, letter: DeadLetter) -> None:
        self._touch()
        self.letters.append(letter)
        self.letter_counts[letter.topic] += 1

    def take_audit(self, entry: AuditEntry) -> None:
        """What the gatekeeper says of orders."""
        nonce = nonce_of(entry)
        if nonce is None:
            return
        self._touch()
        self._note_order(nonce, entry=entry)
        if entry.result != "accepted" or entry.action not in ("promote", "approve"):
            return
        waits = WAITS_FOR_ANOTHER in entry.detail and self.candidate is not None
        self.wish = SwapWish(entry.actor, self.candidate or "", entry.at) if waits else None

    def set_lag(self, lag: tuple[GroupLag, ...]) -> None:
        if lag != self.lag:
            self._touch()
            self.lag = lag

    def _follow_stage(self, decision: Decision) -> None:
        kind = decision.kind
        if kind in ("genesis", "resume"):
            self.paused = None
        elif kind == "pause":
            self.paused = decision
        if kind == "stage":
            self.staged = decision
        elif decision.state.phase not in ("qa", "canary", "promoting"):
            self.staged = None
        if kind in ("mirror", "canary") or (kind == "reject" and "qa" in decision.evidence):
            self.examined = decision
        if kind == "canary" and decision.release is not None:
            self.canary = GateSeries(decision.release, decision)
        elif self.canary.ended is None and decision.state.canary is None and kind != "genesis":
            # Whatever took the share away ended it: promote, abort, rollback, or a state written by hand.
            self.canary.end(decision)
        if kind == "ab_start" and decision.release is not None:
            self.ab_test = GateSeries(decision.release, decision)
        elif self.ab_test.ended is None and decision.state.canary is None and kind != "genesis":
            self.ab_test.end(decision)
        if self.wish is not None and self.wish.release != self.candidate:
            self.wish = None

    def _note_order(
        self, nonce: str, *, entry: AuditEntry | None = None, decision: Decision | None = None
    ) -> None:
        known = self.order(nonce)
        # The first word about an order holds: a second record with its nonce is refused, and changes nothing.
        outcome = OrderOutcome(known.entry or entry, known.decision or decision)
        _keep(self._orders, nonce, outcome, KEPT_ORDERS)

    def _touch(self) -> None:
        self.version += 1


def _refusal(status: FeedbackStatus) -> Mapping[str, int]:
    """The code of a reason; what follows a colon names single rows."""
    if status.status not in ("rejected", "quarantined"):
        return {}
    return {(status.reason or "unsaid").split(":")[0]: 1}


def _keep(book: OrderedDict[str, V], key: str, value: V, limit: int) -> None:
    book[key] = value
    book.move_to_end(key)
    while len(book) > limit:
        book.popitem(last=False)
