"""What arrives on the other topics, looked at once and written down for the judge."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.answers import Evaluation
from schemas.commands import Command
from schemas.feedback import Disposition, Feedback, FeedbackStatus
from schemas.gate_inputs import CommandSeen, FeedbackCounts, QaResults, ReadinessSeen
from schemas.outcomes import OutcomeBatch
from schemas.readiness import Readiness
from services.gatekeeper.core.orders import ROLE_FOR
from services.gatekeeper.core.probes import ProbeSet, answer_of, measurement_of
from services.gatekeeper.core.rating_windows import Rating
from twinloop.errors import SignatureError
from twinloop.receipts import question_digest, read_receipt
from twinloop.signing import KeyRing, verify_document


def check_command(command: Command, ring: KeyRing, *, source_offset: int) -> CommandSeen:
    """Whether the key that signed an order may give it; nonce and expiry are the fold's to judge."""
    verdict, detail = "allowed", ""
    try:
        verify_document(command, ring, role=ROLE_FOR[command.action])
    except SignatureError as error:
        verdict, detail = "refused", str(error)[:500]
    return CommandSeen.model_validate(
        {"command": command, "verdict": verdict, "detail": detail, "source_offset": source_offset}
    )


class ReadinessFilter:
    """Lets readiness through when it changes, and otherwise every few seconds: it is repeated far more often."""

    def __init__(self, *, repeat_s: float) -> None:
        self._repeat_s = repeat_s
        self._said: dict[str, tuple[object, float]] = {}

    def take(self, event: Readiness, *, incarnation: str | None, now: float) -> ReadinessSeen | None:
        """What to log, if anything; `now` is monotonic seconds. Epochs of another incarnation count as none."""
        is_ours = incarnation is None or event.incarnation in ("", incarnation)
        seen = ReadinessSeen(
            worker=event.worker,
            service=event.service,
            slot=event.slot,
            epoch=event.epoch if is_ours else 0,
            releases=event.releases,
            problems=event.problems,
            seen_at=event.at,
            stopping=event.stopping,
        )
        what = (seen.slot, seen.epoch, seen.releases, seen.problems, seen.stopping)
        said = self._said.get(seen.worker)
        if said is not None and said[0] == what and now - said[1] < self._repeat_s:
            return None
        self._said[seen.worker] = (what, now)
        return seen


@dataclass
class FeedbackCounter:
    """Counts feedback statuses between two writes; evidence only, so a crash may lose a few seconds of them."""

    _counts: dict[Disposition, int]

    @classmethod
    def empty(cls) -> FeedbackCounter:
        return cls({})

    def add(self, status: FeedbackStatus) -> None:
        self._counts[status.status] = self._counts.get(status.status, 0) + 1

    def take(self) -> FeedbackCounts | None:
        """The counts since the last call, or None where there were none."""
        if not self._counts:
            return None
        counts, self._counts = self._counts, {}
        return FeedbackCounts(counts=counts)


def rating_of(feedback: Feedback, ring: KeyRing) -> Rating | None:
    """The thumb in a feedback about an answer a user was given; None where its receipt does not cover it.

    The trainer tells its sender what is wrong with such a feedback; nothing of it may count.
    """
    try:
        receipt = read_receipt(feedback.receipt, ring)
    except SignatureError:
        return None
    is_covered = (
        receipt.kind == "answer"
        and receipt.query_id == feedback.query_id
        and receipt.question_sha256 == question_digest(feedback.question)
    )
    if feedback.rating is None or receipt.unit is None or not is_covered:
        return None
    return Rating(
        feedback_id=feedback.id,
        query_id=feedback.query_id,
        rater=feedback.rater,
        release=receipt.release,
        epoch=receipt.epoch,
        unit=receipt.unit,
        answered_at=receipt.issued_at / 1000,
        is_down=feedback.rating == "down",
    )


def qa_answer(evaluation: Evaluation, probes: ProbeSet) -> QaResults | None:
    """The result in an evaluation, where it is about a probe."""
    answer = answer_of(evaluation, probes)
    return None if answer is None else QaResults(answers=(answer,))


def qa_measurements(batch: OutcomeBatch) -> QaResults | None:
    """The results in a batch of outcomes, where some are about probes."""
    found = tuple(m for m in map(measurement_of, batch.rows) if m is not None)
    return QaResults(measurements=found) if found else None
