"""The replay buffer: bounded, and the same whatever the order, restarts and replays of the log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.core.replay_buffer import BufferState, ReplayPolicy, open_buffer
from services.trainer.core.rows import ReplayRow

POLICIES = ("reservoir", "prioritised")


def row(number: int, *, size: int = 8, weight: float = 1.0) -> ReplayRow:
    return ReplayRow(
        id=f"fb-{number}", domain="law", question="q" * (size - 1), answer="a", rater="r", weight=weight
    )


@given(
    order=st.permutations(range(40)),
    sizes=st.lists(st.integers(2, 60), min_size=40, max_size=40),
    max_rows=st.integers(0, 30),
    max_bytes=st.integers(0, 600),
    pieces=st.integers(1, 7),
)
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("name", POLICIES)
def test_the_content_depends_on_what_came_and_not_on_its_order_or_pieces(
    name: str, order: list[int], sizes: list[int], max_rows: int, max_bytes: int, pieces: int
) -> None:
    policy = ReplayPolicy(policy=name, max_rows=max_rows, max_bytes=max_bytes)  # type: ignore[arg-type]
    rows = [row(number, size=sizes[number], weight=1 + number % 3) for number in range(40)]
    whole = open_buffer(policy, BufferState())
    whole.add(rows)
    state = BufferState()
    for start in range(0, 40, pieces):
        state = BufferState.model_validate_json(state.model_dump_json())  # a restart between any two pieces
        open_buffer(policy, state).add([rows[number] for number in order[start : start + pieces]])
    in_pieces = open_buffer(policy, state)

    assert in_pieces.rows() == whole.rows()
    assert len(in_pieces.rows()) <= max_rows
    assert sum(item.size for item in in_pieces.rows()) <= max_bytes


def test_a_reservoir_keeps_a_uniform_sample() -> None:
    hits = [0] * 20
    for seed in range(2000):
        buffer = open_buffer(ReplayPolicy(max_rows=5, seed=seed), BufferState())
        buffer.add(row(number) for number in range(20))
        for item in buffer.rows():
            hits[int(item.id.split("-")[1])] += 1

    assert all(400 < count < 600 for count in hits), hits


def test_a_prioritised_buffer_prefers_heavy_rows() -> None:
    heavy = 0
    for seed in range(300):
        buffer = open_buffer(ReplayPolicy(policy="prioritised", max_rows=5, seed=seed), BufferState())
        buffer.add(row(number, weight=3.0 if number < 10 else 1.0) for number in range(20))
        heavy += sum(item.weight == 3.0 for item in buffer.rows())

    assert 0.65 < heavy / 1500 < 0.85


@pytest.mark.parametrize("name", POLICIES)
def test_a_removed_row_is_gone_and_a_repeated_one_is_there_once(name: str) -> None:
    buffer = open_buffer(ReplayPolicy(policy=name), BufferState())  # type: ignore[arg-type]
    buffer.add([row(1), row(2), row(1)])

    assert buffer.remove(["fb-1", "fb-9"]) == ("fb-1",)
    assert [item.id for item in buffer.rows()] == ["fb-2"]


def test_the_state_is_plain_json() -> None:
    state = BufferState()
    open_buffer(ReplayPolicy(max_rows=1), state).add([row(1), row(2)])

    assert BufferState.model_validate(json.loads(state.model_dump_json())) == state
