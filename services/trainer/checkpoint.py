"""The trainer's state on disk, with the offsets it was made from: written whole or not at all.

Kafka's own committed offsets only say how far statuses were told. A restart seeks to the offsets in here, so state and
position can never disagree, whenever the process died.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from services.trainer.core.ledger_state import LedgerState
from twinloop.bus.records import TopicPartition
from twinloop.canonical import sha256_hex
from twinloop.errors import ConfigError, Transient

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """State and the next offset to read of every partition it followed."""

    state: LedgerState
    offsets: Mapping[TopicPartition, int]


def write_checkpoint(path: Path, state: LedgerState, offsets: Mapping[TopicPartition, int]) -> None:
    """Replace the checkpoint; on return it survives a crash of process or machine. Raises Transient on a full disk."""
    places = json.dumps([[*source, offset] for source, offset in sorted(offsets.items())]).encode()
    body = state.model_dump_json().encode()
    header = {"version": _VERSION, "sha256": sha256_hex(places + b"\n" + body)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".checkpoint-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(b"\n".join([json.dumps(header).encode(), places, body]))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise Transient(f"cannot write the checkpoint {path}: {error}") from error


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The last checkpoint, None where there is none yet; raises ConfigError where it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Transient(f"cannot read the checkpoint {path}: {error}") from error
    try:
        header, places, body = data.split(b"\n", 2)
        head = json.loads(header)
        if head["version"] != _VERSION or head["sha256"] != sha256_hex(places + b"\n" + body):
            raise ValueError("version or digest do not fit")
        offsets = {
            TopicPartition(topic, partition): offset for topic, partition, offset in json.loads(places)
        }
        return Checkpoint(LedgerState.model_validate_json(body), offsets)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: the checkpoint cannot be used ({type(error).__name__}); move it away, and the trainer makes its "
            "state again from the log and the store"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
