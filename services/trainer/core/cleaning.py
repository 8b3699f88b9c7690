"""Whether one feedback may teach: its receipt, its text and what the classifiers found, each with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.event import Domain
from schemas.feedback import Feedback

Action = Literal["reject", "quarantine", "ignore"]

_CONTROL = re.compile(r"<\||\|>|[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


@dataclass(frozen=True)
class ReceiptFacts:
    """What a verified receipt says."""

    is_import: bool
    query_id: str
    question_sha256: str
    domain: Domain
    release: str
    issued_at: int


@dataclass(frozen=True)
class Finding:
    """One classifier's positive finding in a text."""

    label: str
    """`pii`, `toxicity` or `injection`."""
    detector: str
    """Name and version of the classifier."""
    score: float
    field: str
    """Where: `question` or `correction`."""


@dataclass(frozen=True)
class CleaningPolicy:
    """What is refused, and what a person should look at."""

    max_receipt_age_s: float = 30 * 86_400
    """A receipt older than this, by the log's time, is refused."""
    min_correction_characters: int = 1
    """Shorter corrections are refused."""
    max_correction_characters: int = 600
    """Longer corrections are refused."""
    max_question_characters: int = 2000
    """Longer questions are refused."""
    actions: Mapping[str, Action] = field(
        default_factory=lambda: {"pii": "reject", "toxicity": "quarantine", "injection": "quarantine"}
    )
    """What a finding of each label leads to; an unknown label quarantines."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of one feedback now."""

    status: Literal["accepted", "rejected", "quarantined", "counted"]
    reason: str | None = None
    detector: str = ""


def examine_receipt(
    feedback: Feedback, facts: ReceiptFacts, policy: CleaningPolicy, *, question_sha256: str, logged_at: int
) -> Verdict | None:
    """Why the receipt does not cover this feedback, or None where it does; `question_sha256` is the question's own."""
    if facts.question_sha256 != question_sha256:
        return Verdict("rejected", "question_differs_from_receipt")
    if facts.query_id != feedback.query_id:
        return Verdict("rejected", "query_id_differs_from_receipt")
    if logged_at - facts.issued_at > policy.max_receipt_age_s * 1000:
        return Verdict("rejected", "receipt_expired")
    return None


def examine_text(feedback: Feedback, policy: CleaningPolicy, findings: Iterable[Finding]) -> Verdict:
    """`counted` without a correction; otherwise accepted, or the worst of what speaks against the text."""
    if feedback.correction is None:
        return Verdict("counted")
    flaw = text_flaw(feedback, policy)
    if flaw is not None:
        return Verdict("rejected", flaw)
    worst = Verdict("accepted")
    for finding in findings:
        action = policy.actions.get(finding.label, "quarantine")
        reason = f"{finding.label}_in_{finding.field}"
        if action == "reject":
            return Verdict("rejected", reason, finding.detector)
        if action == "quarantine" and worst.status == "accepted":
            worst = Verdict("quarantined", reason, finding.detector)
    return worst


def text_flaw(feedback: Feedback, policy: CleaningPolicy) -> str | None:
    """A fault that needs no classifier: lengths, control characters, the prompt's own tags."""
    correction = (feedback.correction or "").strip()
    if not policy.min_correction_characters <= len(correction) <= policy.max_correction_characters:
        return "correction_length"
    if len(feedback.question) > policy.max_question_characters:
        return "question_length"
    if _CONTROL.search(correction) or _CONTROL.search(feedback.question):
        return "control_characters"
    return None
