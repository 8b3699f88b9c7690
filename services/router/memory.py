"""What a router remembers of the partitions it owns: the ids it has routed."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from services.router.core.deduplication import SeenIds

ReadSeen = Callable[[int], list[tuple[str, int]]]
"""(id, seen at in ms) of one origin, from the changelog."""


class PartitionMemory:
    """Seen ids by origin, restored from the changelog before the first query of a partition is decided."""

    def __init__(self, read_seen: ReadSeen, *, window_ms: int, max_ids: int) -> None:
        self._read_seen = read_seen
        self._window_ms = window_ms
        self._max_ids = max_ids
        self._seen: dict[int, SeenIds] = {}

    def lacks(self, origins: Iterable[int]) -> bool:
        """Whether `restore` would have to read the changelog for one of these."""
        return any(origin not in self._seen for origin in origins)

    def restore(self, origins: Iterable[int], *, now_ms: int) -> None:
        """Makes these origins ready to be asked; raises Transient where the changelog cannot be read."""
        for origin in origins:
            if origin in self._seen:
                continue
            restored = SeenIds(window_ms=self._window_ms, max_ids=self._max_ids)
            restored.restore(self._read_seen(origin), now_ms=now_ms)
            self._seen[origin] = restored

    def seen(self, origin: int, *, now_ms: int) -> Container[str]:
        """The ids routed within the window; KeyError for an origin that was not restored."""
        return self._seen[origin].known(now_ms=now_ms)

    def add(self, ended: Mapping[int, Sequence[str]], *, at_ms: int) -> int:
        """Takes ids in until `confirm` or `undo`; returns how many others were forgotten too early."""
        early = 0
        for origin, query_ids in ended.items():
            seen = self._seen[origin]
            before = seen.evicted_early
            seen.add(query_ids, at_ms=at_ms)
            early += seen.evicted_early - before
        return early

    def confirm(self) -> None:
        """The open transaction was committed."""
        for seen in self._seen.values():
            seen.confirm()

    def undo(self) -> None:
        """The open transaction was undone."""
        for seen in self._seen.values():
            seen.undo()

    def forget(self, origins: Iterable[int]) -> None:
        """These origins belong to another router now."""
        for origin in origins:
            self._seen.pop(origin, None)
