"""The judge's state on disk, so that a restart need not fold the whole log again; never the truth."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from pydantic import ValidationError

from services.gatekeeper.core.state import JudgeState, from_plain, to_plain
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)


class Checkpoint:
    """One file; written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, state: JudgeState) -> None:
        """Keep a state whose every decision is in the log."""
        body = canonical_json(to_plain(state))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(sha256_hex(body).encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)

    def load(self, *, incarnation: str | None, end_offset: int) -> JudgeState:
        """The kept state where it belongs to this log, else an empty one: then the log is folded from its start."""
        try:
            digest, _, body = self._path.read_bytes().partition(b"\n")
            if sha256_hex(body).encode() != digest:
                raise ValueError("the file is damaged")
            state = from_plain(orjson.loads(body))
        except FileNotFoundError:
            return JudgeState()
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            _log.warning("checkpoint_ignored", path=str(self._path), reason=str(error)[:300])
            return JudgeState()
        kept = None if state.routing is None else state.routing.incarnation
        if kept != incarnation or state.offset >= end_offset:
            _log.info("checkpoint_of_another_log", path=str(self._path))
            return JudgeState()
        return state
