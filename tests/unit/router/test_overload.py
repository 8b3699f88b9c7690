from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.event import Priority
from services.router.core.overload import OverloadPolicy, admit

POLICY = OverloadPolicy(low_share=0.3, normal_share=0.7)


@pytest.mark.parametrize(
    ("priority", "waited_ms", "is_backlogged", "expected"),
    [
        ("low", 299, True, "route"),
        ("low", 300, True, "shed"),
        ("low", 999, False, "route"),
        ("normal", 699, True, "route"),
        ("normal", 700, True, "shed"),
        ("high", 999, True, "route"),
        ("high", 1000, False, "deadline"),
        ("low", 1000, True, "deadline"),
        ("normal", -50, True, "route"),
    ],
)
def test_who_is_turned_away(priority: Priority, waited_ms: int, is_backlogged: bool, expected: str) -> None:
    found = admit(
        POLICY, priority=priority, waited_ms=waited_ms, deadline_ms=1000, is_backlogged=is_backlogged
    )
    assert found == expected


@given(st.integers(0, 2000), st.integers(1, 2000), st.booleans())
def test_a_higher_priority_is_never_shed_before_a_lower_one(
    waited_ms: int, deadline_ms: int, is_backlogged: bool
) -> None:
    low, normal, high = (
        admit(POLICY, priority=p, waited_ms=waited_ms, deadline_ms=deadline_ms, is_backlogged=is_backlogged)
        for p in ("low", "normal", "high")
    )
    assert high != "shed"
    assert not (normal == "shed" and low == "route")


def test_a_policy_that_sheds_in_the_wrong_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="low_share"):
        OverloadPolicy(low_share=0.8, normal_share=0.5)
