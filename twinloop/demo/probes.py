"""The same questions to the same releases outside the bus: what each part contributes, and what a rollback restored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twinloop.demo.material import Question
from twinloop.demo.scoring import is_right
from twinloop.stack.installation import ONE_THREAD, Installation
from twinloop.stack.program import run_module

Mode = Literal["full", "closed-book", "bare"]
"""Everything on; retrieval off; adapter off."""
MODES: tuple[Mode, ...] = ("full", "closed-book", "bare")


@dataclass(frozen=True)
class ProbeRun:
    """Answers of one release in one mode, as printed, in the order of the questions."""

    printed: tuple[str, ...]

    def accuracy(self, questions: Sequence[Question]) -> float:
        """Share of right answers over the first `len(questions)` lines."""
        lines = self._lines()[: len(questions)]
        right = [
            is_right(line["text"], question.expected) for line, question in zip(lines, questions, strict=True)
        ]
        return sum(right) / len(right) if right else 0.0

    def hit_rate(self, questions: Sequence[Question], *, within: int) -> dict[str, float]:
        """Share of questions, by domain, whose document is among the first `within` passages found."""
        found: dict[str, list[bool]] = {}
        for line, question in zip(self._lines(), questions, strict=True):
            if question.document_id is not None:
                found.setdefault(question.domain, []).append(
                    question.document_id in line["passages"][:within]
                )
        return {domain: sum(hits) / len(hits) for domain, hits in sorted(found.items())}

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.printed]


def probe_releases(
    installation: Installation,
    releases: Sequence[str],
    questions: Sequence[Question],
    *,
    modes: Sequence[Mode],
    folder: Path,
) -> Mapping[tuple[str, Mode], ProbeRun]:
    """Answer in one fresh process, in batches of fixed composition, in each of `modes`.

    Raises ConfigError on failure.
    """
    path = folder / "probe-questions.jsonl"
    rows = [
        json.dumps({"id": f"q{number:05d}", "question": question.text, "domain": question.domain})
        for number, question in enumerate(questions)
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = [
        argument for file in installation.config_files("inference") for argument in ("--config", str(file))
    ]
    arguments += [argument for release in releases for argument in ("--release", release)]
    arguments += [argument for mode in modes for argument in ("--mode", mode)]
    arguments += ["--questions", str(path)]
    environment = {**ONE_THREAD, **installation.plan.environment.get("inference", {})}
    printed = run_module("services.inference.probe", arguments, timeout_s=300, environment=environment)
    lines: dict[tuple[str, Mode], list[str]] = {}
    for line in printed.splitlines():
        row = json.loads(line)
        lines.setdefault((row["release"], row["mode"]), []).append(line)
    return {key: ProbeRun(tuple(each)) for key, each in lines.items()}
