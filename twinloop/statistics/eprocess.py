"""Windowed e-processes: evidence that may be read after every window without losing its guarantee.

Each window contributes one factor whose expectation is at most 1 under the null, whatever the true rates do
between windows (drift, ramps, unequal split). By Ville's inequality the running product E then satisfies
P(sup E >= 1/alpha) <= alpha at any stopping time.

Sources: Turner, Ly, Grünwald, arXiv 2106.02693 and Turner, Grünwald, arXiv 2203.09785 (block e-variables for
two arms, Kullback-Leibler projection on a linear null); Waudby-Smith, Ramdas, arXiv 2010.09686 (outcomes in
[0, 1]); Vovk, Wang, arXiv 1912.06116 (the mean of e-values is an e-value). Everything is vectorised over any
leading batch shape B, so a simulation of a thousand canaries calls the functions the gatekeeper calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

P_MIN, P_MAX = 5e-4, 0.98
"""Bets are kept inside these rates, so one surprising unit never ruins a process."""
PRIOR_HITS, PRIOR_UNITS = 1.0, 25.0
"""The active rate is bet at (X + 1) / (N + 25) from closed windows."""
BISECTION_STEPS = 40
_INSIDE = 1e-12


@dataclass(frozen=True)
class EProcessSpec:
    """A null about two rates: `up` is H0 shadow <= r * active + c, `down` is H0 shadow >= r * active + c."""

    r: float
    c: float
    offsets: tuple[float, ...]
    direction: Literal["up", "down"]

    @property
    def sign(self) -> float:
        return 1.0 if self.direction == "up" else -1.0

    def null_text(self, outcome: str) -> str:
        """The null as a sentence for logs."""
        factor = "" if self.r == 1 else f"{self.r:g} x "
        margin = f" + {self.c:g}" if self.c else ""
        return (
            f"{outcome}(shadow) {'<=' if self.direction == 'up' else '>='} {factor}{outcome}(active){margin}"
        )


@dataclass(frozen=True)
class OneArmSpec:
    """One null about the shadow's rate alone: `up` is H0 rate <= limit, `down` is H0 rate >= limit."""

    limit: float
    offsets: tuple[float, ...]
    direction: Literal["up", "down"]

    @property
    def sign(self) -> float:
        return 1.0 if self.direction == "up" else -1.0

    def null_text(self, outcome: str) -> str:
        """The null as a sentence for logs."""
        return f"{outcome}(shadow) {'<=' if self.direction == 'up' else '>='} {self.limit:g}"


AnySpec = EProcessSpec | OneArmSpec


@dataclass(frozen=True, eq=False)
class EProcessState:
    """Sums over closed windows (shape B), log e per offset (shape B + [J]) and the largest mixture log e so
    far.
    """

    n_s: Floats
    x_s: Floats
    n_a: Floats
    x_a: Floats
    log_e: Floats
    max_log_e: Floats

    @classmethod
    def start(cls, spec: AnySpec, batch: tuple[int, ...] = ()) -> EProcessState:
        """State before any window: e = 1."""
        zero = np.zeros(batch)
        return cls(zero, zero, zero, zero, np.zeros((*batch, len(spec.offsets))), zero)

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive a JSON round trip exactly."""
        return {name: getattr(self, name).tolist() for name in _FIELDS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EProcessState:
        """The state that `to_json` described."""
        return cls(*(np.asarray(data[name], dtype=np.float64) for name in _FIELDS))

    def take(self, rows: NDArray[Any]) -> EProcessState:
        """The runs selected by an index or mask over the first batch axis."""
        return EProcessState(*(getattr(self, name)[rows] for name in _FIELDS))


_FIELDS = ("n_s", "x_s", "n_a", "x_a", "log_e", "max_log_e")


def mixture_log_e(log_e: Floats) -> Floats:
    """Log of the mean e-value over the last axis."""
    top = log_e.max(axis=-1, keepdims=True)
    mean: Floats = np.log(np.mean(np.exp(log_e - top), axis=-1)) + top[..., 0]
    return mean


def log_e(state: EProcessState) -> Floats:
    """Log evidence against the null now (shape B)."""
    return mixture_log_e(state.log_e)


def anytime_p(state: EProcessState) -> Floats:
    """Always-valid p-value: min(1, 1 / max E)."""
    p: Floats = np.exp(-np.maximum(state.max_log_e, 0.0))
    return p


def project(
    spec: EProcessSpec, p: Floats, a: Floats, n_s: Floats, n_a: Floats, *, steps: int = BISECTION_STEPS
) -> tuple[Floats, Floats]:
    """The point (s, q) on s = r q + c nearest to the bet (p, a) in n_s KL(p||s) + n_a KL(a||q).

    The objective is convex along the edge, its minimum lies between the points with s = p and with q = a, and
    the bisection follows the sign of its derivative with the positive denominators multiplied out.
    """
    low_end = max(0.0, -spec.c / spec.r) + _INSIDE
    high_end = min(1.0, (1.0 - spec.c) / spec.r) - _INSIDE
    q_p = (p - spec.c) / spec.r
    low = np.clip(np.minimum(q_p, a), low_end, high_end)
    high = np.clip(np.maximum(q_p, a), low_end, high_end)
    weight = n_s * spec.r
    for _ in range(steps):
        q = 0.5 * (low + high)
        s = spec.r * q + spec.c
        too_high = weight * (s - p) * (q * (1.0 - q)) + n_a * (q - a) * (s * (1.0 - s)) > 0.0
        high = np.where(too_high, q, high)
        low = np.where(too_high, low, q)
    q = 0.5 * (low + high)
    return spec.r * q + spec.c, q


def log_factors(
    spec: EProcessSpec, bet_a: Floats, n_s: Floats, x_s: Floats, n_a: Floats, x_a: Floats
) -> Floats:
    """Log of one window's factor per offset, for an active rate `bet_a` that was fixed before the window.

    Counts have shape B; x are sums of outcomes in [0, 1]. For fractional outcomes the linear form used here
    is, by concavity of ln(1 + g (X - s)) in X, never above the betting form of arXiv 2010.09686, so it stays
    valid. The factor is 1 where an arm is empty or the clipped bet is not on the alternative's side.
    """
    a = bet_a[..., None]
    n_s, x_s, n_a, x_a = n_s[..., None], x_s[..., None], n_a[..., None], x_a[..., None]
    centre = spec.r * a + spec.c
    p = np.clip(centre + spec.sign * np.asarray(spec.offsets), P_MIN, P_MAX)
    is_bet = (spec.sign * (p - centre) > 0.0) & (n_s > 0.0) & (n_a > 0.0)
    s, q = project(spec, p, a, n_s, n_a)
    gain = (
        x_s * np.log(p / s)
        + np.maximum(n_s - x_s, 0.0) * np.log((1.0 - p) / (1.0 - s))
        + x_a * np.log(a / q)
        + np.maximum(n_a - x_a, 0.0) * np.log((1.0 - a) / (1.0 - q))
    )
    return np.where(is_bet, gain, 0.0)


def step(
    spec: EProcessSpec,
    state: EProcessState,
    n_s: ArrayLike,
    x_s: ArrayLike,
    n_a: ArrayLike,
    x_a: ArrayLike,
) -> EProcessState:
    """The state after one closed window of the two arms; all counts have the state's batch shape."""
    n_s, x_s, n_a, x_a = (np.asarray(v, dtype=np.float64) for v in (n_s, x_s, n_a, x_a))
    bet_a = (state.x_a + PRIOR_HITS) / (state.n_a + PRIOR_UNITS)
    return _after(state, log_factors(spec, bet_a, n_s, x_s, n_a, x_a), n_s, x_s, n_a, x_a)


def step_one_arm(spec: OneArmSpec, state: EProcessState, n_s: ArrayLike, x_s: ArrayLike) -> EProcessState:
    """The state after one closed window of the shadow arm alone."""
    n_s, x_s = np.asarray(n_s, dtype=np.float64), np.asarray(x_s, dtype=np.float64)
    p = np.clip(spec.limit + spec.sign * np.asarray(spec.offsets), P_MIN, P_MAX)
    hit = np.where(spec.sign * (p - spec.limit) > 0.0, np.log(p / spec.limit), 0.0)
    miss = np.where(spec.sign * (p - spec.limit) > 0.0, np.log((1.0 - p) / (1.0 - spec.limit)), 0.0)
    gain = x_s[..., None] * hit + np.maximum(n_s - x_s, 0.0)[..., None] * miss
    zero = np.zeros_like(n_s)
    return _after(state, gain, n_s, x_s, zero, zero)


def _after(
    state: EProcessState, gain: Floats, n_s: Floats, x_s: Floats, n_a: Floats, x_a: Floats
) -> EProcessState:
    total = state.log_e + gain
    return EProcessState(
        state.n_s + n_s,
        state.x_s + x_s,
        state.n_a + n_a,
        state.x_a + x_a,
        total,
        np.maximum(state.max_log_e, mixture_log_e(total)),
    )
