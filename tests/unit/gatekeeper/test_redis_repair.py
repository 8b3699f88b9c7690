"""Redis is a cache of the log: what it lost is put back, what an operator wrote by hand is taken in."""

from __future__ import annotations

from services.gatekeeper.core.state import CanaryRun
from tests.histories.script import BOOT, GOOD, History
from twinloop.routing.assignment import assign


def test_a_missing_key_is_restored_above_everything_ever_seen() -> None:
    history = History().begin()
    history.redis("missing", reported=9)
    assert history.last.kind == "restore"
    assert history.last.epoch == 10
    assert history.routing.releases == history.decisions[0].state.releases


def test_a_key_that_went_back_is_restored() -> None:
    history = History().begin()
    history.to_canary()
    history.redis("behind", epoch=1)
    assert (history.last.kind, history.last.reason) == ("restore", "redis_behind")
    assert history.last.epoch == 4


def test_a_key_that_is_merely_being_caught_up_with_is_left_alone() -> None:
    history = History().begin()
    history.redis("behind", epoch=1)
    assert history.kinds == ["genesis"]


def test_a_forged_key_is_overwritten_above_the_epoch_it_claims() -> None:
    history = History().begin()
    history.redis("forged", epoch=77)
    assert history.last.epoch == 78


def test_the_same_loss_seen_twice_is_repaired_once() -> None:
    history = History().begin()
    history.redis("missing")
    history.redis("missing")
    assert history.kinds.count("restore") == 1
    history.applied()
    history.redis("missing")
    assert history.kinds.count("restore") == 2


def test_before_genesis_was_installed_nothing_is_lost() -> None:
    history = History()
    history.begin()
    fresh = History()
    for record in history.records[:3]:
        fresh.write(record.body)
    fresh.redis("missing")
    assert fresh.kinds == ["genesis"]


def test_a_running_canary_goes_on_through_a_restore() -> None:
    history = History({"ramp": {"min_step_s": 5}}).begin()
    history.warm()
    history.to_canary()
    before = history.routing
    history.redis("missing")
    history.applied()
    assert isinstance(history.state.stage, CanaryRun)
    subjects = [f"user-{number}" for number in range(500)]
    assert [assign(history.routing, s).arm for s in subjects] == [assign(before, s).arm for s in subjects]
    history.traffic(100)
    history.blobs()
    assert history.last.kind == "promote"


def test_another_incarnation_is_told_and_not_overwritten() -> None:
    history = History().begin()
    history.redis("foreign", epoch=5, detail="incarnation ffff")
    assert history.kinds == ["genesis"]
    assert "another incarnation" in history.progress[-1].line


def test_a_break_glass_write_is_adopted_with_its_effects() -> None:
    history = History({"ramp": {"min_step_s": 5}}).begin()
    history.warm()
    history.to_promoted()
    by_hand = history.routing.model_copy(
        update={
            "epoch": history.routing.epoch + 3,
            "active": "blue",
            "revoked": (GOOD,),
            "previous": None,
            "decision_id": "by-hand",
            "changed_by": "ada",
            "key_id": "operator-1",
        }
    )
    history.redis("break-glass", epoch=by_hand.epoch, state=by_hand)
    assert (history.last.kind, history.last.epoch) == ("adopt", by_hand.epoch + 1)
    assert history.routing.active_release == BOOT
    assert history.routing.revoked == (GOOD,)
    assert history.state.served == (BOOT,)
    history.redis("break-glass", epoch=by_hand.epoch, state=by_hand)
    assert history.kinds.count("adopt") == 1


def test_a_break_glass_write_ends_a_running_canary() -> None:
    history = History().begin()
    history.to_canary()
    by_hand = history.routing.model_copy(
        update={"epoch": 9, "canary": None, "decision_id": "by-hand", "key_id": "operator-1"}
    )
    history.redis("break-glass", epoch=9, state=by_hand)
    assert history.state.stage is None
    assert history.routing.canary is None


def test_an_old_break_glass_write_is_not_adopted_again() -> None:
    history = History().begin()
    history.to_canary()
    old = history.routing.model_copy(update={"epoch": 1, "decision_id": "by-hand"})
    history.redis("break-glass", epoch=1, state=old)
    assert "adopt" not in history.kinds
