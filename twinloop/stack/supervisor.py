"""Keeps an installation's services running: starts them, restarts what falls, stops them in reverse order."""

from __future__ import annotations

import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twinloop.errors import NotReady
from twinloop.process import EXIT_CONFIG
from twinloop.stack.child_process import ChildProcess

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_AFTER_S = 30.0


@dataclass(frozen=True)
class ServiceSpec:
    """How to start one process of one service."""

    name: str
    module: str
    configs: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_port: int = 0
    niceness: int = 0
    """Added to the scheduling priority number: what may wait gives way to what answers."""

    def command(self) -> list[str]:
        arguments = [argument for path in self.configs for argument in ("--config", str(path))]
        yielding = ["nice", "-n", str(self.niceness)] if self.niceness else []
        return [*yielding, sys.executable, "-m", self.module, *arguments]


class Supervisor:
    """Runs the given services; a thread restarts those that exit, except for bad configuration."""

    def __init__(self, specs: Sequence[ServiceSpec], *, logs: Path) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._children = {
            spec.name: ChildProcess(
                spec.name, spec.command(), log=logs / f"{spec.name}.log", environment=spec.environment
            )
            for spec in specs
        }
        self._failures: dict[str, int] = {}
        self._started_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def children(self) -> Mapping[str, ChildProcess]:
        return self._children

    @property
    def specs(self) -> Mapping[str, ServiceSpec]:
        return self._specs

    def start(self) -> None:
        for name in self._children:
            self._start(name)
        self._watch = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._watch.start()

    def wait_ready(self, names: Sequence[str], timeout_s: float) -> None:
        """Return when each of these answers /readyz; raises ConfigError where one gave up, NotReady on time-out."""
        deadline = time.monotonic() + timeout_s
        waiting = dict.fromkeys(names, "not asked yet")
        while waiting:
            for name in list(waiting):
                if self._children[name].exit_status == EXIT_CONFIG:
                    self._children[name].check_alive()
                ready, waiting[name] = readiness(self._specs[name].health_port)
                if ready:
                    del waiting[name]
            if waiting and time.monotonic() > deadline:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
                raise NotReady(f"not ready within {timeout_s:g} s: {reasons}; see the logs beside run.json")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all at once and wait for each; returns when none is left."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.join(timeout=10)
        stopping = [
            threading.Thread(target=child.stop, name=f"stop-{child.name}")
            for child in self._children.values()
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def _start(self, name: str) -> None:
        self._children[name].start()
        self._started_at[name] = time.monotonic()

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            for name, child in self._children.items():
                status = child.exit_status
                if status is None or status == EXIT_CONFIG or self._stopping.is_set():
                    continue
                self._restart_later(name)

    def _restart_later(self, name: str) -> None:
        """Wait longer after each failure in a row; a long healthy life forgives the earlier ones."""
        lived_s = time.monotonic() - self._started_at[name]
        failures = 0 if lived_s > _HEALTHY_AFTER_S else self._failures.get(name, 0)
        pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
        if lived_s < pause_s:
            return
        self._failures[name] = failures + 1
        self._start(name)


def readiness(port: int) -> tuple[bool, str]:
    """Whether the process behind this health port is ready, and what it says."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as reply:
            return True, reply.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return False, error.read().decode().strip()
    except OSError:
        return False, "does not answer"


def free_port() -> int:
    """A port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
