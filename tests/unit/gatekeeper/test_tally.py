"""Rows become windows: users' queries only, each once, closed by assignment time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.gate_inputs import GateInput, Tally
from schemas.outcomes import OutcomeBatch, OutcomeRow
from services.gatekeeper.core.tally import PartitionCopies, PartitionTally
from services.gatekeeper.gate_log import GateLog
from services.gatekeeper.lag import Fetched, ReadMarks
from services.gatekeeper.tally_stage import Resume, TallyStage
from tests.histories.script import BOOT
from twinloop.bus.records import Outgoing, TopicPartition
from twinloop.clock import FixedClock
from twinloop.statistics.windows import WindowPolicy

POLICY = WindowPolicy(seconds=1.0, lateness_s=0.5, grace_s=0.5)
AT = 1_700_000_000_000


def asked(*names: str, at: int = AT, **fields: Any) -> AssignmentBatch:
    row = {
        "unit": "0" * 16,
        "bucket": 5000,
        "slot": "blue",
        "arm": "active",
        "release": BOOT,
        "epoch": 3,
        "purpose": "user",
        "domain": "law",
        "assigned_at": at,
        "deadline_at": at + 1000,
        **fields,
    }
    rows = tuple(AssignmentRow.model_validate({**row, "id": name}) for name in names)
    return AssignmentBatch(origin=0, router="router-0", rows=rows)


def answered(*names: str, at: int = AT, **fields: Any) -> OutcomeBatch:
    row = {
        "unit": "0" * 16,
        "slot": "blue",
        "arm": "active",
        "release": BOOT,
        "epoch": 3,
        "purpose": "user",
        "domain": "law",
        "assigned_at": at,
        "answered_at": at + 50,
        "latency_ms": 50.0,
        "toxic": False,
        "citation": "not_required",
        **fields,
    }
    rows = tuple(OutcomeRow.model_validate({**row, "id": name}) for name in names)
    return OutcomeBatch(origin=0, worker="w", toxicity_classifier="none 1", rows=rows)


def tally(share: int = 1000) -> PartitionTally:
    return PartitionTally(0, POLICY, share_of=lambda _: share)


def only(tallies: tuple[Tally, ...]) -> Tally:
    full = [each for each in tallies if each.window.total != type(each.window.total)()]
    assert len(full) == 1
    return full[0]


def test_a_window_closes_when_every_query_has_its_outcome() -> None:
    stage = tally()
    stage.assigned(asked("a", "b", deadline_at=AT + 5000), 0)
    stage.answered(answered("a"), 0)
    assert stage.close(AT / 1000 + 2.0) == ()
    stage.answered(answered("b"), 1)
    counts = only(stage.close(AT / 1000 + 2.0)).window.total.active
    assert (counts.queries, counts.errors, counts.missing) == (2, 0.0, 0)


def test_a_query_without_an_outcome_is_an_error_once_its_deadline_passed() -> None:
    stage = tally()
    stage.assigned(asked("a", unit="1" * 16), 0)
    stage.assigned(asked("b", unit="2" * 16), 1)
    stage.answered(answered("a"), 0)
    counts = only(stage.close(AT / 1000 + 3.0)).window.total.active
    assert (counts.queries, counts.errors, counts.missing) == (2, 1.0, 1)


def test_probes_and_mirrored_copies_are_not_users() -> None:
    stage = tally()
    stage.assigned(asked("a", purpose="qa"), 0)
    stage.assigned(asked("b", purpose="mirror"), 1)
    stage.answered(answered("a", purpose="qa"), 0)
    assert all(each.window.total.active.queries == 0 for each in stage.close(AT / 1000 + 9))


def test_copies_have_windows_of_their_own_and_what_did_not_come_back_is_no_error() -> None:
    copies = PartitionCopies(0, POLICY)
    copies.assigned(asked("user"), 0)
    for number, name in enumerate("abcd"):
        copy = asked(name, unit=f"{number:016x}", purpose="mirror", arm="shadow", slot="green")
        copies.assigned(copy, 1)
    copies.answered(answered("user"), 0)
    copies.answered(answered("a", purpose="mirror"), 1)
    copies.answered(answered("b", purpose="mirror", error="model"), 2)
    copies.answered(answered("c", purpose="mirror", error="shed"), 3)
    assert not any(each.window.total.shadow.queries for each in copies.close(AT / 1000 + 1.4))
    full = [each for each in copies.close(AT / 1000 + 3.0) if each.window.total.shadow.queries]
    assert len(full) == 1
    shadow = full[0].window.total.shadow
    assert (shadow.queries, shadow.missing, shadow.units, shadow.errors) == (4, 2, 2, 1.0)
    assert full[0].window.total.active.queries == 0


def test_copies_that_hang_do_not_delay_the_windows_of_users() -> None:
    written = Written()
    stage = stage_on(written, Resume(0.0, 0), is_mirroring=lambda: True)
    stage.assigned(asked("a"), partition=0, offset=10)
    stage.assigned(asked("a", purpose="mirror", arm="shadow", deadline_at=AT + 9000), partition=0, offset=11)
    stage.answered(answered("a"), partition=0, offset=20)
    stage.close(0, AT / 1000 + 2.0)
    bodies = [GateInput.model_validate_json(record.value or b"").body for record in written.records]
    assert [getattr(body, "purpose", "") for body in bodies] == ["user"]
    assert stage.commitable()[TopicPartition("assignments", 0)] == 11, "the open copies must be read again"


def test_nothing_is_logged_about_copies_while_none_are_sent() -> None:
    written = Written()
    stage = stage_on(written, Resume(0.0, 0))
    stage.assigned(asked("a", purpose="mirror", arm="shadow"), partition=0, offset=10)
    stage.close(0, AT / 1000 + 9.0)
    assert all(b'"mirror"' not in (record.value or b"") for record in written.records)


def test_a_query_that_opted_out_is_left_out_of_both_arms() -> None:
    stage = tally(share=1000)
    stage.assigned(asked("out", bucket=10, arm="active"), 0)
    stage.assigned(asked("in", bucket=5000, arm="active"), 1)
    stage.answered(answered("out", "in"), 0)
    assert only(stage.close(AT / 1000 + 3.0)).window.total.active.queries == 1


def test_a_forwarded_query_counts_where_it_was_answered() -> None:
    stage = tally()
    stage.assigned(asked("a", arm="shadow", slot="green", bucket=5), 0)
    stage.assigned(asked("a", epoch=4, hops=1), 1)
    stage.answered(answered("a", epoch=4, hops=1), 0)
    window = only(stage.close(AT / 1000 + 3.0)).window
    assert (window.epoch, window.total.active.queries, window.total.shadow.queries) == (4, 1, 0)


class Written:
    """Keeps what was produced."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    def send(self, outgoing: Outgoing) -> None:
        self.records.append(outgoing)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Everything is there already."""


def stage_on(
    written: Written, resume: Resume, *, is_mirroring: Callable[[], bool] = lambda: False
) -> TallyStage:
    log = GateLog(written, topic="gate-inputs", name="g-0", session="s", clock=FixedClock())
    return TallyStage(
        log,
        POLICY,
        topics=("assignments", "outcomes"),
        share_of=lambda _: 0,
        resume_of=lambda _: resume,
        is_mirroring=is_mirroring,
    )


def test_offsets_are_offered_for_commit_only_up_to_the_oldest_open_window() -> None:
    stage = stage_on(Written(), Resume(0.0, 0))
    stage.assigned(asked("a"), partition=0, offset=10)
    stage.answered(answered("a"), partition=0, offset=20)
    stage.assigned(asked("b", at=AT + 1000), partition=0, offset=11)
    stage.close(0, AT / 1000 + 2.0)
    assert stage.commitable()[TopicPartition("assignments", 0)] == 11
    stage.committed(stage.commitable())
    assert stage.commitable() == {}


def test_a_window_that_was_logged_before_a_restart_is_not_logged_again() -> None:
    written = Written()
    stage = stage_on(written, Resume(closed_until=AT / 1000 + 1, open_from=11))
    stage.assigned(asked("a"), partition=0, offset=10)
    stage.answered(answered("a"), partition=0, offset=20)
    stage.assigned(asked("b", at=AT + 1000), partition=0, offset=11)
    stage.answered(answered("b", at=AT + 1000), partition=0, offset=21)
    stage.close(0, AT / 1000 + 4.0)
    assert sum(b'"queries":1' in (record.value or b"") for record in written.records) == 1


def marks(fetched: dict[str, Fetched], *, drained: bool = True) -> ReadMarks:
    return ReadMarks(lambda topic, _: fetched.get(topic), is_drained=lambda _: drained)


def test_while_records_keep_coming_the_watermark_is_the_last_one_handed_out() -> None:
    reading = marks({"t": Fetched(position=5, end=9, at_ms=AT + 5000)})
    reading.handled("t", 0, timestamp_ms=AT)
    assert reading.watermark_ms("t", 0) == AT
    assert reading.watermark_ms("t", 0) == AT


def test_at_the_end_the_watermark_is_the_time_of_the_brokers_earlier_answer() -> None:
    fetched = {"t": Fetched(position=9, end=9, at_ms=AT + 5000)}
    reading = marks(fetched)
    reading.handled("t", 0, timestamp_ms=AT)
    assert reading.watermark_ms("t", 0) == AT, "one look is not enough: records may be on their way"
    fetched["t"] = Fetched(position=9, end=9, at_ms=AT + 6000)
    assert reading.watermark_ms("t", 0) == AT + 5000


def test_a_broker_that_does_not_answer_stops_the_watermark() -> None:
    fetched = {"t": Fetched(position=9, end=9, at_ms=AT + 5000)}
    reading = marks(fetched)
    for _ in range(10):
        assert reading.watermark_ms("t", 0) <= AT + 5000


def test_what_waits_to_be_handled_stops_the_watermark() -> None:
    reading = marks({"t": Fetched(position=9, end=9, at_ms=AT + 5000)}, drained=False)
    reading.handled("t", 0, timestamp_ms=AT)
    assert [reading.watermark_ms("t", 0) for _ in range(3)] == [AT] * 3
