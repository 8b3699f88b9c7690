"""One question, one trace: client, router process and a worker with the real model, told by OTEL_* variables alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.inference.bench import QUESTION, ModelBench, WorkerBench
from tests.integration.telemetry.otlp_receiver import OtlpReceiver, Received
from twinloop.client.client import Client
from twinloop.kafka_jars.redis_server import FaultyRedis
from twinloop.telemetry.tracing import open_tracer


@contextmanager
def router(bench: WorkerBench, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    config = folder / "router.yaml"
    settings = {
        "kafka": {"bootstrap_servers": bench.kafka.bootstrap_servers},
        "redis": {"url": bench.redis.url, "key": bench.redis.key},
        "store": {"url": (folder / "store").as_uri()},
        "keys": {"folder": str(folder / "keys")},
        "topics": bench.topics.settings.model_dump(),
        "state_folder": str(folder / "state"),
    }
    config.write_text(yaml.safe_dump(settings))
    with (folder / "router.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.router", "--config", str(config)],
            stderr=log,
            env={**os.environ, **environment},
        )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (folder / "router.log").read_text()
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


def test_a_question_is_one_trace_from_the_ask_to_its_answer(
    tmp_path: Path,
    mock_kafka: KafkaUnderTest,
    own_redis: FaultyRedis,
    names: Names,
    receiver: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.address, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asking, answering = (open_tracer(name, "0", os.environ) for name in ("test", "inference"))
    assert asking is not None
    assert answering is not None
    with ExitStack() as stack:
        stack.callback(asking.close)
        stack.callback(answering.close)
        bench = WorkerBench(
            ModelBench(tmp_path),
            kafka=mock_kafka.settings,
            redis_url=own_redis.url,
            prefix=f"{names('trace')}.",
            tracer=answering,
        )
        stack.callback(bench.close)
        stack.enter_context(router(bench, tmp_path, environment))
        client = stack.enter_context(Client(mock_kafka.settings, bench.topics, name="test", tracer=asking))
        good = client.ask(QUESTION, domain="law", deadline_ms=60_000)
        assert good.error is None
        bench.model.break_model()
        bad = client.ask(QUESTION, domain="law", deadline_ms=60_000)
        assert bad.error is not None

    assert len(receiver.spans) == 6
    for query_id, failed in ((good.query_id, False), (bad.query_id, True)):
        ask, route, answer = (_span(receiver, query_id, name) for name in ("ask", "route", "answer"))
        assert [each.service for each in (ask, route, answer)] == [
            *("twinloop-test", "twinloop-router", "twinloop-inference")
        ]
        assert ask.span.trace_id == route.span.trace_id == answer.span.trace_id
        assert ask.span.parent_span_id == b""
        assert route.span.parent_span_id == ask.span.span_id
        assert answer.span.parent_span_id == route.span.span_id
        assert len({each.span.span_id for each in (ask, route, answer)}) == 3
        begun = [each.span.start_time_unix_nano for each in (ask, route, answer)]
        assert begun == sorted(begun)
        assert all(each.span.end_time_unix_nano >= each.span.start_time_unix_nano for each in (ask, route))
        assert [each.failed for each in (ask, route, answer)] == [failed, False, failed]
    assert len({each.span.trace_id for each in receiver.spans}) == 2
    assert not any(QUESTION.encode() in body or b"Markemfan" in body for body in receiver.bodies)


def _span(receiver: OtlpReceiver, query_id: str, name: str) -> Received:
    (found,) = (
        each
        for each in receiver.spans
        if each.span.name == name
        and any(
            pair.key == "messaging.message.id" and pair.value.string_value == query_id
            for pair in each.span.attributes
        )
    )
    return found
