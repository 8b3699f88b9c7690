"""Consume, process, produce: outputs and input offsets become visible together, or not at all.

The contract in five lines (measured under kill -9 and rebalances, see the integration tests):
- Rebalance callbacks fire only inside `poll()` and `close()`. Call `send()` for every record a `poll()` returned before
  the next `poll()`, or give a `before_revoke` hook that finishes the work or names the offsets that are finished.
- On revoke the open transaction is committed before the partitions are given up; on loss it is aborted.
- `Transient` from any method means: everything since the last commit is undone and its records come again.
- `Fenced` means: another process owns this identity, or this client is broken for good. Stop the process.
- One thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import KafkaError

from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.bus.settings import KafkaSettings

Assigned = Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int] | None]
Revoked = Callable[[Sequence[TopicPartition]], None]
BeforeRevoke = Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int] | None]

_NOT_ERRORS = frozenset({KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})


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
        """Joins `group` and fences any earlier process of the same `transactional_id` (default `group-instance_id`).

        `on_assigned(partitions)` may return offsets to start from (a trainer resumes from its checkpoint); partitions it
        leaves out start at the group's committed offset. `on_revoked(partitions)` is called after partitions are gone,
        revoked or lost: drop their state. `before_revoke(partitions)` is called while they are still owned: finish with
        `send()`, and return the offsets that may be committed, or None for everything polled.
        Raises Transient where Kafka does not answer, ConfigError where it refuses the settings.
        """

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records`: waits for the first at most `timeout_s`, then takes what is already here.

        Raises Transient when uncommitted work was undone by a lost partition or a failed commit on revoke, Fenced when
        this member was replaced.
        """
        raise NotImplementedError

    def send(self, outgoing: Outgoing) -> None:
        """Adds a record to the open transaction, opening it first where needed.

        Raises InvalidEvent for a record over the size limit (nothing is sent), Transient, Fenced.
        """

    def commit(
        self,
        offsets: Mapping[TopicPartition, int] | None = None,
        *,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Commits everything sent together with the offsets of everything polled, in one transaction.

        `offsets` (next offset to read, by partition) commits only those: records at or above them stay uncommitted
        and come again after an abort or a restart. `metadata` is stored beside a committed offset.
        Raises Transient after undoing everything since the last commit, Fenced.
        """

    def abort(self) -> None:
        """Undoes everything since the last commit; its records come again from `poll()`."""

    def committed_metadata(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """Committed next offset and metadata by partition; partitions never committed are left out."""
        raise NotImplementedError

    def pause(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Stops records of these (default: all, also those assigned later); keep calling `poll()` meanwhile."""

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Lets records of these (default: all) flow again."""

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        raise NotImplementedError

    @property
    def commits(self) -> int:
        """Transactions committed so far; a commit made on revoke shows here."""
        raise NotImplementedError

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        raise NotImplementedError

    def close(self) -> None:
        """Aborts what is uncommitted and leaves; commit first for a clean drain. May be called twice."""
