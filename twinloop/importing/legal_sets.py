"""LegalBench: one folder a task, tab-separated rows beside the task's prompt.

Source of the format: Guha et al. 2023, LegalBench; https://github.com/HazyResearch/legalbench
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from twinloop.errors import ConfigError
from twinloop.importing.rows import Refused, Row, Terms

_CONTEXT_COLUMNS = ("text", "contract", "clause", "passage", "provision", "policy", "description", "sentence")
_TITLE_COLUMNS = ("document_name", "title", "case", "slice")


def read_legalbench(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    """Rows of `<task>/train.tsv` or `test.tsv`, or of every such file below a folder.

    The question is the column `question` or else the first paragraph of `base_prompt.txt` beside the file.
    """
    files = sorted([*path.rglob("train.tsv"), *path.rglob("test.tsv")]) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no train.tsv or test.tsv below this folder")
    for file in files:
        yield from _read_task(file, terms)


def _read_task(path: Path, terms: Terms) -> Iterator[Row | Refused]:
    task = path.parent.name
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            columns = reader.fieldnames or []
            if "answer" not in columns:
                raise ConfigError(f"{path}:1: no column `answer` among {columns}")
            instruction = "" if "question" in columns else _instruction(path)
            for raw in reader:
                row = {key: (value or "").strip() for key, value in raw.items() if isinstance(value, str)}
                yield Row(
                    path=path,
                    line=reader.line_num,
                    id=f"law-{task}-{path.stem}-{row.get('index', '') or reader.line_num}",
                    domain="law",
                    question=row.get("question", "") or instruction,
                    answer=row.get("answer", ""),
                    context=next((row[name] for name in _CONTEXT_COLUMNS if row.get(name)), ""),
                    title=next((row[name] for name in _TITLE_COLUMNS if row.get(name)), task),
                    source=terms.source or f"LegalBench/{task}",
                    licence=terms.licence,
                    publisher=terms.publisher,
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as tab-separated UTF-8: {error}") from error


def _instruction(path: Path) -> str:
    prompt = path.with_name("base_prompt.txt")
    try:
        paragraphs = prompt.read_text(encoding="utf-8").strip().split("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: has no column `question`, and {prompt} cannot be read: {error}"
        ) from error
    if not paragraphs[0] or "{{" in paragraphs[0]:
        raise ConfigError(f"{prompt}: its first paragraph is no plain question")
    return " ".join(paragraphs[0].split())
