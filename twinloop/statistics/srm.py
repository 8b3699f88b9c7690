"""Sequential sample-ratio test: is the split of unique keys the split that was intended?

Two-sided beta-binomial mixture around the intended share, a test martingale under it, so it may be read after
every window (Lindon, Malek, arXiv 2011.03567; Robbins 1970). Count keys, never requests: requests of one key
are not independent. Each ramp step is its own binomial sample; the evidences of the steps multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

CONCENTRATION = 2000.0
"""Weight of the mixture around the intended share: tuned to see 8 % for 10 % within a few thousand keys."""


def split_log_e(keys_shadow: ArrayLike, keys_active: ArrayLike, share: ArrayLike) -> NDArray[np.float64]:
    """Log evidence against `share` being the shadow's true share of unique keys (vectorised)."""
    k_s, k_a, pi = (np.asarray(v, dtype=np.float64) for v in (keys_shadow, keys_active, share))
    a, b = CONCENTRATION * pi, CONCENTRATION * (1.0 - pi)
    evidence: NDArray[np.float64] = (
        betaln(a + k_s, b + k_a) - betaln(a, b) - k_s * np.log(pi) - k_a * np.log1p(-pi)
    )
    return evidence


@dataclass(frozen=True)
class SrmState:
    """Keys of the current ramp step, evidence of the finished ones and the largest evidence ever."""

    canary_bp: int = 0
    epoch: int = 0
    keys_shadow: int = 0
    keys_active: int = 0
    finished_log_e: float = 0.0
    max_log_e: float = 0.0

    @property
    def log_e(self) -> float:
        """Evidence now, over all ramp steps."""
        if not 0 < self.canary_bp < 10_000:
            return self.finished_log_e
        current = split_log_e(self.keys_shadow, self.keys_active, self.canary_bp / 10_000)
        return self.finished_log_e + float(current)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SrmState:
        """The state that `to_json` described."""
        return cls(**data)


def count_keys(state: SrmState, *, epoch: int, canary_bp: int, shadow: int, active: int) -> SrmState:
    """The state after keys were seen for the first time; a changed share or epoch begins a new ramp step."""
    if (state.epoch, state.canary_bp) != (epoch, canary_bp):
        state = SrmState(
            canary_bp=canary_bp, epoch=epoch, finished_log_e=state.log_e, max_log_e=state.max_log_e
        )
    state = replace(state, keys_shadow=state.keys_shadow + shadow, keys_active=state.keys_active + active)
    return replace(state, max_log_e=max(state.max_log_e, state.log_e))
