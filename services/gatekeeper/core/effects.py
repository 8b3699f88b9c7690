"""What the judge wants done in the world; the edge does it and logs what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.audit import AuditEntry
from schemas.decisions import Decision, Progress
from schemas.event import Sha256, Slot


@dataclass(frozen=True)
class PublishDecision:
    """Sign, log, read back and install this decision; it is still unsigned."""

    decision: Decision


@dataclass(frozen=True)
class PublishProgress:
    """Tell people where the running stage stands."""

    progress: Progress


@dataclass(frozen=True)
class SendProbes:
    """Send the probe set to the candidate (and to the active release, where the report is paired)."""

    run: str
    candidate: Sha256
    slot: Slot
    epoch: int
    paired: bool


@dataclass(frozen=True)
class CheckBlobs:
    """Read back every blob of a release and log whether all are whole."""

    release: Sha256
    epoch: int


@dataclass(frozen=True)
class Audit:
    """Write down who asked for what and how it ended."""

    entry: AuditEntry


Effect = PublishDecision | PublishProgress | SendProbes | CheckBlobs | Audit
Duty = SendProbes | CheckBlobs
