"""Writes the golden histories: `python -m tests.histories.generate` (only when decisions change on purpose).

A history is a function below and two files: `<name>.inputs.jsonl`, the records of `gate-inputs`, and
`<name>.decisions.jsonl`, the unsigned decisions as canonical JSON. A new history is one more function.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.histories.script import BOOT, GOOD, NEWER, PROBES, History
from twinloop.canonical import canonical_json

FOLDER = Path(__file__).parent / "golden"
RAMP = {"ramp": {"min_step_s": 5}, "promote": {"bake_s": 10}}
NAMES = [probe for probe, _ in PROBES]


def promote_and_bake() -> History:
    """The ordinary way of a good candidate, over two partitions."""
    history = History(RAMP, partitions=2).begin()
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


HISTORIES: dict[str, Callable[[], History]] = {
    write.__name__: write
    for write in (
        promote_and_bake,
        failed_examination,
        harmful_canary,
        automatic_rollback,
        orders_of_people,
        superseded_candidates,
        lost_and_forged_redis,
        unwatched_canary,
    )
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, write in HISTORIES.items():
        history = write()
        inputs = [canonical_json(record) for record in history.records]
        decisions = [canonical_json(decision) for decision in history.decisions]
        for kind, lines in (("inputs", inputs), ("decisions", decisions)):
            (FOLDER / f"{name}.{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        print(f"{name}: {len(inputs)} inputs, {', '.join(history.kinds)}")


if __name__ == "__main__":
    main()
