"""The canary's evidence: which e-process watches what, and the rules that combine them.

Everything here is vectorised over a leading batch: the gatekeeper's batch is (all traffic, domain, domain,
...), a simulation's batch is a thousand canaries. Offsets are fixed in advance; changing them is a new
procedure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .eprocess import (
    AnySpec,
    EProcessSpec,
    EProcessState,
    Floats,
    OneArmSpec,
    Step,
    log_e,
    mixture_log_e,
    step_one_arm,
    step_together,
)
from .policy import CanaryPolicy
from .proportions import confidence_sequence

ERROR_UP = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
ERROR_DOWN = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07)
SLOW_UP = (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
SLOW_DOWN = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
TOXIC_UP = ERROR_UP
TOXIC_DOWN = (0.005, 0.01, 0.02, 0.03, 0.04, 0.045)

ABORT_GATES = ("error_margin", "early_stop", "p95", "toxicity")
PROMOTE_GATES = ("error_margin", "p95", "toxicity")
HARM = ("error_abort", "ratio_abort", "floor_abort", "p95_abort", "toxicity_abort")
"""Processes kept for all traffic and for each domain."""
WATCH = "error_trend"
"""H0: the shadow's error rate is not above the active one's. Stops a ramp, decides nothing."""


@lru_cache(maxsize=8)
def specs(policy: CanaryPolicy) -> Mapping[str, AnySpec]:
    """Every e-process of a canary by name."""
    if policy.error_mode == "absolute":
        r, c = 1.0, policy.error_margin
    else:
        r, c = 1.0 + policy.error_margin, 0.0
    return {
        "error_abort": EProcessSpec(r, c, ERROR_UP, "up"),
        "ratio_abort": EProcessSpec(policy.early_stop_ratio, 0.0, ERROR_UP, "up"),
        "floor_abort": EProcessSpec(1.0, policy.early_stop_floor, ERROR_UP, "up"),
        "p95_abort": EProcessSpec(1.0, 0.0, SLOW_UP, "up"),
        "toxicity_abort": OneArmSpec(policy.toxicity_max, TOXIC_UP, "up"),
        "error_promote": EProcessSpec(r, c, ERROR_DOWN, "down"),
        "p95_promote": EProcessSpec(1.0, 0.0, SLOW_DOWN, "down"),
        "toxicity_promote": OneArmSpec(policy.toxicity_max, TOXIC_DOWN, "down"),
        WATCH: EProcessSpec(1.0, 0.0, ERROR_UP, "up"),
    }


@dataclass(frozen=True, eq=False)
class Counts:
    """One window's sums for a batch of canaries or scopes (all arrays of one shape B).

    `harm` sums give the shadow every doubt (a missing label is 0), `safe` sums give it none (a missing label
    is 1).
    """

    units_s: Floats
    errors_s: Floats
    units_a: Floats
    errors_a: Floats
    answered_s: Floats
    answered_a: Floats
    slow_s_harm: Floats
    slow_s_safe: Floats
    slow_a_harm: Floats
    slow_a_safe: Floats
    toxic_s_harm: Floats
    toxic_s_safe: Floats

    def first(self, rows: int) -> Counts:
        """The first rows of the batch."""
        return Counts(*(getattr(self, f.name)[:rows] for f in fields(self)))


def start_processes(policy: CanaryPolicy, batch: tuple[int, ...]) -> dict[str, EProcessState]:
    """All processes before any window, in one batch shape."""
    return {name: EProcessState.start(spec, batch) for name, spec in specs(policy).items()}


def _two_arm_counts(name: str, counts: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    """The sums a two-arm process reads: the part of its name before the underscore says which."""
    if name == "p95_abort":
        return counts.answered_s, counts.slow_s_harm, counts.answered_a, counts.slow_a_harm
    if name == "p95_promote":
        return counts.answered_s, counts.slow_s_safe, counts.answered_a, counts.slow_a_safe
    return counts.units_s, counts.errors_s, counts.units_a, counts.errors_a


def step_processes(
    policy: CanaryPolicy,
    processes: Mapping[str, EProcessState],
    counts: Counts,
    *,
    fresh: Counts | None = None,
    skip: Collection[str] = (),
) -> dict[str, EProcessState]:
    """All processes after one window, except those to `skip`. States with fewer rows read the first rows.

    Promote processes read `fresh` instead of `counts` where it is given: units of keys not counted before.
    """
    after = dict(processes)
    names: list[str] = []
    steps: list[Step] = []
    for name, spec in specs(policy).items():
        if name in skip:
            continue
        state = processes[name]
        source = fresh if fresh is not None and name.endswith("_promote") else counts
        mine = source.first(len(state.n_s))
        if isinstance(spec, OneArmSpec):
            flagged = mine.toxic_s_harm if name.endswith("_abort") else mine.toxic_s_safe
            after[name] = step_one_arm(spec, state, mine.answered_s, flagged)
        else:
            names.append(name)
            steps.append((spec, state, _two_arm_counts(name, mine)))
    after.update(zip(names, step_together(steps), strict=True))
    return after


def abort_log_e(processes: Mapping[str, EProcessState]) -> Floats:
    """Log e of each abort gate, shape B + [4] in the order of ABORT_GATES.

    The early stop's null is a union (not beyond the ratio, or not beyond the floor), so its e is the minimum.
    """
    early = np.minimum(log_e(processes["ratio_abort"]), log_e(processes["floor_abort"]))
    error = log_e(processes["error_abort"])
    return np.stack(
        [error, early, log_e(processes["p95_abort"]), log_e(processes["toxicity_abort"])], axis=-1
    )


def promote_log_e(processes: Mapping[str, EProcessState]) -> Floats:
    """Log e of each promote gate, shape B + [3] in the order of PROMOTE_GATES."""
    names = ("error_promote", "p95_promote", "toxicity_promote")
    return np.stack([log_e(processes[name]) for name in names], axis=-1)


def is_harmful(gate_log_e: Floats, alpha: float) -> NDArray[np.bool_]:
    """Whether the mean of the abort gates' e-values has reached 1 / alpha."""
    return np.asarray(mixture_log_e(gate_log_e) >= -np.log(alpha))


def is_proven_safe(gate_log_e: Floats, alpha: float) -> NDArray[np.bool_]:
    """Whether every promote gate has 1 / alpha now (intersection-union needs no correction; Berger 1982)."""
    return np.asarray(gate_log_e.min(axis=-1) >= -np.log(alpha))


def is_traffic_enough(policy: CanaryPolicy, units_s: Floats, errors_s: Floats) -> NDArray[np.bool_]:
    """Minimum shadow units, or a narrow time-uniform interval above the floor.

    The interval is never a Wald interval, whose width is 0 at zero errors. Units must be shadow units.
    """
    enough = np.asarray(units_s >= policy.min_shadow)
    if policy.ci_width <= 0.0:
        return enough
    maybe = ~enough & (units_s >= policy.ci_floor)
    if maybe.any():
        low, high = confidence_sequence(np.minimum(errors_s, units_s), units_s)
        enough = enough | (maybe & (high - low <= policy.ci_width))
    return enough


def is_error_literally_fine(
    policy: CanaryPolicy, units_s: Floats, errors_s: Floats, units_a: Floats, errors_a: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(margin holds, early-stop limit holds) for the point estimates; False where an arm is empty."""
    seen = (units_s > 0) & (units_a > 0)
    rate_s = errors_s / np.maximum(units_s, 1.0)
    rate_a = errors_a / np.maximum(units_a, 1.0)
    absolute = policy.error_mode == "absolute"
    limit = rate_a + policy.error_margin if absolute else rate_a * (1.0 + policy.error_margin)
    doubled = (rate_s > policy.early_stop_ratio * rate_a) & (rate_s > rate_a + policy.early_stop_floor)
    return seen & (rate_s <= limit), seen & ~doubled
