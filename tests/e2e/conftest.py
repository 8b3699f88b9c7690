"""Whole installations: the services as separate processes, as `twinloop up` starts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.brokers import skip_or_fail
from twinloop.kafka_jars.jars import OLDEST_JAVA, find_java
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

STARTER = Path("configs/starter/documents.jsonl")


@pytest.fixture(scope="module")
def on_real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation on a real Kafka and a real Redis of its own."""
    if find_java() is None:
        skip_or_fail("kafka", f"no Java {OLDEST_JAVA} or newer: no Kafka for an installation of its own")
    home = Home(tmp_path_factory.mktemp("kafka-home"))
    with Installation(Plan(home=home, profile="kafka", documents=STARTER), print) as installation:
        yield installation
