"""Builds a faust app that is safe to read transactional topics with; the gatekeeper's stream stage runs on it.

faust-streaming 0.15.3 reads uncommitted records and waits 1.5 s for an empty fetch, both hard-coded: the consumer is
made here instead. Not for: tables, `exactly_once`, `concurrency` above 1, the `confluent://` driver (all broken there).

How to read with it: `async for event in stream.noack().events()`, and `await commit_offsets(app, {...})` with the next
offset to read after a restart. faust's own acknowledgements are not needed and not trusted: transaction markers take
offsets too, and its bookkeeping of such gaps can stop committing until the next start.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, cast

import aiokafka
import faust
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ConfigError, Transient

_STOP_CHECK_S = 0.1
_FETCH_WAIT_MS = 100
"""Shorter waits ask idle brokers hundreds of times a second; windows are closed far less often than this."""


class BusApp(faust.App):
    """A faust app whose consumer and credentials come from KafkaSettings."""

    kafka_settings: KafkaSettings

    def _new_transport(self) -> Any:
        return _ReadCommittedTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Nothing: without tables it keeps nothing on disk, and the working folder may be read-only."""


class _ReadCommittedThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, _transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        settings = cast(BusApp, self.app).kafka_settings
        # By range: topics of equal partition counts are shared out alike, so a join stays in one process.
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=settings.bootstrap_servers.split(","),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            # As librdkafka does by default: the mock cluster's transaction markers carry no valid checksum.
            check_crcs=False,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000.0),
            max_partition_fetch_bytes=2 * settings.max_message_bytes,
            fetch_max_wait_ms=max(_FETCH_WAIT_MS, settings.fetch_wait_max_ms),
            request_timeout_ms=int(conf.broker_request_timeout * 1000.0),
            session_timeout_ms=int(conf.broker_session_timeout * 1000.0),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000.0),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000.0),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )


class _ExactConsumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: offsets are committed exactly, and faust's tree of gaps is rebuilt whole for each of them.

        Every transaction marker is a gap; after a minute of 30 transactions a second that alone took all its time.
        """

    async def commit_exactly(self, offsets: Mapping[TP, int]) -> bool:
        """Commits these offsets as they are, past faust's own bookkeeping."""
        return bool(await self._commit(offsets))


class _ReadCommittedTransport(driver.Transport):
    Consumer = _ExactConsumer


def build_app(
    settings: KafkaSettings, *, group: str, partitions: int, instance_id: str | None = None
) -> BusApp:
    """A faust app of consumer group `group`; call it inside the event loop that will run it.

    Topics must exist and have `partitions` partitions. `instance_id` makes the membership static: a restart under the
    same id takes over at once; take it from `static_member_id`. Raises ConfigError for settings faust cannot honour.
    """
    app = BusApp(
        group,
        broker=";".join(f"kafka://{server}" for server in settings.bootstrap_servers.split(",")),
        broker_credentials=_credentials(settings),
        broker_session_timeout=settings.session_timeout_ms / 1000.0,
        broker_heartbeat_interval=settings.session_timeout_ms / 3000.0,
        consumer_group_instance_id=instance_id,
        consumer_auto_offset_reset="earliest",
        producer_linger=settings.linger_ms / 1000.0,
        producer_acks=-1,
        producer_max_request_size=2 * settings.max_message_bytes,
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        # Events are held back until their window closes: True would wait for them at every stop and rebalance.
        stream_wait_empty=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    app.kafka_settings = settings
    return app


def record_of(event: Any) -> Record:
    """The Record behind a faust event."""
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple((name, value or b"") for name, value in pairs),
        int(message.timestamp * 1000.0) if message.timestamp is not None else -1,
    )


async def commit_offsets(app: BusApp, offsets: Mapping[TopicPartition, int]) -> None:
    """Commits the next offset to read of each partition; those no longer owned are left to their new owner.

    Raises Transient where Kafka did not take them: nothing is committed, try again with the next batch.
    """
    wanted = {TP(source.topic, source.partition): offset for source, offset in offsets.items()}
    if wanted and not await cast(_ExactConsumer, app.consumer).commit_exactly(wanted):
        raise Transient(f"Kafka did not take the offsets {dict(offsets)} of group {app.conf.id}")


async def run_until(app: BusApp, stopped: asyncio.Event) -> None:
    """Starts the app, runs it until `stopped` is set, stops it; raises Transient where it crashes instead."""
    await app.start()
    try:
        while not stopped.is_set():
            if app.crashed:
                raise Transient(
                    f"the stream of group {app.conf.id} crashed: {app.crash_reason!r}"
                ) from app.crash_reason
            try:
                await asyncio.wait_for(stopped.wait(), _STOP_CHECK_S)
            except asyncio.TimeoutError:
                continue
    finally:
        await app.stop()


def _credentials(settings: KafkaSettings) -> Any:
    if settings.security_protocol == "PLAINTEXT":
        return None
    context = _ssl_context(settings) if settings.security_protocol.endswith("SSL") else None
    if settings.security_protocol == "SSL":
        return faust.SSLCredentials(context)
    if settings.sasl_password is None:
        raise ConfigError("SASL needs sasl_password")
    return faust.SASLCredentials(
        username=settings.sasl_username,
        password=settings.sasl_password.get_secret_value(),
        ssl_context=context,
        mechanism=settings.sasl_mechanism,
    )


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_location)
        if settings.ssl_certificate_location is not None:
            password = settings.ssl_key_password
            context.load_cert_chain(
                settings.ssl_certificate_location,
                settings.ssl_key_location,
                password.get_secret_value() if password is not None else None,
            )
    except (OSError, ssl.SSLError) as cause:
        raise ConfigError(f"the TLS files of the Kafka settings cannot be used: {cause}") from cause
    return context
