"""The learning process seen from its parent: kept warm, given its jobs, bounded in time, gone when it must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.trainer.leash import FAILED

_STEP_S = 0.05


class Cancelled(Exception):
    """The training was stopped from outside; it may be done again."""


class TimedOut(Exception):
    """The child ran past its limit and was killed."""


@dataclass(frozen=True)
class Ended:
    """How the child ended: its exit status and the job that failed, where it could say so."""

    status: int
    failed_job: str | None = None


class LearningProcess:
    """One child: it imports its program at once, does one list of jobs and ends."""

    def __init__(self, module: str, *, log: Path, nice: int = 0) -> None:
        """`nice` is how far the child stands back for others on the machine, 0 to 19."""
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "services.trainer.leash", str(os.getpid()), module, str(nice)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_usable(self) -> bool:
        return self._child.poll() is None

    def do(
        self,
        jobs: Sequence[Path],
        *,
        folder: Path,
        timeout_s: float,
        grace_s: float,
        cancel: threading.Event,
    ) -> Ended:
        """Do `jobs` one after the other; output and a lock stand in `folder`.

        One child at a time works in a folder: the next waits until the last one is gone. Raises Cancelled when `cancel`
        is set and TimedOut after `timeout_s`; the child is gone in every case, also when this process is killed.
        """
        deadline = time.monotonic() + timeout_s
        (folder / FAILED).unlink(missing_ok=True)
        try:
            self._order({"folder": str(folder.resolve()), "jobs": [str(job.resolve()) for job in jobs]})
            while (status := self._child.poll()) is None:
                if cancel.wait(_STEP_S):
                    raise Cancelled
                if time.monotonic() > deadline:
                    raise TimedOut
            return Ended(status, _failed_job(folder) if status else None)
        finally:
            self.stop(grace_s)

    def stop(self, grace_s: float) -> None:
        """End the child now; may be called twice."""
        if self._child.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._child.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()

    def _order(self, order: dict[str, str | list[str]]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            self._child.wait()  # it ended while importing: its status tells

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._child.pid, number)  # its own session: grandchildren go too
        except ProcessLookupError:
            return


class WarmProcess:
    """At most one learning process that has imported its program and waits; safe to use from two threads."""

    def __init__(self, module: str, *, log: Path, nice: int = 0) -> None:
        self._module, self._log, self._nice = module, log, nice
        self._lock = threading.Lock()
        self._waiting: LearningProcess | None = None

    def prepare(self) -> None:
        """Start one unless one waits."""
        with self._lock:
            if self._waiting is None or not self._waiting.is_usable:
                self._waiting = LearningProcess(self._module, log=self._log, nice=self._nice)

    def take(self) -> LearningProcess:
        """The one that waits, or a fresh one; it is the caller's now."""
        with self._lock:
            taken, self._waiting = self._waiting, None
        if taken is not None and taken.is_usable:
            return taken
        return LearningProcess(self._module, log=self._log, nice=self._nice)

    def close(self) -> None:
        """End the one that waits."""
        with self._lock:
            taken, self._waiting = self._waiting, None
        if taken is not None:
            taken.stop(1.0)


def _failed_job(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / FAILED).read_bytes())["job"])
    except (OSError, ValueError, KeyError):
        return None
