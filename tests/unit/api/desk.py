"""The API with everything real but Kafka and the gatekeeper: those are played here, in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from schemas.answers import Answer
from schemas.audit import AuditEntry
from schemas.changes import ChangeProposed, ChangeReviewed, ReleaseDocuments, RouteReport
from schemas.commands import Command
from schemas.decisions import Decision, GateProgress, Progress
from schemas.documents import DocumentChange
from schemas.event import Event
from schemas.feedback import Feedback
from schemas.releases import ReleaseProposed
from services.api.app import build_app
from services.api.auditing import Auditor
from services.api.change_desk import ChangeDesk
from services.api.follower import Follower, Log
from services.api.metrics import ApiMetrics
from services.api.order_desk import OrderDesk
from services.api.parts import Parts
from services.api.question_desk import QuestionDesk
from services.api.release_shelf import ReleaseShelf
from services.api.settings import ApiSection
from services.api.token_file import TokenFile
from services.trainer.core.changes import ChangeBook, ChangeLimits, audit_review
from services.trainer.core.ledger_state import LedgerState
from twinloop.api_tokens import add_token
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.changes.change_log import decode_change
from twinloop.clock import FixedClock
from twinloop.codec import decode, encode
from twinloop.errors import CommandRefused, Transient
from twinloop.orders import DECIDING, WAITS_FOR_ANOTHER
from twinloop.registry.releases import StoredRelease
from twinloop.signing import KeyRing, create_keys, load_signer
from twinloop.topics import TopicCatalogue

EXAMPLES = Path(__file__).parents[3] / "schemas/examples"
NOW = 1_790_000_050_000
DOCUMENTS = ReleaseDocuments(rules="6" * 64, prompt="7" * 64)
ACTIVE = "c40ffd4b1da7805cbba7f81a2f97c3ef3aa9d1455588357845a94165683a9c23"
CANDIDATE = "2ed4cfc8a1b1cc6631d6b2bf70b00173ac9d8eb3d6626473d005c8ede9582bcc"
HOLDERS: dict[str, tuple[str, str | None]] = {
    "vera": ("viewer", None),
    "olga": ("operator", "operator-1"),
    "anna": ("approver", "approver-1"),
    "aron": ("approver", "approver-2"),
}


def example(path: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((EXAMPLES / path).read_text(encoding="utf-8"))["value"]
    return value


def decision(epoch: int = 4, kind: str = "canary", **changes: Any) -> Decision:
    """The canary of the golden example, at another epoch or of another kind; `phase` and `canary` go into its state."""
    value = example("decisions/v1/canary.json")
    phases = {"canary": "canary", "ramp": "canary", "stage": "qa", "promote": "bake"}
    state = {**value["state"], "epoch": epoch, "phase": phases.get(kind, "steady")}
    if state["phase"] != "canary":
        state["canary"] = None
    state.update(changes.pop("state", {}))
    return Decision.model_validate(
        {**value, "epoch": epoch, "kind": kind, "decision_id": f"d-{epoch}", "state": state, **changes}
    )


def progress(at: int = NOW, *, statuses: dict[str, str] | None = None, **changes: Any) -> Progress:
    """The canary's progress with these gates."""
    found = statuses or {"promote:error_margin": "open", "abort:error_margin": "open"}
    values = {"e": 7.2, "threshold": 20.0, "n_s": 212.0, "x_s": 2.0, "n_a": 4000.0, "x_a": 40.0}
    gates = tuple(
        GateProgress.model_validate(
            {"name": name, "line": f"{name} said", "status": status, "values": {**values, "est_s": 0.01}}
        )
        for name, status in found.items()
    )
    value = {**example("decisions/v1/progress.json"), "at": at, "gates": gates, **changes}
    return Progress.model_validate(value)


class EmptyLog:
    """A log with nothing in it."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        time.sleep(timeout_s)
        return []

    def positions(self) -> dict[TopicPartition, int]:
        return {}

    def high_watermarks(self) -> dict[TopicPartition, int]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class PlayedKafka:
    """Takes what the API sends; a played gatekeeper answers each order at once, as its real one does in two topics.

    A played trainer answers proposed changes by the rules of the real one, and finds every patch sound that may move
    a query.
    """

    follower: Follower
    topics: TopicCatalogue
    orders: list[Command] = field(default_factory=list)
    audits: list[AuditEntry] = field(default_factory=list)
    refuse: str | None = None
    is_silent: bool = False
    is_down: bool = False
    epoch: int = 100
    forced_with: str | None = None
    """The key of the first approver who forced a promotion."""
    book: ChangeBook = field(default_factory=lambda: ChangeBook(LedgerState(), ChangeLimits()))
    said: list[ChangeProposed | ChangeReviewed] = field(default_factory=list)

    def send(self, outgoing: Outgoing) -> None:
        record = Record(outgoing.topic, 0, 0, outgoing.key, outgoing.value, outgoing.headers, NOW)
        if self.topics.declared_name(outgoing.topic) == "audit":
            self.audits.append(decode(record, AuditEntry))
            self.follower.take(record)
            return
        if self.topics.declared_name(outgoing.topic) == "changes":
            self.follower.take(record)
            event = decode_change(record)
            assert isinstance(event, ChangeProposed | ChangeReviewed)
            self.said.append(event)
            if not self.is_silent:
                self._play_trainer(event)
            return
        order = decode(record, Command)
        self.orders.append(order)
        if not self.is_silent:
            self._answer(order)

    def flush(self, timeout_s: float = 10.0) -> None:
        if self.is_down:
            raise Transient("no broker answers")

    def _answer(self, order: Command) -> None:
        refusal, detail = self.refuse, "done"
        if order.action == "promote":
            refusal, detail = self._force(order)
        entry = AuditEntry.model_validate(
            {
                "at": NOW,
                "actor": order.actor,
                "via": "api",
                "action": order.action,
                "result": "refused" if refusal else "accepted",
                "detail": f"{refusal or detail} [{order.nonce}]",
            }
        )
        feed(self.follower, self.topics, "audit", entry)
        if self.refuse is None and order.action in DECIDING:
            self.epoch += 1
            kind = {"jump": "ramp", "ab_stop": "ab_end"}.get(order.action, order.action)
            made = decision(
                self.epoch, kind, evidence={"command": order.nonce}, line=f"{kind} by {order.actor}"
            )
            feed(self.follower, self.topics, "decisions", made, offset=self.epoch)

    def _play_trainer(self, event: ChangeProposed | ChangeReviewed) -> None:
        if isinstance(event, ChangeProposed):
            told = self.book.take_proposal(event, automatic=False, at=NOW)
            if not told and self.refuse is not None:
                told = self.book.refuse(event.id, "bounds", self.refuse, NOW)
            elif not told and event.base != DOCUMENTS:
                told = self.book.refuse(event.id, "stale", "write it for those", NOW)
            elif not told and self.book.received():
                report = RouteReport(
                    queries=9, fixed=0, moved=1, probes=0, probes_right_before=0, probes_right_after=0
                )
                told = self.book.open(event.id, DOCUMENTS, report, NOW)
        else:
            try:
                told = [
                    *self.book.take_review(event, at=NOW),
                    audit_review(event, "accepted", event.reason, NOW),
                ]
            except CommandRefused as refused:
                told = [audit_review(event, "refused", str(refused), NOW)]
        for each in told:
            feed(self.follower, self.topics, "audit" if isinstance(each, AuditEntry) else "changes", each)

    def _force(self, order: Command) -> tuple[str | None, str]:
        if self.forced_with is None:
            self.forced_with = order.key_id
            return None, f"{WAITS_FOR_ANOTHER} to skip the gates"
        if self.forced_with == order.key_id:
            return "another approver with another key must agree", ""
        return None, "skips the gates"


class PlayedClient:
    """Answers every question at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.given: list[Feedback] = []
        self.changed: list[DocumentChange] = []
        self.answer = Answer.model_validate(example("answers/v1/answered.json"))
        self.is_silent = False
        self.has_failed = False

    def is_reading(self) -> bool:
        return not self.has_failed

    async def ask(self, text: str, **options: Any) -> Answer:
        if self.is_silent:
            raise Transient("no answer")
        self.asked.append((text, options))
        return self.answer.model_copy(update={"query_id": options["query_id"]})

    async def give(self, feedback: Feedback) -> None:
        self.given.append(feedback)

    async def change(self, *changes: DocumentChange) -> None:
        self.changed += changes


@dataclass
class Desk:
    """The application and everything around it."""

    app: FastAPI
    parts: Parts
    kafka: PlayedKafka
    client: PlayedClient
    ring: KeyRing
    clock: FixedClock
    tokens: dict[str, str]
    topics: TopicCatalogue

    def feed(self, topic: str, event: Event, *, offset: int = 0) -> None:
        feed(self.parts.follower, self.topics, topic, event, offset=offset)

    async def call(
        self, method: str, path: str, *, by: str | None = "anna", **options: Any
    ) -> httpx.Response:
        """One call with this holder's token."""
        headers = dict(options.pop("headers", {}))
        if by is not None:
            headers["Authorization"] = f"Bearer {self.tokens[by]}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, headers=headers, **options)


def feed(follower: Follower, topics: TopicCatalogue, topic: str, event: Event, *, offset: int = 0) -> None:
    """Let the follower read an event as it would from Kafka."""
    value, headers = encode(event, source="test", event_id=f"{topic}-{offset}", at_ms=NOW)
    follower.take(Record(topics.name(topic), 0, offset, b"k", value, headers, NOW))


def stored_active(names: Sequence[str]) -> dict[str, StoredRelease]:
    """What the store has of the active release: the documents that changes are made on."""
    made = ReleaseProposed.model_validate(example("releases/v1/candidate.json"))
    release = made.release.model_copy(update={**DOCUMENTS.model_dump(), "parent": None})
    return {name: StoredRelease(name, release, made.evidence) for name in names if name == ACTIVE}


@cache
def declared_topics() -> TopicCatalogue:
    """Read once: it is frozen, and reading it is half of what a desk costs."""
    return TopicCatalogue.load()


def make_desk(folder: Path, **section: Any) -> Desk:
    """A desk whose clock moves only by hand; waiting for an order ends at once."""
    keys = folder / "keys"
    create_keys(
        keys,
        {
            "operator-1": ("viewer", "operator"),
            "approver-1": ("viewer", "operator", "approver"),
            "approver-2": ("viewer", "operator", "approver"),
        },
    )
    path = keys / "tokens.yaml"
    tokens = {
        name: add_token(path, name, cast(Any, role), key_id=key, now_ms=NOW)
        for name, (role, key) in HOLDERS.items()
    }
    topics, clock = declared_topics(), FixedClock(NOW)
    follower = Follower(cast(Log, EmptyLog()), cast(Log, EmptyLog()), topics, clock)
    kafka, client = PlayedKafka(follower, topics), PlayedClient()
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    auditor = Auditor(kafka, topics, source="api/test", metrics=metrics, clock=clock)
    settings = ApiSection(**section)
    orders = OrderDesk(
        kafka,
        topics,
        follower,
        signer_for=lambda key_id: load_signer(keys, key_id),
        clock=clock,
        wait_s=0.0,
    )
    questions = QuestionDesk(
        client, clock=clock, metrics=metrics, max_waiting=settings.max_waiting, margin_s=1.0
    )
    shelf = SimpleNamespace(read=lambda names: {})
    changes = ChangeDesk(
        kafka,
        topics,
        follower,
        cast(ReleaseShelf, SimpleNamespace(read=stored_active)),
        signer_for=lambda key_id: load_signer(keys, key_id),
        clock=clock,
        wait_s=0.0,
    )
    parts = Parts(
        section=settings,
        follower=follower,
        orders=orders,
        changes=changes,
        questions=questions,
        releases=cast(ReleaseShelf, shelf),
        tokens=TokenFile(path),
        auditor=auditor,
        metrics=metrics,
        registry=registry,
        clock=clock,
        is_stopping=lambda: False,
        stream_max_s=0.0,
    )
    return Desk(
        build_app(parts), parts, kafka, client, KeyRing.load(keys / "public.yaml"), clock, tokens, topics
    )


def in_canary(desk: Desk, **statuses: str) -> None:
    """A candidate is in its canary and its gates have been reported."""
    genesis_state = {"releases": {"blue": ACTIVE, "green": ACTIVE}, "rules": {ACTIVE: "0" * 64}}
    desk.feed("decisions", decision(1, "genesis", release=ACTIVE, state=genesis_state), offset=0)
    proposal = ReleaseProposed.model_validate(example("releases/v1/candidate.json"))
    desk.feed("releases", proposal)
    desk.feed("decisions", decision(3, "stage"), offset=2)
    desk.feed("decisions", decision(4, "canary"), offset=4)
    gates = {f"promote:{name}": status for name, status in statuses.items()}
    desk.feed("decisions", progress(statuses=gates or None), offset=6)
