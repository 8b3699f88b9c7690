"""librdkafka's mock cluster: a small in-memory Kafka over TCP, for the embedded profile and for quick tests.

It speaks to other processes and other clients, joins groups and takes transactions, but it proves nothing about them:
aborted records are not isolated, about 5 MB are kept per partition, and all is gone when this process ends.
The client library has no call to create topics on it, so the C library inside the confluent-kafka wheel is used
directly (`rdkafka_mock.h`); a topic nobody created appears on first use with 4 partitions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import confluent_kafka

from twinloop.bus.topic_spec import TopicSpec
from twinloop.errors import ConfigError, Transient

DEFAULT_PARTITIONS = 4
"""Partitions of a topic that appears on first use."""

_RD_KAFKA_PRODUCER = 0


class MockCluster:
    """A mock cluster that lives until `close()`; a context manager."""

    def __init__(self, *, brokers: int = 1, topics: Iterable[TopicSpec] = ()) -> None:
        """Starts `brokers` brokers on free ports of 127.0.0.1 and creates `topics` with their partition counts.

        Raises ConfigError where the librdkafka inside the installed wheel cannot be found or lacks the mock.
        """
        self._library = _load_librdkafka()
        self._handle = _new_client(self._library)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._handle)
            raise Transient(
                f"librdkafka could not start a mock cluster of {brokers} brokers; are ports free?"
            )
        self._brokers = brokers
        # Its default holds every new group back for 3 s.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for topic in topics:
            self.create_topic(topic)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, as host:port pairs."""
        addresses: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._open_cluster())
        return addresses.decode()

    def create_topic(self, topic: TopicSpec) -> None:
        """Creates a topic with its partition count (its config means nothing here); an existing one stays as it is."""
        code = self._library.rd_kafka_mock_topic_create(
            self._open_cluster(), topic.name.encode(), topic.partitions, 1
        )
        if code not in (0, _TOPIC_ALREADY_EXISTS):
            raise Transient(f"the mock cluster refused topic {topic.name}: error {code}")

    def fail_next(self, api_key: int, errors: Sequence[int]) -> None:
        """The next requests of Kafka's `api_key` are answered with these error codes, one each (fault tests)."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._open_cluster(), api_key, len(errors), array
        )

    def set_reachable(self, is_reachable: bool) -> None:
        """Takes every broker down, or brings it up again; the log is kept."""
        switch = (
            self._library.rd_kafka_mock_broker_set_up
            if is_reachable
            else self._library.rd_kafka_mock_broker_set_down
        )
        for broker_id in range(1, self._brokers + 1):
            switch(self._open_cluster(), broker_id)

    def close(self) -> None:
        """Stops the brokers and forgets every record; may be called twice."""
        cluster, self._cluster = self._cluster, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
            self._library.rd_kafka_destroy(self._handle)

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_cluster(self) -> int:
        if not self._cluster:
            raise RuntimeError("the mock cluster is closed")
        return int(self._cluster)


_TOPIC_ALREADY_EXISTS = 36


def _load_librdkafka() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    candidates = [
        *sorted(package.parent.glob("confluent_kafka.libs/librdkafka*")),
        *sorted(package.glob(".dylibs/librdkafka*")),
    ]
    for path in candidates:
        library = ctypes.CDLL(str(path))
        if hasattr(library, "rd_kafka_mock_cluster_new"):
            return _with_signatures(library)
    raise ConfigError(
        f"no librdkafka with a mock cluster beside {package}: install the confluent-kafka wheel from the package "
        "index, or point bootstrap_servers at a real Kafka"
    )


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", number, [pointer, *[ctypes.c_char_p] * 3, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [number, pointer, ctypes.c_char_p, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, ctypes.c_char_p, number, number]),
        (
            "rd_kafka_mock_push_request_errors_array",
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, pointer],
        ),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_down", number, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_up", number, [pointer, ctypes.c_int32]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def _new_client(library: ctypes.CDLL) -> int:
    reason = ctypes.create_string_buffer(512)
    config = library.rd_kafka_conf_new()
    # The client only hosts the cluster and never connects: keep quiet about having nowhere to connect to.
    library.rd_kafka_conf_set(config, b"log_level", b"2", reason, len(reason))
    handle = library.rd_kafka_new(_RD_KAFKA_PRODUCER, config, reason, len(reason))
    if not handle:
        raise ConfigError(f"librdkafka did not start: {reason.value.decode()}")
    return int(handle)
