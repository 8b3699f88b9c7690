"""A small world around one gatekeeper: releases in a store, workers that answer probes, users that ask."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.answers import AnswerError, Citation, Evaluation
from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.audit import AuditEntry
from schemas.commands import Action, Command
from schemas.decisions import Decision
from schemas.event import DOMAINS, SLOTS, Purpose, Slot
from schemas.feedback import Feedback
from schemas.outcomes import OutcomeBatch, OutcomeRow
from schemas.queries import Query
from schemas.readiness import Readiness
from schemas.releases import Release, ReleaseProposed, SignatureBlock, TrainingEvidence
from schemas.routing import RoutingState
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record
from twinloop.bus.settings import KafkaSettings
from twinloop.canonical import canonical_json
from twinloop.codec import decode, encode
from twinloop.model_runtime.prompt import PromptFormat
from twinloop.receipts import Receipt, issue_receipt, question_digest
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.manifests import put_manifest
from twinloop.registry.releases import publish_release
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.assignment import Assignment, assign, mirror_assignment
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules import DomainRules, RouterRules, rules_bytes
from twinloop.routing.stamp import read_stamp
from twinloop.signing import Signer, create_keys, load_signer, sign_document
from twinloop.topics import TopicCatalogue

PARTITIONS = 2
KEYS = {
    "gatekeeper-1": ("gatekeeper",),
    "trainer-1": ("trainer",),
    "inference-1": ("inference",),
    "operator-1": ("operator", "break-glass"),
    "approver-1": ("approver",),
    "approver-2": ("approver",),
}


@dataclass
class World:
    """Everything outside the gatekeeper; `close` stops its threads."""

    kafka: KafkaSettings
    redis_url: str
    folder: Path
    prefix: str
    error_rates: dict[str, float] = field(default_factory=dict)
    """Share of failing answers by release, to probes and users."""
    copy_error_rates: dict[str, float] = field(default_factory=dict)
    """The same of mirrored copies' answers."""
    silent_copies: bool = False
    """Whether mirrored copies are sent and never answered."""
    down_rates: dict[str, float] = field(default_factory=dict)
    """Share of thumbs down by release, of the users that rate; nobody rates where it is empty."""
    latency_ms: float = 40.0

    def __post_init__(self) -> None:
        self.topics = TopicCatalogue.load(prefix=self.prefix, origin_partitions=PARTITIONS)
        create_keys(self.folder / "keys", KEYS)  # type: ignore[arg-type]
        self.store: BlobStore = open_store(
            StoreSettings(url=f"file://{self.folder}/store", create_folder=True)
        )
        self.producer = IdempotentProducer(self.kafka)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._releases: set[str] = set()
        self._number = 0

    def settings(self, **gatekeeper: Any) -> dict[str, Any]:
        """Settings of a gatekeeper in this world."""
        return {
            "kafka": self.kafka,
            "redis": RedisSettings(url=self.redis_url, key=f"{self.prefix}routing", timeout_ms=500),
            "store": {"url": f"file://{self.folder}/store"},
            "keys": {"folder": self.folder / "keys"},
            "topics": {"prefix": self.prefix, "origin_partitions": PARTITIONS},
            "state_folder": self.folder / "state",
            "gatekeeper": gatekeeper,
        }

    def release(self, number: int, *, parent: str | None = None) -> str:
        """Put a sound release into the store."""
        store = self.store
        rules = RouterRules(domains={domain: DomainRules(keywords={domain: 1.0}) for domain in DOMAINS})
        files = {"adapter_model.safetensors": b"weights %d" % number, "adapter_config.json": b"{}"}
        adapter = put_manifest(store, "adapter", files)
        embedder = "e" * 64
        indexes = {
            domain: put_manifest(
                store,
                "index",
                {
                    "index.faiss": b"faiss",
                    "documents.jsonl": b"",
                    "meta.json": canonical_json({"embedder_digest": embedder, "domain": domain}),
                },
            )
            for domain in DOMAINS
        }
        foundation = put_manifest(store, "foundation", {"model.safetensors": b"frozen"})
        self._last = Release(
            foundation=foundation,
            embedder=embedder,
            adapters=dict.fromkeys(DOMAINS, adapter),
            indexes=indexes,
            rules=store.put(rules_bytes(rules)),
            prompt=store.put(PromptFormat().to_json()),
            parent=parent,
        )
        self._evidence = TrainingEvidence(
            dataset=store.put(b"data"), seed=42, rows={}, documents={}, started_at=0, finished_at=1
        )
        signer = self.signer("trainer-1")
        name = publish_release(
            store,
            self._last,
            self._evidence,
            lambda message: SignatureBlock(key_id=signer.key_id, signature=signer.sign(message)),
        )
        self._releases.add(name)
        return name

    def make_ready(self, name: str) -> None:
        """Workers have a release that somebody else put into the store."""
        self._releases.add(name)

    def propose(self, name: str) -> None:
        """Publish the last release made, signed by the trainer."""
        event = ReleaseProposed(
            release_id=name,
            release=self._last,
            evidence=self._evidence,
            proposed_by="trainer-1",
            proposed_at=self.now_ms(),
        )
        plain = event.model_dump(mode="json")
        plain.pop("signed")
        signature = self.signer("trainer-1").sign(canonical_json(plain))
        signed = SignatureBlock(key_id="trainer-1", signature=signature)
        self.send("releases", event.model_copy(update={"signed": signed}), partition=0)

    def order(self, action: Action, *, key_id: str = "operator-1", **fields: Any) -> str:
        """Publish a signed order; returns its nonce."""
        self._number += 1
        command = Command(
            nonce=f"n-{self._number}-{self.now_ms()}",
            actor="ada",
            action=action,
            reason="a test",
            issued_at=self.now_ms(),
            expires_at=self.now_ms() + 60_000,
            key_id=key_id,
            **fields,
        )
        self.send("commands", sign_document(command, self.signer(key_id)), partition=0)
        return command.nonce

    def start(self, *, queries_per_s: int) -> None:
        """Workers of both slots and users begin."""
        for run in (self._be_workers, lambda: self._be_users(queries_per_s)):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self.producer.flush()

    def routing(self) -> RoutingState | None:
        """What Redis says now."""
        store = RedisRoutingStore(
            RedisSettings(url=self.redis_url, key=f"{self.prefix}routing", timeout_ms=500)
        )
        raw = store.read()
        store.close()
        return None if raw is None else RoutingState.model_validate_json(raw)

    def decisions(self) -> list[Decision]:
        return [
            decode(record, Decision)
            for record in self.read("decisions")
            if record.header("ce_type") == Decision.type.encode()
        ]

    def audits(self) -> list[AuditEntry]:
        return [decode(record, AuditEntry) for record in self.read("audit")]

    def read(self, topic: str) -> list[Record]:
        """Everything in a topic."""
        reader = LogReader(self.kafka, topics=[self.topics.name(topic)])
        try:
            return reader.read_to_end()
        finally:
            reader.close()

    def wait_for(self, what: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, (
                f"not within {timeout_s} s: {[d.line for d in self.decisions()]}"
            )
            time.sleep(0.1)

    def wait_for_kind(self, kind: str, *, timeout_s: float = 30.0) -> Decision:
        """The newest decision of a kind, and that Redis has it."""
        self.wait_for(lambda: any(d.kind == kind for d in self.decisions()), timeout_s=timeout_s)
        found = next(d for d in reversed(self.decisions()) if d.kind == kind)
        self.wait_for(
            lambda: (state := self.routing()) is not None and state.epoch >= found.epoch, timeout_s=5
        )
        return found

    def signer(self, key_id: str) -> Signer:
        return load_signer(self.folder / "keys", key_id)

    def send(
        self, topic: str, event: Any, *, partition: int, key: bytes = b"k", at_ms: int | None = None
    ) -> None:
        """`at_ms` dates the record back, for a backlog of the past."""
        value, headers = encode(
            event, source="test", event_id=f"{time.time_ns()}", at_ms=at_ms or self.now_ms()
        )
        self.producer.send(
            Outgoing(
                self.topics.name(topic),
                value,
                key=key,
                headers=headers,
                partition=partition,
                timestamp_ms=at_ms,
            )
        )

    @staticmethod
    def now_ms() -> int:
        return time.time_ns() // 1_000_000

    def _be_workers(self) -> None:
        """Answer every probe, and say every second that every release is ready."""
        topics = [self.topics.name(f"queries.{slot}") for slot in SLOTS]
        reader = LogReader(self.kafka, topics=topics)
        said = 0.0
        while not self._stop.is_set():
            if time.monotonic() - said > 1.0:
                said = time.monotonic()
                for slot in SLOTS:
                    self._say_ready(slot)
            for record in reader.poll(100, 0.05):
                self._answer_probe(record)
        reader.close()

    def _say_ready(self, slot: Slot) -> None:
        state = self.routing()
        event = Readiness(
            worker=f"inference-{slot}-0",
            service="inference",
            slot=slot,
            incarnation=state.incarnation if state else "",
            epoch=state.epoch if state else 0,
            applied_at_us=0,
            releases=tuple(sorted(self._releases)),
            at=self.now_ms(),
        )
        self.send("readiness", event, partition=0)

    def _answer_probe(self, record: Record) -> None:
        query, stamp = decode(record, Query), read_stamp(record.headers)
        now = self.now_ms()
        is_wrong = zlib.crc32(query.id.encode()) % 1000 / 1000 < self.error_rates.get(stamp.release, 0.0)
        evaluation = Evaluation(
            query_id=query.id,
            answered_at=now,
            text=f"the answer is {query.text.removeprefix('say ')}",
            citations=(Citation(document_id="d1", retrieved=True),),
            release=stamp.release,
            purpose="qa",
        )
        outcome = OutcomeRow(
            id=query.id,
            unit=stamp.unit,
            slot=stamp.slot,
            arm=stamp.arm,
            release=stamp.release,
            epoch=stamp.epoch,
            purpose=stamp.purpose,
            domain=stamp.domain,
            error="model" if is_wrong else None,
            assigned_at=stamp.assigned_at,
            answered_at=now,
            latency_ms=self.latency_ms,
            toxicity=0.0,
            toxic=False,
            citation="valid",
        )
        if is_wrong:
            error = AnswerError(kind="model", detail="x")
            evaluation = evaluation.model_copy(update={"error": error, "text": None})
        self.send("evaluations", evaluation, partition=0)
        batch = OutcomeBatch(
            origin=stamp.origin, worker="inference-0", toxicity_classifier="none 1", rows=(outcome,)
        )
        self.send("outcomes", batch, partition=stamp.origin)

    def _be_users(self, per_s: int) -> None:
        """Users' queries as the router and the workers would log them, ten times a second."""
        number = 0
        while not self._stop.is_set():
            state = self.routing()
            if state is not None:
                for origin in range(PARTITIONS):
                    numbers = range(number, number + per_s // 10 // PARTITIONS)
                    number = numbers.stop
                    rows = [self._ask(state, each) for each in numbers]
                    copies = [copy for each in numbers if (copy := self._copy(state, each)) is not None]
                    if rows:
                        answered = rows if self.silent_copies else [*rows, *copies]
                        self._log_rows(origin, [a for a, _ in [*rows, *copies]], [o for _, o in answered])
                    if self.down_rates:
                        self._rate([row for row, _ in rows])
            self._stop.wait(0.1)

    def _log_rows(self, origin: int, rows: list[AssignmentRow], outcomes: list[OutcomeRow]) -> None:
        self.send(
            "assignments",
            AssignmentBatch(origin=origin, router="router-0", rows=tuple(rows)),
            partition=origin,
        )
        batch = OutcomeBatch(
            origin=origin, worker="inference-0", toxicity_classifier="none 1", rows=tuple(outcomes)
        )
        self.send("outcomes", batch, partition=origin)

    def _rate(self, rows: list[AssignmentRow]) -> None:
        """Every user answers with a thumb that quotes the receipt of the answer."""
        signer = self.signer("inference-1")
        for row in rows:
            number = zlib.crc32(row.id.encode())
            receipt = Receipt(
                kind="answer",
                query_id=row.id,
                question_sha256=question_digest("why?"),
                domain=row.domain,
                release=row.release,
                slot=row.slot,
                epoch=row.epoch,
                issued_at=row.assigned_at,
                unit=row.unit,
            )
            is_down = number % 1000 / 1000 < self.down_rates.get(row.release, 0.0)
            feedback = Feedback(
                id=f"fb-{row.id}",
                query_id=row.id,
                receipt=issue_receipt(receipt, signer),
                question="why?",
                rater=row.unit,
                given_at=self.now_ms(),
                rating="down" if is_down else "up",
            )
            self.send("feedback", feedback, partition=number % 4)

    def _ask(self, state: RoutingState, number: int) -> tuple[AssignmentRow, OutcomeRow]:
        return self._rows(assign(state, f"user-{number}"), number, purpose="user")

    def _copy(self, state: RoutingState, number: int) -> tuple[AssignmentRow, OutcomeRow] | None:
        """The unseen copy of a user's query, where the routing asks for one."""
        place = mirror_assignment(state, f"user-{number}")
        return None if place is None else self._rows(place, number, purpose="mirror")

    def _rows(self, place: Assignment, number: int, *, purpose: Purpose) -> tuple[AssignmentRow, OutcomeRow]:
        now = self.now_ms()
        same: Mapping[str, Any] = {
            "id": f"q-{self.prefix}-{number}",
            "unit": place.unit,
            "slot": place.slot,
            "arm": place.arm,
            "release": place.release,
            "epoch": place.epoch,
            "purpose": purpose,
            "domain": DOMAINS[number % 4],
            "assigned_at": now,
        }
        rates = self.copy_error_rates if purpose == "mirror" else self.error_rates
        failed = (number * 7919 % 1000) / 1000 < rates.get(place.release, 0.0)
        return (
            AssignmentRow(bucket=place.bucket, deadline_at=now + 1000, **same),
            OutcomeRow(
                error="model" if failed else None,
                answered_at=now + 40,
                latency_ms=self.latency_ms * (0.5 + (number * 7919 % 1009) / 1009),
                toxicity=0.0,
                toxic=False,
                citation="not_required",
                **same,
            ),
        )
