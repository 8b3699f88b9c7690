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

from collections.abc import Mapping, Sequence
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
    total: Floats = np.exp(log_e - top).sum(axis=-1)
    mean: Floats = np.log(total / log_e.shape[-1]) + top[..., 0]
    return mean


def log_e(state: EProcessState) -> Floats:
    """Log evidence against the null now (shape B)."""
    return mixture_log_e(state.log_e)


def anytime_p(state: EProcessState) -> Floats:
    """Always-valid p-value: min(1, 1 / max E)."""
    p: Floats = np.exp(-np.maximum(state.max_log_e, 0.0))
    return p


@dataclass(frozen=True, eq=False)
class Edges:
    """The lines s = r q + c of several nulls, one per row, with the bets' sides and offsets (0 pads a row)."""

    r: Floats
    c: Floats
    sign: Floats
    offsets: Floats

    @classmethod
    def of(cls, specs: Sequence[EProcessSpec], rows: Sequence[int]) -> Edges:
        """Each null repeated for its number of rows; a single null is one row that fits any batch."""
        width = max(len(spec.offsets) for spec in specs)
        padded = [spec.offsets + (0.0,) * (width - len(spec.offsets)) for spec in specs]
        repeats = rows if len(specs) > 1 else [1]
        r, c, sign, offsets = (
            np.repeat(np.array(values, dtype=np.float64), repeats, axis=0)
            for values in ([s.r for s in specs], [s.c for s in specs], [s.sign for s in specs], padded)
        )
        return cls(r[:, None], c[:, None], sign[:, None], offsets)


def project(
    edge: Edges, p: Floats, a: Floats, n_s: Floats, n_a: Floats, *, steps: int = BISECTION_STEPS
) -> tuple[Floats, Floats]:
    """The point (s, q) on s = r q + c nearest to the bet (p, a) in n_s KL(p||s) + n_a KL(a||q).

    The objective is convex along the edge and its minimum lies between the points with s = p and with q = a.
    The bisection follows the sign of the derivative; with its positive denominators multiplied out that is a
    cubic in q, evaluated by Horner's rule. An error of the root enters E only in second order.
    """
    r, c = edge.r, edge.c
    low_end = np.maximum(0.0, -c / r) + _INSIDE
    high_end = np.minimum(1.0, (1.0 - c) / r) - _INSIDE
    q_p = (p - c) / r
    low = np.clip(np.minimum(q_p, a), low_end, high_end)
    half = np.clip(np.maximum(q_p, a), low_end, high_end) - low
    weight, gap, room = n_s * r, c - p, c * (1.0 - c)
    tilt = r * (1.0 - 2.0 * c)
    k3 = -r * (weight + n_a * r)
    k2 = weight * (r - gap) + n_a * (tilt + a * r * r)
    k1 = weight * gap + n_a * (room - a * tilt)
    k0 = -n_a * a * room
    for _ in range(steps):
        half = half * 0.5
        q = low + half
        low = np.where(((k3 * q + k2) * q + k1) * q + k0 > 0.0, low, q)
    q = low + 0.5 * half
    return r * q + c, q


def _log_factors(edge: Edges, bet_a: Floats, counts: tuple[Floats, Floats, Floats, Floats]) -> Floats:
    a = bet_a[..., None]
    n_s, x_s, n_a, x_a = (v[..., None] for v in counts)
    centre = edge.r * a + edge.c
    p = np.clip(centre + edge.sign * edge.offsets, P_MIN, P_MAX)
    is_bet = (edge.sign * (p - centre) > 0.0) & (n_s > 0.0) & (n_a > 0.0)
    s, q = project(edge, p, a, n_s, n_a)
    gain = (
        x_s * np.log(p / s)
        + np.maximum(n_s - x_s, 0.0) * np.log((1.0 - p) / (1.0 - s))
        + x_a * np.log(a / q)
        + np.maximum(n_a - x_a, 0.0) * np.log((1.0 - a) / (1.0 - q))
    )
    return np.where(is_bet, gain, 0.0)


def log_factors(
    spec: EProcessSpec, bet_a: Floats, n_s: Floats, x_s: Floats, n_a: Floats, x_a: Floats
) -> Floats:
    """Log of one window's factor per offset, for an active rate `bet_a` that was fixed before the window.

    Counts have shape B; x are sums of outcomes in [0, 1]. For fractional outcomes the linear form used here
    is, by concavity of ln(1 + g (X - s)) in X, never above the betting form of arXiv 2010.09686, so it stays
    valid. The factor is 1 where an arm is empty or the clipped bet is not on the alternative's side.
    """
    return _log_factors(Edges.of([spec], [1]), bet_a, (n_s, x_s, n_a, x_a))


def _bet(state: EProcessState) -> Floats:
    return (state.x_a + PRIOR_HITS) / (state.n_a + PRIOR_UNITS)


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
    return _after(state, log_factors(spec, _bet(state), n_s, x_s, n_a, x_a), n_s, x_s, n_a, x_a)


Step = tuple[EProcessSpec, EProcessState, tuple[Floats, Floats, Floats, Floats]]
"""A null, its state (batch shape [rows]) and one window's (n_s, x_s, n_a, x_a)."""


def step_together(steps: Sequence[Step]) -> list[EProcessState]:
    """`step` for several nulls in one pass over stacked rows: the same numbers, a fraction of the calls."""
    rows = [len(state.n_s) for _, state, _ in steps]
    edge = Edges.of([spec for spec, _, _ in steps], rows)
    bet = np.concatenate([_bet(state) for _, state, _ in steps])
    columns = zip(*(counts for _, _, counts in steps), strict=True)
    n_s, x_s, n_a, x_a = (np.concatenate(column) for column in columns)
    gain = _log_factors(edge, bet, (n_s, x_s, n_a, x_a))
    parts = np.split(gain, np.cumsum(rows)[:-1])
    return [
        _after(state, part[:, : len(spec.offsets)], *counts)
        for (spec, state, counts), part in zip(steps, parts, strict=True)
    ]


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
