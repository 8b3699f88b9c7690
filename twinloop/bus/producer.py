"""Writes records outside any transaction: once each within a session, or at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from twinloop.bus.client_log import CLIENT_LOG
from twinloop.bus.errors_map import as_twinloop_error, kafka_error, kafka_errors
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import InvalidEvent, Transient, TwinLoopError

_ROOM_CHECKS = 100
_ROOM_CHECK_S = 0.1


class PromptProducer:
    """Sends records and reports at `flush()` whether all of them arrived; safe to share between threads.

    A record whose acknowledgement was lost may arrive twice. Its first record leaves in milliseconds, where an
    idempotent producer of librdkafka waits half a second for an id: for a process that sends one order, which its
    readers take once.
    """

    _IS_IDEMPOTENT = False

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._failed: list[TwinLoopError] = []
        with kafka_errors(f"starting a producer for {settings.bootstrap_servers}"):
            self._producer = Producer(
                settings.producer_config(
                    **{
                        "enable.idempotence": self._IS_IDEMPOTENT,
                        "delivery.report.only.error": True,
                        "on_delivery": self._on_delivery_error,
                    }
                ),
                logger=CLIENT_LOG,
            )

    def send(self, outgoing: Outgoing) -> None:
        """Queues a record; raises InvalidEvent over the size limit, Transient while the queue stays full."""
        refuse_oversize(outgoing, self._settings.max_message_bytes)
        produce(self._producer, outgoing)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Waits until every record sent is acknowledged; raises Transient (or InvalidEvent) if one was not."""
        left = self._producer.flush(timeout_s)
        if self._failed:
            failed, self._failed = self._failed, []
            raise failed[0]
        if left:
            raise Transient(
                f"{left} records were not acknowledged by {self._settings.bootstrap_servers} within {timeout_s} s"
            )

    def close(self, timeout_s: float = 10.0) -> None:
        """Flushes; raises as `flush()` does."""
        self.flush(timeout_s)

    def _on_delivery_error(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(as_twinloop_error(error, doing=f"writing to {message.topic()}"))


class IdempotentProducer(PromptProducer):
    """A PromptProducer whose records arrive once each, in order."""

    _IS_IDEMPOTENT = True


def refuse_oversize(outgoing: Outgoing, limit: int) -> None:
    """Raises InvalidEvent for a record over `limit` bytes (or over its own `max_bytes`)."""
    allowed = outgoing.max_bytes or limit
    size = outgoing.size if outgoing.counted is None else outgoing.counted
    if size > allowed:
        raise InvalidEvent(
            f"a record of {size} bytes for topic {outgoing.topic} is over the limit of {allowed} bytes"
        )


def produce(producer: Producer, outgoing: Outgoing) -> None:
    """Hands one record to librdkafka, waiting while its queue is full; raises Transient if none comes free."""
    partition = -1 if outgoing.partition is None else outgoing.partition
    try:
        _hand_over(producer, outgoing, partition)
    except BufferError:
        _produce_with_room(producer, outgoing, partition)
    except KafkaException as cause:
        raise as_twinloop_error(
            kafka_error(cause), doing=f"writing to {outgoing.topic}", cause=cause
        ) from cause


def produce_all(producer: Producer, outgoing: Iterable[Outgoing], *, limit: int) -> None:
    """As `refuse_oversize` and `produce` for each of them, without two calls a record."""
    send = producer.produce
    for each in outgoing:
        if each.max_bytes is not None or each.counted is None or each.counted > limit:
            refuse_oversize(each, limit)
        if each.timestamp_ms is not None:
            produce(producer, each)
            continue
        partition = each.partition
        headers: Any = list(each.headers)
        try:
            send(each.topic, each.value, each.key, -1 if partition is None else partition, headers=headers)
        except (BufferError, KafkaException):
            produce(producer, each)


def _hand_over(producer: Producer, outgoing: Outgoing, partition: int) -> None:
    headers: Any = list(outgoing.headers)
    # librdkafka takes 0 for the time of the call.
    producer.produce(
        outgoing.topic,
        outgoing.value,
        outgoing.key,
        partition,
        headers=headers,
        timestamp=outgoing.timestamp_ms or 0,
    )


def _produce_with_room(producer: Producer, outgoing: Outgoing, partition: int) -> None:
    with kafka_errors(f"writing to {outgoing.topic}"):
        for _ in range(_ROOM_CHECKS):
            producer.poll(_ROOM_CHECK_S)
            try:
                _hand_over(producer, outgoing, partition)
            except BufferError:
                continue
            return
    raise Transient(
        f"writing to {outgoing.topic}: the local queue stayed full for {_ROOM_CHECKS * _ROOM_CHECK_S:g} s"
    )
