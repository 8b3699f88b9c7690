"""The same questions to the same releases outside the bus: what each part contributes, and what a rollback restored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinloop.demo.material import Question
from twinloop.demo.scoring import is_right
from twinloop.stack.installation import Installation


@dataclass(frozen=True)
class ProbeRun:
    """Answers of one release to one list of questions, as printed, byte for byte."""

    printed: str
    lines: tuple[dict[str, Any], ...]

    def accuracy(self, questions: Sequence[Question]) -> float:
        right = [
            is_right(line["text"], question.expected)
            for line, question in zip(self.lines, questions, strict=True)
        ]
        return sum(right) / len(right) if right else 0.0

    def hit_rate(self, questions: Sequence[Question], *, within: int) -> dict[str, float]:
        """Share of questions, by domain, whose document is among the first `within` passages found."""
        found: dict[str, list[bool]] = {}
        for line, question in zip(self.lines, questions, strict=True):
            if question.document_id is not None:
                found.setdefault(question.domain, []).append(
                    question.document_id in line["passages"][:within]
                )
        return {domain: sum(hits) / len(hits) for domain, hits in sorted(found.items())}


def probe_release(
    installation: Installation,
    release: str,
    questions: Sequence[Question],
    *,
    folder: Path,
    retrieval: bool = True,
    adapter: bool = True,
) -> ProbeRun:
    """Answer in a fresh process in batches of fixed composition; raises ConfigError where it fails."""
    path = folder / "probe-questions.jsonl"
    rows = [
        json.dumps({"id": f"q{number:05d}", "question": question.text, "domain": question.domain})
        for number, question in enumerate(questions)
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = [
        argument for file in installation.config_files("inference") for argument in ("--config", str(file))
    ]
    arguments += ["--release", release, "--questions", str(path)]
    arguments += ["--retrieval", "on" if retrieval else "off", "--adapter", "on" if adapter else "off"]
    environment = {"OMP_NUM_THREADS": "1", **installation.plan.environment.get("inference", {})}
    printed = installation.run_module(
        "services.inference.probe", arguments, timeout_s=300, environment=environment
    )
    return ProbeRun(printed, tuple(json.loads(line) for line in printed.splitlines()))
