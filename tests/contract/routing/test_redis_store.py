from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from tests.contract.routing.store_contract import INCARNATION, RoutingStoreContract, state
from tests.fixtures.brokers import Names
from twinloop.errors import ConfigError, Transient
from twinloop.kafka_jars.redis_server import FaultyRedis
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import Installed, Refused, RoutingStore


@pytest.fixture
def settings(redis_server: FaultyRedis, names: Names) -> RedisSettings:
    return RedisSettings(url=redis_server.url, key=names("routing"))


@pytest.fixture
def store(settings: RedisSettings) -> Iterator[RedisRoutingStore]:
    found = RedisRoutingStore(settings)
    yield found
    found.close()


class TestRedisRoutingStore(RoutingStoreContract):
    @pytest.fixture(autouse=True)
    def _client(self, settings: RedisSettings) -> Iterator[None]:
        self.settings = settings
        with redis.Redis.from_url(settings.url) as self.client:
            yield

    def overwrite(self, store: RoutingStore, value: bytes) -> None:
        self.client.set(self.settings.key, value)


def test_a_write_on_a_server_with_synced_aof_is_durable(store: RedisRoutingStore) -> None:
    assert store.install(state(1), mode="create") == Installed(1, durable=True)


def test_a_write_that_no_replica_acknowledged_is_not_called_durable(settings: RedisSettings) -> None:
    store = RedisRoutingStore(settings.model_copy(update={"wait_replicas": 1, "wait_ms": 20}))
    assert store.install(state(1), mode="create") == Installed(1, durable=False)
    store.close()


def test_a_write_publishes_its_epoch_in_the_same_step(
    store: RedisRoutingStore, settings: RedisSettings
) -> None:
    with redis.Redis.from_url(settings.url) as client, client.pubsub() as listener:
        listener.subscribe(settings.key)
        assert listener.get_message(timeout=5)
        store.install(state(7), mode="create")
        store.install(state(6), mode="advance")
        heard = listener.get_message(timeout=5)
        assert heard is not None
        assert heard["data"] == b"7"
        assert listener.get_message(timeout=0.05) is None


def test_racing_writers_lose_no_update_and_one_wins_each_epoch(settings: RedisSettings) -> None:
    rounds, writers = 40, 4
    won: list[tuple[int, int]] = []
    first = RedisRoutingStore(settings)
    first.install(state(1), mode="create")

    def write(writer: int) -> None:
        store = RedisRoutingStore(settings)
        for epoch in range(2, rounds + 2):
            if isinstance(store.install(state(epoch, writer=writer), mode="advance"), Installed):
                won.append((epoch, writer))
        store.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    epochs = [epoch for epoch, _ in won]
    assert len(epochs) == len(set(epochs))
    last, winner = max(won)
    assert last == rounds + 1
    assert first.read() == state(last, writer=winner)
    first.close()


def test_silence_is_transient_within_the_time_out_and_a_late_answer_is_not_taken_for_the_next(
    own_redis: FaultyRedis,
) -> None:
    store = RedisRoutingStore(RedisSettings(url=own_redis.url, key="k"))
    store.install(state(1), mode="create")
    assert store.read() == state(1)
    own_redis.freeze()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(Transient):
            store.read()
        assert time.monotonic() - started < 0.5
    own_redis.thaw()
    time.sleep(0.05)
    store.install(state(2), mode="advance")
    assert store.read() == state(2)
    store.close()


def test_a_killed_server_is_transient_and_an_installed_epoch_survives_it(own_redis: FaultyRedis) -> None:
    store = RedisRoutingStore(RedisSettings(url=own_redis.url, key="k"))
    assert store.install(state(1), mode="create") == Installed(1, durable=True)
    own_redis.kill()
    store.begin_read()
    with pytest.raises(Transient):
        store.finish_read()
    with pytest.raises(Transient):
        store.install(state(2), mode="advance")
    own_redis.start()
    assert store.read() == state(1)
    assert store.install(state(1), mode="advance") == Installed(1, durable=True)
    assert store.install(state(0), mode="advance") == Refused("not_higher", 1, INCARNATION)
    store.close()


def test_a_refused_user_is_a_configuration_error(own_redis: FaultyRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.acl_setuser("reader", enabled=True, passwords=["+right"], keys=["k"], commands=["+get"])
    settings = RedisSettings.model_validate(
        {"url": own_redis.url, "key": "k", "username": "reader", "password": "wrong"}
    )
    with pytest.raises(ConfigError, match="password"):
        RedisRoutingStore(settings).read()
    allowed = RedisRoutingStore(settings.model_copy(update={"password": _secret("right")}))
    assert allowed.read() is None
    with pytest.raises(ConfigError):
        allowed.install(state(1), mode="create")
    allowed.close()


def _secret(value: str) -> object:
    return RedisSettings.model_validate({"password": value}).password
