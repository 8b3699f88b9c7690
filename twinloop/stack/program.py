"""Runs one of the project's programs to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from twinloop.errors import ConfigError

_SHOWN = 3000


def run_module(
    module: str, arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """`python -m module arguments`, and what it printed; raises ConfigError with the end of its errors on failure."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise ConfigError(f"python -m {module} ended with status {done.returncode}:\n{done.stderr[-_SHOWN:]}")
    return done.stdout


def pass_through(module: str, arguments: Sequence[str]) -> int:
    """`python -m module arguments` with this process's own input and output; returns its exit status."""
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
