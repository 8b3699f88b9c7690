"""The last installed routing state on disk, for a start while the store is silent."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from twinloop.errors import ConfigError, Transient


class DiskCopy:
    """One file, replaced atomically and fsynced in a thread, so that the stream never waits for a disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._newest = 0
        self._threads: list[threading.Thread] = []
        self.failure: Transient | None = None
        """Why the last write failed; None where it did not. A copy that cannot be written stops nothing."""

    def load(self) -> bytes | None:
        """The file's bytes, unverified; None where there is none; raises ConfigError where it is unreadable."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise ConfigError(
                f"{self._path}: cannot read the last routing state ({cause}); see to state_folder"
            ) from cause

    def save(self, state_json: bytes) -> None:
        """Writes in the background; of several writes the last one called wins."""
        self._newest += 1
        thread = threading.Thread(
            target=self._write, args=(state_json, self._newest), name="routing-disk-copy", daemon=True
        )
        self._threads = [*(running for running in self._threads if running.is_alive()), thread]
        thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Waits for the writes under way."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _write(self, state_json: bytes, number: int) -> None:
        with self._lock:
            if number != self._newest:
                return
            try:
                self._replace(state_json)
                self.failure = None
            except OSError as cause:
                self.failure = Transient(f"{self._path}: cannot write the last routing state: {cause}")

    def _replace(self, state_json: bytes) -> None:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{self._path.name}.part"
        with open(partial, "wb") as file:
            file.write(state_json)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
