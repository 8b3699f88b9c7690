from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.trainer.learning.dataset import TrainingRow, rows_to_jsonl
from services.trainer.learning.job import RESULT, main, read_job, run_job

SETTINGS = {"rank": 2, "max_steps": 2, "warm_up_steps": 1, "batch_size": 2, "fisher_samples": 1}


def _write_job(folder: Path, source: Path, **change: Any) -> Path:
    rows = [
        TrainingRow(id=str(n), domain="law", question=f"Q{n}?", answer=f"{n} [law-{n}]") for n in range(3)
    ]
    (folder / "rows.jsonl").write_text(rows_to_jsonl(rows))
    job = {
        "version": 1,
        "foundation": {"source": str(source)},
        "domain": "law",
        "rows": "rows.jsonl",
        "settings": SETTINGS,
        "output": "out",
        **change,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def _run(path: Path) -> list[Mapping[str, Any]]:
    events: list[Mapping[str, Any]] = []
    run_job(read_job(path), report=events.append)
    return events


def test_a_job_writes_its_files_and_a_result_that_names_them(foundation_folder: Path, tmp_path: Path) -> None:
    events = _run(_write_job(tmp_path, foundation_folder))
    result = json.loads((tmp_path / "out" / RESULT).read_bytes())
    assert [event["event"] for event in events][:3] == ["started", "adapted", "measured"]
    assert events[-1]["event"] == "finished"
    assert set(result["files"]) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "fisher.safetensors",
    }
    for name, digest in result["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert result["metrics"]["steps"] == 2
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_finished_job_is_not_done_again(foundation_folder: Path, tmp_path: Path) -> None:
    path = _write_job(tmp_path, foundation_folder)
    _run(path)
    before = (tmp_path / "out" / RESULT).stat().st_mtime_ns
    assert [event["event"] for event in _run(path)] == ["finished"]
    assert (tmp_path / "out" / RESULT).stat().st_mtime_ns == before


def test_a_job_killed_before_its_result_is_done_again_to_the_same_bytes(
    foundation_folder: Path, tmp_path: Path
) -> None:
    path = _write_job(tmp_path, foundation_folder)
    _run(path)
    files = json.loads((tmp_path / "out" / RESULT).read_bytes())["files"]
    (tmp_path / "out" / RESULT).unlink()
    (tmp_path / "out" / "fisher.safetensors").write_bytes(b"half of")
    _run(path)
    assert json.loads((tmp_path / "out" / RESULT).read_bytes())["files"] == files


def test_other_settings_replace_an_older_result(foundation_folder: Path, tmp_path: Path) -> None:
    _run(_write_job(tmp_path, foundation_folder))
    _run(_write_job(tmp_path, foundation_folder, settings={**SETTINGS, "max_steps": 1}))
    assert json.loads((tmp_path / "out" / RESULT).read_bytes())["metrics"]["steps"] == 1


def test_an_update_starts_from_the_parents_files(foundation_folder: Path, tmp_path: Path) -> None:
    _run(_write_job(tmp_path, foundation_folder))
    parent = {"adapter": "out/adapter", "fisher": "out/fisher.safetensors"}
    _run(_write_job(tmp_path, foundation_folder, parent=parent, replay_rows="rows.jsonl", output="next"))
    first = json.loads((tmp_path / "out" / RESULT).read_bytes())
    second = json.loads((tmp_path / "next" / RESULT).read_bytes())
    assert first["files"] != second["files"]
    assert second["metrics"]["replay_exact_match"] is not None


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"version": 2}, 2, "version"),
        ({"unknown": 1}, 2, "unknown"),
        ({"rows": "absent.jsonl"}, 2, "absent.jsonl"),
        ({"domain": "med"}, 2, "law"),
        ({"settings": {"max_steps": 0}}, 2, "max_steps"),
        ({"settings": {**SETTINGS, "learning_rate": 1e30, "max_steps": 9}}, 4, "loss"),
        ({"parent": {"adapter": "nowhere"}}, 3, "nowhere"),
        ({"foundation": {"source": "no/folder"}}, 2, "no/folder"),
        ({"prompt": {"kind": "poem"}}, 2, "kind"),
    ],
)
def test_the_exit_code_says_what_to_do(
    foundation_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    code: int,
    says: str,
) -> None:
    assert main([str(_write_job(tmp_path, foundation_folder, **change))]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / RESULT).exists()


def test_a_foundation_with_other_bytes_is_refused(
    foundation_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foundation = {"source": str(foundation_folder), "digest": "0" * 64}
    assert main([str(_write_job(tmp_path, foundation_folder, foundation=foundation))]) == 3
    assert "digest" in capsys.readouterr().err


def test_no_job_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.slow
def test_two_processes_make_the_same_bytes_and_print_json_lines(
    foundation_folder: Path, tmp_path: Path
) -> None:
    digests = []
    for name in ("one", "two"):
        path = _write_job(tmp_path, foundation_folder, output=name)
        command = [sys.executable, "-m", "services.trainer.learning.job", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events[-1]["event"] == "finished"
        digests.append(json.loads((tmp_path / name / RESULT).read_bytes())["files"])
    assert digests[0] == digests[1]
