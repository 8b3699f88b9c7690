from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Purpose
from schemas.routing import RoutingState
from tests.unit.routing.states import A, B, C, canary, state
from twinloop.routing.assignment import assign
from twinloop.routing.fence import Forward, Keep, Refuse, Verdict, fence, is_affected
from twinloop.routing.stamp import Stamp, stamp_of


def stamped(decided: RoutingState, subject: str = "alice", purpose: Purpose = "user", hops: int = 0) -> Stamp:
    first = stamp_of(assign(decided, subject), domain="gen", purpose=purpose, origin=0, assigned_at=5)
    for _ in range(hops):
        first = first.forwarded(assign(decided, subject), domain="gen", unconfirmed=False)
    return first


def judged(stamp: Stamp, seen: RoutingState, *, subject: str = "alice", opt_out: bool = False) -> Verdict:
    return fence(stamp, seen, subject=subject, opt_out=opt_out, max_hops=3)


def test_the_same_epoch_keeps_the_query() -> None:
    assert judged(stamped(state(1)), state(1)) == Keep()


def test_a_newer_epoch_that_changes_nothing_for_the_subject_keeps_it() -> None:
    assert judged(stamped(state(1)), state(2, phase="qa")) == Keep()


def test_after_a_swap_a_query_of_the_old_epoch_is_forwarded_to_where_it_belongs_now() -> None:
    swapped = state(2, active="green", previous=A)
    assert judged(stamped(state(1)), swapped) == Forward(assign(swapped, "alice"))


def test_after_an_abort_a_canary_query_goes_back_to_the_active_slot() -> None:
    during = state(1, canary=canary(1000))
    subject = next(f"user-{n}" for n in range(1000) if assign(during, f"user-{n}").arm == "shadow")
    after = state(2, releases={"blue": A, "green": C}, revoked=(B,))
    verdict = judged(stamped(during, subject), after, subject=subject)
    assert verdict == Forward(assign(after, subject))


def test_opting_out_counts_when_a_query_is_assigned_anew() -> None:
    later = state(2, canary=canary(1000))
    subject = next(f"user-{n}" for n in range(1000) if assign(later, f"user-{n}").arm == "shadow")
    assert isinstance(judged(stamped(state(1), subject), later, subject=subject), Forward)
    assert judged(stamped(state(1), subject), later, subject=subject, opt_out=True) == Keep()


def test_an_older_state_never_overrules_a_newer_stamp() -> None:
    assert judged(stamped(state(5, active="green")), state(4)) == Keep()


def test_past_the_bound_a_query_ends_instead_of_wandering() -> None:
    swapped = state(2, active="green")
    assert isinstance(judged(stamped(state(1), hops=2), swapped), Forward)
    assert judged(stamped(state(1), hops=3), swapped) == Refuse("rerouted")


@pytest.mark.parametrize("purpose", ["qa", "mirror"])
def test_probes_and_copies_bypass_assignment(purpose: Purpose) -> None:
    assert judged(stamped(state(1), purpose=purpose), state(2, active="green")) == Keep()


@pytest.mark.parametrize("purpose", ["qa", "mirror"])
def test_nothing_bypasses_revocation(purpose: Purpose) -> None:
    revoking = state(2, active="green", revoked=(A,), releases={"blue": C, "green": B})
    assert judged(stamped(state(1), purpose=purpose), revoking) == Refuse("revoked")


epochs = st.integers(1, 5)


@st.composite
def states(draw: st.DrawFn) -> RoutingState:
    active = draw(st.sampled_from(["blue", "green"]))
    releases = {"blue": draw(st.sampled_from([A, B, C])), "green": draw(st.sampled_from([A, B, C]))}
    shadow = "green" if active == "blue" else "blue"
    revoked = draw(st.sets(st.sampled_from([A, B, C]))) - {releases[active]}
    wants = draw(st.booleans()) and releases[shadow] not in revoked
    share = canary(draw(st.integers(1, 1000)), slot=shadow) if wants else None
    return state(draw(epochs), active=active, releases=releases, revoked=tuple(sorted(revoked)), canary=share)


@given(states(), states(), st.sampled_from(["user", "qa", "mirror"]), st.integers(0, 4), st.text(min_size=1))
def test_a_revoked_release_never_answers(
    decided: RoutingState, seen: RoutingState, purpose: Purpose, hops: int, subject: str
) -> None:
    stamp = stamped(decided, subject, purpose, hops)
    verdict = judged(stamp, seen, subject=subject)
    if isinstance(verdict, Keep):
        assert stamp.release not in seen.revoked
    if isinstance(verdict, Forward):
        assert verdict.assignment.release not in seen.revoked
        assert verdict.assignment.epoch >= stamp.epoch


@given(states(), states(), st.text(min_size=1))
def test_what_is_kept_under_a_newer_epoch_is_where_it_belongs(
    decided: RoutingState, seen: RoutingState, subject: str
) -> None:
    stamp = stamped(decided, subject)
    if seen.epoch > decided.epoch and isinstance(judged(stamp, seen, subject=subject), Keep):
        belongs = assign(seen, subject)
        assert (stamp.slot, stamp.release) == (belongs.slot, belongs.release)


@given(states(), states(), st.text(min_size=1))
def test_a_batch_called_unaffected_would_be_decided_the_same(
    decided: RoutingState, seen: RoutingState, subject: str
) -> None:
    stamp = stamped(decided, subject)
    if seen.epoch >= decided.epoch and not is_affected([stamp], decided=decided, seen=seen):
        assert seen.epoch == decided.epoch or judged(stamp, seen, subject=subject) == Keep()
