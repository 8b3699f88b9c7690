"""Each gate's value with an interval that holds at every look: for people, who compare numbers; no gate reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .proportions import confidence_sequence
from .verdict import GateRow

STEPS = 20
"""Halvings for each end: a millionth is finer than anybody reads."""


def with_intervals(rows: Iterable[GateRow], alpha: float) -> tuple[GateRow, ...]:
    """The rows with `ci_s` and `ci_a` at level 1 - alpha for each arm that has units; as they are where alpha is 0.

    The share is that of units which count against the gate: errors, answers slower than the yardstick, flagged
    answers, keys that rate down. Each interval alone covers a rate that stays what it is with 1 - alpha at all
    looks together (`confidence_sequence`; Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon, arXiv 1810.08240). A rate
    that drifts, and the difference of two arms, is what the e-values are for.
    """
    known = tuple(rows)
    if alpha <= 0.0 or not known:
        return known
    n = np.array([[row.n_s for row in known], [row.n_a for row in known]])
    x = np.minimum(np.array([[row.x_s for row in known], [row.x_a for row in known]]), n)
    low, high = confidence_sequence(x, n, alpha, steps=STEPS)

    def between(arm: int, place: int) -> tuple[float, float] | None:
        return (float(low[arm, place]), float(high[arm, place])) if n[arm, place] > 0 else None

    return tuple(replace(row, ci_s=between(0, at), ci_a=between(1, at)) for at, row in enumerate(known))
