"""A durable Redis for fault tests: Debian's redis-server where it is installed, else Valkey out of the wheel."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol

from twinloop.embedded.valkey import EmbeddedValkey, free_port
from twinloop.errors import Transient


class FaultyRedis(Protocol):
    """A Redis that can be killed, frozen and started again on the same port and data."""

    port: int
    """Of 127.0.0.1; restarts keep it."""

    @property
    def url(self) -> str:
        """The redis:// URL of database 0."""

    def start(self) -> None:
        """Starts it on its port and data."""

    def stop(self) -> None:
        """Stops it in good order."""

    def kill(self) -> None:
        """Kills it at once (SIGKILL)."""

    def freeze(self) -> None:
        """Stops its clock (SIGSTOP)."""

    def thaw(self) -> None:
        """Undoes `freeze()`."""


class RedisServer:
    """A redis-server process bound to 127.0.0.1 with its append-only file synced on every write."""

    def __init__(
        self, executable: str, data_dir: Path, *, port: int = 0, start_timeout_s: float = 20.0
    ) -> None:
        """Starts it; port 0 takes a free one, which restarts keep. Raises Transient where it does not come up."""
        self.data_dir = data_dir
        self.port = port or free_port()
        self._executable = executable
        self._timeout_s = start_timeout_s
        data_dir.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        """The redis:// URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it on its port and data and waits until it answers."""
        command = [
            self._executable,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.data_dir),
        ]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]
        with (self.data_dir / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + self._timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Transient(
                    f"redis-server did not start on port {self.port}; see {self.data_dir}/redis.log"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops it in good order; the data stays."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def kill(self) -> None:
        """Kills it at once (SIGKILL)."""
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        """Stops its clock (SIGSTOP): it keeps its connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze()`."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                # "LOADING" while it replays its file.
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def start_redis(data_dir: Path, *, port: int = 0) -> RedisServer | EmbeddedValkey:
    """The real redis-server where one is on PATH, else Valkey; both durable, both FaultyRedis."""
    executable = shutil.which("redis-server")
    if executable is not None:
        return RedisServer(executable, data_dir, port=port)
    return EmbeddedValkey(data_dir, port=port)
