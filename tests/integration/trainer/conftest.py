"""One bench a test, on the session's mock cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.trainer.harness import TrainerBench

MakeBench = Callable[..., TrainerBench]


@pytest.fixture
def make_bench(tmp_path: Path, mock_kafka: KafkaUnderTest, names: Names) -> Iterator[MakeBench]:
    """Makes benches, each with topics and folders of its own, and stops their trainers at the end."""
    made: list[TrainerBench] = []

    def make(**options: Any) -> TrainerBench:
        name = f"{len(made)}"
        settings = options.pop("kafka", mock_kafka).settings
        bench = TrainerBench(tmp_path / name, kafka=settings, prefix=f"{names(name)}.", **options)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.close()
