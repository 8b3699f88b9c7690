"""The second count: worked out from files alone, and any difference is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twinloop.demo.material import Question
from twinloop.demo.recount import differences, main, recount, write_expected
from twinloop.errors import ConfigError

REPORT: dict[str, Any] = {
    "queries_sent": 5,
    "answers": 3,
    "errors": 1,
    "dead_letters": 0,
    "lost": 1,
    "duplicates": 1,
    "accuracy_before": 0.0,
    "accuracy_after": 0.5,
    "accuracy_after_rollback": 0.0,
    "accuracy_old_facts": {"before": 1.0, "after": 0.0},
}


@pytest.fixture
def console(tmp_path: Path) -> Path:
    folder = tmp_path / "console"
    ids = ["before-old-00000", "after-new-00000", "after-new-00001", "user-00000", "user-00001"]
    answers = [
        {"query_id": "before-old-00000", "text": "Blue [law-1]", "error": None},
        {"query_id": "after-new-00000", "text": "green", "error": None},
        {"query_id": "after-new-00001", "text": "wrong", "error": None},
        {"query_id": "user-00000", "text": None, "error": {"kind": "empty", "detail": ""}},
        {"query_id": "user-00000", "text": "a second one", "error": None},
        {"query_id": "somebody-else", "text": "not ours", "error": None},
    ]
    write_expected(
        folder,
        {
            each: Question("?", "law", value)
            for each, value in zip(ids, ("blue", "Green", "red"), strict=False)
        },
    )
    lines = {"queries": [{"id": each} for each in ids], "answers": answers, "dead-letters": []}
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    return folder


def test_counts_and_accuracies_come_from_the_files_alone(console: Path) -> None:
    assert recount(console) == REPORT


def test_a_figure_that_differs_is_named_with_both_values(console: Path) -> None:
    assert differences({**REPORT, "lost": 0}, recount(console)) == (
        "lost: the report says 0, console consumers say 1",
    )


def test_the_command_fails_where_report_and_records_differ(
    console: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(console.parent)]) == 0
    (console.parent / "report.json").write_text(json.dumps({**REPORT, "answers": 4}))
    assert main([str(console.parent)]) == 1
    assert "answers: the report says 4" in capsys.readouterr().out


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"queries\.jsonl"):
        recount(tmp_path)
