"""A whole system of this test's own, and a place where long tests leave what they counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.brokers import skip_or_fail
from tests.fixtures.live_system import LiveSystem
from twinloop.kafka_jars.jars import OLDEST_JAVA, find_java

Record = Callable[..., None]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveSystem]:
    """Kafka and Redis that may be killed, two releases, no service yet."""
    _need_java()
    with LiveSystem(tmp_path) as found:
        yield found


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LiveSystem]:
    """Kafka and Redis that may be killed, nothing in them: a version's `init` makes topics, keys and a release."""
    _need_java()
    with LiveSystem(tmp_path, is_set_up=False) as found:
        yield found


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Record:
    """`counted(**facts)` prints the facts and, with TWINLOOP_FAULT_REPORT set, appends them to that file."""

    def record(**facts: Any) -> None:
        line = json.dumps({"test": request.node.name, **facts})
        print(line)
        path = os.environ.get("TWINLOOP_FAULT_REPORT")
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    return record


def _need_java() -> None:
    if find_java() is None:
        skip_or_fail("kafka", f"no Java {OLDEST_JAVA} or newer: no Kafka that a test may kill")
