from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.router.harness import RouterBench
from twinloop.kafka_jars.redis_server import FaultyRedis


@pytest.fixture
def bench(
    tmp_path: Path, mock_kafka: KafkaUnderTest, own_redis: FaultyRedis, names: Names
) -> Iterator[RouterBench]:
    """A bench on the mock cluster: everything but the isolation of aborted transactions."""
    found = RouterBench(tmp_path, kafka=mock_kafka.settings, redis_url=own_redis.url, prefix=f"{names('x')}.")
    yield found
    found.close()


@pytest.fixture
def real_bench(
    tmp_path: Path, kafka: KafkaUnderTest, own_redis: FaultyRedis, names: Names
) -> Iterator[RouterBench]:
    """A bench on a real Kafka."""
    found = RouterBench(tmp_path, kafka=kafka.settings, redis_url=own_redis.url, prefix=f"{names('x')}.")
    yield found
    found.close()
