"""The read model as documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, Literal, cast

from pydantic import ValidationError

from schemas.decisions import Decision
from schemas.event import DOMAINS, Domain
from schemas.releases import TrainingEvidence
from schemas.routing import RoutingState
from services.api.core.documents import (
    AbTestView,
    CanaryView,
    DomainLearning,
    FeedbackView,
    GatePointView,
    HistoryView,
    KeptKnowledge,
    LagView,
    LetterView,
    PauseView,
    QaView,
    ReleaseView,
    ReviewedFeedback,
    ReviewView,
    SeriesPointView,
    SlotView,
    StatusView,
    WaitingView,
    WishView,
    WorkerView,
    gate_view,
)
from services.api.core.read_model import ReadModel
from services.api.core.swap_rule import missing_evidence
from twinloop.registry.releases import StoredRelease

SHOWN_LETTERS = 20
SHOWN_REVIEWS = 100


def status_view(model: ReadModel, *, now_ms: int, caught_up: bool) -> StatusView:
    state, last = model.state, model.since(_newest(model) - 1)
    line, needed = "", ""
    if last:
        event = last[-1].event
        line, needed = event.line, "" if isinstance(event, Decision) else event.needed
    paused = model.paused
    return StatusView(
        at=now_ms,
        caught_up=caught_up,
        incarnation=state.incarnation if state else None,
        epoch=state.epoch if state else 0,
        phase=state.phase if state else None,
        active=SlotView(slot=state.active, release=state.active_release) if state else None,
        shadow=SlotView(slot=state.shadow, release=state.shadow_release) if state else None,
        previous=state.previous if state else None,
        revoked=state.revoked if state else (),
        canary_share=_share(state),
        mirror_share=state.mirror.basis_points / 10_000 if state and state.mirror else 0.0,
        candidate=model.candidate,
        line=line,
        needed=needed,
        paused=PauseView(line=paused.line, since=paused.decided_at) if paused else None,
        open_changes=sum(
            each.status is not None and each.status.stage == "open" for each in model.changes.newest_first()
        ),
        waiting=WaitingView(approval=_approval(model), forced=_wish(model), feedback=model.quarantined_ever),
        workers=tuple(_workers(model)),
        feedback=FeedbackView(
            statuses=cast(Any, {name: n for name, n in sorted(model.statuses.items()) if n}),
            refusals=dict(sorted(model.refusals.items(), key=lambda item: (-item[1], item[0]))),
        ),
        lag=tuple(LagView(**asdict(each)) for each in model.lag),
        dead_letters=model.letter_counts.total(),
        dead_letter_topics=dict(sorted(model.letter_counts.items())),
        recent_dead_letters=tuple(
            LetterView(**asdict(each)) for each in list(model.letters)[-SHOWN_LETTERS:][::-1]
        ),
    )


def canary_view(model: ReadModel, *, points: int) -> CanaryView:
    series, state = model.canary, model.state
    is_running = series.release is not None and series.ended is None
    return CanaryView(
        release=series.release,
        running=is_running,
        share=_share(state) if is_running else 0.0,
        started_at=series.started.decided_at if series.started else None,
        line=series.last.line if series.last else (series.started.line if series.started else ""),
        needed=series.last.needed if series.last and is_running else "",
        gates=tuple(gate_view(gate) for gate in series.last.gates) if series.last else (),
        series=tuple(
            SeriesPointView(
                at=point.at,
                gates={name: GatePointView(**asdict(gate)) for name, gate in point.gates.items()},
            )
            for point in series.points[max(0, len(series.points) - points) :]
        ),
        ended=series.ended,
    )


def ab_test_view(model: ReadModel, *, limit: int) -> AbTestView:
    series, state = model.ab_test, model.state
    started = series.started.evidence if series.started else {}
    is_running = series.release is not None and series.ended is None
    decisions = (cast(Decision, each.event) for each in reversed(model.decisions))
    units, active = started.get("units"), started.get("active")
    return AbTestView(
        release=series.release,
        running=is_running,
        active=active if isinstance(active, str) else None,
        share=_share(state) if is_running else 0.0,
        units=units if isinstance(units, int) else None,
        started_at=series.started.decided_at if series.started else None,
        line=series.last.line if series.last else (series.started.line if series.started else ""),
        needed=series.last.needed if series.last and is_running else "",
        gates=tuple(gate_view(gate) for gate in series.last.gates) if series.last else (),
        reports=tuple(islice((each for each in decisions if each.kind == "ab_end"), limit)),
    )


def qa_view(model: ReadModel) -> QaView:
    state, judged = model.state, model.examined
    is_running = state is not None and state.phase == "qa"
    said = [each.event for each in model.progress if each.event.line.startswith(("QA", "prepar", "mirror"))]
    qa = judged.evidence.get("qa") if judged else None
    rows = qa.get("rows", []) if isinstance(qa, dict) else []
    return QaView(
        running=is_running,
        release=model.candidate if is_running else judged.release if judged else None,
        line=said[-1].line if said and is_running else (judged.line if judged else ""),
        rows=tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else (),
        judged=judged,
    )


def history_view(model: ReadModel, *, limit: int, before: int | None) -> HistoryView:
    decisions = [cast(Decision, each.event) for each in reversed(model.decisions)]
    older = [each for each in decisions if before is None or each.epoch < before]
    shown = older[:limit]
    return HistoryView(
        decisions=tuple(shown), before=shown[-1].epoch if shown and len(older) > len(shown) else None
    )


def review_view(model: ReadModel) -> ReviewView:
    newest = list(model.quarantined)[-SHOWN_REVIEWS:][::-1]
    return ReviewView(
        approval=_approval(model),
        forced=_wish(model),
        feedback=tuple(
            ReviewedFeedback(
                feedback_id=each.feedback.id,
                query_id=each.feedback.query_id,
                rater=each.feedback.rater,
                reason=each.reason,
                detector=each.detector,
                at=each.at,
                question=each.feedback.question,
                correction=each.feedback.correction,
            )
            for each in newest
        ),
        feedback_total=model.quarantined_ever,
    )


def _approval(model: ReadModel) -> str | None:
    """The candidate that lacks nothing but an approver's word."""
    state, last = model.state, model.canary.last
    in_canary = state is not None and state.phase == "canary" and last is not None
    asks = in_canary and "approver" in cast(Any, last).needed and not missing_evidence(model)
    return model.candidate if asks else None


def _wish(model: ReadModel) -> WishView | None:
    wish = model.wish
    return WishView(actor=wish.actor, release=wish.release, at=wish.at) if wish else None


def named_releases(model: ReadModel) -> list[str]:
    """Every release that was proposed or decided about, newest proposal first, each once."""
    decided = [each.event for each in model.decisions]
    named = [*model.proposals, *(r for d in decided if isinstance(d, Decision) for r in d.state.resident)]
    first_seen = dict.fromkeys([*reversed(list(model.proposals)), *named])
    return list(first_seen)


def release_views(model: ReadModel, stored: Mapping[str, StoredRelease]) -> list[ReleaseView]:
    """One view a release; those never proposed on the topic are described by what the store holds, if anything."""
    views = []
    for name in named_releases(model):
        proposal = model.proposals.get(name)
        kept = stored.get(name)
        evidence = proposal.evidence if proposal else kept.evidence if kept else None
        release = proposal.release if proposal else kept.release if kept else None
        views.append(
            ReleaseView(
                release=name,
                parent=release.parent if release else None,
                roles=tuple(_roles(model.state, name)),
                outcome=model.outcomes.get(name, "waiting" if proposal else "first release"),
                made_at=evidence.finished_at if evidence else None,
                proposed_by=proposal.proposed_by if proposal else "",
                domains=_learning(evidence) if evidence else {},
                forgetting=_forgetting(evidence) if evidence else (),
                problems=evidence.problems if evidence else (),
            )
        )
    return views


def _learning(evidence: TrainingEvidence) -> dict[Domain, DomainLearning]:
    by_domain = evidence.metrics.get("domains")
    measured = by_domain if isinstance(by_domain, dict) else {}
    touched = [d for d in DOMAINS if d in measured or evidence.rows.get(d) or evidence.documents.get(d)]
    return {domain: _domain(evidence, domain, measured.get(domain)) for domain in touched}


def _forgetting(evidence: TrainingEvidence) -> tuple[KeptKnowledge, ...]:
    """The matrix as the trainer wrote it; a row that is none of ours is left out, for evidence has no schema."""
    rows = evidence.metrics.get("forgetting")
    found = []
    for row in rows if isinstance(rows, list) else ():
        try:
            found.append(KeptKnowledge.model_validate(row))
        except ValidationError:
            continue
    return tuple(found)


def _domain(evidence: TrainingEvidence, domain: Domain, measured: object) -> DomainLearning:
    values = measured if isinstance(measured, dict) else {}

    def share(name: str) -> float | None:
        value = values.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    return DomainLearning(
        rows=evidence.rows.get(domain, 0),
        documents=evidence.documents.get(domain, 0),
        new=share("gate_exact_match"),
        kept_before=share("replay_exact_match_before"),
        kept_after=share("replay_exact_match"),
        general_before=share("general_exact_match_before"),
        general_after=share("general_exact_match_after"),
    )


def _roles(
    state: RoutingState | None, release: str
) -> Iterable[Literal["active", "shadow", "previous", "revoked"]]:
    if state is None:
        return
    if release == state.active_release:
        yield "active"
    if release == state.shadow_release:
        yield "shadow"
    if release == state.previous:
        yield "previous"
    if release in state.revoked:
        yield "revoked"


def _workers(model: ReadModel) -> Iterable[WorkerView]:
    for name, said in sorted(model.workers.items()):
        yield WorkerView(
            worker=name,
            service=said.service,
            slot=said.slot,
            epoch=said.epoch,
            releases=said.releases,
            problems=said.problems,
            said_at=said.at,
            stopping=said.stopping,
        )


def _share(state: RoutingState | None) -> float:
    return state.canary.basis_points / 10_000 if state and state.canary else 0.0


def _newest(model: ReadModel) -> int:
    return max((log[-1].offset for log in (model.decisions, model.progress) if log), default=-1)
