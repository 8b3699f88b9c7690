"""Consume, process, produce: outputs and input offsets become visible together, or not at all.

The contract (measured under kill -9 and rebalances, see the integration tests):
- Rebalance callbacks fire only inside `poll()` and `close()`. Call `send()` for every record of a `poll()` before
  the next `poll()`, or give a `before_revoke` hook that finishes the work or names the offsets that are finished.
- On revoke the open transaction is committed before the partitions are given up; on loss it is aborted.
- `begin_commit()` lets the next records be polled and decided while Kafka commits; `end_commit()` says how that went.
- `Transient` from any method means: everything since the last commit is undone and its records come again.
- `Fenced` means: another process owns this identity, or this client is broken for good. Stop the process.
- One thread only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as _Partition

from twinloop.bus.admin import is_mock_cluster
from twinloop.bus.bounded_call import BoundedCaller, StartedCall
from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import as_twinloop_error, kafka_errors
from twinloop.bus.message_records import to_records
from twinloop.bus.offsets import OffsetLedger
from twinloop.bus.producer import refuse_oversize
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.static_member import static_member_id
from twinloop.bus.transactions import CommitUnknown, TransactionalProducer
from twinloop.errors import ConfigError, Fenced, Transient, TwinLoopError

Assigned = Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int] | None]
Revoked = Callable[[Sequence[TopicPartition]], None]
BeforeRevoke = Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int] | None]

_LAST_POLLS = 3
_MARK = "commit:"


class _Commit(NamedTuple):
    """What one transaction's end covers: the next offset to read by partition, as we and as librdkafka name it."""

    offsets: Mapping[TopicPartition, int]
    positions: list[_Partition]


class TransactionalStream:
    """One worker's exactly-once stream over a consumer group and a transactional producer."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Sequence[str],
        instance_id: str,
        transactional_id: str | None = None,
        static_membership: bool = True,
        on_assigned: Assigned | None = None,
        on_revoked: Revoked | None = None,
        before_revoke: BeforeRevoke | None = None,
    ) -> None:
        """Joins `group`; fences any earlier process of the same `transactional_id` (default `group-instance_id`).

        `on_assigned(partitions)` may return offsets to start from (a trainer resumes from its checkpoint); the
        others start at the group's committed offset. `on_revoked(partitions)` is called when partitions are gone,
        revoked or lost: drop their state. `before_revoke(partitions)` is called while they are still owned: finish
        with `send()` and return the offsets that may be committed, or None for everything polled.
        Raises Transient where Kafka does not answer, ConfigError where it refuses the settings.
        """
        self._settings = settings
        self._name = f"group {group}, instance {instance_id}"
        self._transactional_id = transactional_id or f"{group}-{instance_id}"
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._before_revoke = before_revoke
        self._ledger = OffsetLedger()
        self._owned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._is_all_paused = False
        self._is_polling = False
        self._taken_away: set[TopicPartition] = set()
        self._must_rewind = False
        self._undone: TwinLoopError | None = None
        self._commits = 0
        # Beside the committed offsets: an offset that did not move says nothing about which commit left it there.
        self._mark = f"{_MARK}{secrets.token_hex(8)}"
        self._is_closed = False
        self._committer = BoundedCaller()
        self._under_way: tuple[_Commit, StartedCall] | None = None
        self._producer = TransactionalProducer(settings, self._transactional_id)
        self._is_mock = is_mock_cluster(self._producer.cluster_id())
        with kafka_errors(f"joining {self._name} on {settings.bootstrap_servers}"):
            if self._is_mock:
                config = _mock_consumer_config(settings, group)
            else:
                member = static_member_id(instance_id, topics) if static_membership else None
                config = _consumer_config(settings, group, member)
            self._consumer = Consumer(config, logger=CLIENT_LOG)
            self._consumer.subscribe(
                list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records`: waits for the first at most `timeout_s`, then takes what is already here.

        Raises Transient when uncommitted work was undone by a lost partition or a failed commit on revoke, Fenced
        when this member was replaced.
        """
        self._is_polling = True
        try:
            with kafka_errors(f"polling as {self._name}"):
                records = self._take(max_records, timeout_s)
        finally:
            self._is_polling = False
        self._ledger.took(records)
        if self._must_rewind or self._undone is not None:
            self._rewind()
            undone, self._undone = self._undone, None
            if undone is not None:
                raise undone
            return []
        return records

    def send(self, outgoing: Outgoing) -> None:
        """Adds a record to the open transaction, opening it first where needed.

        Raises InvalidEvent for a record over the size limit (nothing is sent), Transient, Fenced.
        """
        refuse_oversize(outgoing, self._settings.max_message_bytes)
        self.end_commit()
        try:
            self._producer.send(outgoing)
        except Transient:
            self.abort()
            raise

    def send_all(self, outgoing: Iterable[Outgoing]) -> None:
        """Adds records in order, as `send()` does each of them.

        Raises InvalidEvent for the first over the size limit (those before it are added), Transient, Fenced.
        """
        self.end_commit()
        try:
            self._producer.send_all(outgoing)
        except Transient:
            self.abort()
            raise

    def commit(
        self,
        offsets: Mapping[TopicPartition, int] | None = None,
        *,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commits everything sent together with the offsets of everything polled, in one transaction.

        `offsets` (next offset to read, by partition) commits only those: records at or above them stay uncommitted
        and come again after an abort or a restart. `metadata` is stored beside a committed offset; where it is given
        it must differ from that of the commit before, or the offset must: a commit that Kafka left unanswered is
        known by the two.
        Raises Transient after undoing everything since the last commit, Fenced.
        """
        self.end_commit()
        due = self._due(offsets, metadata or {})
        if due is not None:
            group = self._consumer.consumer_group_metadata()
            self._conclude(due, lambda: self._producer.commit(due.positions, group))

    def commit_before(self, records: Sequence[Record]) -> None:
        """Commits what was sent and polled before these records, the ones polled last; they stay uncommitted.

        Raises as `commit()` does; what is undone then takes these records along.
        """
        self.end_commit()
        places = self._ledger.uncommitted()
        for record in reversed(records):
            places[record.source] = record.offset
        self.commit(places)

    def begin_commit(self) -> None:
        """Starts to commit everything sent and polled so far, and does not wait for Kafka.

        Until `end_commit()` only `poll()` goes on; what it hands out belongs to the next transaction. Every other
        method ends the commit first. Raises what `end_commit()` of a commit before raises.
        """
        self.end_commit()
        due = self._due(None, {})
        if due is not None:
            group = self._consumer.consumer_group_metadata()
            call = self._committer.start(lambda: self._producer.commit(due.positions, group))
            self._under_way = due, call

    def end_commit(self) -> None:
        """Waits for the commit begun before, if there is one; raises as `commit()` does.

        A `Transient` has undone everything since the last commit that succeeded, records polled meanwhile included.
        """
        if self._under_way is not None:
            (due, call), self._under_way = self._under_way, None
            self._conclude(due, call.finish)

    def abort(self) -> None:
        """Undoes everything since the last commit; its records come again from `poll()`.

        A commit that was begun comes first: it counts where Kafka confirms it, and is undone with the rest where not.
        """
        with suppress(Transient):
            self.end_commit()
        self._producer.abort()
        self._rewind()

    def committed_metadata(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """Committed next offset and metadata by partition; partitions never committed are left out."""
        stored = self._stored(partitions)
        return {
            source: (offset, "" if note.startswith(_MARK) else note)
            for source, (offset, note) in stored.items()
        }

    def _stored(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """As `committed_metadata`, this stream's own marks included."""
        with kafka_errors(f"asking the committed offsets of {self._name}"):
            asked = [_Partition(source.topic, source.partition) for source in partitions]
            found = self._consumer.committed(asked, self._settings.request_timeout_s)
        return {
            TopicPartition(entry.topic, entry.partition): (entry.offset, entry.metadata or "")
            for entry in found
            if entry.offset >= 0
        }

    def pause(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Stops records of these (default: all, also those assigned later); keep calling `poll()` meanwhile."""
        chosen = self._owned if partitions is None else self._owned & set(partitions)
        self._is_all_paused = self._is_all_paused or partitions is None
        self._paused |= chosen
        with kafka_errors(f"pausing {self._name}"):
            self._consumer.pause([_Partition(*source) for source in chosen])

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Lets records of these (default: all) flow again."""
        chosen = set(self._paused) if partitions is None else self._paused & set(partitions)
        self._is_all_paused = self._is_all_paused and partitions is not None
        self._paused -= chosen
        with kafka_errors(f"resuming {self._name}"):
            self._consumer.resume([_Partition(*source) for source in chosen])

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        return self._producer.in_transaction

    @property
    def commits(self) -> int:
        """Transactions committed so far; a commit made on revoke shows here."""
        return self._commits

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return frozenset(self._owned)

    def waiting(self) -> int:
        """How many offsets lie between what was polled and the ends of the owned partitions, as last heard of.

        Asks no broker; a partition of which nothing was fetched yet counts as empty. Raises Transient.
        """
        owned = [_Partition(*source) for source in self._owned]
        with kafka_errors(f"looking at the backlog of {self._name}"):
            behind = 0
            for at in self._consumer.position(owned):
                _, end = self._consumer.get_watermark_offsets(at, cached=True)
                if at.offset >= 0:
                    behind += max(0, end - at.offset)
        return behind

    def close(self) -> None:
        """Aborts what is uncommitted and leaves; commit first for a clean drain. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with suppress(TwinLoopError):
                self.end_commit()
            self._producer.close()
        finally:
            self._committer.close()
            self._leave()

    def __enter__(self) -> TransactionalStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leave(self) -> None:
        with kafka_errors(f"leaving {self._name}"):
            # librdkafka 2.16.0 hangs in close(), holding the interpreter's lock, when an assignment is waiting to be
            # served: serve it first. A member without partitions, so perhaps about to get some, unsubscribes before,
            # after which none can come; one with partitions must not, a static member keeps its place.
            if not self._owned:
                self._consumer.unsubscribe()
            for _ in range(_LAST_POLLS):
                self._consumer.poll(0)
            self._consumer.close()

    def _take(self, max_records: int, timeout_s: float) -> list[Record]:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        # A partition given up inside consume() takes `first`, polled before, along to its next owner;
        # what consume() itself had collected of it, librdkafka drops.
        self._taken_away.clear()
        rest = self._consumer.consume(max_records - 1, 0) if max_records > 1 else []
        records = to_records([first, *rest], on_error=self._judge)
        if self._taken_away:
            return [record for record in records if record.source not in self._taken_away]
        return records

    def _judge(self, message: Message) -> None:
        """Passes over what librdkafka mends by itself; raises what it cannot."""
        error = message.error()
        assert error is not None
        found = as_twinloop_error(error, doing=f"polling as {self._name}")
        if isinstance(found, Fenced | ConfigError):
            raise found

    def _due(
        self, offsets: Mapping[TopicPartition, int] | None, notes: Mapping[TopicPartition, str]
    ) -> _Commit | None:
        """What a commit now would cover; None where there is nothing to commit."""
        committing = self._ledger.uncommitted() if offsets is None else dict(offsets)
        if not committing and not self._producer.in_transaction:
            return None
        mark = f"{self._mark}.{self._commits}"
        positions = [
            _Partition(source.topic, source.partition, offset, notes.get(source) or mark)
            for source, offset in committing.items()
        ]
        return _Commit(committing, positions)

    def _conclude(self, due: _Commit, finish: Callable[[], None]) -> None:
        """Notes a commit that `finish` carries out or waits for."""
        try:
            finish()
        except CommitUnknown as unknown:
            self._settle(due, unknown)
        except Transient:
            self._rewind()
            raise
        if self._is_mock and due.positions:
            # The mock cluster takes offsets in a transaction and forgets them.
            with kafka_errors(f"committing offsets as {self._name}"):
                self._consumer.commit(offsets=due.positions, asynchronous=False)
        self._ledger.committed(due.offsets)
        self._commits += 1

    def _settle(self, due: _Commit, unknown: CommitUnknown) -> None:
        """Returns if the unconfirmed commit happened; raises Transient if not, Fenced where nobody says."""
        try:
            self._producer.replace()
            found = self._stored(due.offsets)
        except Transient as cause:
            raise Fenced(
                f"{unknown}; Kafka did not answer since: start the process again, which settles the transaction"
            ) from cause
        wanted = {TopicPartition(at.topic, at.partition): (at.offset, at.metadata) for at in due.positions}
        if not wanted or found != wanted:
            self._rewind()
            raise Transient(
                f"{unknown}; a fresh producer found it not committed, the work is undone"
            ) from unknown

    def _rewind(self) -> None:
        if self._is_polling:
            # Seeking inside a callback would race with what this poll has taken already: poll() does it at its end.
            self._must_rewind = True
            return
        self._must_rewind = False
        for source, offset in self._ledger.rewind().items():
            if source in self._owned:
                self._seek(
                    _Partition(source.topic, source.partition, offset), is_paused=source in self._paused
                )

    def _seek(self, position: _Partition, *, is_paused: bool) -> None:
        try:
            self._consumer.seek(position)
        except KafkaException:
            # Refused while the partition's fetcher is between two states: hand the partition to it anew.
            with kafka_errors(f"going back to offset {position.offset} of {position.topic} as {self._name}"):
                self._consumer.incremental_unassign([position])
                self._consumer.incremental_assign([position])
                if is_paused:
                    self._consumer.pause([position])

    def _assigned(self, consumer: Consumer, partitions: list[_Partition]) -> None:
        granted = [TopicPartition(entry.topic, entry.partition) for entry in partitions]
        self._owned.update(granted)
        starts = (self._on_assigned(granted) if self._on_assigned is not None else None) or {}
        for entry, source in zip(partitions, granted, strict=True):
            entry.offset = starts.get(source, entry.offset)
        consumer.incremental_assign(partitions)
        if self._is_all_paused:
            self._paused.update(granted)
            consumer.pause(partitions)

    def _revoked(self, _consumer: Consumer, partitions: list[_Partition]) -> None:
        leaving = [TopicPartition(entry.topic, entry.partition) for entry in partitions]
        try:
            self.end_commit()
            if not self._is_closed and self._has_uncommitted:
                self._commit_before_revoke(leaving)
        except TwinLoopError as error:
            self._undone = error
        finally:
            self._forget(leaving)

    def _commit_before_revoke(self, leaving: Sequence[TopicPartition]) -> None:
        finished = self._before_revoke(leaving) if self._before_revoke is not None else None
        # The hook may have aborted: what it undid must not be committed.
        if not self._must_rewind:
            self.commit(finished)

    def _lost(self, _consumer: Consumer, partitions: list[_Partition]) -> None:
        leaving = [TopicPartition(entry.topic, entry.partition) for entry in partitions]
        try:
            self.end_commit()
            if not self._is_closed and self._has_uncommitted:
                self._undone = Transient(
                    f"{self._name} lost {len(leaving)} partitions (silent too long, or thrown out); "
                    "work since the last commit is undone, their next owner does it"
                )
                self.abort()
        except TwinLoopError as error:
            self._undone = error
        finally:
            self._forget(leaving)

    @property
    def _has_uncommitted(self) -> bool:
        return self._producer.in_transaction or bool(self._ledger.uncommitted())

    def _forget(self, leaving: Sequence[TopicPartition]) -> None:
        self._owned.difference_update(leaving)
        self._paused.difference_update(leaving)
        self._taken_away.update(leaving)
        self._ledger.forget(leaving)
        if self._on_revoked is not None:
            self._on_revoked(leaving)


def _consumer_config(settings: KafkaSettings, group: str, member: str | None) -> dict[str, object]:
    more: dict[str, object] = {"group.id": group, "max.poll.interval.ms": settings.max_poll_interval_ms}
    if member is not None:
        more["group.instance.id"] = member
    if settings.group_protocol == "consumer":
        more["group.protocol"] = "consumer"
    else:
        more["partition.assignment.strategy"] = "cooperative-sticky"
        more["session.timeout.ms"] = settings.session_timeout_ms
        more["heartbeat.interval.ms"] = max(300, settings.session_timeout_ms // 3)
    return settings.consumer_config(**more)


def _mock_consumer_config(settings: KafkaSettings, group: str) -> dict[str, object]:
    """The mock cluster holds every rebalance back for the session time-out less 1 s, and a static member's place
    for all of it, even for the same member again: short sessions, no static members."""
    short = settings.model_copy(update={"session_timeout_ms": min(settings.session_timeout_ms, 3000)})
    return _consumer_config(short, group, None)
