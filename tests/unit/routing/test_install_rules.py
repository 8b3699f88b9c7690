from __future__ import annotations

import pytest

from schemas.routing import RoutingState
from tests.unit.routing.states import state
from twinloop.routing.install_rules import may_install


@pytest.mark.parametrize(
    ("current", "new", "reason"),
    [
        (None, None, "missing_key"),
        (state(3), None, "missing_key"),
        (None, state(1), None),
        (state(3), state(4), None),
        (state(3), state(3), None),
        (state(3), state(2), "lower_epoch"),
        (state(3), state(3, active="green"), "same_epoch_differs"),
        (state(3), state(9, incarnation="f" * 32), "other_incarnation"),
    ],
)
def test_only_higher_epochs_of_one_incarnation_are_installed(
    current: RoutingState | None, new: RoutingState | None, reason: str | None
) -> None:
    assert may_install(current, new) == reason
