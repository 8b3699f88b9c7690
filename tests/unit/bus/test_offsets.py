from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinloop.bus.offsets import OffsetLedger
from twinloop.bus.records import Record, TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def record(partition: int, offset: int) -> Record:
    return Record("t", partition, offset, None, b"", (), 0)


def test_nothing_polled_is_nothing_to_commit_or_undo() -> None:
    ledger = OffsetLedger()
    ledger.took([])
    assert ledger.uncommitted() == {}
    assert ledger.rewind() == {}


def test_interleaved_partitions_keep_their_own_first_and_next() -> None:
    ledger = OffsetLedger()
    ledger.took([record(0, 5), record(1, 9), record(0, 6), record(1, 10), record(1, 12)])
    ledger.took([record(0, 7)])
    assert ledger.uncommitted() == {A: 8, B: 13}
    assert ledger.rewind() == {A: 5, B: 9}
    assert ledger.uncommitted() == {}


def test_a_partial_commit_moves_where_an_undo_goes_back_to() -> None:
    ledger = OffsetLedger()
    ledger.took([record(0, offset) for offset in range(5, 10)])
    ledger.took([record(1, 3)])
    ledger.committed({A: 7})
    assert ledger.uncommitted() == {A: 10, B: 4}
    assert ledger.rewind() == {A: 7, B: 3}


def test_a_full_commit_leaves_nothing_of_its_partition() -> None:
    ledger = OffsetLedger()
    ledger.took([record(0, 5), record(1, 3)])
    ledger.committed({A: 6})
    assert ledger.rewind() == {B: 3}


def test_forgotten_partitions_are_neither_committed_nor_undone() -> None:
    ledger = OffsetLedger()
    ledger.took([record(0, 5), record(1, 3)])
    ledger.forget([A, TopicPartition("t", 7)])
    assert ledger.uncommitted() == {B: 4}


@given(st.lists(st.integers(0, 3), max_size=60))
def test_run_wise_notes_equal_notes_record_by_record(partitions: list[int]) -> None:
    at = dict.fromkeys(range(4), 100)
    records = []
    for partition in partitions:
        records.append(record(partition, at[partition]))
        at[partition] += 1
    ledger = OffsetLedger()
    ledger.took(records)
    assert ledger.uncommitted() == {TopicPartition("t", p): at[p] for p in set(partitions)}
    assert ledger.rewind() == {TopicPartition("t", p): 100 for p in set(partitions)}
