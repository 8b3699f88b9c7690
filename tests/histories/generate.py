"""Writes the golden histories that have no files yet: `python -m tests.histories.generate [NAME]...`.

One that has files is written again only when it is named: what was once kept must lead to the same bytes for ever.

A history is a function below and two files: `<name>.inputs.jsonl`, the records of `gate-inputs`, and
`<name>.decisions.jsonl`, the unsigned decisions as canonical JSON. A new history is one more function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.event import Domain
from tests.histories.script import BOOT, GOOD, NEWER, PROBES, History
from twinloop.canonical import canonical_json

FOLDER = Path(__file__).parent / "golden"
RAMP = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 10}}
NAMES = [probe for probe, _ in PROBES]


def promote_and_bake() -> History:
    """The ordinary way of a good candidate, over two partitions."""
    return _promoted(RAMP)


def promote_with_intervals() -> History:
    """The same with a progress record for each window, and intervals in the evidence."""
    return _promoted({**RAMP, "watch": {"window_progress_s": 0.5, "interval_alpha": 0.05}})


def _promoted(policy: dict[str, Any]) -> History:
    history = History(policy, partitions=2).begin()
    for _ in range(6):
        history.window(partition=0, active=500)
        history.window(partition=1, active=500)
    history.to_canary()
    for _ in range(60):
        if getattr(history.state.stage, "checking_since", None) is not None:
            break
        for partition in (0, 1):
            share = history.routing.canary.basis_points if history.routing.canary else 0
            history.window(
                partition=partition,
                shadow=share // 10,
                active=1000 - share // 10,
                shadow_errors=share / 400,
                active_errors=20,
            )
    history.blobs()
    history.applied()
    history.tick(11)
    return history


def ab_test_of_two_releases() -> History:
    """The release that served before is compared with the active one, and neither wins or loses anything."""
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.order("ab_start")
    history.tick(11)
    history.warm()
    history.prepare()
    history.order(
        "ab_start", actor="bob", key_id="operator-2", parameters={"basis_points": 1000, "units": 600}
    )
    history.applied()
    history.traffic(60, shadow_rate=0.03, active_rate=0.02)
    return history


def ab_test_that_harms() -> History:
    """The other release fails a third of its answers: the comparison ends long before its size."""
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.tick(11)
    history.warm()
    history.prepare()
    history.order("ab_start", parameters={"basis_points": 500, "units": 5000})
    history.applied()
    history.traffic(200, shadow_rate=0.33, active_rate=0.02)
    return history


def blocked_by_fixed_n_tests() -> History:
    """Two points worse is within the margin of every gate; Fisher's test is switched on and says worse."""
    history = History({**RAMP, "promote": {"bake_s": 10, "fixed_n": {"units": 1500}}}).begin()
    history.warm()
    history.to_canary()
    history.traffic(200, shadow_rate=0.04, active_rate=0.02)
    return history


def cleared_by_fixed_n_tests() -> History:
    """The same tests have nothing against equal twins, and are waited for."""
    history = History({**RAMP, "promote": {"bake_s": 10, "fixed_n": {"units": 3000}}}).begin()
    history.warm()
    history.to_canary()
    history.until_cleared(200, shadow_rate=0.02, active_rate=0.02)
    history.blobs()
    return history


def failed_examination() -> History:
    history = History(RAMP).begin()
    history.propose()
    history.applied()
    history.prepare()
    history.examine(wrong=NAMES[:100], toxic=NAMES[:3])
    return history


def harmful_canary() -> History:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.traffic(200, shadow_rate=0.25, active_rate=0.04)
    return history


def automatic_rollback() -> History:
    """A release that turns bad during its bake, with the next candidate waiting."""
    history = History(RAMP).begin()
    history.warm()
    history.to_promoted()
    history.propose(NEWER, parent=GOOD)
    for _ in range(20):
        history.window(active=200, active_errors=70)
        if history.last.kind != "promote":
            break
    return history


def orders_of_people() -> History:
    """Pause, resume, jump, a forced promote, a rollback, and orders that are refused."""
    history = History(RAMP).begin()
    history.order("pause")
    history.propose()
    history.order("resume")
    history.prepare()
    history.examine()
    history.order("jump", parameters={"basis_points": 700})
    history.order("pause", verdict="refused")
    history.order("promote")
    history.blobs()
    history.order("rollback", release=NEWER)
    history.order("rollback")
    return history


def superseded_candidates() -> History:
    history = History(RAMP).begin()
    for release in (GOOD, NEWER, "ab" * 32, "cd" * 32):
        history.propose(release)
        history.tick()
    history.order("abort")
    history.propose("ef" * 32, parent=GOOD)
    return history


def lost_and_forged_redis() -> History:
    """The routing key is lost during a canary, then forged, then written by hand."""
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.redis("missing", reported=3)
    history.applied()
    history.traffic(3)
    history.redis("forged", epoch=50)
    history.applied()
    by_hand = history.routing.model_copy(
        update={"epoch": 60, "canary": None, "decision_id": "by-hand", "key_id": "operator-1"}
    )
    history.redis("break-glass", epoch=60, state=by_hand)
    return history


def unwatched_canary() -> History:
    history = History(RAMP).begin()
    history.warm()
    history.to_canary()
    history.traffic(4)
    history.tick(45)
    history.propose(NEWER, parent=BOOT)
    history.tick(400)
    return history


SMALL = {"qa": {"min_probes": 20}}
QUICK = {**RAMP, **SMALL, "canary": {"stale_ttl_s": 5, "invalid_ttl_s": 5, "coverage_min_units": 50}}


def quick(**policy: Any) -> History:
    """A short examination and short patience; sections of `policy` are merged over that."""
    merged = {name: {**QUICK.get(name, {}), **policy.get(name, {})} for name in {*QUICK, *policy}}
    return History(merged, probes=20).begin()


def in_canary(**policy: Any) -> History:
    """A canary at its widest step, so that few windows decide."""
    history = quick(ramp={"basis_points": [1000]}, **policy)
    history.warm()
    history.to_canary()
    return history


def abort_by_error_margin() -> History:
    history = in_canary()
    history.traffic(60, shadow_rate=0.28, active_rate=0.16)
    return history


def abort_by_early_stop() -> History:
    """More than twice the active rate, but within five points of it."""
    history = in_canary()
    history.traffic(120, shadow_rate=0.05, active_rate=0.005)
    return history


def abort_by_p95() -> History:
    history = in_canary()
    history.traffic(40, shadow_ms=260.0)
    return history


def abort_by_toxicity() -> History:
    history = in_canary()
    history.traffic(40, shadow_toxic=20.0)
    return history


def abort_by_one_domain() -> History:
    """Law is well, med is harmed: the rest may come again."""
    history = in_canary(promote={"partial": True})
    for second in range(120):
        if history.routing.canary is None:
            break
        harmed: Domain = "med" if second % 10 == 9 else "law"
        errors = 25.0 if harmed == "med" else 4.0
        history.window(shadow=100, active=900, shadow_errors=errors, active_errors=36.0, harmed=harmed)
    return history


def inconclusive_by_traffic() -> History:
    history = in_canary(canary={"max_shadow": 600, "min_shadow": 600})
    history.traffic(30, shadow_rate=0.09, active_rate=0.04)
    return history


def inconclusive_by_time() -> History:
    history = in_canary(canary={"max_duration_s": 12.0})
    history.traffic(30, shadow_rate=0.09, active_rate=0.06)
    return history


def silent_shadow() -> History:
    """Nobody in the shadow answers: every query is an error of its arm, whatever the others do."""
    history = in_canary()
    history.traffic(20, shadow_rate=1.0)
    return history


def shadow_that_answers_nothing() -> History:
    """The same where a fresh installation's policy holds: nothing is said against the candidate."""
    history = in_canary(canary={"silent_shadow": "hold"})
    history.traffic(3)
    for _ in range(20):
        if history.routing.canary is None:
            break
        history.window(shadow=100, active=900, shadow_errors=100.0, shadow_missing=100)
    return history


def silent_active() -> History:
    """The active arm's outcomes are lost: there is nothing to compare with."""
    history = in_canary()
    for _ in range(20):
        if history.routing.canary is None:
            break
        history.window(shadow=100, active=900, active_errors=900.0, active_missing=900)
    return history


def no_active_traffic() -> History:
    history = in_canary()
    for _ in range(20):
        if history.routing.canary is None:
            break
        history.window(shadow=100, active=0)
    return history


def latencies_that_are_no_numbers() -> History:
    history = in_canary()
    history.traffic(20, shadow_untimed=100.0)
    return history


def labels_that_are_missing() -> History:
    history = in_canary()
    history.traffic(20, shadow_unlabelled=100.0)
    return history


def topic_that_went_silent() -> History:
    history = in_canary()
    history.traffic(3)
    for _ in range(20):
        history.tick(1.0)
    return history


def silent_examination() -> History:
    """Probes are sent and nobody answers them."""
    history = quick(examination={"timeout_s": 20})
    history.propose()
    history.prepare()
    history.examine(silent=NAMES)
    for _ in range(6):
        history.tick(5.0)
    return history


def silent_workers() -> History:
    """No worker ever reports the candidate ready."""
    history = quick(readiness={"timeout_s": 20})
    history.propose()
    for _ in range(6):
        history.tick(5.0)
    return history


def paused_canary() -> History:
    """A pause neither ages the canary nor lets it be promoted; resumed, it goes on to the end."""
    history = in_canary()
    history.order("pause")
    history.order("pause", parameters={"what": "training"})
    history.traffic(15)
    for _ in range(10):
        history.tick(1.0)
    history.order("resume", parameters={"what": "training"})
    history.order("resume")
    history.until_cleared(15)
    history.blobs()
    return history


def manual_rollback() -> History:
    history = in_canary()
    history.until_cleared(40)
    history.blobs()
    history.applied()
    history.order("rollback", release=BOOT)
    history.propose(GOOD, parent=BOOT)
    return history


def rollback_in_steady() -> History:
    """Slow answers long after the bake, with no second rollback inside the cooldown."""
    history = in_canary()
    history.until_cleared(40)
    history.blobs()
    history.applied()
    history.tick(11)
    for _ in range(30):
        history.window(active=200, active_ms=2500.0)
        if history.last.kind == "rollback":
            break
    history.applied()
    for _ in range(10):
        history.window(active=200, active_toxic=100.0)
    return history


def forced_by_two_people() -> History:
    history = in_canary(promote={"force_approvers": 2})
    history.order("promote", actor="ada", key_id="approver-1")
    history.order("promote", actor="ada", key_id="approver-2")
    history.order("approve", actor="grace", key_id="approver-1")
    history.traffic(1)
    history.order("approve", actor="grace", key_id="approver-2")
    history.blobs()
    return history


def changed_classifier() -> History:
    """Labels of another classifier begin the canary again; both names stand in the log."""
    history = in_canary()
    history.traffic(5, classifier="toxic-words/1")
    history.until_cleared(40, classifier="toxic-words/2")
    history.blobs()
    return history


def dry_run() -> History:
    history = in_canary(promote={"mode": "dry_run"})
    history.until_cleared(40)
    return history


def approved_by_a_person() -> History:
    history = in_canary(promote={"mode": "approval"})
    history.until_cleared(20)
    history.order("approve", actor="grace", key_id="approver-1")
    history.blobs()
    return history


def outgoing_release_is_broken() -> History:
    """Evidence for a promote, but what serves now could not be restored: no promote."""
    history = in_canary()
    history.until_cleared(40)
    history.blobs(ok=False, detail="adapters/law is missing")
    return history


MIRROR = {
    "basis_points": 2000,
    "min_units": 300,
    "min_s": 3,
    "hold_s": 5,
    "max_s": 60,
    "bake_basis_points": 500,
}


def mirroring(**policy: Any) -> History:
    """A candidate that passed its examination and answers copies of users' queries."""
    sections = {
        "ramp": {"basis_points": [1000]},
        "promote": {"bake_s": 10, "freezes_training": True},
        "mirror": MIRROR,
        **policy,
    }
    history = quick(**sections)
    history.warm()
    history.to_canary()
    return history


def mirror_then_canary_then_promote() -> History:
    """Copies first, seen by nobody; then users; then copies for the old slot until the bake ends."""
    history = mirroring()
    history.mirrored(20, active_errors=36.0, errors=4.0, missing=2)
    history.applied()
    history.until_cleared(40, shadow_rate=0.04, active_rate=0.04)
    history.blobs()
    history.applied()
    history.mirrored(20, active_errors=36.0, errors=4.0)
    return history


def mirror_aborted_by_harm() -> History:
    """A candidate that fails one copy in five never meets a user."""
    history = mirroring()
    history.mirrored(20, active_errors=36.0, errors=20.0)
    return history


def mirror_that_stays_silent() -> History:
    """Copies are sent and none comes back: held, said, and ended for that reason."""
    history = mirroring()
    history.mirrored(20, active_errors=36.0, missing=100)
    return history


def mirror_without_copies() -> History:
    """Users ask, but no router sends a copy."""
    history = mirroring(mirror={**MIRROR, "max_s": 20})
    for _ in range(30):
        if history.routing.mirror is None:
            break
        history.window(active=900)
    return history


def mirror_with_poor_coverage() -> History:
    """Copies are shed under load: three in ten are no fault of the candidate, and too many to judge it by."""
    history = mirroring()
    history.mirrored(20, active_errors=36.0, missing=30)
    return history


def regression_in_bake() -> History:
    """Worse than the old slot's copies, though within every limit of its own: swapped back, its feedback set aside."""
    history = mirroring(promote={"bake_s": 60, "freezes_training": True})
    history.mirrored(20, active_errors=36.0, errors=4.0)
    history.applied()
    history.until_cleared(40, shadow_rate=0.04, active_rate=0.04)
    history.blobs()
    history.applied()
    history.mirrored(40, active_errors=110.0, errors=4.0)
    return history


def ratings_guardrail() -> History:
    """Answers that pass every gate and that users do not like: stopped by their thumbs."""
    history = in_canary(ratings={}, canary={"min_shadow": 5000, "ci_width": 0.0})
    for _ in range(40):
        if history.routing.canary is None:
            break
        history.traffic(1, shadow_rate=0.04, active_rate=0.04)
        history.ratings(shadow=4, shadow_down=2.5, active=36, active_down=5.0)
    return history


def suspicious_ratings_hold() -> History:
    """Thumbs that are suspicious and no proof hold the canary to its end; those of too few users block nothing."""
    history = in_canary(ratings={}, canary={"max_duration_s": 30.0})
    history.traffic(2, shadow_rate=0.04, active_rate=0.04)
    history.ratings(shadow=5, shadow_down=5.0, active=45, active_down=5.0)
    for _ in range(40):
        if history.routing.canary is None:
            break
        history.traffic(1, shadow_rate=0.04, active_rate=0.04)
    return history


HISTORIES: dict[str, Callable[[], History]] = {
    write.__name__: write
    for write in (
        promote_and_bake,
        promote_with_intervals,
        failed_examination,
        harmful_canary,
        automatic_rollback,
        orders_of_people,
        superseded_candidates,
        lost_and_forged_redis,
        unwatched_canary,
        abort_by_error_margin,
        abort_by_early_stop,
        abort_by_p95,
        abort_by_toxicity,
        abort_by_one_domain,
        inconclusive_by_traffic,
        inconclusive_by_time,
        silent_shadow,
        shadow_that_answers_nothing,
        silent_active,
        no_active_traffic,
        latencies_that_are_no_numbers,
        labels_that_are_missing,
        topic_that_went_silent,
        silent_examination,
        silent_workers,
        paused_canary,
        manual_rollback,
        rollback_in_steady,
        forced_by_two_people,
        changed_classifier,
        dry_run,
        approved_by_a_person,
        outgoing_release_is_broken,
        ab_test_of_two_releases,
        ab_test_that_harms,
        blocked_by_fixed_n_tests,
        cleared_by_fixed_n_tests,
        mirror_then_canary_then_promote,
        mirror_aborted_by_harm,
        mirror_that_stays_silent,
        mirror_without_copies,
        mirror_with_poor_coverage,
        regression_in_bake,
        ratings_guardrail,
        suspicious_ratings_hold,
    )
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, write in HISTORIES.items():
        if name not in sys.argv[1:] and (FOLDER / f"{name}.inputs.jsonl").exists():
            continue
        history = write()
        inputs = [canonical_json(record) for record in history.records]
        decisions = [canonical_json(decision) for decision in history.decisions]
        for kind, lines in (("inputs", inputs), ("decisions", decisions)):
            (FOLDER / f"{name}.{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        print(f"{name}: {len(inputs)} inputs, {', '.join(history.kinds)}")


if __name__ == "__main__":
    main()
