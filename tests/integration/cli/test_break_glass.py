"""`twinloop rollback --break-glass` with no broker and no gatekeeper: Redis is written, and people can find out why."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from schemas.routing import Canary, RoutingState
from twinloop.canonical import canonical_json
from twinloop.cli import exit_status
from twinloop.kafka_jars.redis_server import FaultyRedis
from twinloop.routing.reader import StateReader
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.verification import state_verifier
from twinloop.signing import KeyRing, create_keys, load_signer, sign_document

ROOT = Path(__file__).parents[3]
OLD, BAD, REVOKED = "a" * 64, "b" * 64, "c" * 64
RULES = "d" * 64


class Home:
    """An installation of which only Redis is alive: nothing listens where Kafka should."""

    def __init__(self, root: Path, redis_url: str) -> None:
        self.root = root
        self.redis = RedisSettings(url=redis_url, timeout_ms=500)
        keys = {
            "gatekeeper-1": ("gatekeeper",),
            "operator-1": ("operator", "break-glass"),
            "viewer-1": ("viewer",),
        }
        self.public = create_keys(root / "keys", keys)  # type: ignore[arg-type]
        profile = {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "redis": {"url": redis_url, "timeout_ms": 500},
            "keys": {"folder": str(root / "keys")},
            "store": {"url": (root / "store").as_uri(), "create_folder": True},
        }
        (root / "profile.yaml").write_text(yaml.safe_dump(profile))

    def install(self, **changes: object) -> RoutingState:
        values: dict[str, object] = {
            "incarnation": "0123456789abcdef" * 2,
            "epoch": 7,
            "active": "green",
            "releases": {"blue": OLD, "green": BAD},
            "previous": OLD,
            "canary": Canary(slot="blue", basis_points=500, salt="s" * 16),
            "rules": {OLD: RULES, BAD: RULES},
            "revoked": (REVOKED,),
            "phase": "canary",
            "decision_id": "decision-7",
            "changed_at": 0,
            "changed_by": "gatekeeper",
        }
        state = sign_document(
            RoutingState.model_validate({**values, **changes}),
            load_signer(self.root / "keys", "gatekeeper-1"),
        )
        self._store().install(canonical_json(state), mode="create")
        return state

    def read(self) -> RoutingState | None:
        return self.reader().read(time.monotonic()).state

    def reader(self) -> StateReader:
        return StateReader(self._store(), verify=state_verifier(KeyRing.load(self.public)))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "twinloop.cli", "rollback", "--break-glass", *arguments]
        return subprocess.run(
            [*command, "--home", str(self.root)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    def _store(self) -> RedisRoutingStore:
        return RedisRoutingStore(self.redis)


@pytest.fixture
def home(tmp_path: Path, own_redis: FaultyRedis) -> Home:
    return Home(tmp_path, own_redis.url)


def test_with_kafka_and_gatekeeper_dead_the_previous_release_serves_again_in_one_write(home: Home) -> None:
    before = home.install()
    router = home.reader()
    assert router.read(time.monotonic()).state == before

    done = home.run("--reason", "wrong dosages in med", "--actor", "ada", "--json")

    assert done.returncode == exit_status.OK, done.stderr
    after = router.read(time.monotonic()).state
    assert after is not None
    assert (after.epoch, after.active, after.active_release) == (8, "blue", OLD)
    assert after.revoked == (REVOKED, BAD)
    assert (after.canary, after.mirror, after.phase, after.previous) == (None, None, "steady", None)
    assert (after.changed_by, after.key_id) == ("ada", "operator-1")
    assert json.loads(done.stdout)["epoch"] == 8
    (kept,) = (home.root / "break-glass.jsonl").read_text().splitlines()
    entry = json.loads(kept)
    assert (entry["via"], entry["actor"], entry["target"]) == ("break-glass", "ada", OLD)
    assert entry["detail"] == f"wrong dosages in med [{after.decision_id}]"
    assert "break-glass.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), exit_status.CONFIG, "--reason"),
        (("--reason", "x", "--key", "viewer-1"), exit_status.CONFIG, "break-glass"),
        (("--reason", "x", BAD), exit_status.REFUSED, "active already"),
        (("--reason", "x", REVOKED), exit_status.REFUSED, "revoked"),
    ],
)
def test_what_may_not_be_written_is_refused_and_changes_nothing(
    home: Home, arguments: tuple[str, ...], status: int, says: str
) -> None:
    before = home.install()
    done = home.run(*arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert home.read() == before
    assert not (home.root / "break-glass.jsonl").exists()


def test_without_a_routing_state_nothing_is_invented(home: Home) -> None:
    done = home.run("--reason", "x")
    assert done.returncode == exit_status.CONFIG
    assert "no routing state" in done.stderr
