"""The release an installation starts with, made by the trainer's own program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from twinloop.stack.program import run_module

_TIMEOUT_S = 300.0


def make_first_release(
    configs: Sequence[Path], documents: Path | None, environment: Mapping[str, str]
) -> str:
    """Build and publish it, and return its id; the same inputs give the same release. Raises ConfigError."""
    arguments = [argument for path in configs for argument in ("--config", str(path))]
    if documents is not None:
        arguments += ["--documents", str(documents)]
    printed = run_module(
        "services.trainer.bootstrap", arguments, timeout_s=_TIMEOUT_S, environment=environment
    )
    return str(json.loads(printed.strip().splitlines()[-1])["release_id"])
