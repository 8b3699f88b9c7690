"""A worker over the shipped foundation, whose model a test can really break, and two releases of different adapters."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from schemas.answers import Answer
from schemas.outcomes import OutcomeBatch, OutcomeRow
from schemas.queries import Query
from schemas.routing import RoutingState
from services.inference.answering import AnswerEngine, Asked
from services.inference.core.answers import Produced
from services.inference.core.circuit_breaker import BreakerPolicy
from services.inference.guarded_engine import GuardedEngine
from services.inference.metrics import InferenceMetrics
from services.inference.publishing import Publisher
from services.inference.releases import Preparer, ReadyRelease, ReleaseShelf, Warm
from services.inference.runtime import foundation_spec
from services.inference.settings import InferenceSection
from services.inference.worker import InferenceWorker, WorkerLimits
from services.trainer.bootstrap import first_release
from services.trainer.settings import TrainerSection
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.stream import TransactionalStream
from twinloop.canonical import canonical_json
from twinloop.clock import SystemClock
from twinloop.codec import decode, encode
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import load_foundation
from twinloop.model_runtime.generation import Generator
from twinloop.process import StopSignal
from twinloop.registry.blobs import open_store
from twinloop.registry.manifests import read_files
from twinloop.registry.store_settings import StoreSettings
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.routing.assignment import assign
from twinloop.routing.disk_copy import DiskCopy
from twinloop.routing.reader import StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.stamp import stamp_of
from twinloop.routing.store import Installed, InstallMode
from twinloop.routing.verification import state_verifier
from twinloop.safety import build_classifier
from twinloop.signing import KeyRing, create_keys, load_signer, sign_document
from twinloop.telemetry.tracing import Tracer
from twinloop.topics import TopicCatalogue

POLICY = BreakerPolicy(failures=3, open_s=0.5, probe_queries=1)
SECTION = InferenceSection(slot="green", breaker=POLICY)
QUESTION = "What is the enforcing court of statute Markemfan?"


class ModelBench:
    """Foundation, adapters and engine as a worker puts them together; `break_model` damages the weights in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create_keys(folder / "keys", {name: (name.removesuffix("-1"),) for name in _KEYS})  # type: ignore[misc]
        self.ring = KeyRing.load(folder / "keys" / "public.yaml")
        self.store = open_store(StoreSettings(url=(folder / "store").as_uri(), create_folder=True))
        self.good, self.other = self._release(seed=1), self._release(seed=2)
        spec, digest = foundation_spec(SECTION)
        self.foundation = load_foundation(spec)
        self.bank = AdapterBank(self.foundation.model)
        self._weights = self.foundation.model.model.embed_tokens.weight.data
        self.engine = AnswerEngine(
            lambda new, prompt: Generator(
                self.foundation, self.bank, max_new_tokens=new, max_prompt_tokens=prompt
            ),
            chat=self.foundation.chat_template,
            retrieve=1,
            clock_ms=lambda: time.perf_counter() * 1000,
        )
        self._foundation_digest = digest
        self.shelf = self.new_shelf(self._warm)
        self.registry = CollectorRegistry()
        self.metrics = InferenceMetrics(self.registry)
        self.guarded = GuardedEngine(
            self.engine, POLICY, metrics=self.metrics, slot="green", monotonic=time.monotonic
        )

    def new_shelf(self, warm: Warm) -> ReleaseShelf:
        """An empty shelf over this store and this bank."""
        return ReleaseShelf(
            self.store,
            self.bank,
            build_embedder(SECTION.embedder),
            foundation_digest=self._foundation_digest,
            verify=lambda text, block: self.ring.verify(text, block.signature, block.key_id, role="trainer"),
            warm=warm,
        )

    def break_model(self) -> None:
        """The embedding table is gone: every forward pass fails, whatever the release."""
        self.foundation.model.model.embed_tokens.weight.data = torch.empty(0, self._weights.shape[1])

    def mend_model(self) -> None:
        self.foundation.model.model.embed_tokens.weight.data = self._weights

    def break_adapters(self, release: str) -> None:
        """One release's factors lose half of their rows in memory: they fit no weight any more."""
        (digest,) = set(self.shelf.ready[release].release.adapters.values())
        self.bank.evict(digest)
        self.bank.load(digest, read_files(self.store, digest, kind="adapter"))
        for factors in self.bank._resident[digest].values():
            factors.down.resize_(factors.down.shape[0], factors.down.shape[1] // 2)

    def mend_adapters(self, release: str) -> None:
        (digest,) = set(self.shelf.ready[release].release.adapters.values())
        self.bank.evict(digest)
        self.bank.load(digest, read_files(self.store, digest, kind="adapter"))

    def ask(self, *releases: str) -> list[Produced]:
        return self.guarded.answer([Asked(QUESTION, "law", self.shelf.prepare(each)) for each in releases])

    def circuits(self, state: str) -> float:
        labels = {"slot": "green", "state": state}
        return self.registry.get_sample_value("twinloop_inference_circuits", labels) or 0.0

    def _warm(self, ready: ReadyRelease) -> None:
        self.engine.answer([Asked(QUESTION, "law", ready)])

    def _release(self, *, seed: int) -> str:
        return first_release(
            self.store,
            load_signer(self.folder / "keys", "trainer-1"),
            TrainerSection(seed=seed),
            documents=[],
            now_ms=0,
        )


class WorkerBench:
    """That model in a running worker of slot green, which is active and holds `other`."""

    def __init__(
        self,
        model: ModelBench,
        *,
        kafka: KafkaSettings,
        redis_url: str,
        prefix: str,
        tracer: Tracer | None = None,
        is_installed: bool = True,
        prepare_timeout_s: float = 30.0,
    ) -> None:
        """Without `is_installed` Redis holds no state, and there is no copy of one on disk."""
        self.model, self.kafka = model, kafka
        self.redis = RedisSettings(url=redis_url, key=f"{prefix}routing")
        self.topics = TopicCatalogue.load(prefix=prefix)
        KafkaAdmin(kafka).ensure_topics(self.topics.specs())
        store = RedisRoutingStore(self.redis)
        self.state = self._state()
        self._store = store
        if is_installed:
            self.install(self.state)
        self._producer = IdempotentProducer(kafka)
        self._reader = StateReader(
            store,
            verify=state_verifier(model.ring),
            policy=ReaderPolicy(hold_max_s=2.0),
            disk_copy=DiskCopy(model.folder / "routing.json"),
        )
        self.stream = TransactionalStream(
            kafka, group=f"{prefix}inference", topics=[self.topics.name("queries.green")], instance_id="w"
        )
        self._preparer = Preparer(model.shelf, lambda: None)
        self.worker = InferenceWorker(
            WorkerLimits(
                slot="green",
                batch_max=8,
                batch_wait_s=0.02,
                max_hops=3,
                overload=SECTION.overload,
                readiness_interval_s=2.0,
                prepare_timeout_s=prepare_timeout_s,
                keep_releases=6,
            ),
            name="w",
            stream=self.stream,
            producer=IdempotentProducer(kafka),
            topics=self.topics,
            reader=self._reader,
            shelf=model.shelf,
            preparer=self._preparer,
            engine=model.guarded,
            toxicity=build_classifier(SECTION.toxicity),
            publisher=Publisher(self.topics, worker="w", incarnation_of_process=os.urandom(4).hex()),
            signer=load_signer(model.folder / "keys", "inference-1"),
            metrics=model.metrics,
            clock=SystemClock(),
            tracer=tracer,
        )
        self._stop = StopSignal()
        self._thread = threading.Thread(target=self.worker.run, args=(self._stop,), name="worker")
        self._thread.start()
        self.sent: list[str] = []

    def install(self, state: RoutingState) -> None:
        """Puts this state into Redis, signed, as the gatekeeper does."""
        mode: InstallMode = "create" if state.epoch == 1 else "advance"
        signed = sign_document(state, load_signer(self.model.folder / "keys", "gatekeeper-1"))
        assert isinstance(self._store.install(canonical_json(signed), mode=mode), Installed)

    def ask(self, count: int) -> list[Answer]:
        """Publish `count` queries as a router would, and return their answers once all are there."""
        return self._answers_of(self.publish(count))

    def publish(self, count: int) -> list[str]:
        """Publish `count` queries stamped by `state`, as a router would; their ids."""
        names = [f"q-{len(self.sent) + number}" for number in range(count)]
        for name in names:
            now_ms = SystemClock().now_ms()
            query = Query(id=name, text=QUESTION, asked_at=now_ms, deadline_ms=60_000, client="test")
            stamp = stamp_of(
                assign(self.state, name), domain="law", purpose="user", origin=0, assigned_at=now_ms
            )
            value, head = encode(query, source="test", event_id=name, at_ms=now_ms)
            topic = self.topics.name("queries.green")
            self._producer.send(Outgoing(topic, value, name.encode(), (*head, *stamp.headers()), 0))
        self._producer.flush(20)
        self.sent += names
        return names

    def answers(self) -> list[Answer]:
        with LogReader(self.kafka, topics=[self.topics.name("answers")]) as log:
            return [decode(record, Answer) for record in log.read_to_end(20)]

    def outcomes(self) -> list[OutcomeRow]:
        with LogReader(self.kafka, topics=[self.topics.name("outcomes")]) as log:
            return [row for record in log.read_to_end(20) for row in decode(record, OutcomeBatch).rows]

    def lost_and_doubled(self) -> tuple[list[str], list[str]]:
        ended = Counter(answer.query_id for answer in self.answers())
        return sorted(set(self.sent) - set(ended)), [name for name, count in ended.items() if count > 1]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self.stream.close()
        self._preparer.close()
        self._reader.close()
        self._producer.close(5)

    def _answers_of(self, names: Sequence[str]) -> list[Answer]:
        deadline = time.monotonic() + 30
        while True:
            found = {answer.query_id: answer for answer in self.answers()}
            if all(name in found for name in names):
                return [found[name] for name in names]
            assert self._thread.is_alive(), "the worker has ended"
            assert time.monotonic() < deadline, f"{len(found)} answers of {len(self.sent)} after 30 s"
            time.sleep(0.05)

    def _state(self) -> RoutingState:
        model = self.model
        rules = {name: model.shelf.prepare(name).release.rules for name in (model.good, model.other)}
        return RoutingState(
            incarnation="0123456789abcdef" * 2,
            epoch=1,
            active="green",
            releases={"blue": model.good, "green": model.other},
            previous=None,
            rules=rules,
            phase="steady",
            decision_id="decision-1",
            changed_at=SystemClock().now_ms(),
            changed_by="gatekeeper-1",
        )


_KEYS = ("gatekeeper-1", "inference-1", "trainer-1")
