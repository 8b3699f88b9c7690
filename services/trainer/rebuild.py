"""The trainer's state made again where its checkpoint is lost: from the decision log and the stored datasets.

Feedback, documents and commands are then read from their beginning; ids that a promoted or failed release was taught
are known, so nothing is taught twice. What the logs no longer hold is lost to the buffers of later releases only.
"""

from __future__ import annotations

from schemas.decisions import Decision
from services.trainer.core.dataset import ROWS, blob_digests, stored_replay_rows
from services.trainer.core.ledger_state import Change, LedgerState
from services.trainer.core.lifecycle import Ledger
from services.trainer.release_reader import ReleaseReader
from services.trainer.settings import TrainerSettings
from services.trainer.training_run import Tools
from twinloop.bus.reader import LogReader
from twinloop.changes.change_log import ChangeLog, decode_change
from twinloop.codec import decode
from twinloop.errors import ArtifactError, InvalidEvent, SignatureError
from twinloop.signing import verify_document
from twinloop.telemetry.logging import get_logger
from twinloop.topics import TopicCatalogue

_READ_TIMEOUT_S = 60.0
_ALL = 10**9


def rebuilt_state(
    settings: TrainerSettings, topics: TopicCatalogue, reader: ReleaseReader, tools: Tools
) -> LedgerState:
    """A state that knows what was taught and what failed; empty for a new installation. Raises Transient."""
    ledger = Ledger(settings.trainer.lifecycle_policy(), LedgerState())
    last = _last_decision(settings, topics, tools)
    if last is None:
        return ledger.state
    lineage = reader.whole_lineage(last.state.active_release)
    for name in reversed(lineage):
        _remember_taught(ledger, name, reader, tools, into_buffer=True)
    for name in last.state.revoked:
        ledger.state.failed_releases.append(name)
        _remember_taught(ledger, name, reader, tools, into_buffer=False)
    _remember_changes(ledger, settings, topics)
    get_logger("trainer").info("rebuilt", releases=len(lineage), seen=len(ledger.state.seen))
    return ledger.state


def is_same_life(settings: TrainerSettings, topics: TopicCatalogue, state: LedgerState) -> bool:
    """Whether the decision log is the one that `state` was made from; a log that is gone or new is not.

    An embedded broker forgets its log, and offsets of the old one would skip records of the new one. Raises Transient.
    """
    if state.active is None:
        return True
    with LogReader(settings.kafka, topics=[topics.name("decisions")]) as log:
        if not any(log.high_watermarks().values()):
            return False
        first = log.poll(1, _READ_TIMEOUT_S)
    try:
        return bool(first) and decode(first[0], Decision).state.incarnation == state.active.incarnation
    except InvalidEvent:
        return True  # something else stands first: no reason to give a checkpoint up


def _last_decision(settings: TrainerSettings, topics: TopicCatalogue, tools: Tools) -> Decision | None:
    log = LogReader(settings.kafka, topics=[topics.name("decisions")])
    last: Decision | None = None
    try:
        for record in log.read_to_end(_READ_TIMEOUT_S):
            if record.header("ce_type") not in (None, Decision.type.encode()):
                continue
            try:
                decision = decode(record, Decision)
                verify_document(decision.state, tools.ring, role="gatekeeper")
            except (InvalidEvent, SignatureError):
                continue  # the stream reads the same record again and dead-letters it
            is_higher = last is None or decision.epoch > last.epoch
            if is_higher or (last is not None and decision.state.incarnation != last.state.incarnation):
                last = decision
    finally:
        log.close()
    return last


def _remember_changes(ledger: Ledger, settings: TrainerSettings, topics: TopicCatalogue) -> None:
    """Changes that are over, so that their topic, read again, applies nothing twice.

    Those that wait are examined again, and only signed reviews approve them again: a status is no proof. One whose
    release was being judged counts as ended, unless that release comes to serve.
    """
    log = ChangeLog(keep=_ALL)
    with LogReader(settings.kafka, topics=[topics.name("changes")]) as reader:
        for record in reader.read_to_end(_READ_TIMEOUT_S):
            try:
                log.take(decode_change(record))
            except InvalidEvent:
                continue  # the stream reads the same record again and dead-letters it
    for known in reversed(log.newest_first()):
        status = known.status
        if status is None or status.stage in ("open", "approved"):
            continue
        review = next((each for each in known.reviews if each.reviewer == status.approved_by), None)
        ledger.state.changes[known.proposal.id] = Change(
            proposal=known.proposal,
            automatic=status.automatic,
            noted_at=status.at,
            stage="ended" if status.stage == "candidate" else status.stage,
            documents=status.documents,
            report=status.report,
            review=review,
            release=status.release,
        )


def _remember_taught(
    ledger: Ledger, release: str, reader: ReleaseReader, tools: Tools, *, into_buffer: bool
) -> None:
    try:
        evidence = reader.release(release).evidence
        if not evidence.feedback_ids:
            return
        blobs = blob_digests(tools.store.get(evidence.dataset))
        rows = stored_replay_rows(tools.store.get(blobs[ROWS]), update=release)
    except (ArtifactError, SignatureError) as error:
        get_logger("trainer").warning("dataset_unreadable", release=release, reason=str(error))
        return
    kept = set(evidence.feedback_ids)
    for row in rows:
        ledger.state.seen[row.id] = None
        if into_buffer and row.id in kept:  # a composed release has not learnt all of its dataset
            ledger.rehearse(row)
