"""Where one installation keeps everything on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "TWINLOOP_HOME"


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation under one root."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """`$TWINLOOP_HOME`, or `.twinloop` in the working folder."""
        return cls(Path(os.environ.get(HOME_VARIABLE, ".twinloop")))

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def backend(self) -> Path:
        """Data of the brokers and Redis that `up` starts itself."""
        return self.root / "backend"

    @property
    def profile(self) -> Path:
        """The generated settings every process of this installation is given last."""
        return self.root / "profile.yaml"

    @property
    def run_file(self) -> Path:
        """What runs now: processes, ports, profile. Absent while nothing runs."""
        return self.root / "run.json"

    def create(self) -> None:
        for folder in (self.root, self.keys, self.store, self.state, self.logs, self.backend):
            folder.mkdir(parents=True, exist_ok=True)
        self.keys.chmod(0o700)
