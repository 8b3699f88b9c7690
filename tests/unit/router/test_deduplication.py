from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.core.deduplication import SeenIds


def seen_ids(window_ms: int = 100, max_ids: int = 1000) -> SeenIds:
    return SeenIds(window_ms=window_ms, max_ids=max_ids)


def test_an_id_is_known_within_its_window_and_not_after() -> None:
    seen = seen_ids()
    seen.add(["a"], at_ms=0)
    assert seen.has("a", now_ms=99)
    assert not seen.has("a", now_ms=100)
    assert not seen.has("b", now_ms=0)


def test_an_undone_transaction_takes_its_ids_with_it() -> None:
    seen = seen_ids()
    seen.add(["a"], at_ms=0)
    seen.confirm()
    seen.add(["b"], at_ms=1)
    seen.undo()
    assert seen.has("a", now_ms=2)
    assert not seen.has("b", now_ms=2)


def test_memory_is_bounded_in_time_and_in_number() -> None:
    seen = seen_ids(max_ids=3)
    for at in range(10):
        seen.add([f"id-{at}"], at_ms=at)
    assert len(seen) == 3
    assert seen.evicted_early == 7
    seen.add(["late"], at_ms=1000)
    assert len(seen) == 1
    assert seen.evicted_early == 7


def test_restoring_takes_what_is_young_enough_in_any_order() -> None:
    seen = seen_ids()
    seen.restore([("new", 150), ("old", 10), ("mid", 101)], now_ms=200)
    assert len(seen) == 2
    seen.undo()
    assert seen.has("mid", now_ms=200)
    assert seen.has("new", now_ms=249)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 30), st.booleans())))
def test_it_agrees_with_a_plain_dictionary(steps: list[tuple[str, int, bool]]) -> None:
    seen, now, model = seen_ids(window_ms=50), 0, dict[str, int]()
    for query_id, wait, is_committed in steps:
        now += wait
        known = query_id in model and now - model[query_id] < 50
        assert seen.has(query_id, now_ms=now) == known
        if known:
            continue
        seen.add([query_id], at_ms=now)
        if is_committed:
            seen.confirm()
            model[query_id] = now
        else:
            seen.undo()
            model.pop(query_id, None)
