"""Derives the decisions again from `gate-inputs` and compares them with the log, byte for byte.

`python -m services.gatekeeper.replay [--config FILE]...` reads both topics and prints one line a decision.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.decisions import Decision
from schemas.gate_inputs import GateInput
from services.gatekeeper.core.effects import PublishDecision
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.state import JudgeState
from services.gatekeeper.core.turn import unsigned
from services.gatekeeper.settings import GatekeeperSettings
from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.canonical import canonical_json
from twinloop.codec import decode
from twinloop.errors import ArtifactError, SignatureError
from twinloop.process import config_arguments, main_guard
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, verify_document
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/gatekeeper.yaml")


@dataclass(frozen=True)
class Replay:
    """What a replay found."""

    decisions: tuple[Decision, ...]
    """Derived, unsigned."""
    mismatches: tuple[str, ...]
    """Where the log says otherwise."""


def derive(inputs: Iterable[tuple[int, GateInput]]) -> Iterator[Decision]:
    """The unsigned decisions that these (offset, record) pairs lead to, from the first record on."""
    state = JudgeState()
    for offset, record in inputs:
        state, effects = fold(state, record, offset)
        for effect in effects:
            if isinstance(effect, PublishDecision):
                yield effect.decision


def replay(inputs: Iterable[tuple[int, GateInput]], logged: Iterable[Decision]) -> Replay:
    """Compare what `inputs` lead to with the first logged decision of each epoch."""
    winners: dict[int, Decision] = {}
    for decision in logged:
        winners.setdefault(decision.epoch, decision)
    derived = tuple(derive(inputs))
    mismatches = [_difference(decision, winners.get(decision.epoch)) for decision in derived]
    known = {decision.epoch for decision in derived}
    mismatches += [
        f"epoch {epoch}: logged, but gate-inputs do not lead to it" for epoch in winners if epoch not in known
    ]
    return Replay(derived, tuple(text for text in mismatches if text))


def _difference(derived: Decision, logged: Decision | None) -> str:
    if logged is None:
        return f"epoch {derived.epoch}: derived, but not logged"
    if canonical_json(derived) == canonical_json(unsigned(logged)):
        return ""
    ours, theirs = derived.model_dump(mode="json"), unsigned(logged).model_dump(mode="json")
    fields = ", ".join(name for name in ours if ours[name] != theirs[name])
    return f"epoch {derived.epoch}: {fields} differ"


def _read(settings: GatekeeperSettings, topics: TopicCatalogue, topic: str) -> LogReader:
    return LogReader(settings.kafka, partitions=[TopicPartition(topics.name(topic), 0)])


def _run(arguments: Sequence[str]) -> None:
    settings = load_settings(GatekeeperSettings, *config_arguments(list(arguments), DEFAULT_CONFIG))
    topics = TopicCatalogue.under(settings.topics)
    ring = KeyRing.load(settings.keys.public_path)
    inputs_reader, decisions_reader = (_read(settings, topics, name) for name in ("gate-inputs", "decisions"))
    try:
        inputs = [(record.offset, decode(record, GateInput)) for record in inputs_reader.read_to_end(600.0)]
        logged: list[Decision] = []
        for record in decisions_reader.read_to_end(600.0):
            if record.header("ce_type") != Decision.type.encode():
                continue
            decision = decode(record, Decision)
            try:
                verify_document(decision.state, ring, role="gatekeeper")
            except SignatureError as error:
                print(f"offset {record.offset}: ignored, {error}")
            else:
                logged.append(decision)
    finally:
        inputs_reader.close()
        decisions_reader.close()
    result = replay(inputs, logged)
    for decision in result.decisions:
        print(f"{decision.epoch} {decision.line}")
    for mismatch in result.mismatches:
        print(mismatch, file=sys.stderr)
    if result.mismatches:
        raise ArtifactError(f"{len(result.mismatches)} decisions do not follow from gate-inputs")
    print(f"{len(result.decisions)} decisions follow from {len(inputs)} gate-inputs, byte for byte")


def main() -> int:
    return main_guard("gatekeeper.replay", lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
