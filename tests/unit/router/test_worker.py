"""The router's loop over a fake stream: nothing is decided without a state, nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from schemas.readiness import Readiness
from schemas.routing import RoutingState
from services.router.core.overload import OverloadPolicy
from services.router.emission import Emitter, Names
from services.router.memory import PartitionMemory
from services.router.metrics import RouterMetrics
from services.router.readiness import ReadinessReporter
from services.router.worker import RouterLimits, RouterParts, RouterWorker
from tests.unit.router.records import FakeStream, record
from tests.unit.routing.states import RULES, A, B, C, canary, state
from twinloop.bus.records import Outgoing, Record, TopicPartition
from twinloop.canonical import sha256_hex
from twinloop.clock import FixedClock
from twinloop.errors import ArtifactError, Fenced, Transient
from twinloop.process import StopSignal
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.reader import StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.rules_book import RulesBook
from twinloop.routing.stamp import read_stamp
from twinloop.topics import TopicCatalogue

DOCUMENT = (Path(__file__).resolve().parents[3] / "configs" / "rules.json").read_bytes()
DIGEST = sha256_hex(DOCUMENT)
TOPICS = TopicCatalogue.load(prefix="")


class Producer:
    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    def send(self, outgoing: Outgoing) -> None:
        self.sent.append(outgoing)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Everything arrived."""

    @property
    def reports(self) -> list[Readiness]:
        return [Readiness.model_validate_json(outgoing.value or b"") for outgoing in self.sent]


class Bench:
    """A worker with every edge in the test's hand."""

    def __init__(self, count: int = 0, *, commit_interval_s: float = 0.0) -> None:
        self.clock = FixedClock()
        self.stream = FakeStream([ask(number, asked_at=self.clock.at_ms) for number in range(count)])
        self.store = MemoryRoutingStore()
        self.blobs = {DIGEST: DOCUMENT}
        self.changelog: list[tuple[str, int]] = []
        self.changelog_failures = 0
        self.open_at_restore: list[int] = []
        self.producer = Producer()
        self.on_sleep: Callable[[float], object] = lambda seconds: None
        limits = RouterLimits(
            batch_max=10,
            idle_wait_s=0.02,
            batch_interval_s=0.0,
            commit_interval_s=commit_interval_s,
            max_record_bytes=1_000_000,
            overload=OverloadPolicy(),
        )
        self.worker = RouterWorker(
            limits, self._parts(), service="router-0", dead_letters="dead-letters", open_stream=self._open
        )

    def put(self, found: RoutingState) -> None:
        self.store.value = found.model_dump_json().encode()

    def turns(self, count: int = 1) -> None:
        for _ in range(count):
            self.worker.turn()

    def routed(self, slot: str = "blue") -> list[str]:
        return [_id(sent) for sent in self.stream.committed if sent.topic == f"queries.{slot}"]

    def _open(self, on_revoked: Callable[[Sequence[TopicPartition]], None]) -> FakeStream:
        self.stream.on_revoked = on_revoked
        return self.stream

    def _read_blob(self, digest: str) -> bytes:
        if digest not in self.blobs:
            raise ArtifactError(f"no blob {digest}")
        return self.blobs[digest]

    def _read_seen(self, origin: int) -> list[tuple[str, int]]:
        self.open_at_restore.append(len(self.stream.open))
        if self.changelog_failures:
            self.changelog_failures -= 1
            raise Transient("changelog silent")
        return self.changelog if origin == 0 else []

    def _parts(self) -> RouterParts:
        return RouterParts(
            reader=StateReader(self.store, verify=lambda _: None, policy=ReaderPolicy(hold_max_s=2.0)),
            rules=RulesBook(self._read_blob),
            memory=PartitionMemory(self._read_seen, window_ms=60_000, max_ids=1000),
            emitter=Emitter(Names.of(TOPICS), router="router-0", source="router/router-0/x"),
            readiness=ReadinessReporter(
                self.producer,
                topic="readiness",
                router="router-0",
                source="router/router-0/x",
                interval_s=2.0,
                clock=self.clock,
            ),
            metrics=RouterMetrics(CollectorRegistry()),
            clock=self.clock,
            sleep=lambda seconds: self.on_sleep(seconds),
            random=lambda count: bytes(count),
        )


def ask(number: int, *, asked_at: int, partition: int = 0) -> Record:
    value = {"id": f"q-{number}", "text": "which court?", "asked_at": asked_at, "deadline_ms": 600_000}
    return record(value, partition=partition, offset=number)


def _id(outgoing: Outgoing) -> str:
    return str(json.loads(outgoing.value or b"{}")["id"])


def steady(epoch: int = 1, **changes: object) -> RoutingState:
    rules = dict.fromkeys((A, B, C), DIGEST)
    return state(epoch, rules=rules, **changes)


def all_ids(count: int) -> list[str]:
    return [f"q-{number}" for number in range(count)]


def test_batches_are_routed_in_order_and_committed() -> None:
    bench = Bench(25)
    bench.put(steady())
    bench.turns(4)
    assert bench.routed() == all_ids(25)
    assert bench.worker.is_ready() == (True, "epoch 1")


def test_a_transaction_stays_open_for_the_commit_interval() -> None:
    bench = Bench(25, commit_interval_s=0.025)
    bench.put(steady())
    bench.turns(2)
    assert bench.routed() == []
    bench.clock.advance(25)
    bench.turns(1)
    assert bench.routed() == all_ids(25)


def test_an_open_transaction_is_committed_also_when_no_more_queries_come() -> None:
    bench = Bench(3, commit_interval_s=0.025)
    bench.put(steady())
    bench.turns(1)
    bench.clock.advance(25)
    bench.turns(1)
    assert bench.routed() == all_ids(3)


def test_a_swap_between_two_batches_is_followed_by_the_next_batch() -> None:
    bench = Bench(20)
    bench.put(steady(1))
    bench.turns(1)
    bench.put(steady(2, active="green", previous=A))
    bench.turns(1)
    assert bench.routed("blue") == all_ids(20)[:10]
    assert bench.routed("green") == all_ids(20)[10:]


def test_an_idle_router_applies_and_reports_a_new_epoch() -> None:
    bench = Bench()
    bench.put(steady(1))
    bench.turns(1)
    bench.clock.advance(20)
    bench.put(steady(2))
    bench.turns(1)
    assert [(report.epoch, report.applied_at_us) for report in bench.producer.reports] == [
        (1, (bench.clock.at_ms - 20) * 1000),
        (2, bench.clock.at_ms * 1000),
    ]


def test_readiness_is_repeated() -> None:
    bench = Bench()
    bench.put(steady(1))
    bench.turns(3)
    assert len(bench.producer.sent) == 1
    bench.clock.advance(2000)
    bench.turns(1)
    assert [report.epoch for report in bench.producer.reports] == [1, 1]


def test_without_a_state_nothing_is_routed_and_nothing_lost() -> None:
    bench = Bench(5)
    bench.turns(5)
    assert bench.stream.is_paused
    assert bench.stream.committed == []
    assert bench.worker.is_ready()[0] is False
    bench.put(steady())
    bench.turns(3)
    assert bench.routed() == all_ids(5)


def test_silence_undoes_the_open_transaction_holds_and_ends_unconfirmed() -> None:
    bench = Bench(20, commit_interval_s=10.0)
    bench.put(steady())
    bench.turns(1)
    bench.store.is_silent = True
    bench.turns(1)
    assert (bench.stream.open, bench.stream.is_paused) == ([], True)
    bench.clock.advance(1999)
    bench.turns(2)
    assert bench.stream.is_paused
    bench.clock.advance(1)
    bench.turns(3)
    bench.clock.advance(10_000)
    bench.turns(1)
    assert bench.routed() == all_ids(20)
    stamps = [sent for sent in bench.stream.committed if sent.topic == "queries.blue"]
    assert all(read_stamp(sent.headers).unconfirmed for sent in stamps)


def test_one_late_reply_of_redis_undoes_nothing() -> None:
    bench = Bench(20, commit_interval_s=10.0)
    bench.put(steady())
    bench.turns(1)
    before = list(bench.stream.open)
    bench.store.is_silent = True

    def answers_again(seconds: float) -> None:
        bench.store.is_silent = bench.store.is_silent and seconds == 0

    bench.on_sleep = answers_again
    bench.turns(1)
    assert not bench.stream.is_paused
    assert bench.stream.open[: len(before)] == before
    bench.clock.advance(10_000)
    bench.turns(2)
    assert bench.routed() == all_ids(20)


@pytest.mark.parametrize("call", ["poll", "send", "commit"])
def test_what_kafka_undoes_is_routed_again_and_not_taken_for_a_duplicate(call: str) -> None:
    bench = Bench(20)
    bench.put(steady())
    bench.turns(1)
    bench.stream.fail_next[call] = 2
    bench.turns(6)
    assert bench.routed() == all_ids(20)


def test_a_commit_that_succeeds_while_the_next_batch_is_decided_is_never_undone_with_it() -> None:
    bench = Bench(20)
    bench.put(steady())
    bench.turns(1)
    bench.store.is_silent = True
    bench.turns(1)
    assert bench.stream.is_paused
    bench.store.is_silent = False
    # Kafka confirmed the first ten, so that their ids must be known still.
    bench.stream.log += bench.stream.log[:10]
    bench.turns(5)
    assert bench.routed() == all_ids(20)


def test_a_commit_that_fails_while_the_next_batch_is_decided_takes_that_batch_along() -> None:
    bench = Bench(30)
    bench.put(steady())
    bench.stream.fail_next["commit"] = 1
    bench.turns(1)
    assert bench.stream.open != []
    bench.turns(1)
    assert (bench.stream.open, bench.routed()) == ([], [])
    bench.turns(4)
    assert bench.routed() == all_ids(30)


def test_duplicates_are_dropped_across_batches() -> None:
    bench = Bench(10)
    bench.stream.log += bench.stream.log
    bench.put(steady())
    bench.turns(3)
    assert bench.routed() == all_ids(10)


def test_the_changelog_is_read_before_a_partition_s_first_batch_and_again_if_it_was_silent() -> None:
    bench = Bench(5)
    bench.changelog = [("q-1", bench.clock.at_ms - 10), ("q-2", bench.clock.at_ms - 70_000)]
    bench.changelog_failures = 2
    bench.put(steady())
    bench.turns(5)
    assert bench.routed() == ["q-0", "q-2", "q-3", "q-4"]


def test_the_changelog_is_never_read_while_a_transaction_is_open() -> None:
    bench = Bench(10, commit_interval_s=10.0)
    bench.stream.log.append(ask(10, asked_at=bench.clock.at_ms, partition=1))
    bench.put(steady())
    bench.turns(1)
    assert bench.stream.open
    bench.turns(1)
    assert bench.open_at_restore == [0, 0]
    assert bench.routed() == all_ids(10)
    bench.clock.advance(10_000)
    bench.turns(1)
    assert bench.routed() == all_ids(11)
    assert bench.stream.aborts == 0


def test_a_partition_that_comes_back_is_restored_anew() -> None:
    bench = Bench(2)
    bench.put(steady())
    bench.turns(1)
    bench.stream.revoke(0)
    bench.changelog = [("q-7", bench.clock.at_ms)]
    bench.stream.log += [ask(7, asked_at=bench.clock.at_ms), ask(8, asked_at=bench.clock.at_ms)]
    bench.turns(1)
    assert bench.routed() == ["q-0", "q-1", "q-8"]


def test_a_release_without_rules_is_waited_for_and_named() -> None:
    bench = Bench(5)
    bench.put(steady(1))
    bench.turns(1)
    bench.put(state(2, active="green", rules={A: DIGEST, B: RULES}, previous=A))
    bench.stream.log += [ask(9, asked_at=bench.clock.at_ms)]
    bench.turns(3)
    assert bench.stream.is_paused
    assert B in bench.producer.reports[-1].problems[0]
    assert bench.producer.reports[-1].epoch == 1
    bench.blobs[RULES] = DOCUMENT
    bench.clock.advance(500)
    bench.turns(2)
    assert bench.routed("green") == ["q-9"]
    assert bench.producer.reports[-1].epoch == 2


def test_a_standby_release_without_rules_holds_nobody_and_is_tried_again() -> None:
    bench = Bench(5)
    bench.put(state(1, rules={A: DIGEST, B: RULES}))
    bench.turns(2)
    assert bench.routed() == all_ids(5)
    assert bench.producer.reports[-1].problems
    bench.blobs[RULES] = DOCUMENT
    bench.clock.advance(500)
    bench.turns(1)
    assert not bench.producer.reports[-1].problems


def test_unreadable_records_end_in_the_transaction_of_their_batch() -> None:
    bench = Bench(2)
    bench.stream.log.insert(1, record(b"{", offset=77))
    bench.put(steady())
    bench.turns(1)
    letters = [sent for sent in bench.stream.committed if sent.topic == "dead-letters"]
    assert [letter.value for letter in letters] == [b"{"]
    assert ("tl-origin-offset", b"77") in letters[0].headers
    assert bench.routed() == all_ids(2)


def test_a_canary_is_routed_to_both_slots() -> None:
    bench = Bench(200)
    bench.put(steady(1, canary=canary(1000)))
    bench.turns(25)
    assert len(bench.routed("green")) in range(5, 45)
    assert sorted([*bench.routed("blue"), *bench.routed("green")]) == sorted(all_ids(200))


def test_stopping_commits_what_was_polled_and_says_so() -> None:
    class StopAfter(StopSignal):
        turns = 0

        def is_set(self) -> bool:
            self.turns += 1
            return self.turns > 2

    bench = Bench(15, commit_interval_s=100.0)
    bench.put(steady())
    bench.worker.run(StopAfter())
    assert bench.routed() == all_ids(15)
    assert bench.producer.reports[-1].stopping


def test_a_fenced_router_stops() -> None:
    bench = Bench(5)
    bench.put(steady())

    def fenced(max_records: int, timeout_s: float) -> list[Record]:
        raise Fenced("another process owns this identity")

    bench.stream.poll = fenced  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        bench.turns(1)
