"""Classical tests as one more gate: switched on by the policy, made once, able to block and to do nothing else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.gatekeeper.core.policy import GatePolicy
from tests.histories.script import History


def canary(units: int | None, **promote: object) -> History:
    gate = {} if units is None else {"fixed_n": {"units": units}}
    history = History({"ramp": {"min_step_s": 5}, "promote": {**gate, **promote}}).begin()
    history.warm()
    history.to_canary()
    return history


def test_a_shadow_within_every_margin_may_be_blocked_by_them() -> None:
    """The same traffic is promoted without the gate."""
    free, gated = canary(None), canary(1500)
    for history in (free, gated):
        history.until_cleared(200, shadow_rate=0.04, active_rate=0.02)
        history.blobs()
    assert free.last.kind == "promote"
    assert (gated.last.kind, gated.last.reason) == ("abort", "fixed_n")
    assert gated.last.evidence["outcome"] == "returned"
    assert gated.routing.revoked == ()


def test_they_are_waited_for_and_made_once() -> None:
    history = canary(3000)
    history.until_cleared(30)
    assert getattr(history.state.stage, "checking_since", None) is None
    assert any("fixed-n tests at 3000 shadow units" in each.needed for each in history.progress)
    history.until_cleared(100)
    history.blobs()
    assert history.last.kind == "promote"
    fixed_n = history.last.evidence["fixed_n"]
    assert isinstance(fixed_n, dict)
    assert fixed_n["objections"] == []
    assert fixed_n["label"] == "may only block"
    assert 3000 <= int(fixed_n["n_s"]) <= 3100  # type: ignore[arg-type]


def test_they_promote_nothing_that_the_gates_hold() -> None:
    """Five points worse is the edge of the margin: the tests are made, and the canary is held or stopped."""
    history = canary(100)
    history.traffic(150, shadow_rate=0.15, active_rate=0.02)
    assert history.last.kind == "abort"


def test_an_approver_may_force_a_promotion_before_the_tests() -> None:
    history = canary(20_000)
    history.traffic(5)
    history.order("promote", key_id="approver-1")
    history.blobs()
    assert history.last.kind == "promote"


def test_without_the_key_the_policy_is_the_one_it_was() -> None:
    assert "fixed_n" not in GatePolicy().model_dump(mode="json")["promote"]
    assert GatePolicy.model_validate({"promote": {"fixed_n": {}}}).digest != GatePolicy().digest


@pytest.mark.parametrize(
    ("fixed_n", "named"),
    [({"units": 50}, "units"), ({"alpha": 1.0}, "alpha"), ({"units": 30_000}, "max_shadow")],
)
def test_a_gate_that_cannot_work_is_refused(fixed_n: dict[str, float], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GatePolicy.model_validate({"promote": {"fixed_n": fixed_n}})
