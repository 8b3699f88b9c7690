"""Answers of releases to a fixed list of questions, without the bus: `python -m services.inference.probe`.

Reads `{"id", "question", "domain"}` lines, answers them in that order in batches of fixed size, and prints one JSON
line each. Two runs over the same release print the same bytes, which is what proves that a rollback restored it;
`--mode closed-book` and `--mode bare` show what adapter and index contribute alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from schemas.event import DOMAINS
from services.inference.answering import Asked
from services.inference.core.answers import Produced
from services.inference.runtime import Runtime, open_runtime
from services.inference.settings import InferenceSettings
from twinloop.errors import ConfigError
from twinloop.process import main_guard
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing

BATCH = 8


def main() -> int:
    return main_guard("probe", lambda: _probe(_parser().parse_args()))


def _probe(wanted: argparse.Namespace) -> None:
    settings = load_settings(InferenceSettings, *wanted.config)
    runtime = open_runtime(settings.inference, settings.store, KeyRing.load(settings.keys.public_path))
    questions = _questions(wanted.questions)
    for release in wanted.release:
        for mode in wanted.mode or ["full"]:
            for line in _answers(runtime, release, questions, mode):
                print(json.dumps({"release": release, "mode": mode, **line}, sort_keys=True))
    runtime.preparer.close()


def _answers(
    runtime: Runtime, release_id: str, questions: list[dict[str, Any]], mode: str
) -> list[dict[str, object]]:
    ready = runtime.shelf.prepare(release_id)
    lines: list[dict[str, object]] = []
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        asked = [
            Asked(
                each["question"],
                each["domain"],
                ready,
                use_retrieval=mode != "closed-book",
                use_adapter=mode != "bare",
            )
            for each in part
        ]
        produced = runtime.engine.answer(asked)
        lines += [_line(each, made) for each, made in zip(part, produced, strict=True)]
    return lines


def _line(question: dict[str, Any], produced: Produced) -> dict[str, object]:
    return {
        "id": question["id"],
        "text": produced.text,
        "error": produced.error.kind if produced.error else None,
        "citations": [citation.document_id for citation in produced.citations],
        "retrieved": [citation.document_id for citation in produced.citations if citation.retrieved],
        "passages": list(produced.passages),
    }


def _questions(path: Path) -> list[dict[str, Any]]:
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or row.get("domain") not in DOMAINS or not row.get("question"):
            raise ConfigError(f"{path}:{number}: needs id, question and a domain of {', '.join(DOMAINS)}")
        questions.append(row)
    return questions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.inference.probe", description=__doc__)
    parser.add_argument(
        "--config", type=Path, action="append", required=True, help="settings file; repeatable"
    )
    parser.add_argument("--release", action="append", required=True, help="release id; repeatable")
    parser.add_argument("--questions", type=Path, required=True, help="JSONL of id, question, domain")
    parser.add_argument(
        "--mode",
        action="append",
        choices=("full", "closed-book", "bare"),
        help="full (default); closed-book: retrieval off; bare: adapter off; repeatable",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
