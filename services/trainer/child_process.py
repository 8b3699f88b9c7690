"""A child process that is watched, bounded in time, and never outlives its parent."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_STEP_S = 0.05


class Cancelled(Exception):
    """The training was stopped from outside; it may be done again."""


class TimedOut(Exception):
    """The child ran past its limit and was killed."""


def run_leashed_module(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    timeout_s: float,
    grace_s: float,
    cancel: threading.Event,
) -> int:
    """Run `python -m module` to its end and return the exit status; output goes to files in `folder`.

    One child at a time works in a folder: the next waits until the last one is gone. Raises Cancelled when `cancel` is
    set and TimedOut after `timeout_s`; the child is gone in every case, also when this process is killed.
    """
    deadline = time.monotonic() + timeout_s
    with (
        (folder / "lock").open("wb") as lock,
        (folder / "stdout.jsonl").open("ab") as out,
        (folder / "stderr.log").open("ab") as err,
    ):
        _take(lock, deadline=deadline, cancel=cancel)
        child = subprocess.Popen(
            [sys.executable, "-m", "services.trainer.leash", str(os.getpid()), module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(lock.fileno(),),  # an orphan keeps the lock until it is gone
            start_new_session=True,
        )
        try:
            return _watch(child, deadline=deadline, cancel=cancel)
        finally:
            _stop(child, grace_s)


def _take(lock: BinaryIO, *, deadline: float, cancel: threading.Event) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            _pause(deadline=deadline, cancel=cancel)


def _watch(child: subprocess.Popen[bytes], *, deadline: float, cancel: threading.Event) -> int:
    while (status := child.poll()) is None:
        _pause(deadline=deadline, cancel=cancel)
    return status


def _pause(*, deadline: float, cancel: threading.Event) -> None:
    if cancel.wait(_STEP_S):
        raise Cancelled
    if time.monotonic() > deadline:
        raise TimedOut


def _stop(child: subprocess.Popen[bytes], grace_s: float) -> None:
    if child.poll() is not None:
        return
    _signal(child, signal.SIGTERM)
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(child.pid, number)  # its own session: grandchildren go too
    except ProcessLookupError:
        return
