"""Bugs that may be planted, to show that the invariants would catch them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from schemas.routing import RoutingState
from tests.simulation.states import genesis
from twinloop.routing.reader import StateReader
from twinloop.routing.reader_core import ReaderCore


@dataclass(frozen=True)
class Plants:
    """Which bugs are in; none in the product."""

    no_fence: bool = False
    """A worker answers whatever it is sent."""
    no_second_look: bool = False
    """A worker reads the state before its commit and does not act on it."""
    no_epoch_check: bool = False
    """A reader installs lower epochs."""
    missing_key_installed: bool = False
    """A reader takes a missing key for the genesis state."""
    commit_before_produce: bool = False
    """A router's offset is committed before its output."""
    no_deduplication: bool = False
    """A router routes second publications."""
    no_restored_memory: bool = False
    """A new owner of a partition does not read the changelog."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


class CarelessReader(StateReader):
    """A StateReader with reading bugs."""

    plants: Plants = Plants()

    def _observe(self, now: float) -> ReaderCore:
        after = super()._observe(now)
        if after.problem == "lower_epoch" and self.plants.no_epoch_check and self._refused is not None:
            return ReaderCore(state=RoutingState.model_validate_json(self._refused[0]), mode="fresh")
        if after.problem == "missing_key" and self.plants.missing_key_installed:
            return ReaderCore(state=genesis(), mode="fresh")
        return after
