"""Records, queries and a stream by hand for the tests of the router."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from services.router.core.query import ParsedQuery
from twinloop.bus.records import Headers, Outgoing, Record, TopicPartition
from twinloop.errors import Transient

NOW = 1_700_000_000_000


def query(query_id: str = "q-1", **fields: Any) -> ParsedQuery:
    values: dict[str, Any] = {"text": "which court?", "asked_at": NOW, "subject": f"user-{query_id}"}
    return ParsedQuery(id=query_id, **{**values, **fields})


def record(
    value: bytes | dict[str, Any] | None,
    *,
    headers: Headers = (),
    partition: int = 0,
    offset: int = 0,
) -> Record:
    data = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record("queries", partition, offset, b"key", data, headers, NOW)


class FakeStream:
    """A transactional stream over a list: what is aborted comes again, what is committed stays."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.log = list(records)
        self.committed: list[Outgoing] = []
        self.open: list[Outgoing] = []
        self.commits = self.aborts = 0
        self.is_paused = False
        self.fail_next: dict[str, int] = {}
        self.on_revoked: Callable[[Sequence[TopicPartition]], None] = lambda _: None
        self._position = 0
        self._safe = 0
        self._under_way: bool | None = None

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        self._maybe_fail("poll")
        if self.is_paused:
            return []
        found = self.log[self._position : self._position + max_records]
        self._position += len(found)
        return found

    def send_all(self, outgoing: Sequence[Outgoing]) -> None:
        self.end_commit()
        for each in outgoing:
            self._maybe_fail("send")
            self.open.append(each)

    def commit(self) -> None:
        self.begin_commit()
        self.end_commit()

    def commit_before(self, records: Sequence[Record]) -> None:
        self.end_commit()
        self._maybe_fail("commit")
        self.committed += self.open
        self.open = []
        self._safe = self._position - len(records)
        self.commits += 1

    def begin_commit(self) -> None:
        """Kafka does its part at once; whether it did is only told at the end."""
        self.end_commit()
        self._under_way = not self._is_to_fail("commit")
        if self._under_way:
            self.committed += self.open
            self.open = []
            self._safe = self._position

    def end_commit(self) -> None:
        is_confirmed, self._under_way = self._under_way, None
        if is_confirmed:
            self.commits += 1
        elif is_confirmed is False:
            self.abort()
            raise Transient("commit failed")

    def revoke(self, partition: int) -> None:
        """Gives a partition up as `poll` does it: commit first, then tell."""
        self.commit()
        self.on_revoked([TopicPartition("queries", partition)])

    def abort(self) -> None:
        with suppress(Transient):
            self.end_commit()
        self.aborts += 1
        self.open = []
        self._position = self._safe

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def _is_to_fail(self, call: str) -> bool:
        is_due = self.fail_next.get(call, 0) > 0
        if is_due:
            self.fail_next[call] -= 1
        return is_due

    def _maybe_fail(self, call: str) -> None:
        if self._is_to_fail(call):
            self.abort()
            raise Transient(f"{call} failed")
