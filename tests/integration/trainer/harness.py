"""A trainer on a broker and a store of its own, people who give feedback, and a gatekeeper played by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from schemas.commands import Command
from schemas.decisions import Decision, DecisionKind
from schemas.documents import DocumentChange, Provenance
from schemas.event import Domain, Event
from schemas.feedback import Feedback, FeedbackStatus, QuarantinedFeedback
from schemas.releases import ReleaseProposed, SignatureBlock
from schemas.routing import RoutingState
from services.trainer.bootstrap import first_release
from services.trainer.settings import TrainerSettings
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing, Record
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode, encode
from twinloop.receipts import Receipt, issue_receipt, question_digest
from twinloop.registry.blobs import open_store
from twinloop.registry.releases import StoredRelease, load_release
from twinloop.retrieval.document import Document
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, create_keys, load_signer, sign_document
from twinloop.topics import TopicCatalogue

E = TypeVar("E", bound=Event)
ROOT = Path(__file__).resolve().parents[3]
INCARNATION = "0123456789abcdef" * 2
NOW = 1_760_000_000_000
FAKE_JOB = "tests.integration.trainer.fake_job"


class TrainerBench:
    """Topics, keys, a store with a first release, and what a test needs to feed and watch a trainer."""

    def __init__(
        self,
        folder: Path,
        *,
        kafka: KafkaSettings,
        prefix: str,
        trainer: Mapping[str, Any] | None = None,
        documents: Sequence[DocumentChange] = (),
        incarnation: str = INCARNATION,
    ) -> None:
        self.incarnation = incarnation
        self.folder = folder
        self.kafka = kafka
        self.topics = TopicCatalogue.load(prefix=prefix)
        KafkaAdmin(kafka).ensure_topics(self.topics.specs())
        self.keys = folder / "keys"
        create_keys(
            self.keys,
            {
                "trainer-1": ("trainer",),
                "gatekeeper-1": ("gatekeeper",),
                "inference-1": ("inference",),
                "operator-1": ("operator",),
                "stranger-1": ("viewer",),
            },
        )
        self.config = folder / "profile.yaml"
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
                    "store": {"url": (folder / "store").as_uri(), "create_folder": True},
                    "keys": {"folder": str(self.keys)},
                    "state_folder": str(folder / "state"),
                    "topics": {"prefix": prefix},
                    "trainer": _merged(
                        {
                            "poll_timeout_s": 0.05,
                            "commit_interval_s": 0.0,
                            "checkpoint_interval_s": 0.1,
                            "schedule": {"min_rows": 4, "documents_delay_s": 0.0},
                            "selection": {"max_rows_per_rater": 5, "max_rater_share": 1.0},
                            "job": {"module": FAKE_JOB, "timeout_s": 120},
                        },
                        trainer or {},
                    ),
                }
            )
        )
        self.settings = load_settings(TrainerSettings, ROOT / "configs" / "trainer.yaml", self.config)
        self.store = open_store(self.settings.store)
        self.first = first_release(
            self.store,
            load_signer(self.keys, "trainer-1"),
            self.settings.trainer,
            documents=[Document.from_change(change) for change in documents],
            now_ms=NOW,
        )
        self.producer = IdempotentProducer(kafka)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.epoch = 0
        self.ring = KeyRing.load(self.keys / "public.yaml")

    # -- the trainer -----------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "trainer.log").open("ab")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services.trainer",
                "--config",
                str(ROOT / "configs" / "trainer.yaml"),
                "--config",
                str(self.config),
            ],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        log.close()
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def terminate(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "trainer.log").read_text()

    # -- people ----------------------------------------------------------------------------------------------------

    def receipt(
        self, query_id: str, question: str, *, domain: Domain = "law", kind: str = "answer", key: str = ""
    ) -> str:
        signer = load_signer(self.keys, key or ("inference-1" if kind == "answer" else "operator-1"))
        receipt = Receipt.model_validate(
            {
                "kind": kind,
                "query_id": query_id,
                "question_sha256": question_digest(question),
                "domain": domain,
                "release": self.first,
                "issued_at": now_ms(),
            }
        )
        return issue_receipt(receipt, signer)

    def feedback(self, number: int, question: str, correction: str | None, **changes: Any) -> Feedback:
        """One correction by a rater of its own; `domain`, `kind` and `key` shape its receipt."""
        query_id = f"q-{number:04d}"
        shape = {name: changes.pop(name) for name in ("domain", "kind", "key") if name in changes}
        values: dict[str, Any] = {
            "id": f"fb-{number:04d}",
            "query_id": query_id,
            "receipt": self.receipt(query_id, question, **shape),
            "question": question,
            "rater": f"rater-{number:04d}",
            "given_at": NOW,
            "correction": correction,
        }
        return Feedback.model_validate({**values, **changes})

    def give(self, *feedback: Feedback) -> None:
        for item in feedback:
            self.publish("feedback", item, key=item.query_id)
        self.producer.flush()

    def document(
        self, document_id: str, text: str, *, domain: Domain = "law", op: str = "upsert"
    ) -> DocumentChange:
        values: dict[str, Any] = {"op": op, "document_id": document_id, "domain": domain, "changed_at": NOW}
        if op == "upsert":
            provenance = Provenance(source="a test", licence="CC0-1.0", publisher="tests", retrieved_at=NOW)
            values.update(text=text, provenance=provenance)
        return DocumentChange.model_validate(values)

    def command(self, action: str, nonce: str, *, key: str = "operator-1", **parameters: Any) -> None:
        at = now_ms()
        order = Command.model_validate(
            {
                "nonce": nonce,
                "actor": "alice",
                "action": action,
                "reason": "a test",
                "parameters": parameters,
                "issued_at": at,
                "expires_at": at + 60_000,
                "key_id": key,
            }
        )
        self.publish("commands", sign_document(order, load_signer(self.keys, key)), key="alice", partition=0)
        self.producer.flush()

    # -- the gatekeeper --------------------------------------------------------------------------------------------

    def decide(
        self,
        kind: DecisionKind,
        active: str,
        *,
        about: str | None = None,
        revoked: Sequence[str] = (),
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        self.epoch += 1
        rules = "a" * 64
        state = RoutingState(
            incarnation=self.incarnation,
            epoch=self.epoch,
            active="blue",
            releases={"blue": active, "green": active},
            previous=None,
            rules={active: rules},
            revoked=tuple(revoked),
            phase="steady",
            decision_id=f"decision-{self.epoch}",
            changed_at=NOW + self.epoch,
            changed_by="gatekeeper-1",
        )
        decision = Decision(
            decision_id=f"decision-{self.epoch}",
            kind=kind,
            epoch=self.epoch,
            state=sign_document(state, load_signer(self.keys, "gatekeeper-1")),
            release=about,
            reason="a_test",
            line="a test decides",
            evidence=dict(evidence or {}),
            policy="c" * 64,
            input_offset=self.epoch,
            previous=None,
            decided_at=NOW + self.epoch,
            software="test",
        )
        self.publish("decisions", decision, key=self.incarnation, partition=0)
        self.producer.flush()

    def genesis(self) -> None:
        self.decide("genesis", self.first)

    # -- what came of it -------------------------------------------------------------------------------------------

    def publish(self, topic: str, event: Event, *, key: str, partition: int | None = None) -> None:
        value, headers = encode(event, source="test", event_id=key, at_ms=NOW)
        self.producer.send(
            Outgoing(self.topics.name(topic), value, key=key.encode(), headers=headers, partition=partition)
        )

    def records(self, topic: str) -> list[Record]:
        reader = LogReader(self.kafka, topics=[self.topics.name(topic)])
        try:
            return reader.read_to_end(20.0)
        finally:
            reader.close()

    def read(self, topic: str, event: type[E]) -> list[E]:
        return [decode(record, event) for record in self.records(topic)]

    def statuses(self) -> dict[str, FeedbackStatus]:
        """The last status of each feedback, as a reader of the keyed topic sees it."""
        return {status.feedback_id: status for status in self.read("feedback.status", FeedbackStatus)}

    def proposals(self) -> list[ReleaseProposed]:
        return self.read("releases", ReleaseProposed)

    def quarantined(self) -> list[QuarantinedFeedback]:
        return self.read("feedback.quarantine", QuarantinedFeedback)

    def proposal(self, number: int = 1, *, timeout_s: float = 90.0) -> ReleaseProposed:
        """The number-th different release proposed."""

        def find() -> ReleaseProposed | None:
            distinct = list({item.release_id: item for item in self.proposals()}.values())
            return distinct[number - 1] if len(distinct) >= number else None

        return self.wait(find, timeout_s=timeout_s)

    def wait_status(
        self, expected: Mapping[str, str], *, timeout_s: float = 60.0
    ) -> dict[str, FeedbackStatus]:
        def find() -> dict[str, FeedbackStatus] | None:
            found = self.statuses()
            is_there = all(
                name in found and found[name].status == status for name, status in expected.items()
            )
            return found if is_there else None

        return self.wait(find, timeout_s=timeout_s)

    def wait(self, find: Callable[[], Any], *, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = find()
            if found is not None:
                return found
            for process in self.processes[-1:]:
                if process.poll() not in (None, -signal.SIGKILL, 0):
                    raise AssertionError(f"the trainer ended with {process.poll()}:\n{self.log[-3000:]}")
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s} s; the trainer's log ends:\n{self.log[-3000:]}")

    def release(self, name: str) -> StoredRelease:
        def verify(payload: bytes, block: SignatureBlock) -> None:
            self.ring.verify(payload, block.signature, block.key_id, role="trainer")

        return load_release(self.store, name, verify=verify)

    def dataset_rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of the dataset a release was trained on."""
        manifest = json.loads(self.store.get(self.release(name).evidence.dataset))
        return [json.loads(line) for line in self.store.get(manifest["blobs"]["rows"]).splitlines()]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
