from __future__ import annotations

import threading

import pytest

from twinloop.bus.bounded_call import BoundedCaller


def test_calls_run_in_turn_and_their_errors_come_back() -> None:
    caller = BoundedCaller()
    seen: list[str] = []
    caller.run(lambda: seen.append("a"), 5)
    with pytest.raises(KeyError):
        caller.run(lambda: {}["x"], 5)
    caller.run(lambda: seen.append("b"), 5)
    assert seen == ["a", "b"]
    caller.close()
    caller.close()


def test_a_call_that_hangs_is_left_behind_and_the_next_one_runs() -> None:
    caller = BoundedCaller()
    released = threading.Event()
    with pytest.raises(TimeoutError):
        caller.run(lambda: bool(released.wait(30)) and None, 0.02)
    seen: list[str] = []
    caller.run(lambda: seen.append("next"), 5)
    assert seen == ["next"]
    released.set()
    caller.close()
