"""One transactional producer: begin lazily, commit or abort for certain, and say whether a lost commit happened.

Follows librdkafka's guide ("Transactional producer API"): retriable errors repeat the same call, abortable ones abort,
fatal ones end the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from twinloop.bus.bounded_call import BoundedCaller
from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import TOO_LARGE, as_twinloop_error, kafka_error, kafka_errors
from twinloop.bus.producer import produce, produce_all
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ConfigError, Fenced, Transient, TwinLoopError

_RETRY_PAUSE_S = 0.05
_OFFSETS_TIMEOUT_S = 5.0
"""Naming offsets takes milliseconds; until the commit itself giving up is cheap, the records just come again."""
_GRACE_S = 1.0


class CommitUnknown(Exception):
    """Kafka neither confirmed nor refused a commit in time; a fresh producer of the same id settles it."""


class TransactionalProducer:
    """A producer that fences earlier processes of its `transactional_id`; one thread only."""

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        """Raises Transient where Kafka does not answer in `request_timeout_s`."""
        self._settings = settings
        self._id = transactional_id
        self._is_open = False
        self._is_stale = False
        self._caller = BoundedCaller()
        self._producer = self._new_producer()

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        return self._is_open

    def cluster_id(self) -> str | None:
        """The cluster's own id; raises Transient where Kafka does not answer."""
        with kafka_errors(f"asking {self._settings.bootstrap_servers} for its id"):
            return self._producer.cluster_id(self._settings.request_timeout_s)

    def send(self, outgoing: Outgoing) -> None:
        """Writes into the open transaction, opening one first where there is none."""
        if not self._is_open:
            self._begin()
        produce(self._producer, outgoing)

    def send_all(self, outgoing: Iterable[Outgoing]) -> None:
        """Writes them in order; InvalidEvent for one over the size limit leaves those before it in the transaction."""
        if not self._is_open:
            self._begin()
        produce_all(self._producer, outgoing, limit=self._settings.max_message_bytes)

    def flush(self, timeout_s: float) -> None:
        """Waits until what was sent is in the log, where an abort leaves it unseen; raises Transient."""
        left = self._producer.flush(timeout_s)
        if left:
            raise Transient(f"writing as {self._id}: {left} records not acknowledged within {timeout_s:g} s")

    def commit(self, positions: list[TopicPartition], group: Any) -> None:
        """Commits what was sent and `positions` (a list of next offsets) of the consumer group `group`.

        Raises Transient after an abort, Fenced, ConfigError for a record the broker refuses by size, CommitUnknown.
        """
        if not self._is_open:
            self._begin()
        deadline = time.monotonic() + self._settings.commit_timeout_s
        if positions:
            self._try(
                lambda timeout_s: self._send_offsets(positions, group, timeout_s),
                deadline=min(deadline, time.monotonic() + _OFFSETS_TIMEOUT_S),
                late=self._give_up,
            )
        self._try(self._producer.commit_transaction, deadline=deadline, late=self._leave_unknown)
        self._is_open = False

    def abort(self) -> None:
        """Aborts the open transaction, if any; where Kafka is silent, the next use starts a fresh producer.

        So it does where Kafka knows of no open transaction: right after a commit the next one's first request waits
        for the commit's marks, and an abort may overtake it (INVALID_TXN_STATE, fatal for librdkafka). Raises Fenced.
        """
        if not self._is_open:
            return
        self._is_open = False
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            try:
                self._producer.abort_transaction(max(0.1, deadline - time.monotonic()))
                return
            except KafkaException as cause:
                error = kafka_error(cause)
                is_unknown_there = error is not None and error.code() == KafkaError.INVALID_TXN_STATE
                if error is not None and error.fatal() and not is_unknown_there:
                    raise as_twinloop_error(error, doing=f"aborting as {self._id}", cause=cause) from cause
                if error is None or not error.retriable() or time.monotonic() > deadline:
                    # init_transactions of the next producer aborts it for us.
                    self._is_stale = True
                    return
                time.sleep(_RETRY_PAUSE_S)

    def replace(self) -> None:
        """Starts a fresh producer, which first completes or aborts what the old one left; raises Transient."""
        self._producer = self._new_producer()
        self._is_open = False
        self._is_stale = False

    def close(self) -> None:
        """Aborts what is open and closes the connection; a fenced producer has nothing left to undo."""
        try:
            if self._is_open:
                self.abort()
            # A stale one may hang in a call it never came back from: leave it to the process's end.
            if not self._is_stale:
                self._producer.close()
        except (KafkaException, Fenced) as cause:
            CLIENT_LOG.warning("closing %s: %s", self._id, cause)
        finally:
            self._caller.close()

    def _begin(self) -> None:
        if self._is_stale:
            self.replace()
        with kafka_errors(f"opening a transaction as {self._id}"):
            self._producer.begin_transaction()
        self._is_open = True

    def _new_producer(self) -> Producer:
        settings = self._settings
        doing = f"starting transactions as {self._id} on {settings.bootstrap_servers}"
        with kafka_errors(doing):
            producer = Producer(
                settings.producer_config(
                    **{
                        "transactional.id": self._id,
                        "transaction.timeout.ms": settings.transaction_timeout_ms,
                    }
                ),
                logger=CLIENT_LOG,
            )
        deadline = time.monotonic() + settings.request_timeout_s
        while True:
            try:
                producer.init_transactions(max(0.1, deadline - time.monotonic()))
                return producer
            except KafkaException as cause:
                error = kafka_error(cause)
                if error is None or not error.retriable() or time.monotonic() > deadline:
                    raise as_twinloop_error(error, doing=doing, cause=cause) from cause
                time.sleep(_RETRY_PAUSE_S)

    def _try(
        self, call: Callable[[float], None], *, deadline: float, late: Callable[[BaseException], None]
    ) -> None:
        while True:
            try:
                call(max(0.1, deadline - time.monotonic()))
                return
            except KafkaException as cause:
                error = kafka_error(cause)
                if error is not None and error.fatal():
                    self._is_open = False
                    raise as_twinloop_error(error, doing=f"committing as {self._id}", cause=cause) from cause
                if error is not None and error.txn_requires_abort():
                    self.abort()
                    raise self._reason(error) from cause
                if error is None or not error.retriable() or time.monotonic() > deadline:
                    late(cause)
                time.sleep(_RETRY_PAUSE_S)

    def _send_offsets(self, positions: list[TopicPartition], group: Any, timeout_s: float) -> None:
        producer = self._producer
        try:
            self._caller.run(
                lambda: producer.send_offsets_to_transaction(positions, group, timeout_s),
                timeout_s + _GRACE_S,
            )
        except TimeoutError as cause:
            self._give_up(cause)

    def _give_up(self, cause: BaseException) -> None:
        """Nothing is committed yet: the next transaction's fresh producer aborts this one."""
        self._is_open = False
        self._is_stale = True
        raise Transient(f"committing as {self._id}: offsets not taken in time; the work is undone") from cause

    def _leave_unknown(self, cause: BaseException) -> None:
        self._is_open = False
        raise CommitUnknown(f"committing as {self._id}: {cause}") from cause

    def _reason(self, error: KafkaError) -> TwinLoopError:
        if error.code() in TOO_LARGE:
            return ConfigError(
                f"committing as {self._id}: {error.str()}; raise max.message.bytes of that topic above the "
                f"settings' max_message_bytes {self._settings.max_message_bytes}"
            )
        found = as_twinloop_error(error, doing=f"committing as {self._id}")
        return found if isinstance(found, Fenced) else Transient(f"{found}; the work is undone")
