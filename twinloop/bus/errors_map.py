"""The one place where confluent-kafka's errors become the project's own, cause kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from twinloop.errors import ConfigError, Fenced, InvalidEvent, Transient, TwinLoopError

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError._FATAL,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    }
)
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_MISCONFIGURED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError._INVALID_ARG,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


def kafka_error(cause: BaseException) -> KafkaError | None:
    """The KafkaError inside a KafkaException, or None where there is none."""
    inner = cause.args[0] if cause.args else None
    return inner if isinstance(inner, KafkaError) else None


def as_twinloop_error(
    error: KafkaError | None, *, doing: str, cause: BaseException | None = None
) -> TwinLoopError:
    """The project's error for a Kafka error: what the caller does next decides the class."""
    what = f"{doing}: {error.str() or error.name() if error else cause}"
    if error is None:
        found: TwinLoopError = Transient(what)
    elif error.code() in TOO_LARGE:
        found = InvalidEvent(f"{what}; lower the record's size or raise max.message.bytes of the topic")
    elif error.code() in _MISCONFIGURED:
        found = ConfigError(f"{what}; check the Kafka section of the settings")
    elif error.fatal() or error.code() in _FENCED:
        found = Fenced(f"{what}; this client cannot go on: stop the process and start it again")
    else:
        found = Transient(what)
    found.__cause__ = cause
    return found


@contextmanager
def kafka_errors(doing: str) -> Iterator[None]:
    """Raises the project's error instead of a KafkaException; `doing` opens its message."""
    try:
        yield
    except KafkaException as cause:
        raise as_twinloop_error(kafka_error(cause), doing=doing, cause=cause) from cause
    except BufferError as cause:
        raise Transient(f"{doing}: the local produce queue stayed full") from cause
