"""A child that is kept warm, bounded in time, can be cancelled, and does not outlive its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from services.trainer.child_process import Cancelled, Ended, LearningProcess, TimedOut, WarmProcess

SLEEPER = "tests.unit.trainer.sleeper"


def job(folder: Path, name: str, seconds: float, status: int = 0) -> Path:
    path = folder / name / "job.json"
    path.parent.mkdir()
    path.write_text(json.dumps([seconds, status]))
    return path


def do(folder: Path, *jobs: Path, timeout_s: float = 20.0, cancel: threading.Event | None = None) -> Ended:
    process = LearningProcess(SLEEPER, log=folder / "learning.log")
    return process.do(
        jobs, folder=folder, timeout_s=timeout_s, grace_s=0.5, cancel=cancel or threading.Event()
    )


def printed(folder: Path) -> list[int]:
    path = folder / "stdout.jsonl"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        # Where nobody reaps orphans an ended process stays as a zombie.
        return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_one_child_does_all_jobs_and_its_output_stands_in_the_folder(tmp_path: Path) -> None:
    ended = do(tmp_path, job(tmp_path, "law", 0), job(tmp_path, "med", 0))

    assert ended == Ended(0)
    assert len(printed(tmp_path)) == 2
    assert len(set(printed(tmp_path))) == 1


def test_a_child_stands_back_for_others_on_the_machine(tmp_path: Path) -> None:
    process = LearningProcess(SLEEPER, log=tmp_path / "learning.log", nice=7)
    jobs, cancel = [job(tmp_path, "law", 20)], threading.Event()

    def work() -> None:
        with suppress(Cancelled):
            process.do(jobs, folder=tmp_path, timeout_s=20, grace_s=0.5, cancel=cancel)

    doing = threading.Thread(target=work)
    doing.start()
    while not printed(tmp_path):
        time.sleep(0.02)
    child = printed(tmp_path)[0]
    assert os.getpriority(os.PRIO_PROCESS, child) == os.getpriority(os.PRIO_PROCESS, 0) + 7
    group = Path(f"/proc/{child}/autogroup")
    assert not group.exists() or group.read_text().split()[-1] == "7"
    cancel.set()
    doing.join(20)


def test_the_first_job_that_fails_is_named_and_the_rest_is_left(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "law", 0), job(tmp_path, "med", 0, 7), job(tmp_path, "fin", 0)]

    assert do(tmp_path, *jobs) == Ended(7, str(jobs[1]))
    assert len(printed(tmp_path)) == 2


def test_a_child_past_its_time_is_killed(tmp_path: Path) -> None:
    with pytest.raises(TimedOut):
        do(tmp_path, job(tmp_path, "law", 30), timeout_s=0.8)

    assert not any(map(is_alive, printed(tmp_path)))


def test_a_cancelled_child_is_gone_when_the_call_returns(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.6, cancel.set).start()

    with pytest.raises(Cancelled):
        do(tmp_path, job(tmp_path, "law", 30), cancel=cancel)

    assert not any(map(is_alive, printed(tmp_path)))


def test_a_program_that_cannot_be_imported_ends_with_a_status_and_a_log(tmp_path: Path) -> None:
    process = LearningProcess("tests.unit.trainer.no_such_program", log=tmp_path / "learning.log")

    ended = process.do(
        [job(tmp_path, "law", 0)], folder=tmp_path, timeout_s=20, grace_s=0.5, cancel=threading.Event()
    )

    assert ended == Ended(1)
    assert "no_such_program" in (tmp_path / "learning.log").read_text()


def test_a_warm_process_is_handed_out_once_and_a_dead_one_never(tmp_path: Path) -> None:
    warm = WarmProcess(SLEEPER, log=tmp_path / "learning.log")
    warm.prepare()
    warm.prepare()
    first = warm.take()
    second = warm.take()
    assert first is not second
    first.stop(0.5)
    second.stop(0.5)
    warm.prepare()
    warm.close()
    third = warm.take()
    assert third.is_usable
    third.stop(0.5)


def test_an_orphan_ends_and_until_then_nobody_else_works_in_its_folder(tmp_path: Path) -> None:
    long = job(tmp_path, "law", 60)
    program = (
        "import sys, threading; from pathlib import Path;"
        "from services.trainer.child_process import LearningProcess;"
        "folder, job = map(Path, sys.argv[1:]);"
        f"LearningProcess({SLEEPER!r}, log=folder / 'log').do([job], folder=folder, timeout_s=60, grace_s=1,"
        "cancel=threading.Event())"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(long)])
    deadline = time.monotonic() + 15
    while not printed(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    (orphan,) = printed(tmp_path)
    parent.kill()
    parent.wait()

    assert do(tmp_path, job(tmp_path, "med", 0)) == Ended(0)  # waits for the lock that the orphan holds

    assert not is_alive(orphan)
