"""What the learning benchmarks share: rows of the synthetic world, updates by the shipped code, result files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.result_file import processor
from services.trainer.core.dataset import split_general_rows
from services.trainer.learning.dataset import Example, TrainingRow, build_examples
from services.trainer.learning.evaluation import answer_logits, by_length, padded
from services.trainer.learning.lora_update import Material, Parent, Update, train_update
from services.trainer.learning.replay_batches import NO_ROWS, Rows
from services.trainer.learning.settings import LearningSettings
from services.trainer.learning.stopwatch import Stopwatch
from twinloop.foundation_training.corpus import HELD_OUT_PHRASINGS, UPDATE_PHRASINGS, Fact, World, bank
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, load_foundation
from twinloop.model_runtime.prompt import PromptFormat

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "foundation" / "tiny"
GENERAL = ROOT / "foundation" / "general_replay.jsonl"
FORMAT = PromptFormat()
SEEDS = (42, 43, 44)
_FACT_WORLD, _PROBE_WORLD = 300, 9001


@dataclass(frozen=True)
class Trained:
    """An update and the processor seconds it took in this process."""

    update: Update
    cpu_seconds: float
    training_cpu_seconds: float
    """Without the evaluations."""

    @property
    def parent(self) -> Parent:
        return Parent(self.update.files, self.update.fisher)


class Bench:
    """The shipped foundation with rows and measurements around it."""

    def __init__(self, *, device: str = "cpu") -> None:
        self.foundation: Foundation = load_foundation(FoundationSpec(source=str(TINY), device=device))

    def examples(self, rows: Iterable[TrainingRow]) -> tuple[Example, ...]:
        return tuple(build_examples(list(rows), tokenizer=self.foundation.tokenizer, prompt_format=FORMAT))

    def closed(self, facts: Sequence[Fact], phrasings: Sequence[int]) -> tuple[Example, ...]:
        """Closed-book rows, one a fact and phrasing."""
        return self.examples(_row(fact, phrasing) for fact in facts for phrasing in phrasings)

    def grounded(self, facts: Sequence[Fact]) -> tuple[Example, ...]:
        """Rows with the passage that states the fact, phrasings in turn."""
        return self.examples(
            _row(fact, number % 5, passage=fact.sentence(number % 3)) for number, fact in enumerate(facts)
        )

    def lesson(self, facts: Sequence[Fact]) -> Rows:
        return Rows(closed=self.closed(facts, UPDATE_PHRASINGS))

    def general(self, domain: str) -> tuple[Rows, Rows]:
        """(general replay, probe) of a domain, as the trainer makes them from the shipped file."""
        split = split_general_rows(GENERAL.read_text(encoding="utf-8"), domain=domain, probes=32, seed=42)  # type: ignore[arg-type]
        general, probe = (self._rows(part) for part in split)
        return general, probe

    def train(
        self,
        new: Rows,
        *,
        seed: int,
        settings: LearningSettings,
        gate: Rows = NO_ROWS,
        replay: Rows = NO_ROWS,
        general: Rows = NO_ROWS,
        parent: Parent | None = None,
    ) -> Trained:
        """One update by the shipped code."""
        started, stopwatch = time.process_time(), Stopwatch(time.process_time)
        update = train_update(
            self.foundation,
            Material(new=new, gate=gate, replay=replay, general=general),
            settings=settings,
            seed=seed,
            clock=time.monotonic,
            parent=parent,
            report=stopwatch,
        )
        return Trained(update, time.process_time() - started, stopwatch.training)

    def score(self, files: Mapping[str, bytes] | None, examples: Sequence[Example]) -> float:
        """Share of exact answers under an adapter, served as inference serves it; None is the bare foundation."""
        adapters = AdapterBank(self.foundation.model)
        if files is not None:
            adapters.load("measured", files)
        right = 0
        try:
            with torch.inference_mode():
                for group in by_length(examples, max_tokens=4096):
                    batch = padded([examples[index] for index in group], self.foundation.device)
                    with adapters.use([None if files is None else "measured"] * len(group)):
                        chosen = answer_logits(self.foundation.model, batch).argmax(-1)
                    right += int(((chosen == batch.labels) | (batch.labels == -100)).all(-1).sum())
        finally:
            adapters.close()
        return right / len(examples)

    def _rows(self, values: Sequence[Mapping[str, Any]]) -> Rows:
        rows = [_training_row(value) for value in values]
        return Rows(
            closed=self.examples(row for row in rows if row.passage is None),
            grounded=self.examples(row for row in rows if row.passage is not None),
        )


def new_facts(seed: int, domain: str, count: int, *, avoid: Iterable[Fact] = ()) -> tuple[Fact, ...]:
    """Facts the foundation has never met."""
    return World.generate(_FACT_WORLD + seed, domain, count, avoid=avoid).facts  # type: ignore[arg-type]


def probe_facts(domain: str, count: int) -> tuple[Fact, ...]:
    """Facts for grounding measurements, in no training and no replay."""
    return World.generate(_PROBE_WORLD, domain, count).facts  # type: ignore[arg-type]


def bank_facts(domain: str) -> tuple[Fact, ...]:
    return tuple(fact for fact in bank() if fact.domain == domain)


def held_out() -> tuple[int, ...]:
    """Phrasings in no update."""
    return HELD_OUT_PHRASINGS


def write_result(name: str, document: Mapping[str, Any], *, quick: bool) -> None:
    """Write `benchmarks/results/NAME.json`; a quick run writes NAME.quick.json beside it, not over it."""
    whole = {
        "name": name,
        "commit": commit(),
        "machine": machine(),
        "quick": quick,
        **document,
    }
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / (f"{name}.quick.json" if quick else f"{name}.json")
    path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
    print(f"written: {path.relative_to(ROOT)}")


def commit() -> str:
    """The commit that was measured: of this checkout, or what TWINLOOP_COMMIT says of a copy without git."""
    stated = os.environ.get("TWINLOOP_COMMIT")
    if stated:
        return stated
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return found.stdout.strip()


def machine() -> dict[str, Any]:
    """What the figures are taken on."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under their shared columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[n]) for line in cells)) for n, name in enumerate(columns)]
    print(f"\n{title}")
    for line in [columns, *cells]:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _training_row(value: Mapping[str, Any]) -> TrainingRow:
    return TrainingRow(value["id"], value["domain"], value["question"], value["answer"], value.get("passage"))


def _row(fact: Fact, phrasing: int, *, passage: str | None = None) -> TrainingRow:
    name = f"{fact.document_id}-{phrasing}"
    return TrainingRow(name, fact.domain, fact.questions()[phrasing], fact.answer(), passage)
