"""A child that is bounded in time, can be cancelled, and does not outlive its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from services.trainer.child_process import Cancelled, TimedOut, run_leashed_module

SLEEPER = "tests.unit.trainer.sleeper"


def run(folder: Path, *arguments: str, timeout_s: float = 20.0, cancel: threading.Event | None = None) -> int:
    return run_leashed_module(
        SLEEPER,
        arguments,
        folder=folder,
        timeout_s=timeout_s,
        grace_s=0.5,
        cancel=cancel or threading.Event(),
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        # Where nobody reaps orphans an ended process stays as a zombie.
        return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_exit_status_comes_back_and_output_stands_in_files(tmp_path: Path) -> None:
    assert run(tmp_path, "0", "7") == 7
    assert (tmp_path / "stdout.jsonl").read_text().strip().isdigit()


def test_a_child_past_its_time_is_killed(tmp_path: Path) -> None:
    with pytest.raises(TimedOut):
        run(tmp_path, "30", "0", timeout_s=0.8)
    written = (tmp_path / "stdout.jsonl").read_text().strip()
    assert not written or not is_alive(int(written))


def test_a_cancelled_child_is_gone_when_the_call_returns(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.6, cancel.set).start()

    with pytest.raises(Cancelled):
        run(tmp_path, "30", "0", cancel=cancel)

    written = (tmp_path / "stdout.jsonl").read_text().strip()
    assert not written or not is_alive(int(written))


def test_an_orphan_ends_and_until_then_nobody_else_works_in_its_folder(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading; from pathlib import Path;"
            "from services.trainer.child_process import run_leashed_module;"
            f"run_leashed_module({SLEEPER!r}, ['60', '0'], folder=Path(sys.argv[1]), timeout_s=60, grace_s=1,"
            "cancel=threading.Event())",
            str(tmp_path),
        ]
    )
    out = tmp_path / "stdout.jsonl"
    deadline = time.monotonic() + 15
    while not (out.exists() and out.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(out.read_text().strip())
    parent.kill()
    parent.wait()

    assert run(tmp_path, "0", "0") == 0  # waits for the lock that the orphan holds

    assert not is_alive(child)
