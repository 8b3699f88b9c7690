"""Each scenario of the demo, on the embedded profile: the fault is real and the defence holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.demo.scenarios.run import SCENARIOS, run_scenario

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_defence_holds(name: str, tmp_path: Path) -> None:
    assert run_scenario(name, print, output=tmp_path).problems == ()
