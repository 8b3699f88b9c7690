"""Derives decisions again: those of the log, byte for byte, or those another policy or foreign events would lead to.

`python -m services.gatekeeper.replay [--config FILE]... [--json]` reads `gate-inputs` and `decisions` and prints one
line a decision; with `--events FILE [--policy FILE] [--probes FILE]` it folds a file of events offline instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.decisions import Decision
from schemas.gate_inputs import GateInput
from services.gatekeeper.core.effects import PublishDecision
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.probes import ProbeSet
from services.gatekeeper.core.state import JudgeState
from services.gatekeeper.core.turn import unsigned
from services.gatekeeper.event_file import read_event_file
from services.gatekeeper.settings import GatekeeperSettings, read_policy_file
from services.gatekeeper.what_if import WhatIf
from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.canonical import canonical_json
from twinloop.codec import decode
from twinloop.errors import ArtifactError, SignatureError
from twinloop.process import main_guard
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, verify_document
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/gatekeeper.yaml")
SOFTWARE = "what-if"
"""What offline decisions name as their software: they are nobody's decisions."""


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


def replay(
    inputs: Iterable[tuple[int, GateInput]], logged: Iterable[Decision], *, settled: int | None = None
) -> Replay:
    """Compare what `inputs` lead to with the first logged decision of each epoch.

    Inputs from offset `settled` on may have led to decisions that came too late to be among `logged`.
    """
    winners: dict[int, Decision] = {}
    for decision in logged:
        winners.setdefault(decision.epoch, decision)
    derived = tuple(
        decision
        for decision in derive(inputs)
        if settled is None or decision.input_offset < settled or decision.epoch in winners
    )
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
    options = _parse(arguments)
    if options.events is not None:
        _replay_events(options)
    else:
        _replay_log(options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.gatekeeper.replay", description=__doc__)
    parser.add_argument("--config", type=Path, action="append", help="settings of the installation to read")
    parser.add_argument("--events", type=Path, help="JSON Lines of events to judge offline")
    parser.add_argument("--policy", type=Path, default=DEFAULT_CONFIG, help="thresholds to judge them by")
    parser.add_argument("--probes", type=Path, help="the QA probes, where answers are to be graded")
    parser.add_argument("--after", type=float, default=0.0, help="seconds to watch on after the last event")
    parser.add_argument("--json", action="store_true", help="one JSON object a decision")
    return parser.parse_args(arguments)


def _show(decision: Decision, *, as_json: bool) -> None:
    line = decision.model_dump_json() if as_json else f"{decision.epoch} {decision.line}"
    print(line, flush=True)


def _replay_events(options: argparse.Namespace) -> None:
    def tell(note: str) -> None:
        print(note, file=sys.stderr)

    policy, windows = read_policy_file(options.policy)
    probes = None
    if options.probes is not None:
        probes = ProbeSet.read(options.probes.read_bytes(), name=str(options.probes))
    found = read_event_file(options.events)
    for refusal in found.refused:
        tell(f"left out, as the running system would: {refusal}")
    question = WhatIf(
        policy=policy, windows=windows, software=SOFTWARE, probes=probes, after_s=options.after, tell=tell
    )
    for decision in question.decide(found.lines):
        _show(decision, as_json=options.json)


def _replay_log(options: argparse.Namespace) -> None:
    settings = load_settings(GatekeeperSettings, *(options.config or [DEFAULT_CONFIG]))
    topics = TopicCatalogue.under(settings.topics)
    ring = KeyRing.load(settings.keys.public_path)
    inputs_reader, decisions_reader = (_read(settings, topics, name) for name in ("gate-inputs", "decisions"))
    try:
        # Inputs, decisions, then the inputs that came meanwhile: a running gatekeeper decides while this reads.
        first = inputs_reader.read_to_end(600.0)
        logged: list[Decision] = []
        for record in decisions_reader.read_to_end(600.0):
            if record.header("ce_type") != Decision.type.encode():
                continue
            decision = decode(record, Decision)
            try:
                verify_document(decision.state, ring, role="gatekeeper")
            except SignatureError as error:
                print(f"offset {record.offset}: ignored, {error}", file=sys.stderr)
            else:
                logged.append(decision)
        records = [*first, *inputs_reader.read_to_end(600.0)]
        inputs = [(record.offset, decode(record, GateInput)) for record in records]
    finally:
        inputs_reader.close()
        decisions_reader.close()
    result = replay(inputs, logged, settled=first[-1].offset + 1 if first else 0)
    for decision in result.decisions:
        _show(decision, as_json=options.json)
    for mismatch in result.mismatches:
        print(mismatch, file=sys.stderr)
    if result.mismatches:
        raise ArtifactError(f"{len(result.mismatches)} decisions do not follow from gate-inputs")
    print(
        f"{len(result.decisions)} decisions follow from {len(inputs)} gate-inputs, byte for byte",
        file=sys.stderr if options.json else sys.stdout,
    )


def main() -> int:
    return main_guard("gatekeeper.replay", lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
