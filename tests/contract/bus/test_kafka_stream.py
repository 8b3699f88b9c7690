from __future__ import annotations

import pytest

from tests.contract.bus.stream_contract import StreamContract
from tests.fixtures.brokers import KafkaUnderTest


@pytest.mark.kafka
class TestKafkaStream(StreamContract):
    @pytest.fixture
    def edge(self, kafka: KafkaUnderTest) -> KafkaUnderTest:
        return kafka
