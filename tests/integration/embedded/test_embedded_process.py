from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.embedded.valkey import EmbeddedValkey


def started(folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    command = [sys.executable, "-m", "twinloop.embedded", "--data-dir", str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def ended(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(15)


def test_one_process_serves_kafka_and_redis_until_it_is_told_to_end(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    process, state = started(tmp_path, "--topic", "one=1", "--state-file", str(state_file))
    try:
        assert json.loads(state_file.read_text()) == state
        settings = KafkaSettings(bootstrap_servers=str(state["bootstrap_servers"]))
        assert KafkaAdmin(settings).partition_counts(["one"]) == {"one": 1}
        producer = IdempotentProducer(settings)
        producer.send(Outgoing("one", b"hello"))
        producer.flush()
        with LogReader(settings, topics=["one"]) as reader:
            assert [record.value for record in reader.read_to_end()] == [b"hello"]
        with redis.Redis.from_url(str(state["redis_url"])) as client:
            assert client.set("key", "kept")
    finally:
        assert ended(process) == 0


def test_what_redis_holds_outlives_kill_9_of_everything(tmp_path: Path) -> None:
    process, state = started(tmp_path)
    with redis.Redis.from_url(str(state["redis_url"])) as client:
        client.set("key", "kept")
    process.kill()
    process.wait(10)
    orphan = redis.Redis.from_url(str(state["redis_url"]))
    assert orphan.ping()
    again, state = started(tmp_path)
    try:
        with redis.Redis.from_url(str(state["redis_url"])) as client:
            assert client.get("key") == b"kept"
        # Two servers on one folder would spoil its file.
        with pytest.raises(redis.ConnectionError):
            orphan.ping()
    finally:
        ended(again)
        assert process.stdout is not None
        process.stdout.close()


def test_a_killed_server_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "kept")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"kept"


def test_a_frozen_server_keeps_its_connections_and_answers_nothing(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, redis.Redis.from_url(server.url, socket_timeout=0.2) as client:
        client.ping()
        server.freeze()
        try:
            begun = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            assert time.monotonic() - begun < 5
        finally:
            server.thaw()
        assert client.ping()
