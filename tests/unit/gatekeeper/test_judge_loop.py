"""The judge's edge on fakes: the log wins, the key follows it, a restart and a standby change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from schemas.decisions import Decision
from schemas.gate_inputs import Applied, BlobsChecked, GateInput, ProposalSeen, ReadinessSeen
from schemas.routing import RoutingState
from services.gatekeeper.checkpoint import Checkpoint
from services.gatekeeper.core.probes import ProbeSet
from services.gatekeeper.decision_log import DecisionLog, Winner
from services.gatekeeper.gate_log import GateLog
from services.gatekeeper.judge_loop import JudgeLoop, JudgeParts
from services.gatekeeper.metrics import GatekeeperMetrics
from services.gatekeeper.routing_key import RoutingKey
from services.gatekeeper.settings import GatekeeperSection
from tests.histories.script import BOOT, GOOD, INCARNATION, digest
from twinloop.bus.records import Outgoing, Record
from twinloop.clock import FixedClock
from twinloop.codec import decode, encode
from twinloop.errors import ConfigError, Transient
from twinloop.routing.memory_store import MemoryRoutingStore
from twinloop.routing.stamp import read_stamp
from twinloop.routing.store import Installed, InstallMode, Refused
from twinloop.signing import KeyRing, create_keys, load_signer, sign_document
from twinloop.topics import TopicCatalogue

TOPICS = TopicCatalogue.load(prefix="t.", origin_partitions=1)
PROBES = ProbeSet.read(b'{"id": "p1", "question": "say 1", "domain": "law"}', name="probes")


class Bus:
    """Every topic as a list; also the producer."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Record]] = {}
        self.is_silent = False

    def send(self, outgoing: Outgoing) -> None:
        log = self.logs.setdefault(outgoing.topic, [])
        log.append(
            Record(
                outgoing.topic, 0, len(log), outgoing.key, outgoing.value, outgoing.headers, timestamp_ms=0
            )
        )

    def flush(self, timeout_s: float = 10.0) -> None:
        if self.is_silent:
            raise Transient("not acknowledged")

    def log(self, topic: str) -> list[Record]:
        return self.logs.setdefault(TOPICS.name(topic), [])

    def decisions(self) -> list[Decision]:
        kind = Decision.type.encode()
        return [decode(r, Decision) for r in self.log("decisions") if r.header("ce_type") == kind]

    def inputs(self, body: type[Any]) -> list[Any]:
        bodies = [decode(record, GateInput).body for record in self.log("gate-inputs")]
        return [each for each in bodies if isinstance(each, body)]


class Tail:
    """Reads one list from an offset on."""

    def __init__(self, log: list[Record], offset: int = 0) -> None:
        self._log, self._offset = log, offset

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        found = self._log[self._offset : self._offset + max_records]
        self._offset += len(found)
        return found

    def read_to_end(self, timeout_s: float = 10.0) -> list[Record]:
        return self.poll(1_000_000, timeout_s)

    def close(self) -> None:
        """Nothing to let go of."""


class Blobs:
    """Answers every blob check with yes."""

    def ask(self, release: str, epoch: int) -> BlobsChecked:
        return BlobsChecked(release=release, epoch=epoch, ok=True)

    def forget(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing runs."""


class Place:
    """What several judges share: bus, Redis, keys, clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bus, self.redis, self.clock = folder, Bus(), MemoryRoutingStore(), FixedClock()
        path = create_keys(folder / "keys", {"gatekeeper-1": ("gatekeeper",), "operator-1": ("break-glass",)})
        self.ring = KeyRing.load(path)

    def judge(self, name: str = "gatekeeper-0", *, is_leader: bool = True, **section: Any) -> JudgeLoop:
        self.shown = CollectorRegistry()
        log = GateLog(self.bus, topic=TOPICS.name("gate-inputs"), name=name, session="s", clock=self.clock)
        parts = JudgeParts(
            open_inputs=lambda offset: Tail(self.bus.log("gate-inputs"), offset),
            end_of_inputs=lambda: len(self.bus.log("gate-inputs")),
            log=log,
            decisions=DecisionLog(
                self.bus,
                Tail(self.bus.log("decisions")),
                topic=TOPICS.name("decisions"),
                audit_topic=TOPICS.name("audit"),
                signer=load_signer(self.folder / "keys", "gatekeeper-1"),
                ring=self.ring,
                source=name,
                clock=self.clock,
            ),
            key=RoutingKey(self.redis, ring=self.ring, clock=self.clock),
            blob_checks=Blobs(),  # type: ignore[arg-type]
            probes=PROBES,
            chooser_of=lambda _: pytest.fail("every probe names its domain"),
            producer=self.bus,
            topics=TOPICS,
            checkpoint=Checkpoint(self.folder / f"{name}.checkpoint"),
            metrics=GatekeeperMetrics(self.shown),
            clock=self.clock,
            new_incarnation=lambda: INCARNATION,
            bootstrap=lambda: (BOOT, digest("rules")),
        )
        judge = JudgeLoop(parts, GatekeeperSection(**section), name=name, software="0.1.0")
        judge.start()
        judge.is_leader = is_leader
        return judge

    def run(self, *judges: JudgeLoop, steps: int = 8) -> None:
        for _ in range(steps):
            self.clock.advance(600)
            for judge in judges:
                judge.step(0)

    def write(self, body: Any) -> None:
        value, headers = encode(GateInput(by="t", body=body), source="t", event_id="1", at_ms=0)
        self.bus.send(Outgoing(TOPICS.name("gate-inputs"), value, headers=headers))

    def propose(self) -> None:
        self.write(
            ProposalSeen(
                release=GOOD, parent=BOOT, rules=digest("r"), proposed_by="trainer-1", verdict="valid"
            )
        )

    def metric(self, name: str, **labels: str) -> float | None:
        """What the last judge made shows."""
        return self.shown.get_sample_value(name, labels)

    def in_redis(self) -> RoutingState:
        assert self.redis.value is not None
        return RoutingState.model_validate_json(self.redis.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_first_start_creates_the_incarnation_and_installs_it(place: Place) -> None:
    place.run(place.judge())
    assert [decision.kind for decision in place.bus.decisions()] == ["genesis"]
    assert place.in_redis() == place.bus.decisions()[0].state
    assert place.in_redis().signature


def test_a_standby_folds_along_and_writes_nothing(place: Place) -> None:
    leader = place.judge()
    standby = place.judge("gatekeeper-1", is_leader=False)
    place.run(leader)
    _read_its_own_last_words(leader)
    before = len(place.bus.log("gate-inputs"))
    place.run(standby)
    assert standby.state == leader.state
    assert len(place.bus.log("gate-inputs")) == before


def test_two_leaders_log_each_epoch_alike_and_install_it_once(place: Place) -> None:
    one, two = place.judge(), place.judge("gatekeeper-1")
    place.run(one, two)
    place.propose()
    place.run(one, two)
    by_epoch: dict[int, set[str]] = {}
    for decision in place.bus.decisions():
        by_epoch.setdefault(decision.epoch, set()).add(decision.model_dump_json())
    assert all(len(each) == 1 for each in by_epoch.values())
    assert place.in_redis().epoch == max(by_epoch) == 2


def test_a_restart_installs_what_was_logged_and_not_applied(place: Place) -> None:
    first = place.judge()
    place.run(first)
    place.redis.is_silent = True
    place.propose()
    for _ in range(4):
        place.clock.advance(600)
        with pytest.raises(Transient):
            first.step(0)
    assert place.bus.decisions()[-1].kind == "stage"
    place.redis.is_silent = False
    assert place.in_redis().epoch == 1
    place.run(place.judge())
    assert place.in_redis().epoch == 2
    assert [decision.epoch for decision in place.bus.decisions()] == [1, 2]


def test_a_decision_that_was_folded_and_not_logged_is_logged_by_the_successor(place: Place) -> None:
    leader = place.judge()
    place.run(leader)
    place.propose()
    standby = place.judge("gatekeeper-1", is_leader=False)
    place.run(standby)
    assert len(place.bus.decisions()) == 1
    standby.is_leader = True
    place.run(standby)
    assert [decision.kind for decision in place.bus.decisions()] == ["genesis", "stage"]


def test_of_two_records_of_an_epoch_the_first_is_installed_and_a_forged_one_is_ignored(place: Place) -> None:
    forged = RoutingState.model_validate(
        {
            "incarnation": "f" * 32,
            "epoch": 1,
            "active": "green",
            "releases": {"blue": BOOT, "green": BOOT},
            "previous": None,
            "rules": {BOOT: digest("r")},
            "phase": "steady",
            "decision_id": "x",
            "changed_at": 0,
            "changed_by": "mallory",
        }
    )
    signed = sign_document(forged, load_signer(place.folder / "keys", "operator-1"))
    decision = Decision(
        decision_id="x",
        kind="genesis",
        epoch=1,
        state=signed,
        reason="x",
        line="x",
        policy=BOOT,
        input_offset=0,
        previous=None,
        decided_at=0,
        software="x",
    )
    value, headers = encode(decision, source="x", event_id="x", at_ms=0)
    place.bus.send(Outgoing(TOPICS.name("decisions"), value, headers=headers))
    place.run(place.judge())
    assert place.in_redis().incarnation == INCARNATION


def test_a_log_that_says_otherwise_stops_the_judge(place: Place) -> None:
    place.run(place.judge())
    record = place.bus.log("decisions")[0]
    decision = decode(record, Decision).model_copy(update={"reason": "because"})
    value, headers = encode(decision, source="x", event_id="x", at_ms=0)
    place.bus.log("decisions")[0] = Record(record.topic, 0, 0, None, value, headers, timestamp_ms=0)
    with pytest.raises(ConfigError, match="decided otherwise"):
        place.run(place.judge("gatekeeper-9"))


def test_a_checkpoint_spares_the_records_before_it_and_changes_nothing(place: Place) -> None:
    first = place.judge(checkpoint_records=100)
    place.run(first)
    place.propose()
    place.run(first, steps=3)
    _read_its_own_last_words(first)
    first.close()
    second = place.judge(checkpoint_records=100)
    assert second.state == first.state
    path = place.folder / "gatekeeper-0.checkpoint"
    path.write_bytes(path.read_bytes().replace(b"blue", b"flue"))
    assert place.judge(checkpoint_records=100).state.routing == first.state.routing


def test_a_checkpoint_of_another_log_is_not_used(place: Place) -> None:
    first = place.judge()
    place.run(first)
    first.close()
    place.bus.logs.clear()
    place.redis.value = None
    assert place.judge().state.routing is None


def test_lost_inputs_under_a_kept_decision_log_stop_the_start(place: Place) -> None:
    place.run(place.judge())
    place.bus.log("gate-inputs").clear()
    with pytest.raises(ConfigError, match="gate-inputs is empty"):
        place.judge("gatekeeper-9")


def test_a_key_of_another_installation_stops_genesis(place: Place) -> None:
    other = Place(place.folder / "other")
    other.run(other.judge())
    state = other.in_redis().model_copy(update={"incarnation": "e" * 32})
    place.redis.value = state.model_dump_json().encode()
    with pytest.raises(ConfigError, match="the decision log is new"):
        place.run(place.judge())


def test_records_that_kafka_did_not_take_are_written_again(place: Place) -> None:
    judge = place.judge()
    place.run(judge)
    place.propose()
    place.bus.is_silent = True
    for _ in range(3):
        place.clock.advance(600)
        with pytest.raises(Transient):
            judge.step(0)
    place.bus.is_silent = False
    place.run(judge)
    assert place.in_redis().epoch == 2
    assert [applied.epoch for applied in place.bus.inputs(Applied)][-1] == 2


def test_a_write_whose_reply_was_lost_counts_from_its_first_attempt(place: Place) -> None:
    class LostReply(MemoryRoutingStore):
        """The first write is done and its reply does not come."""

        lost = False

        def install(self, state_json: bytes, *, mode: InstallMode) -> Installed | Refused:
            result = super().install(state_json, mode=mode)
            if not self.lost:
                self.lost = True
                raise Transient("the reply was lost")
            return result

    place.run(place.judge())
    winner = Winner("genesis", "d" * 64, place.in_redis())
    clock = FixedClock()
    key = RoutingKey(LostReply(), ring=place.ring, clock=clock)
    begun = clock.now_us()
    with pytest.raises(Transient):
        key.install(winner, mode="create")
    clock.at_ms += 70
    applied = key.install(winner, mode="create")
    assert (applied.result, applied.started_at_us, applied.took_us) == ("installed", begun, 70_000)


def test_a_key_lost_while_a_decision_waits_is_restored_above_it(place: Place) -> None:
    judge = place.judge(redis_check_s=0.1)
    place.run(judge)
    place.redis.value = None
    place.run(judge)
    assert place.bus.decisions()[-1].kind == "restore"
    assert place.in_redis().epoch == 2


def test_a_break_glass_write_is_adopted_before_a_waiting_decision_goes_over_it(place: Place) -> None:
    judge = place.judge(redis_check_s=60.0)
    place.run(judge)
    by_hand = place.in_redis().model_copy(update={"epoch": 2, "decision_id": "hand", "changed_by": "ada"})
    signed = sign_document(by_hand, load_signer(place.folder / "keys", "operator-1"))
    place.redis.value = signed.model_dump_json().encode()
    place.propose()
    place.run(judge)
    kinds = [decision.kind for decision in place.bus.decisions()]
    assert kinds[:3] == ["genesis", "stage", "adopt"]
    assert place.in_redis().releases == {"blue": BOOT, "green": BOOT}


def test_probes_are_announced_then_sent_with_their_rows(place: Place) -> None:
    judge = place.judge()
    place.run(judge)
    place.propose()
    for slot in ("blue", "green"):
        place.write(
            ReadinessSeen.model_validate(
                {
                    "worker": f"w-{slot}",
                    "service": "inference",
                    "slot": slot,
                    "epoch": 1,
                    "releases": [BOOT, GOOD],
                    "seen_at": 0,
                }
            )
        )
    place.run(judge)
    assert len(place.bus.log("queries.green")) == 1
    assert len(place.bus.log("assignments")) == 1
    routed = place.bus.log("queries.green")[0]
    stamp = read_stamp(routed.headers)
    assert (stamp.purpose, stamp.release) == ("qa", GOOD)
    place.run(judge)
    assert len(place.bus.log("queries.green")) == 1, "sent once while it may still be answered"


def test_ticks_are_rarer_while_nothing_is_going_on(place: Place) -> None:
    judge = place.judge(tick_s=0.5, idle_tick_s=5.0)
    place.run(judge)
    before = len(place.bus.log("gate-inputs"))
    place.run(judge, steps=20)
    assert len(place.bus.log("gate-inputs")) - before <= 3


def test_judges_that_read_the_same_log_have_equal_states(place: Place) -> None:
    leader = place.judge()
    place.run(leader)
    place.propose()
    place.run(leader)
    _read_its_own_last_words(leader)
    assert place.judge("gatekeeper-7", is_leader=False).state == leader.state


def _read_its_own_last_words(judge: JudgeLoop) -> None:
    judge.is_leader = False
    judge.step(0)


def test_metrics_say_who_is_ready_which_slot_serves_and_that_a_write_is_not_proven_durable(
    place: Place,
) -> None:
    judge = place.judge()
    place.run(judge)
    for worker, slot in (("blue-0", "blue"), ("blue-1", "blue"), ("green-0", "green")):
        place.write(
            ReadinessSeen(
                worker=worker,
                service="inference",
                slot=slot,  # type: ignore[arg-type]
                epoch=1,
                releases=(BOOT,) if slot == "blue" else (),
                seen_at=0,
            )
        )
    place.run(judge, steps=20)
    assert place.metric("twinloop_ready_workers", slot="blue") == 2
    assert place.metric("twinloop_ready_workers", slot="green") == 0
    assert place.metric("twinloop_active_slot", slot="blue") == 1
    assert place.metric("twinloop_routing_undurable") == 1


def test_a_worker_that_falls_silent_is_not_counted_as_ready_and_a_restart_shows_the_epoch(
    place: Place,
) -> None:
    judge = place.judge()
    place.run(judge)
    place.write(
        ReadinessSeen(worker="b", service="inference", slot="blue", epoch=1, releases=(BOOT,), seen_at=0)
    )
    place.run(judge, steps=10)
    assert place.metric("twinloop_ready_workers", slot="blue") == 1
    place.run(judge, steps=40)
    assert place.metric("twinloop_ready_workers", slot="blue") == 0
    judge.close()
    place.judge()
    assert place.metric("twinloop_decided_epoch") == 1
