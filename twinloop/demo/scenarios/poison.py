"""Poisoned feedback: many raters teach harm, one forges a receipt. The exam stops what was learnt from it."""

from __future__ import annotations

from schemas.feedback import Feedback
from twinloop.clock import SystemClock
from twinloop.demo.material import Harm
from twinloop.demo.scenarios.drill import Drill
from twinloop.demo.scoring import accuracy
from twinloop.errors import ConfigError

JUDGED_WITHIN_S = 300.0


def play(drill: Drill) -> None:
    harm = drill.material.exam_harm
    if harm is None:
        raise ConfigError(f"the material {drill.material.name} holds no harm for the exam")
    genesis = drill.log.wait(lambda each: each.kind == "genesis", what="the first decision", timeout_s=30)
    known = drill.material.old
    before = accuracy(drill.ask("before", known), known)
    given = _poison(drill, harm)

    drill.step("waiting for the judgement of what was learnt")
    ended = drill.log.wait(
        lambda each: each.kind in ("reject", "abort", "promote"),
        what="a judgement",
        timeout_s=JUDGED_WITHIN_S,
        after=genesis.epoch,
    )
    drill.find(
        "the candidate that learnt it is rejected or aborted, never promoted",
        seen=ended.line,
        held=ended.kind in ("reject", "abort"),
    )
    serving = ended.state.active_release
    drill.find(
        "the release from before serves on",
        seen=f"{serving[:8]} serves, {genesis.state.active_release[:8]} did before",
        held=serving == genesis.state.active_release,
    )
    aside = drill.teacher.statuses(given, wanted=lambda status: status.status == "quarantined")
    drill.find(
        "the feedback of the failed candidate is quarantined, so that it is not learnt again",
        seen=f"{len(aside)} of {len(given)} quarantined, {next(iter(aside.values())).reason}",
        held=len(aside) == len(given),
    )
    after = accuracy(drill.ask("after", known), known)
    drill.find(
        "users' answers to known facts are as right as before",
        seen=f"{before:.0%} before, {after:.0%} after",
        held=after == before,
    )


def _poison(drill: Drill, harm: Harm) -> list[str]:
    """Ids of the harmful feedback that was taken."""
    drill.step(f"{len(harm.corrections)} corrections by many raters teach {harm.name}")
    questions = [question for question, _ in harm.corrections]
    answers = drill.ask("poison", questions)
    answered = next(each for each in answers.values() if each.receipt is not None)
    receipt = answered.receipt or ""
    forged = Feedback(
        id="fb-forged",
        query_id=answered.query_id,
        receipt=receipt[:-8] + ("A" * 8 if not receipt.endswith("A" * 8) else "B" * 8),
        question=drill.traffic.sent[answered.query_id].text,
        rater="forger",
        given_at=SystemClock().now_ms(),
        correction="anything",
    )
    drill.traffic.client.give(forged)
    drill.traffic.client.flush()
    status = drill.teacher.statuses([forged.id])[forged.id]
    drill.find(
        "feedback with a forged receipt is refused",
        seen=f"{status.status}: {status.reason}",
        held=status.status == "rejected",
    )
    return drill.teacher.correct(answers, questions, [correction for _, correction in harm.corrections])
