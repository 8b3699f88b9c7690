"""Which query ids were routed within the window: bounded in time and in number."""

from __future__ import annotations

from collections.abc import Container, Iterable


class SeenIds:
    """The ids of one partition, oldest first.

    What is added stays provisional until `confirm()`: a transaction that is undone takes its ids with it.
    Times are milliseconds since 1970 UTC and come from the caller.
    """

    def __init__(self, *, window_ms: int, max_ids: int) -> None:
        self._window_ms = window_ms
        self._max_ids = max_ids
        self._seen_at: dict[str, int] = {}
        self._provisional: list[str] = []
        self.evicted_early = 0
        """Ids forgotten within their window because there were too many: each might be routed twice."""

    def __len__(self) -> int:
        return len(self._seen_at)

    def known(self, *, now_ms: int) -> Container[str]:
        """The ids routed within the window before `now_ms`, to be asked at that time."""
        self._forget(now_ms)
        return self._seen_at.keys()

    def has(self, query_id: str, *, now_ms: int) -> bool:
        """Whether the id was routed within the window before `now_ms`."""
        seen_at = self._seen_at.get(query_id)
        return seen_at is not None and now_ms - seen_at < self._window_ms

    def add(self, query_ids: Iterable[str], *, at_ms: int) -> None:
        """Takes ids in provisionally and forgets what is too old or too much."""
        # First, so that an id that outlived its window and is routed again starts anew at the young end.
        self._forget(at_ms)
        added = list(query_ids)
        self._seen_at.update(dict.fromkeys(added, at_ms))
        self._provisional += added
        self._forget(at_ms)

    def restore(self, seen: Iterable[tuple[str, int]], *, now_ms: int) -> None:
        """Takes in (id, seen at) pairs of the changelog, confirmed."""
        for query_id, seen_at in sorted(seen, key=lambda pair: pair[1]):
            self._seen_at.pop(query_id, None)
            self._seen_at[query_id] = seen_at
        self._forget(now_ms)

    def confirm(self) -> None:
        """The transaction that routed the provisional ids was committed."""
        self._provisional.clear()

    def undo(self) -> None:
        """The transaction was undone: its queries come again and must not be taken for duplicates."""
        for query_id in self._provisional:
            self._seen_at.pop(query_id, None)
        self._provisional.clear()

    def _forget(self, now_ms: int) -> None:
        while self._seen_at:
            oldest = next(iter(self._seen_at))
            is_old = now_ms - self._seen_at[oldest] >= self._window_ms
            if not is_old and len(self._seen_at) <= self._max_ids:
                return
            del self._seen_at[oldest]
            if not is_old:
                self.evicted_early += 1
