"""The candidate before any user meets it: prepared by the workers, then examined with the QA probes."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.decisions import Progress
from schemas.gate_inputs import ProbeAnswer, ProbeMeasurement, ProbesSent, QaResults
from services.gatekeeper.core.candidates import end_candidate
from services.gatekeeper.core.mirroring import after_examination
from services.gatekeeper.core.readiness import preparedness
from services.gatekeeper.core.state import Examining, Preparing
from services.gatekeeper.core.turn import Turn
from twinloop.statistics.qa import ProbeResult, QaKind, QaVerdict, can_still_pass, judge_exam


def watch_preparing(turn: Turn, stage: Preparing) -> None:
    """Begin the examination once enough workers are ready; give up when they cannot or do not get ready."""
    state, policy = turn.state, turn.policy.readiness
    release = stage.candidate.release
    so_far = preparedness(state, policy, release)
    waited_s = (state.now - stage.since) / 1000
    if so_far.is_enough:
        run = f"qa-{turn.routing.incarnation[:8]}-{turn.routing.epoch}"
        examining = Examining(candidate=stage.candidate, since=state.now, run=run)
        turn.set(stage=examining)
        turn.send_probes(examining)
        _say(
            turn, release, f"prepared: {so_far.line}; QA run {run} begins", needed="results of the QA probes"
        )
    elif waited_s > (policy.hopeless_s if so_far.is_hopeless else policy.timeout_s):
        why = "cannot be reached" if so_far.is_hopeless else f"not reached in {policy.timeout_s:g} s"
        end_candidate(
            turn,
            stage.candidate,
            "returned",
            kind="reject",
            reason="not_ready",
            line=f"{so_far.line}; share {policy.share:.0%} {why}",
            evidence={"silent": list(so_far.silent), "ready": so_far.ready, "live": so_far.live},
        )
    elif turn.is_progress_due:
        _say(
            turn,
            release,
            f"preparing for {waited_s:.0f} s: {so_far.line}",
            needed=f"{policy.share:.0%} ready",
        )


def on_probes_sent(turn: Turn, sent: ProbesSent) -> None:
    """The edge names the probes of this run; the first list counts."""
    stage = turn.state.stage
    if isinstance(stage, Examining) and stage.run == sent.run and stage.sent_at is None:
        update = {"sent_at": turn.state.now, "probe_digest": sent.digest, "probes": dict(sent.probes)}
        turn.set(stage=stage.model_copy(update=update))


def on_qa_results(turn: Turn, results: QaResults) -> None:
    """Keep the first result of each probe, and judge when the last one is here or nothing can be rescued."""
    stage = turn.state.stage
    if not isinstance(stage, Examining):
        return
    answers, measurements = dict(stage.answers), dict(stage.measurements)
    for answer in results.answers:
        if answer.run == stage.run and _is_of(stage, turn, answer):
            answers.setdefault(f"{answer.side}/{answer.probe}", answer)
    for measured in results.measurements:
        if measured.run == stage.run and _is_of(stage, turn, measured):
            measurements.setdefault(f"{measured.side}/{measured.probe}", measured)
    turn.set(stage=stage.model_copy(update={"answers": answers, "measurements": measurements}))
    watch_examining(turn)


def watch_examining(turn: Turn) -> None:
    """Pass, fail or wait; silence ends as failed probes, never as passed ones."""
    stage = turn.state.stage
    if not isinstance(stage, Examining):
        return
    policy = turn.policy
    waited_s = (turn.state.now - stage.since) / 1000
    is_late = waited_s > policy.examination.timeout_s
    expected = sorted(stage.probes)
    results = list(probe_results(stage))
    is_complete = stage.sent_at is not None and len(results) == len(expected) and _pairs_are_in(stage, turn)
    is_lost = stage.sent_at is not None and not can_still_pass(policy.qa, len(expected), results)
    if is_complete or is_late or is_lost:
        left = 0 if is_complete or is_late else len(expected) - len(results)
        _finish(turn, stage, judge_exam(policy.qa, expected, results), cut_short_by=left)
    elif turn.is_progress_due:
        passed = sum(result.is_passed for result in results)
        line = f"QA {len(results)} of {len(expected)} probes back, {passed} passed, {waited_s:.0f} s"
        _say(turn, stage.candidate.release, line, needed=f"{len(expected) - len(results)} more results")


def probe_results(stage: Examining) -> Iterator[ProbeResult]:
    """Answer and measurement of each probe, joined where both are here; a failed answer needs no more."""
    for probe, needs_citation in sorted(stage.probes.items()):
        answer = stage.answers.get(f"candidate/{probe}")
        measured = stage.measurements.get(f"candidate/{probe}")
        if answer is None or measured is None:
            continue
        active = stage.answers.get(f"active/{probe}")
        yield ProbeResult(
            probe_id=probe,
            ok=answer.error is None and measured.error is None,
            correct=answer.as_expected is not False,
            toxic=measured.toxic,
            latency_ms=measured.latency_ms,
            citation_required=needs_citation,
            citation_valid=answer.cites and measured.citation == "valid" if needs_citation else None,
            active_correct=None
            if active is None
            else active.error is None and active.as_expected is not False,
        )


def _is_of(stage: Examining, turn: Turn, row: ProbeAnswer | ProbeMeasurement) -> bool:
    """An answer of another release than the one examined says nothing about it."""
    wanted = stage.candidate.release if row.side == "candidate" else turn.routing.active_release
    return row.release == wanted or (row.release is None and isinstance(row, ProbeAnswer))


def _pairs_are_in(stage: Examining, turn: Turn) -> bool:
    if not turn.policy.examination.paired:
        return True
    return all(f"active/{probe}" in stage.answers for probe in stage.probes)


def _finish(turn: Turn, stage: Examining, verdict: QaVerdict, *, cut_short_by: int) -> None:
    evidence = {**verdict.to_json(), "run": stage.run, "probe_set": stage.probe_digest}
    line = "; ".join(row.line for row in verdict.rows)
    if cut_short_by:
        # Without this a slow start reads like a wrong model: the counts hold probes nobody waited for.
        line += f"; ended early, as it could not pass any more: {cut_short_by} probes without a result count as failed"
    if verdict.kind is QaKind.PASS:
        after_examination(turn, stage.candidate, qa=evidence)
        return
    end_candidate(
        turn,
        stage.candidate,
        "failed" if verdict.kind is QaKind.FAIL and stage.sent_at is not None else "returned",
        kind="reject",
        reason=f"qa_{verdict.reason_code}" if stage.sent_at is not None else "qa_not_begun",
        line=line,
        evidence={"qa": evidence},
    )


def _say(turn: Turn, release: str, line: str, *, needed: str) -> None:
    routing = turn.routing
    turn.progress(
        Progress(
            at=turn.state.now,
            epoch=routing.epoch,
            phase="qa",
            release=release,
            line=line,
            needed=needed[:500],
        )
    )
