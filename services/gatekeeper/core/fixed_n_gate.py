"""Classical tests as one more gate of a canary: made once, at a size fixed in advance, and able to block alone."""

from __future__ import annotations

from services.gatekeeper.core.policy import FixedNPolicy
from services.gatekeeper.core.state import CanaryRun
from twinloop.statistics.fixed_n import GATE_LABEL, counted_units, report_of


def tested(policy: FixedNPolicy | None, stage: CanaryRun) -> CanaryRun:
    """The stage with the tests' result, once it has counted enough units; unchanged before and ever after."""
    if policy is None or stage.fixed_n is not None or counted_units(stage.memory) < policy.units:
        return stage
    found = report_of(stage.memory, alpha=policy.alpha, label=GATE_LABEL)
    return stage if found is None else stage.model_copy(update={"fixed_n": found.to_json()})


def objection(stage: CanaryRun) -> str | None:
    """Why the tests block this canary, None where they do not."""
    if stage.fixed_n is None or not stage.fixed_n["objections"]:
        return None
    return f"{', '.join(stage.fixed_n['objections'])} call the shadow worse; {stage.fixed_n['line']}"


def still_needed(policy: FixedNPolicy | None, stage: CanaryRun) -> str | None:
    """What keeps a canary whose other gates are cleared from its tests, None where nothing does."""
    if policy is None or stage.fixed_n is not None:
        return None
    return f"fixed-n tests at {policy.units} shadow units; {counted_units(stage.memory)} are counted"
