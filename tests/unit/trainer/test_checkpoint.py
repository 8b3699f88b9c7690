"""The checkpoint: state and offsets together, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.trainer.checkpoint import read_checkpoint, write_checkpoint
from services.trainer.core.ledger_state import LedgerState
from tests.unit.trainer.examples import accept, ledger
from twinloop.bus.records import TopicPartition
from twinloop.errors import ConfigError, Transient

OFFSETS = {TopicPartition("feedback", 0): 7, TopicPartition("decisions", 0): 3}


def test_what_is_written_is_read_back_with_its_offsets(tmp_path: Path) -> None:
    book = ledger()
    accept(book, 1)
    path = tmp_path / "deep" / "checkpoint.json"

    write_checkpoint(path, book.state, OFFSETS)

    found = read_checkpoint(path)
    assert found is not None
    assert found.state == book.state
    assert found.offsets == OFFSETS
    assert [item.name for item in path.parent.iterdir()] == ["checkpoint.json"]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "checkpoint.json") is None


def test_a_damaged_checkpoint_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    write_checkpoint(path, LedgerState(), OFFSETS)
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 37):
        broken = bytearray(data)
        broken[place] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(ConfigError, match="move it away"):
            read_checkpoint(path)
    path.write_bytes(bytes(data[:-5]))
    with pytest.raises(ConfigError):
        read_checkpoint(path)


def test_a_failed_write_leaves_the_last_checkpoint_in_place(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    write_checkpoint(path, LedgerState(), OFFSETS)
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Transient):
        write_checkpoint(tmp_path / "file" / "checkpoint.json", LedgerState(), {})

    assert read_checkpoint(path) is not None
