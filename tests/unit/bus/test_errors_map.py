from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from twinloop.bus.errors_map import as_twinloop_error, kafka_errors
from twinloop.errors import ConfigError, Fenced, InvalidEvent, Transient, TwinLoopError


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (KafkaError._TRANSPORT, Transient),
        (KafkaError.NOT_LEADER_FOR_PARTITION, Transient),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Transient),
        (KafkaError.MSG_SIZE_TOO_LARGE, InvalidEvent),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigError),
        (KafkaError._INVALID_ARG, ConfigError),
        (KafkaError.INVALID_PRODUCER_EPOCH, Fenced),
        (KafkaError.FENCED_INSTANCE_ID, Fenced),
        (KafkaError._FATAL, Fenced),
    ],
)
def test_a_code_becomes_the_error_that_says_what_to_do(code: int, wanted: type[TwinLoopError]) -> None:
    found = as_twinloop_error(KafkaError(code), doing="polling")
    assert type(found) is wanted
    assert str(found).startswith("polling: ")


def test_whatever_is_fatal_ends_the_client() -> None:
    error = KafkaError(KafkaError._TIMED_OUT, "lost", True)
    assert isinstance(as_twinloop_error(error, doing="committing"), Fenced)


def test_the_cause_is_kept() -> None:
    cause = KafkaException(KafkaError(KafkaError._TRANSPORT))
    with pytest.raises(Transient) as raised, kafka_errors("asking"):
        raise cause
    assert raised.value.__cause__ is cause


def test_a_full_queue_is_transient_and_other_errors_pass() -> None:
    with pytest.raises(Transient, match="queue"), kafka_errors("writing"):
        raise BufferError
    with pytest.raises(KeyError), kafka_errors("writing"):
        raise KeyError("x")
