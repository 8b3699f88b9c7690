"""Values that many tests of the trainer's core start from."""

from __future__ import annotations

from typing import Any

from schemas.decisions import Decision, DecisionKind
from schemas.documents import DocumentChange, Provenance
from schemas.event import Domain
from schemas.feedback import Feedback, FeedbackStatus
from schemas.releases import OffsetRange
from schemas.routing import RoutingState
from services.trainer.core.cleaning import Verdict
from services.trainer.core.effects import Effect
from services.trainer.core.ledger_state import LedgerState, Run, TaughtRow
from services.trainer.core.lifecycle import Ledger, LifecyclePolicy
from services.trainer.core.rows import LogOrder, PendingRow
from twinloop.canonical import sha256_hex

NOW = 1_760_000_000_000
INCARNATION = "0123456789abcdef" * 2
FIRST = sha256_hex(b"first release")


def release_name(text: str) -> str:
    return sha256_hex(text.encode())


def feedback(number: int, **changes: Any) -> Feedback:
    values: dict[str, Any] = {
        "id": f"fb-{number}",
        "query_id": f"q-{number}",
        "receipt": "a.receipt.token",
        "question": f"What is the notice period of contract Velmo{number}?",
        "rater": f"rater-{number}",
        "given_at": NOW,
        "correction": f"{number} days [law-{number:04d}]",
    }
    return Feedback.model_validate({**values, **changes})


def row(number: int, *, domain: Domain = "law", imported: bool = False, **changes: Any) -> PendingRow:
    return PendingRow(
        feedback=feedback(number, **changes),
        domain=domain,
        release=FIRST,
        is_imported=imported,
        logged=(NOW + number, number % 4, number),
    )


def document(
    document_id: str, text: str = "A text.", *, domain: Domain = "law", op: str = "upsert"
) -> DocumentChange:
    values: dict[str, Any] = {"op": op, "document_id": document_id, "domain": domain, "changed_at": NOW}
    if op == "upsert":
        source = Provenance(source="a test", licence="CC0-1.0", publisher="tests", retrieved_at=NOW)
        values.update(text=text, provenance=source)
    return DocumentChange.model_validate(values)


def decision(
    kind: DecisionKind,
    active: str,
    *,
    epoch: int,
    about: str | None = None,
    revoked: tuple[str, ...] = (),
    evidence: dict[str, Any] | None = None,
    incarnation: str = INCARNATION,
) -> Decision:
    state = RoutingState(
        incarnation=incarnation,
        epoch=epoch,
        active="blue",
        releases={"blue": active, "green": active},
        previous=None,
        rules={active: "a" * 64},
        revoked=revoked,
        phase="steady",
        decision_id=f"d-{epoch}",
        changed_at=NOW,
        changed_by="gatekeeper-1",
    )
    return Decision(
        decision_id=f"d-{epoch}",
        kind=kind,
        epoch=epoch,
        state=state,
        release=about,
        reason="a_test",
        line="a test decides",
        evidence=evidence or {},
        policy="c" * 64,
        input_offset=epoch,
        previous=None,
        decided_at=NOW + epoch,
        software="test",
    )


def ledger(**policy: Any) -> Ledger:
    return Ledger(LifecyclePolicy(**policy), LedgerState())


def accept(
    book: Ledger, number: int, *, domain: Domain = "law", imported: bool = False, **changes: Any
) -> list[Effect]:
    """Feed one sound feedback."""
    given = feedback(number, **changes)
    return book.note_feedback(
        given,
        Verdict("counted" if given.correction is None else "accepted"),
        domain=domain,
        release=FIRST,
        is_imported=imported,
        order=LogOrder(NOW + number, number % 4, number),
    )


def begin(book: Ledger, *, parent: str = FIRST, seed: int = 42) -> Run:
    """A run over everything that waits."""
    rows = tuple(TaughtRow(row=item, passage=None) for item in book.state.pending.values())
    run = Run(
        run_id=release_name(f"run {parent} {seed} {[item.row.id for item in rows]}"),
        dataset=release_name("dataset"),
        parent=parent,
        domains=("law",),
        reason="rows",
        rows=rows,
        documents=tuple(book.state.documents.values()),
        offsets=(OffsetRange(topic="feedback", partition=0, first=0, end=1),),
        seed=seed,
        started_at=NOW,
    )
    book.begin_run(run)
    return run


def propose(book: Ledger, name: str, *, parent: str = FIRST) -> str:
    """A run over everything that waits, finished as a release of this name."""
    begin(book, parent=parent)
    release = release_name(name)
    book.finish_run(release, NOW)
    return release


def told(effects: list[Effect]) -> dict[str, str]:
    """Feedback id to last status."""
    return {item.feedback_id: item.status for item in effects if isinstance(item, FeedbackStatus)}


def reasons(effects: list[Effect]) -> dict[str, str | None]:
    return {item.feedback_id: item.reason for item in effects if isinstance(item, FeedbackStatus)}
