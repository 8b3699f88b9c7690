"""What `twinloop doctor` looks at: each check finds out one thing and says how to mend it."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from schemas.routing import RoutingState
from twinloop.api_tokens import TOKENS_FILE, read_tokens
from twinloop.bus.admin import KafkaAdmin
from twinloop.cli.connection import Connection
from twinloop.errors import SignatureError, TwinLoopError
from twinloop.registry.blobs import open_store
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.store import StoreFacts
from twinloop.routing.verification import state_verifier
from twinloop.signing import load_signer
from twinloop.stack.supervisor import readiness

Status = Literal["ok", "warning", "bad"]

OLDEST_PYTHON = (3, 10)
OLDEST_REDIS = (6, 2)
NEEDED = ("confluent-kafka", "redis", "pydantic", "obstore", "cryptography", "orjson")
CLOCK_S = 1.0
"""A clock that is off by more makes orders look expired and answers late."""
LOW_DISK_BYTES = 1 << 30
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    status: Status
    says: str
    mend: str = ""


Check = Callable[[Connection], Iterator[Finding]]


def look(connection: Connection) -> Iterator[Finding]:
    """Every check in order; one that fails says so and the next one goes on."""
    yield from versions()
    for name, check in CHECKS.items():
        try:
            yield from check(connection)
        except (TwinLoopError, OSError) as error:
            yield Finding(name, "bad", str(error), _MENDS[name])


def versions() -> Iterator[Finding]:
    """Python and the packages every process needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    is_old = sys.version_info < OLDEST_PYTHON
    yield Finding("python", "bad" if is_old else "ok", python, "use Python 3.10 or later" if is_old else "")
    found, missing = [], []
    for name in NEEDED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("packages", "bad", f"missing: {', '.join(missing)}", "run `make setup`")
    else:
        yield Finding("packages", "ok", ", ".join(found))


def keys(connection: Connection) -> Iterator[Finding]:
    """Each private key can be read by its owner only and belongs to the public key of its id."""
    folder, ring = connection.settings.keys.folder, connection.ring
    names = sorted(path.stem for path in folder.glob("*.pem"))
    is_sound = True
    for name in names:
        signer = load_signer(folder, name)
        try:
            ring.verify(b"doctor", signer.sign(b"doctor"), name)
        except SignatureError as error:
            mend = "give every process the public.yaml that was made with these keys"
            is_sound = False
            yield Finding("keys", "bad", f"{name}: {error}", mend)
    if not names:
        mend = "run `twinloop keys init`; without a private key this machine can give no orders"
        yield Finding("keys", "warning", f"no private key in {folder}", mend)
    if is_sound:
        yield Finding("keys", "ok", f"{len(names)} private keys in {folder}, public keys in force")
    path = folder / TOKENS_FILE
    count = len(read_tokens(path).entries)
    if count:
        yield Finding("tokens", "ok", f"{count} in {path}")
    else:
        yield Finding("tokens", "warning", "nobody has a token for the API", "run `twinloop tokens add NAME`")


def brokers(connection: Connection) -> Iterator[Finding]:
    """Kafka answers, and every topic is there with enough partitions."""
    settings, topics = connection.settings, connection.topics
    admin = KafkaAdmin(settings.kafka)
    started = time.monotonic()
    admin.wait_ready(_PATIENCE_S)
    took_ms = (time.monotonic() - started) * 1000
    yield Finding("brokers", "ok", f"{settings.kafka.bootstrap_servers} answered in {took_ms:.0f} ms")
    there = admin.partition_counts()
    wrong = [
        f"{spec.name} has {there.get(spec.name, 0)} of {spec.partitions} partitions"
        for spec in topics.specs()
        if there.get(spec.name, 0) < spec.partitions
    ]
    if wrong:
        yield Finding("topics", "bad", "; ".join(wrong), "run `twinloop init`, or mend topics.prefix")
    else:
        yield Finding("topics", "ok", f"all {len(topics.specs())} are there")


def redis(connection: Connection) -> Iterator[Finding]:
    """Redis answers, is durable, agrees on the time, and holds a routing state that may be believed."""
    settings = connection.settings.redis
    store = RedisRoutingStore(settings.model_copy(update={"timeout_ms": 2000}))
    try:
        facts, now_us = store.facts(), time.time_ns() // 1000
        raw = store.read()
    finally:
        store.close()
    yield from _server(facts)
    yield _clock(abs(facts.time_us - now_us) / 1e6)
    yield _routing(connection, raw)


def _server(facts: StoreFacts) -> Iterator[Finding]:
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_REDIS:
        yield Finding("redis", "bad", f"version {facts.version}", "use Redis 6.2 or later, or Valkey")
    elif not facts.appends or facts.fsync not in ("always", ""):
        says = f"version {facts.version}, append-only file {'on' if facts.appends else 'off'}, fsync {facts.fsync}"
        mend = "set `appendonly yes` and `appendfsync always`: a swap must survive the server"
        yield Finding("redis", "warning", says, mend)
    else:
        yield Finding("redis", "ok", f"version {facts.version}, every write is synced")


def _clock(apart_s: float) -> Finding:
    if apart_s <= CLOCK_S:
        return Finding("clock", "ok", f"{apart_s * 1000:.0f} ms from the Redis server's")
    mend = "let both machines follow the same time service (chrony, systemd-timesyncd)"
    return Finding("clock", "bad", f"{apart_s:.1f} s from the Redis server's", mend)


def _routing(connection: Connection, raw: bytes | None) -> Finding:
    if raw is None:
        mend = "start a gatekeeper: it writes the key, or puts it back"
        return Finding("routing state", "warning", "there is no routing key", mend)
    try:
        state = RoutingState.model_validate_json(raw)
        state_verifier(connection.ring)(state)
    except ValidationError as error:
        mend = "a gatekeeper puts the last logged state back within seconds; start one, or see who else writes the key"
        return Finding(
            "routing state", "bad", f"no routing state: {error.error_count()} fields are wrong", mend
        )
    except SignatureError as error:
        mend = "a gatekeeper overwrites what it did not sign; if it signed this, mend public.yaml here"
        return Finding("routing state", "bad", str(error), mend)
    return Finding("routing state", "ok", f"epoch {state.epoch}, {state.phase}, {state.active} serves")


def store(connection: Connection) -> Iterator[Finding]:
    """The artifact store answers and has releases."""
    settings = connection.settings.store
    count = len(open_store(settings).list_releases())
    if count:
        yield Finding("store", "ok", f"{count} releases in {settings.url}")
    else:
        yield Finding("store", "warning", f"no release in {settings.url}", "run `twinloop init`")


def disk(connection: Connection) -> Iterator[Finding]:
    """Room for state and caches."""
    folder = connection.settings.state_folder
    here = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(here).free
    mend = "free some space: a full disk stops the store and Redis" if free < LOW_DISK_BYTES else ""
    status: Status = "warning" if mend else "ok"
    yield Finding("disk", status, f"{free / (1 << 30):.1f} GiB free at {here}", mend)


def processes(connection: Connection) -> Iterator[Finding]:
    """Every process that `up` started here is ready."""
    for name, each in connection.run().get("services", {}).items():
        is_ready, reason = readiness(int(each["health_port"]))
        mend = "" if is_ready else f"see {each['log']}"
        yield Finding(name, "ok" if is_ready else "bad", reason, mend)


CHECKS: dict[str, Check] = {
    "keys": keys,
    "brokers": brokers,
    "redis": redis,
    "store": store,
    "disk": disk,
    "processes": processes,
}
_MENDS = {
    "keys": "run `twinloop keys init`, or name the folder with keys.folder",
    "brokers": "start Kafka (`twinloop up`, `make kafka-up`), or mend kafka.bootstrap_servers",
    "redis": "start Redis (`twinloop up`), or mend redis.url and redis.password",
    "store": "mend store.url and its credentials",
    "disk": "mend state_folder",
    "processes": "start `twinloop up` again",
}
