"""`twinloop doctor` on a healthy installation and on sick ones: it names what is wrong and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from typer.testing import CliRunner

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.cli.app import build_app
from twinloop.cli.doctor_checks import CLOCK_S, _clock
from twinloop.embedded.valkey import EmbeddedValkey
from twinloop.errors import ConfigError
from twinloop.routing.redis_settings import RedisSettings
from twinloop.signing import create_keys
from twinloop.stack.home import Home
from twinloop.stack.installation import KEYS
from twinloop.topics import TopicCatalogue


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def home(mock_kafka: KafkaUnderTest, names: Names, valkey: EmbeddedValkey, tmp_path: Path) -> Home:
    """An installation whose servers run and where nothing has been decided yet."""
    prefix = f"{names('d')}."
    mock_kafka.create_topics(*TopicCatalogue.load(prefix=prefix, origin_partitions=4).specs())
    place = Home(tmp_path / "home")
    place.create()
    create_keys(place.keys, KEYS)
    write(
        place,
        kafka={"bootstrap_servers": mock_kafka.settings.bootstrap_servers},
        redis={"url": valkey.url},
        topics={"prefix": prefix},
    )
    return place


def write(place: Home, **sections: Any) -> None:
    known = yaml.safe_load(place.profile.read_text()) if place.profile.exists() else {}
    own = {
        "store": {"url": f"file://{place.store}", "create_folder": True},
        "keys": {"folder": str(place.keys)},
        "state_folder": str(place.state),
    }
    place.profile.write_text(yaml.safe_dump({**own, **known, **sections}))


def examine(place: Home) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(build_app(), ["doctor", "--home", str(place.root), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, {row["check"]: row for row in map(json.loads, done.output.splitlines())}


def test_a_healthy_installation_has_nothing_bad(home: Home) -> None:
    status, found = examine(home)
    assert status == 0
    assert {
        "python",
        "packages",
        "keys",
        "brokers",
        "topics",
        "redis",
        "clock",
        "store",
        "disk",
    } <= found.keys()
    assert {row["status"] for row in found.values()} <= {"ok", "warning"}
    assert found["redis"]["says"].endswith("every write is synced")
    assert "twinloop tokens add" in found["tokens"]["mend"]


def test_a_key_that_others_can_read_is_bad(home: Home) -> None:
    (home.keys / "operator-1.pem").chmod(0o644)
    status, found = examine(home)
    assert (status, found["keys"]["status"]) == (1, "bad")
    assert "chmod 600" in found["keys"]["says"]


def test_a_key_that_is_not_the_one_in_the_public_file_is_bad(home: Home, tmp_path: Path) -> None:
    create_keys(tmp_path / "other", {"operator-1": ("operator",)})
    (tmp_path / "other/operator-1.pem").rename(home.keys / "operator-1.pem")
    done = CliRunner().invoke(build_app(), ["doctor", "--home", str(home.root)])
    assert done.exit_code == 1
    assert "public.yaml" in " ".join(done.output.split())
    assert examine(home)[1]["keys"]["status"] == "bad"


def test_what_is_no_routing_state_is_bad_and_an_order_says_so_instead_of_breaking(
    home: Home, valkey: EmbeddedValkey
) -> None:
    key = yaml.safe_load(home.profile.read_text())["redis"].get("key", RedisSettings().key)
    with redis.Redis.from_url(valkey.url) as server:
        server.set(key, b'{"epoch": "many"}')
    status, found = examine(home)
    assert (status, found["routing state"]["status"]) == (1, "bad")
    done = CliRunner().invoke(build_app(), ["status", "--home", str(home.root)])
    assert isinstance(done.exception, ConfigError), "main turns it into exit status 2"


def test_silent_brokers_and_a_silent_redis_are_bad_and_the_rest_is_still_looked_at(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinloop.cli.doctor_checks._PATIENCE_S", 0.3)
    write(home, kafka={"bootstrap_servers": "127.0.0.1:1"}, redis={"url": "redis://127.0.0.1:1/0"})
    status, found = examine(home)
    assert status == 1
    assert found["brokers"]["status"] == found["redis"]["status"] == "bad"
    assert "bootstrap_servers" in found["brokers"]["mend"]
    assert found["store"]["status"] == "warning"


def test_missing_topics_are_named(home: Home, names: Names) -> None:
    write(home, topics={"prefix": "elsewhere.", "origin_partitions": 9})
    status, found = examine(home)
    assert (status, found["topics"]["status"]) == (1, "bad")
    assert "elsewhere.queries" in found["topics"]["says"]


def test_a_clock_that_is_off_is_bad() -> None:
    assert _clock(CLOCK_S / 2).status == "ok"
    assert _clock(CLOCK_S * 2).status == "bad"
