from __future__ import annotations

import pytest

from tests.contract.bus.stream_contract import StreamContract
from tests.fixtures.brokers import KafkaUnderTest


class TestMockStream(StreamContract):
    @pytest.fixture
    def edge(self, mock_kafka: KafkaUnderTest) -> KafkaUnderTest:
        return mock_kafka
