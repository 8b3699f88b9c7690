"""One process that this program started and will stop: by its own id, never by name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from twinloop.errors import ConfigError, NotReady

_STOP_GRACE_S = 15.0


class ChildProcess:
    """A child with its log file; `stop` asks, waits and only then kills."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.command, self.log = name, tuple(command), log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return self._process.poll() if self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches it through `stop` alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self.starts += 1

    def stop(self, grace_s: float = _STOP_GRACE_S) -> None:
        """SIGTERM, wait, SIGKILL; returns when it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait_for_file(self, path: Path, timeout_s: float) -> None:
        """Return when `path` exists; raises ConfigError where the process ended first, NotReady on time-out."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            self.check_alive()
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{self.name}: {path} did not appear within {timeout_s:g} s; its log is {self.log}"
                )
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raise ConfigError with the end of the log where the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise ConfigError(
                f"{self.name} ended with status {self._process.returncode}; the end of {self.log}:\n{self.log_tail()}"
            )

    def log_tail(self, lines: int = 12) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
