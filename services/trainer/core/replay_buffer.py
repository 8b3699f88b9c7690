"""What a domain's adapter must not forget: a bounded sample of the rows it was trained on.

Every row has a rank that depends on its id and the seed alone, and the buffer keeps the rows of lowest rank that fit.
So the content depends on which rows came and never on their order, on restarts or on a replay of the log, and no random
state has to be kept. With equal weights this is a uniform reservoir.
Sources: Vitter 1985 (reservoir sampling); Cohen 2007 (bottom-k sketches); Efraimidis & Spirakis 2006 (weighted ranks).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from services.trainer.core.rows import ReplayRow

Rank = tuple[float, str]
"""Lower stays; the id breaks ties."""


@dataclass(frozen=True)
class ReplayPolicy:
    """How much is kept and what is kept first."""

    policy: Literal["reservoir", "prioritised"] = "reservoir"
    """`reservoir` keeps a uniform sample, `prioritised` prefers rows of higher weight."""
    max_rows: int = 2000
    """Rows kept a domain."""
    max_bytes: int = 4 * 1024 * 1024
    """Bytes of text kept a domain."""
    seed: int = 42
    """Chooses the sample."""


class BufferState(BaseModel):
    """What a buffer holds; `cut` is the lowest rank ever refused, above which nothing may come in again."""

    model_config = ConfigDict(extra="forbid")

    rows: dict[str, ReplayRow] = {}
    cut: tuple[float, str] | None = None


class ReplayBuffer(Protocol):
    """A bounded, restartable set of rows; two policies keep this contract."""

    def add(self, rows: Iterable[ReplayRow]) -> None:
        """Take rows in and drop those that no longer fit; a known id replaces its row."""

    def remove(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Forget rows for good; returns the ids that were there."""

    def rows(self) -> tuple[ReplayRow, ...]:
        """Everything kept, in order of rank."""


class RankedBuffer:
    """The rows of lowest rank within both bounds; subclasses say what a rank is."""

    def __init__(self, policy: ReplayPolicy, state: BufferState) -> None:
        self._policy = policy
        self._state = state

    def rank(self, row: ReplayRow) -> Rank:
        raise NotImplementedError

    def add(self, rows: Iterable[ReplayRow]) -> None:
        for row in rows:
            if self._state.cut is None or self.rank(row) < self._state.cut:
                self._state.rows[row.id] = row
        self._fit()

    def remove(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in ids if self._state.rows.pop(name, None) is not None)

    def rows(self) -> tuple[ReplayRow, ...]:
        return tuple(sorted(self._state.rows.values(), key=self.rank))

    def _fit(self) -> None:
        size = 0
        for number, row in enumerate(ordered := self.rows()):
            size += row.size
            if number >= self._policy.max_rows or size > self._policy.max_bytes:
                # A strict prefix: letting a small row in behind the cut would make the content depend on order.
                self._state.cut = self.rank(row)
                for dropped in ordered[number:]:
                    del self._state.rows[dropped.id]
                return


class ReservoirBuffer(RankedBuffer):
    """Every row ever added has the same chance to be here."""

    def rank(self, row: ReplayRow) -> Rank:
        return (_unit(self._policy.seed, row.id), row.id)


class PrioritisedBuffer(RankedBuffer):
    """A row's chance grows with its weight."""

    def rank(self, row: ReplayRow) -> Rank:
        return (-math.log(_unit(self._policy.seed, row.id)) / max(row.weight, 1e-9), row.id)


def open_buffer(policy: ReplayPolicy, state: BufferState) -> ReplayBuffer:
    """The buffer that `policy` names, over `state`, which it changes in place."""
    return {"reservoir": ReservoirBuffer, "prioritised": PrioritisedBuffer}[policy.policy](policy, state)


def _unit(seed: int, name: str) -> float:
    """A number in (0, 1) that belongs to the name."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64
