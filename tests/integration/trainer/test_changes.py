"""A change of router rules from its proposal to a release, and what keeps it from becoming one."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from schemas.audit import AuditEntry
from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus, PatchOperation, ReleaseDocuments
from schemas.queries import Query
from services.trainer.checkpoint import read_checkpoint
from tests.fixtures.brokers import KafkaUnderTest
from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import NOW, TrainerBench, now_ms
from twinloop.changes.change_log import decode_change
from twinloop.changes.signed import change_record, signed_proposal, signed_review
from twinloop.registry.releases import release_id
from twinloop.signing import KeyRing, create_keys, load_signer, verify_document

ESCROW = {"op": "add", "path": "/rules/domains/law/keywords/escrow", "value": 3.0}


class Office:
    """People and programs who change things before one trainer."""

    def __init__(self, bench: TrainerBench) -> None:
        self.bench = bench
        create_keys(bench.keys, {"approver-1": ("approver",), "operator-2": ("operator", "approver")})
        bench.ring = KeyRing.load(bench.keys / "public.yaml")

    @property
    def base(self) -> ReleaseDocuments:
        release = self.bench.release(self.bench.first).release
        return ReleaseDocuments(rules=release.rules, prompt=release.prompt)

    def ask(self, *texts: str, domain: str | None = None) -> None:
        for number, text in enumerate(texts):
            query = Query.model_validate(
                {"id": f"q-{domain}-{number}", "text": text, "asked_at": NOW, "domain": domain}
            )
            self.bench.publish("queries", query, key=query.id)
        self.bench.producer.flush()

    def propose(
        self, name: str, *steps: dict[str, Any], key: str = "operator-1", **changes: Any
    ) -> ChangeProposed:
        values: dict[str, Any] = {"author": "olga", "base": self.base, "via": "cli", "now_ms": now_ms()}
        proposal = signed_proposal(
            load_signer(self.bench.keys, key),
            [PatchOperation.model_validate(step) for step in steps],
            change=name,
            reason="a test",
            **{**values, **changes},
        )
        self.bench.producer.send(change_record(proposal, self.bench.topics, source="test"))
        self.bench.producer.flush()
        return proposal

    def review(self, proposal: ChangeProposed, verdict: Any, nonce: str, **changes: Any) -> None:
        key = changes.pop("key", "approver-1")
        values: dict[str, Any] = {"reviewer": "anna", "reason": "a test", "via": "cli", "now_ms": now_ms()}
        review = signed_review(
            load_signer(self.bench.keys, key), proposal, verdict, nonce=nonce, **{**values, **changes}
        )
        self.bench.producer.send(change_record(review, self.bench.topics, source="test"))
        self.bench.producer.flush()

    def statuses(self, name: str) -> list[ChangeStatus]:
        events = [decode_change(record) for record in self.bench.records("changes")]
        return [each for each in events if isinstance(each, ChangeStatus) and each.change == name]

    def status(self, name: str, stage: str) -> ChangeStatus:
        """The change's last status, once it is this one."""

        def find() -> ChangeStatus | None:
            found = self.statuses(name)
            return found[-1] if found and found[-1].stage == stage else None

        found: ChangeStatus = self.bench.wait(find, timeout_s=30)
        return found

    def audit(self, nonce: str) -> AuditEntry:
        def find() -> AuditEntry | None:
            entries = self.bench.read("audit", AuditEntry)
            return next((each for each in entries if each.detail.endswith(f"[{nonce}]")), None)

        found: AuditEntry = self.bench.wait(find, timeout_s=30)
        return found


def test_an_approved_change_becomes_a_release_of_its_own_and_a_rollback_undoes_it(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    office = Office(bench)
    office.ask("who holds the escrow", "what is a fever", "tell me of escrow accounts")
    office.ask("who holds the escrow", domain="fin")
    bench.genesis()
    bench.start()
    proposal = office.propose("pr-1", ESCROW)

    report = office.status("pr-1", "open").report
    assert report is not None
    assert (report.queries, report.fixed, report.moved) == (3, 1, 2)
    assert {(each.id, each.after) for each in report.examples} == {("q-None-0", "law"), ("q-None-2", "law")}
    assert report.probes == 200
    assert "escrow" not in bench.log

    office.review(proposal, "approve", "n-self", reviewer="olga", key="operator-2")
    office.review(proposal, "approve", "n-key", reviewer="otto", key="operator-1")
    for nonce in ("n-self", "n-key"):
        assert office.audit(nonce).result == "refused"
    assert bench.proposals() == []

    office.review(proposal, "approve", "n-good")
    made = bench.proposal(1)
    first = bench.release(bench.first).release
    assert (made.release.adapters, made.release.indexes) == (first.adapters, first.indexes)
    assert (made.release.parent, made.release.prompt) == (bench.first, first.prompt)
    assert made.release_id == release_id(made.release)
    rules = json.loads(bench.store.get(made.release.rules))
    assert rules["domains"]["law"]["keywords"].pop("escrow") == 3.0
    assert rules == json.loads(bench.store.get(first.rules))
    change: Any = made.evidence.metrics["change"]
    assert (change["id"], change["author"], change["approved_by"]) == ("pr-1", "olga", "anna")
    for name, event in (("proposal", ChangeProposed), ("review", ChangeReviewed)):
        stored: Any = event.model_validate_json(bench.store.get(change[name]))
        verify_document(stored, bench.ring)
    assert office.audit("n-good").result == "accepted"
    assert office.status("pr-1", "candidate").release == made.release_id

    bench.decide("promote", made.release_id)
    assert office.status("pr-1", "promoted").approved_by == "anna"
    bench.decide("rollback", bench.first, about=bench.first, revoked=[made.release_id])
    assert office.status("pr-1", "undone").release == made.release_id
    stages = [each.stage for each in office.statuses("pr-1")]
    assert stages == ["open", "approved", "candidate", "promoted", "undone"]


def test_what_is_not_sound_is_refused_with_its_place(make_bench: MakeBench) -> None:
    bench = make_bench()
    office = Office(bench)
    bench.genesis()
    bench.start()
    other = ReleaseDocuments(rules="a" * 64, prompt="b" * 64)
    office.propose("pr-stale", ESCROW, base=other)
    office.propose("pr-gate", {"op": "replace", "path": "/gates/qa/min_pass_rate", "value": 0.1})
    office.propose("pr-dim", {"op": "replace", "path": "/rules/embedder/dim", "value": 64})
    office.propose("pr-heavy", {**ESCROW, "value": 50.0})
    office.propose("pr-gone", {"op": "remove", "path": "/rules/domains/law/keywords/escrow"})
    office.propose(
        "pr-robot",
        {"op": "replace", "path": "/rules/fallback", "value": "law"},
        key="trainer-1",
        via="trainer",
    )
    expected = {
        "pr-stale": ("stale", "write it for those"),
        "pr-gate": ("path", "/gates/qa/min_pass_rate"),
        "pr-dim": ("path", "/rules/embedder/dim"),
        "pr-heavy": ("bounds", "above the maximum 5"),
        "pr-gone": ("not-applicable", "operation 1"),
        "pr-robot": ("author", "by a person only"),
    }
    for name, (code, words) in expected.items():
        status = office.status(name, "refused")
        assert status.code == code
        assert words in status.detail
        assert office.audit(name).result == "refused"
    office.propose("pr-forged", ESCROW, key="stranger-1")
    assert "may not act as" in office.audit("pr-forged").detail
    assert office.statuses("pr-forged") == []


def test_a_program_s_change_waits_for_a_person_and_programs_approve_nothing(make_bench: MakeBench) -> None:
    bench = make_bench()
    office = Office(bench)
    create_keys(bench.keys, {"robot-1": ("trainer", "approver")})
    bench.genesis()
    bench.start()
    proposal = office.propose("pr-1", ESCROW, key="trainer-1", author="trainer-1", via="trainer")
    assert office.status("pr-1", "open").automatic
    office.review(proposal, "approve", "n-robot", reviewer="robot-1", key="robot-1", via="trainer")
    assert "a person has to" in office.audit("n-robot").detail
    office.review(proposal, "approve", "n-operator", key="operator-1")
    assert "may not act as approver" in office.audit("n-operator").detail
    office.review(proposal, "approve", "n-old", now_ms=now_ms() - 600_000)
    assert "outside its minute" in office.audit("n-old").detail
    office.review(proposal, "reject", "n-reject", key="operator-1", reviewer="olga")
    assert office.status("pr-1", "rejected").detail == "by olga: a test"
    office.review(proposal, "approve", "n-late")
    assert "only an open change" in office.audit("n-late").detail
    assert bench.proposals() == []


def test_a_lost_checkpoint_applies_nothing_twice_and_forgets_no_approval(make_bench: MakeBench) -> None:
    bench = make_bench()
    office = Office(bench)
    bench.genesis()
    process = bench.start()
    over = office.propose("pr-over", {**ESCROW, "value": 50.0})
    office.status("pr-over", "refused")
    waits = office.propose("pr-waits", ESCROW)
    office.status("pr-waits", "open")
    bench.kill(process)
    checkpoint = bench.settings.checkpoint_file
    assert read_checkpoint(checkpoint) is not None
    checkpoint.unlink()
    bench.start()
    office.review(waits, "approve", "n-1")
    assert bench.proposal(1).release.rules != bench.release(bench.first).release.rules
    office.review(over, "approve", "n-2")
    assert "is refused" in office.audit("n-2").detail
    assert len(office.statuses("pr-over")) == 1


def test_kills_at_random_moments_lead_to_one_release_of_an_approved_change(make_bench: MakeBench) -> None:
    killed_at_random_moments(make_bench())


@pytest.mark.faults
@pytest.mark.kafka
def test_kills_on_a_real_broker_lead_to_one_release_too(make_bench: MakeBench, kafka: KafkaUnderTest) -> None:
    killed_at_random_moments(make_bench(kafka=kafka))


def killed_at_random_moments(bench: TrainerBench) -> None:
    office = Office(bench)
    bench.genesis()
    proposal = office.propose("pr-1", ESCROW)
    chance, is_approved = random.Random(42), False
    for _ in range(5):
        process = bench.start()
        time.sleep(chance.uniform(1.0, 3.5))  # from before the first poll to after the proposal of a release
        bench.kill(process)
        if not is_approved and any(each.stage == "open" for each in office.statuses("pr-1")):
            office.review(proposal, "approve", "n-1")
            is_approved = True
    bench.start()
    if not is_approved:
        office.status("pr-1", "open")
        office.review(proposal, "approve", "n-1")
    made = office.status("pr-1", "candidate")
    assert {each.release_id for each in bench.proposals()} == {made.release}
    assert office.audit("n-1").result == "accepted"
