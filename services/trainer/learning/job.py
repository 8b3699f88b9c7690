"""Child process that makes one update: `python -m services.trainer.learning.job JOB.json`.

Exit codes: 0 the output folder is complete, 2 the job or its rows are unusable, 3 an input artifact was refused,
4 training diverged; anything else is a crash and may be run again. README.md describes the files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.trainer.learning.dataset import Example, TrainingRow, build_examples, rows_from_jsonl
from services.trainer.learning.lora_update import Diverged, Material, Parent, Report, Update, train_update
from services.trainer.learning.replay_batches import Rows
from services.trainer.learning.settings import LearningSettings, settings_from
from services.trainer.learning.stopwatch import Stopwatch
from twinloop.errors import ArtifactError, ConfigError
from twinloop.model_runtime.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, load_foundation
from twinloop.model_runtime.prompt import PromptFormat

RESULT = "result.json"
FISHER = "fisher.safetensors"
_KINDS = ("rows", "gate_rows", "replay_rows", "general_rows", "probe_rows")
_KEYS = {"version", "foundation", "prompt", "domain", "parent", *_KINDS, "settings", "seed", "output"}
_VERSIONS = ("torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True)
class Job:
    """A job file with its inputs read; `digest` covers everything that decides the output bytes."""

    digest: str
    foundation: FoundationSpec
    prompt_format: PromptFormat
    domain: str
    parent: Parent | None
    rows: Mapping[str, Sequence[TrainingRow]]
    settings: LearningSettings
    seed: int
    output: Path


def read_job(path: Path) -> Job:
    """Read a job file and every file it names; raises ConfigError naming the key or file at fault."""
    values = _object(path)
    if values.get("version") != 1:
        raise ConfigError(f"{path}: version is {values.get('version')!r}; this program reads 1")
    unknown = sorted(set(values) - _KEYS)
    missing = sorted({"foundation", "domain", "rows", "output"} - set(values))
    if unknown or missing:
        raise ConfigError(f"{path}: unknown keys {unknown}, missing keys {missing}")
    base = path.resolve().parent
    texts = {kind: _text(base / values[kind]) for kind in _KINDS if values.get(kind) is not None}
    foundation = _foundation_spec(values["foundation"], path, base)
    prompt_format = PromptFormat.from_json(json.dumps(values.get("prompt") or {}).encode())
    settings = settings_from(values.get("settings") or {})
    parent = _parent(values.get("parent"), base)
    seed = values.get("seed", 42)
    if type(seed) is not int or not isinstance(values["domain"], str):
        raise ConfigError(f"{path}: seed must be a whole number and domain a text")
    decides = {
        "foundation": foundation.digest or [foundation.source, foundation.revision],
        "computing": [foundation.dtype, foundation.device, foundation.threads],
        "prompt": prompt_format.digest,
        "domain": values["domain"],
        "parent": None
        if parent is None
        else {name: _sha256(data) for name, data in sorted(parent.files.items())},
        "fisher": None if parent is None or parent.fisher is None else _sha256(parent.fisher),
        "rows": {kind: _sha256(text.encode()) for kind, text in texts.items()},
        "settings": asdict(settings),
        "seed": seed,
        "versions": _versions(),
    }
    return Job(
        digest=_sha256(json.dumps(decides, sort_keys=True).encode()),
        foundation=foundation,
        prompt_format=prompt_format,
        domain=values["domain"],
        parent=parent,
        rows={kind: rows_from_jsonl(text, source=str(values[kind])) for kind, text in texts.items()},
        settings=settings,
        seed=seed,
        output=base / values["output"],
    )


def run_job(job: Job, *, report: Report) -> None:
    """Train and write the output folder; does nothing when it is complete already."""
    if is_complete(job):
        report({"event": "finished", "job_digest": job.digest, "again": False})
        return
    if not job.rows.get("rows"):
        raise ConfigError("rows: there is nothing to learn")
    wrong = sorted({row.domain for row in job.rows["rows"]} - {job.domain})
    if wrong:
        raise ConfigError(f"rows: domains {wrong} stand in an update of {job.domain}")
    report({"event": "started", "job_digest": job.digest})
    started, cpu_started = time.monotonic(), time.process_time()
    stopwatch = Stopwatch(time.process_time)

    def watched(event: Mapping[str, Any]) -> None:
        stopwatch(event)
        report(event)

    foundation = load_foundation(job.foundation)
    material = _material(foundation, job)
    update = train_update(
        foundation,
        material,
        settings=job.settings,
        seed=job.seed,
        clock=time.monotonic,
        parent=job.parent,
        report=watched,
    )
    spent = {
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
        "training_cpu_seconds": round(stopwatch.training, 3),
        "seconds": round(time.monotonic() - started, 3),
    }
    _write(job, update, spent)
    report({"event": "finished", "job_digest": job.digest, "again": True})


def is_complete(job: Job) -> bool:
    """Whether the output folder holds this very job's result, bytes included."""
    try:
        result = json.loads((job.output / RESULT).read_bytes())
        if result["job_digest"] != job.digest:
            return False
        return all(
            _sha256((job.output / name).read_bytes()) == digest for name, digest in result["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def main(arguments: Sequence[str]) -> int:
    """Run one job file; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m services.trainer.learning.job JOB.json", file=sys.stderr)
        return 2
    try:
        run_job(read_job(Path(arguments[0])), report=_print_event)
    except ConfigError as cause:
        return _failed(2, cause)
    except ArtifactError as cause:
        return _failed(3, cause)
    except Diverged as cause:
        return _failed(4, cause)
    return 0


def _failed(code: int, cause: Exception) -> int:
    print(f"{type(cause).__name__}: {cause}", file=sys.stderr)
    return code


def _print_event(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _material(foundation: Foundation, job: Job) -> Material:
    def rendered(kind: str) -> Rows:
        rows = job.rows.get(kind, [])
        chat = foundation.chat_template if job.prompt_format.kind == "chat" else None

        def examples(chosen: Iterable[TrainingRow]) -> tuple[Example, ...]:
            built = build_examples(
                list(chosen), tokenizer=foundation.tokenizer, prompt_format=job.prompt_format, chat=chat
            )
            return tuple(built)

        closed = examples(row for row in rows if row.passage is None)
        return Rows(closed=closed, grounded=examples(row for row in rows if row.passage is not None))

    replay = rendered("replay_rows")
    return Material(
        new=rendered("rows"),
        gate=rendered("gate_rows"),
        replay=replay,
        earlier=_by_update(job.rows.get("replay_rows", []), replay),
        general=rendered("general_rows"),
        probe=rendered("probe_rows"),
    )


def _by_update(rows: Iterable[TrainingRow], rendered: Rows) -> dict[str, list[Example]]:
    """Closed-book examples of rehearsed rows by the update that taught them, where that is known."""
    update_of = {row.id: row.update for row in rows}
    found: dict[str, list[Example]] = {}
    for example in rendered.closed:
        update = update_of[example.row_id]
        if update is not None:
            found.setdefault(update, []).append(example)
    return found


def _write(job: Job, update: Update, spent: Mapping[str, float]) -> None:
    """Write every file whole, `result.json` last: its existence means complete."""
    files = {f"adapter/{name}": data for name, data in update.files.items()} | {FISHER: update.fisher}
    (job.output / "adapter").mkdir(parents=True, exist_ok=True)
    (job.output / RESULT).unlink(missing_ok=True)
    for name, data in files.items():
        _replace(job.output / name, data)
    result = {
        "version": 1,
        "job_digest": job.digest,
        "domain": job.domain,
        "files": {name: _sha256(data) for name, data in sorted(files.items())},
        "metrics": {**update.metrics, **spent},
        "settings": asdict(job.settings),
        "seed": job.seed,
        "versions": _versions(),
    }
    _replace(job.output / RESULT, json.dumps(result, sort_keys=True, indent=2).encode() + b"\n")


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _foundation_spec(value: Any, path: Path, base: Path) -> FoundationSpec:
    known = set(FoundationSpec.__dataclass_fields__)
    if not isinstance(value, dict) or not set(value) <= known or not isinstance(value.get("source"), str):
        raise ConfigError(f"{path}: foundation needs `source` and may have {sorted(known)}")
    folder = base / value["source"]
    return FoundationSpec(**{**value, "source": str(folder) if folder.is_dir() else value["source"]})


def _parent(value: Any, base: Path) -> Parent | None:
    if value is None:
        return None
    if (
        not isinstance(value, dict)
        or not set(value) <= {"adapter", "fisher"}
        or not isinstance(value.get("adapter"), str)
    ):
        raise ConfigError("parent: needs `adapter`, a folder, and may have `fisher`, a file")
    folder = base / value["adapter"]
    files = {name: _artifact(folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    fisher = None if value.get("fisher") is None else _artifact(base / value["fisher"])
    return Parent(files=files, fisher=fisher)


def _artifact(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ArtifactError(f"{path}: cannot be read: {cause}") from cause


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: cannot be read: {cause}") from cause


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_text(path))
    except ValueError as cause:
        raise ConfigError(f"{path}: not JSON: {cause}") from cause
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold one JSON object")
    return values


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
