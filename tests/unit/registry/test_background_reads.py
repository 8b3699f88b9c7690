"""A loop that asks for a blob never waits long for a store that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from twinloop.errors import ArtifactError, Transient
from twinloop.registry.background_reads import BackgroundReads


def eventually(ask: Callable[[], bytes]) -> bytes:
    for _ in range(2000):
        try:
            return ask()
        except Transient:
            threading.Event().wait(0.005)
    raise AssertionError("it never came")


def test_a_quick_store_answers_the_first_call() -> None:
    assert BackgroundReads(str.encode, patience_s=20)("a" * 64) == b"a" * 64


def test_a_slow_store_holds_nobody_up_and_is_asked_once() -> None:
    may_answer, asked = threading.Event(), []

    def read(digest: str) -> bytes:
        asked.append(digest)
        may_answer.wait(20)
        return b"here"

    blobs = BackgroundReads(read, patience_s=0.01)
    for _ in range(5):
        with pytest.raises(Transient, match="still being read"):
            blobs("b" * 64)
    may_answer.set()
    assert eventually(lambda: blobs("b" * 64)) == b"here"
    assert asked == ["b" * 64]


def test_what_failed_is_told_and_read_again_by_the_next_call() -> None:
    answers: list[ArtifactError | bytes] = [ArtifactError("one bit is wrong"), b"mended"]

    def read(_digest: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    blobs = BackgroundReads(read, patience_s=20)
    with pytest.raises(ArtifactError, match="one bit"):
        blobs("c" * 64)
    assert blobs("c" * 64) == b"mended"


def test_a_store_that_fails_slowly_is_waited_for_once_and_never_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_fail, waits = threading.Event(), list[float | None]()
    result = Future.result

    def noted(future: Future[bytes], timeout: float | None = None) -> object:
        waits.append(timeout)
        return result(future, timeout)

    def read(_digest: str) -> bytes:
        may_fail.wait(20)
        may_fail.clear()
        raise ArtifactError("the store is away")

    monkeypatch.setattr(Future, "result", noted)
    blobs = BackgroundReads(read, patience_s=0.01)
    for _ in range(3):
        with pytest.raises(Transient, match="still being read"):
            blobs("d" * 64)
        may_fail.set()
        with pytest.raises(ArtifactError, match="away"):
            eventually(lambda: blobs("d" * 64))
    assert waits.count(0.01) == 1
    assert set(waits) == {0, 0.01}
