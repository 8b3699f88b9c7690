"""e-CUSUM: has a rate risen above its limit at some unknown time? For the unbounded watch after a swap.

M <- max(M, 1) * likelihood ratio, one M per alternative rate; alarm when the mean of the M reaches A. While
the rate stays at or below the limit, the expected number of updates before a false alarm is at least A (Shin,
Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532; Page 1954).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .eprocess import Floats, mixture_log_e


@dataclass(frozen=True)
class ECusumSpec:
    """A limit, the raised rates that are watched for, and the alarm threshold A."""

    limit: float
    rates: tuple[float, ...]
    alarm: float = 1e4

    def __post_init__(self) -> None:
        if not 0.0 < self.limit < min(self.rates) or max(self.rates) >= 1.0 or self.alarm <= 1.0:
            raise ValueError(f"e-CUSUM needs 0 < limit < rates < 1 and an alarm above 1, got {self}")


@dataclass(frozen=True, eq=False)
class ECusumState:
    """log M per alternative (shape B + [rates])."""

    log_m: Floats

    @classmethod
    def start(cls, spec: ECusumSpec, batch: tuple[int, ...] = ()) -> ECusumState:
        """State before any outcome."""
        return cls(np.zeros((*batch, len(spec.rates))))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"log_m": self.log_m.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ECusumState:
        """The state that `to_json` described."""
        return cls(np.asarray(data["log_m"], dtype=np.float64))


def detect(spec: ECusumSpec, state: ECusumState, n: ArrayLike, x: ArrayLike) -> ECusumState:
    """The state after n outcomes in [0, 1] that sum to x; a whole window is one update."""
    n, x = np.asarray(n, dtype=np.float64), np.asarray(x, dtype=np.float64)
    rates = np.asarray(spec.rates)
    hit, miss = np.log(rates / spec.limit), np.log((1.0 - rates) / (1.0 - spec.limit))
    gain = x[..., None] * hit + np.maximum(n - x, 0.0)[..., None] * miss
    return ECusumState(np.maximum(state.log_m, 0.0) + gain)


def evidence(state: ECusumState) -> Floats:
    """Log of the mean M (shape B)."""
    return mixture_log_e(state.log_m)


def is_alarm(spec: ECusumSpec, state: ECusumState) -> NDArray[np.bool_]:
    """Whether the mean M has reached the alarm threshold."""
    return np.asarray(evidence(state) >= np.log(spec.alarm))
