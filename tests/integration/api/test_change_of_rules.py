"""A change of router rules from its proposal to a rollback: command line, API, trainer and gatekeeper together."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from schemas.queries import Query
from services.trainer.__main__ import build_parts
from services.trainer.settings import TrainerSettings
from services.trainer.worker import TrainerWorker
from tests.integration.api.served import Served
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.process import StopSignal
from twinloop.registry.releases import load_release
from twinloop.settings_loader import merge, read_yaml

ROOT = Path(__file__).parents[3]
ESCROW = "/rules/domains/law/keywords/escrow"


@pytest.fixture
def trainer(world: World) -> Iterator[Callable[[], None]]:
    """Starts the trainer of this world in a thread and stops it at the end."""
    settings = world.settings()
    settings.pop("gatekeeper")
    section = merge(
        read_yaml(ROOT / "configs/trainer.yaml")["trainer"],
        {"poll_timeout_s": 0.05, "job": {"keep_warm": False}},
    )
    stop, errors = StopSignal(), list[BaseException]()

    def run() -> None:
        try:
            worker = TrainerWorker(
                build_parts(TrainerSettings(**settings, trainer=section), CollectorRegistry())
            )
            worker.run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    yield thread.start
    stop.set()
    thread.join(timeout=30)
    assert errors == []


class Terminal:
    """The command line in this world."""

    def __init__(self, world: World) -> None:
        self._profile = world.folder / "profile.yaml"
        self._profile.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"bootstrap_servers": world.kafka.bootstrap_servers},
                    "store": {"url": f"file://{world.folder}/store"},
                    "keys": {"folder": str(world.folder / "keys")},
                    "topics": world.topics.settings.model_dump(),
                }
            )
        )

    def run(self, *arguments: str) -> Any:
        """What `twinloop pr` prints."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "twinloop.cli",
                "pr",
                *arguments,
                "--config",
                str(self._profile),
                "--json",
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def digests(world: World, name: str) -> dict[str, Any]:
    """Everything a release is made of."""
    return load_release(world.store, name, verify=lambda *_: None).release.model_dump(exclude={"parent"})


def test_a_change_is_examined_judged_promoted_and_rolled_back_like_any_other(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    trainer: Callable[[], None],
    tokens: dict[str, str],
) -> None:
    start()
    world.start(queries_per_s=300)
    boot = world.wait_for_kind("genesis").state.active_release
    before = digests(world, boot)
    for number, text in enumerate(("who holds the escrow", "what is a fever")):
        query = Query(id=f"q-{number}", text=text, asked_at=world.now_ms())
        world.send("queries", query, partition=number)
    world.producer.flush()
    trainer()
    served = serve()

    proposed = Terminal(world).run(
        "propose", "--set", f"{ESCROW}=2", "--reason", "escrow is law", "--actor", "olga"
    )
    name, report = proposed["proposal"]["id"], proposed["status"]["report"]
    assert (report["queries"], report["moved"]) == (2, 1)
    assert report["examples"] == [{"id": "q-0", "before": "gen", "after": "law"}]

    def call(method: str, path: str, by: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {tokens[by]}"}
        return httpx.request(
            method, f"{served.address}{path}", headers=headers, json=body or None, timeout=30
        )

    def shown() -> dict[str, Any]:
        return dict(call("GET", f"/pr/{name}", "olga").json())

    world.wait_for(lambda: call("GET", f"/pr/{name}", "olga").status_code == 200)
    assert call("POST", f"/pr/{name}/approve", "olga", reason="mine").status_code == 403
    approved = call("POST", f"/pr/{name}/approve", "anna", reason="report read")
    assert approved.status_code == 200, approved.text
    world.wait_for(lambda: shown()["stage"] == "candidate")
    release = shown()["release"]
    world.make_ready(release)

    world.wait_for_kind("canary", timeout_s=60)
    promoted = world.wait_for_kind("promote", timeout_s=90)
    assert promoted.state.active_release == release
    world.wait_for(lambda: shown()["stage"] == "promoted")
    after = digests(world, release)
    assert {part for part in before if before[part] != after[part]} == {"rules"}
    assert promoted.state.rules[release] == after["rules"] == shown()["documents"]["rules"]
    keywords = json.loads(world.store.get(after["rules"]))["domains"]["law"]["keywords"]
    assert keywords == {"law": 1.0, "escrow": 2.0}

    undone = call("POST", "/rollback", "olga", reason="moved too much")
    assert undone.status_code == 200, undone.text
    restored = world.wait_for_kind("rollback").state
    assert restored.active_release == boot
    assert digests(world, restored.active_release) == before
    assert restored.rules[boot] == before["rules"]
    world.wait_for(lambda: shown()["stage"] == "undone")
    actions = {(entry.action, entry.actor, entry.result) for entry in world.audits()}
    assert {
        ("propose-change", "olga", "accepted"),
        ("approve-change", "anna", "accepted"),
        ("rollback", "olga", "accepted"),
    } <= actions
    listed = Terminal(world).run("list")
    assert listed["status"]["stage"] == "undone"
