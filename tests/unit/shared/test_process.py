"""What a process does when it is asked to end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from twinloop.process import unwound_on_sigterm


def _terminated(closed: list[str]) -> None:
    with unwound_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            closed.append("installation")


def test_a_terminated_block_closes_what_it_opened_and_ends_with_the_signals_status() -> None:
    closed: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        _terminated(closed)
    assert closed == ["installation"]
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
