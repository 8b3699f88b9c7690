"""From the previous version to this one and back while users ask: every query ends once, whatever version met it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.answers import Answer
from schemas.feedback import FeedbackStatus
from schemas.queries import Query
from schemas.routing import RoutingState
from tests.fixtures.live_system import ROOT, LiveSystem, Load, Service, wait_until
from tests.fixtures.previous_version import previous_tree
from twinloop.client.client import Client
from twinloop.codec import decode
from twinloop.errors import ConfigError, Transient
from twinloop.process import EXIT_CONFIG, EXIT_OK
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.stack.supervisor import free_port

pytestmark = [pytest.mark.slow, pytest.mark.alone]

START_S = 240.0
"""A worker loads its model in seconds; on a machine that does ten other things, in minutes."""


def exchanged(
    live: LiveSystem, service: Service, tree: Path, *, configs: Path | None = None, **environment: str
) -> Service:
    """The same process identity from another version's tree: asked to stop, waited for, started, waited for.

    One of the previous version may have fallen before: on a machine with no time for it that one has faults which this
    version mended, and here no supervisor starts it again. Nothing may be lost by that either.
    """
    has_fallen = not service.child.is_running and service.tree != ROOT
    service.child.stop(grace_s=60)
    if has_fallen:
        print(f"{service.name} of the previous version fell: {service.child.log_tail(1)}")
    else:
        assert service.child.exit_status == EXIT_OK, service.child.log_tail(30)
    instance = service.name.removeprefix(f"{service.service}-")
    fresh = live.start(service.service, instance, tree=tree, configs=configs, **environment)
    fresh.wait_ready(START_S)
    return fresh


def test_each_tree_runs_its_own_code(tmp_path: Path) -> None:
    for tree in (previous_tree(tmp_path), ROOT):
        program = (
            "import services.router.worker as worker, twinloop; print(worker.__file__, twinloop.__file__)"
        )
        printed = subprocess.run(
            [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True
        ).stdout
        assert all(Path(each).is_relative_to(tree) for each in printed.split())


def add_missing_topics(live: LiveSystem) -> set[str]:
    """What an operator does before the first service is replaced: this version's `init`; the topics it made."""
    before = live.topic_names()
    live.init(ROOT)
    made = live.topic_names() - before
    assert made, "the previous version has every topic already: pin an earlier commit, or this proves nothing"
    assert live.topic_names() == set(live.topics.declarations)
    return made


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_router_and_worker_are_upgraded_and_downgraded_under_load_and_lose_no_query(
    servers: LiveSystem, counted: Callable[..., None], tmp_path: Path
) -> None:
    live, old = servers, previous_tree(tmp_path / "tree")
    live.init(old)
    live.install(live.state(1), "create")
    router, worker = live.start("router", tree=old), live.start("inference", "blue-0", tree=old)
    live.wait_ready(router, worker, timeout_s=START_S)
    load = Load(live, per_s=15, deadline_ms=600_000)
    time.sleep(2.0)
    made = add_missing_topics(live)
    for tree in (ROOT, old):
        worker = exchanged(live, worker, tree)
        time.sleep(1.0)
        router = exchanged(live, router, tree)
        time.sleep(1.0)
    load.stop()
    found = live.settled(load, timeout_s=240)
    counted(
        sent=found.sent, lost=len(found.lost), doubled=len(found.doubled), strange=len(found.strange),
        ended=found.kinds, dead_letters=len(live.records("dead-letters")), topics_made=sorted(made),
    )  # fmt: skip
    assert found.is_whole
    assert found.kinds.get("answered") == found.sent
    assert live.records("dead-letters") == []


class WholeSystem:
    """Every service of one version, replaced one by one by those of another, as docs/operations.md says."""

    ORDER = (
        *("gatekeeper-0", "trainer-0", "inference-green-0", "inference-blue-0", "router-0", "router-1"),
        "api-0",
    )
    """Readers before writers: what a newer version adds to a record is read by those that know it."""

    def __init__(self, live: LiveSystem, tree: Path) -> None:
        self._live, self.tree, self.checkpoints_set_aside = live, tree, 0
        self.api = Api(live, tree)
        for name in self.ORDER:
            service, _, instance = name.partition("-")
            live.start(service, instance, tree=tree, configs=None, **self._environment(name))
        live.wait_ready(timeout_s=START_S)

    def roll(self, tree: Path, *, forward: bool, policy_of: Path) -> None:
        """`policy_of` is the version whose gatekeeper.yaml is in force: no older gatekeeper reads a newer policy."""
        for name in self.ORDER if forward else reversed(self.ORDER):
            try:
                configs = policy_of / "configs" if name == "gatekeeper-0" else None
                service = self._live.services[name]
                exchanged(self._live, service, tree, configs=configs, **self._environment(name))
            except ConfigError:
                if forward or name != "trainer-0":
                    raise
                self._start_trainer_without_checkpoint(tree)
            time.sleep(0.5)
        self.tree = tree

    def _start_trainer_without_checkpoint(self, tree: Path) -> None:
        """What the docs say where an older trainer cannot read what a newer one wrote down, as it says itself."""
        refused = self._live.services["trainer-0"].child
        assert refused.exit_status == EXIT_CONFIG, refused.log_tail(30)
        assert "move it away" in refused.log_tail(1)
        checkpoint = self._live.folder / "state" / "trainer-0" / "checkpoint.json"
        checkpoint.rename(checkpoint.with_name("checkpoint.newer"))
        self._live.start("trainer", tree=tree).wait_ready(START_S)
        self.checkpoints_set_aside += 1

    def order(self, *arguments: str) -> str:
        """An order by the command line of the version that runs."""
        return self._live.twinloop(*arguments, "--config", str(self._live.profile), tree=self.tree)

    def _environment(self, name: str) -> dict[str, str]:
        return {"API__PORT": str(self.api.port)} if name == "api-0" else {}


class Api:
    """The admin API as people meet it: one address and one token, whatever version answers."""

    def __init__(self, live: LiveSystem, tree: Path) -> None:
        self.port = free_port()
        tokens = str(live.folder / "keys" / "tokens.yaml")
        made = live.twinloop(
            *("tokens", "add", "olga", "--role", "operator", "--key", "operator-1"),
            *("--file", tokens, "--json"),
            tree=tree,
        )
        self._headers = {"Authorization": f"Bearer {json.loads(made)['token']}"}

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        return httpx.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            headers=self._headers,
            json=body or None,
            timeout=90,
        )

    def get(self, path: str) -> Any:
        """The document there; the wrong status is a failure."""
        return self.call("GET", path).raise_for_status().json()

    def routes(self) -> set[str]:
        return set(self.get("/openapi.json")["paths"])


class ApiUser:
    """Somebody who asks one question after the other through the API, again where nobody listens."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.answered: list[str] = []
        self.told: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api-user", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            try:
                reply = self._api.call(
                    "POST", "/answer", question="Who holds the escrow?", deadline_ms=120_000
                )
            except httpx.ConnectError:
                self.told["nobody listens"] += 1
            except httpx.TransportError:
                self.told["broken off"] += 1
            else:
                self.told[str(reply.status_code)] += 1
                if reply.status_code == 200:
                    self.answered.append(reply.json()["query_id"])


class EpochWatch:
    """Reads the routing key again and again; every epoch seen, in order."""

    def __init__(self, live: LiveSystem) -> None:
        self._store = RedisRoutingStore(live.redis)
        self.seen: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="epoch-watch", daemon=True)
        self._thread.start()

    def stop(self) -> list[int]:
        self._stop.set()
        self._thread.join(30)
        self._store.close()
        return self.seen

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                raw = self._store.read()
            except Transient:
                continue
            if raw is not None:
                epoch = RoutingState.model_validate_json(raw).epoch
                if self.seen[-1:] != [epoch]:
                    self.seen.append(epoch)


def rated(live: LiveSystem, answers: Mapping[str, Answer]) -> list[str]:
    """Ids of feedback given on these answers, one each."""
    with Client(live.kafka, live.topics, name="raters") as client:
        found = [
            client.rate(answer, question="any", rater=f"r-{name}", rating="up", feedback_id=f"f-{name}").id
            for name, answer in answers.items()
            if answer.receipt is not None
        ]
        client.flush(30)
    return found


def asked(live: LiveSystem) -> dict[str, int]:
    """Every query that Kafka took, whoever asked it: its id and when."""
    queries = [decode(record, Query) for record in live.records("queries")]
    return {query.id: query.asked_at for query in queries}


def change_promoted_and_undone(system: WholeSystem) -> dict[str, Any]:
    """A change of rules, whose topic came with the new version, promoted by hand and rolled back; what served."""
    before = str(system.api.get("/status")["active"]["release"])
    proposed = system.order(
        *("pr", "propose", "--set", "/rules/domains/law/keywords/escrow=2"),
        *("--reason", "escrow is law", "--json"),
    )
    change = json.loads(proposed)["proposal"]["id"]
    system.order("pr", "approve", change, "--reason", "report read")

    def is_examined() -> bool:
        return system.api.get("/status")["phase"] in ("qa", "canary")

    wait_until(is_examined, seconds=START_S, what="a candidate of the change")
    system.order("promote", "--reason", "reviewed")
    system.order("approve", "--reason", "reviewed too")
    wait_until(
        lambda: system.api.get(f"/pr/{change}")["stage"] == "promoted", seconds=60, what="the promotion"
    )
    promoted = system.api.get(f"/pr/{change}")["release"]
    answer = system.api.call("POST", "/answer", question="Who holds the escrow?", deadline_ms=60_000).json()
    system.order("rollback", "--reason", "moved too much")
    wait_until(lambda: system.api.get(f"/pr/{change}")["stage"] == "undone", seconds=60, what="the rollback")
    after = str(system.api.get("/status")["active"]["release"])
    return {"before": before, "promoted": promoted, "answered_by": answer["release"], "after": after}


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_every_service_is_upgraded_as_the_docs_say_and_back_and_nothing_is_lost_or_decided_otherwise(
    servers: LiveSystem, counted: Callable[..., None], tmp_path: Path
) -> None:
    live, old = servers, previous_tree(tmp_path / "tree")
    begun = time.monotonic()
    live.init(old)
    system = WholeSystem(live, old)
    wait_until(lambda: live.routing() is not None, seconds=60, what="the first decision")
    epochs, load, user = EpochWatch(live), Load(live, per_s=10, deadline_ms=600_000), ApiUser(system.api)
    time.sleep(3.0)
    system.order("pause", "--reason", "the previous version decides this")
    old_routes, answered_by_old = system.api.routes(), len(user.answered)
    made = add_missing_topics(live)
    system.roll(ROOT, forward=True, policy_of=old)
    system.order("replay", "--from-log")
    system.order("resume", "--reason", "this version decides that")
    routes = system.api.routes()
    feedback = rated(live, {a.query_id: a for _, a in live.accounting(load.sent).answers[:40]})
    system.order("pause", "--reason", "this version again")
    system.roll(old, forward=False, policy_of=old)
    system.order("resume", "--reason", "the previous version follows what this one decided")
    routes_back = system.api.routes()
    system.order("pause", "--reason", "once more")
    system.roll(ROOT, forward=True, policy_of=ROOT)
    system.order("resume", "--reason", "this version stays")
    answered_before = len(user.answered)
    wait_until(
        lambda: len(user.answered) > answered_before, seconds=60, what="an answer by the new version's API"
    )
    load.stop()
    user.stop()
    sent = asked(live)
    wait_until(lambda: not live.accounting(sent).lost, seconds=120, what="an end of every query")
    found = live.accounting(sent)
    statuses = [decode(record, FeedbackStatus).feedback_id for record in live.records("feedback.status")]
    rolled_s = round(time.monotonic() - begun)
    served = change_promoted_and_undone(system)
    seen, decisions, status = epochs.stop(), live.decisions(), system.api.get("/status")
    system.order("replay", "--from-log")
    waits = sorted(a.answered_at - sent[a.query_id] for _, a in found.answers)
    letters = live.records("dead-letters")
    counted(
        sent=found.sent, lost=len(found.lost), doubled=len(found.doubled), strange=len(found.strange),
        ended=found.kinds, dead_letters=len(letters), decisions=[d.kind for d in decisions], epochs_seen=seen,
        topics_made=sorted(made), api_told=user.told, api_routes=[len(old_routes), len(routes)],
        feedback=len(feedback), checkpoints_set_aside=system.checkpoints_set_aside, longest_wait_ms=waits[-1],
        median_wait_ms=waits[len(waits) // 2], rolled_s=rolled_s, seconds=round(time.monotonic() - begun),
    )  # fmt: skip
    assert found.is_whole
    assert letters == []
    assert set(load.sent) | set(user.answered) <= set(sent)
    assert sum(found.kinds.values()) == found.sent
    assert seen == sorted(set(seen))
    assert [decision.epoch for decision in decisions] == list(range(1, len(decisions) + 1))
    rolled, after = [d.kind for d in decisions[:7]], [d.kind for d in decisions[7:]]
    assert rolled == ["genesis", "pause", "resume", "pause", "resume", "pause", "resume"]
    assert after[-2:] == ["promote", "rollback"]
    assert served["promoted"] == served["answered_by"] != served["before"] == served["after"]
    assert old_routes < routes
    assert routes_back == old_routes
    assert answered_by_old > 0
    # Under overload a user may be told so, and a question in hand when the API stops may end without being shown.
    assert set(user.told) <= {"200", "429", "503", "504", "nobody listens", "broken off"}
    assert (status["epoch"], status["active"]["release"]) == (decisions[-1].epoch, served["after"])
    assert sorted(set(statuses)) == sorted(feedback)
