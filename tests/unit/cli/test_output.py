"""What people and programs are shown of answers, states and decisions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from schemas.answers import Answer
from schemas.decisions import Decision, Progress
from tests.unit.cli.events import FakeLog, answer, decision, progress, record
from twinloop.cli.app import build_app
from twinloop.cli.connection import Connection
from twinloop.cli.operation_commands import _role, _show_logged, _show_state, logged_decisions
from twinloop.cli.output import print_json, print_table, short
from twinloop.cli.question_commands import _remember, _show
from twinloop.stack.home import Home

Captured = pytest.CaptureFixture[str]


def test_json_is_one_line_and_keeps_letters(capsys: Captured) -> None:
    print_json({"text": "zwölf\nTage", "path": Path("x")})
    assert capsys.readouterr().out == '{"text":"zwölf\\nTage","path":"x"}\n'


def test_a_table_has_a_row_each_and_says_where_there_is_none(capsys: Captured) -> None:
    print_table("releases", [{"release": "aa", "rows": 3}, {"release": "bb", "rows": 0}])
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("aa", "bb"))] == ["aa", "bb"]
    print_table("releases", [])
    assert capsys.readouterr().out == "releases: none\n"


def test_digests_are_quoted_by_their_first_twelve_characters() -> None:
    assert short("0123456789abcdef") == "0123456789ab"
    assert short(None) == "none"


def test_a_decision_is_one_line_with_time_epoch_value_sign_and_threshold(capsys: Captured) -> None:
    logged = decision(line="promote 2ed4cfc8: error 0.8 % <= 1.0 % + 5 pts", decided_at=1_790_000_045_000)
    _show_logged(record(logged), as_json=False)
    assert capsys.readouterr().out == (
        f"2026-09-21 14:14:05  DECISION epoch {logged.epoch}: "
        "promote 2ed4cfc8: error 0.8 % <= 1.0 % + 5 pts\n"
    )


def test_progress_says_what_is_still_needed(capsys: Captured) -> None:
    _show_logged(record(progress()), as_json=False)
    shown = capsys.readouterr().out
    assert shown.endswith("  (needs 88 shadow queries)\n")
    assert "  canary: canary 5 %: error 0.8 %" in shown
    _show_logged(record(progress(needed="")), as_json=False)
    assert "(needs" not in capsys.readouterr().out


@pytest.mark.parametrize("event", [decision(), progress()])
def test_programs_get_the_whole_event_back(event: Decision | Progress, capsys: Captured) -> None:
    _show_logged(record(event), as_json=True)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert type(event).model_validate_json(shown) == event


def test_of_two_decisions_of_one_epoch_the_first_is_shown() -> None:
    first, late = decision(epoch=4, line="the first"), decision(epoch=4, line="too late")
    after = decision(epoch=5, line="the next")
    log = FakeLog([first, progress(), late, after])
    connection = cast(Connection, SimpleNamespace(log=lambda _topic: log))
    assert [each.line for each in logged_decisions(connection)] == ["the first", "the next"]


def test_a_state_is_told_in_three_lines(capsys: Captured) -> None:
    state = decision().state
    _show_state(state)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"epoch {state.epoch} · {state.phase} · {state.active} serves release ")
    assert lines[0].endswith(state.active_release[:12])
    assert state.canary is not None
    assert lines[1].endswith(f"canary {state.canary.basis_points / 100:g} %")
    assert len(lines) == 3
    _show_state(None)
    assert "no routing state yet" in capsys.readouterr().out


def test_a_release_is_named_by_every_role_it_has() -> None:
    state = decision().state
    assert _role(state, state.active_release).split(", ")[0] == "active"
    assert "shadow" in _role(state, state.shadow_release)
    assert _role(state, "0" * 64) == ""
    assert _role(None, state.active_release) == ""


def test_an_answer_is_shown_with_its_citations_and_what_made_it(capsys: Captured) -> None:
    given = answer()
    _show(given)
    shown = capsys.readouterr().out
    assert shown.startswith(given.text or "?")
    assert all(f"[{citation.document_id}]" in shown for citation in given.citations)
    assert f"release {short(given.release)} · epoch {given.epoch}" in shown


def test_an_error_answer_says_which_error(capsys: Captured) -> None:
    given = answer("deadline")
    _show(given)
    assert capsys.readouterr().out.startswith("error deadline: ")


def test_the_last_answer_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    connection = cast(Connection, SimpleNamespace(home=Home(tmp_path)))
    _remember(connection, answer(), "how long?")
    kept = tmp_path / "last-answer.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    document = json.loads(kept.read_text())
    assert document["question"] == "how long?"
    assert Answer.model_validate(document["answer"]) == answer()


def rows(folder: Path) -> Path:
    row: dict[str, Any] = {
        "id": "law-1",
        "domain": "law",
        "question": "How long is the notice period?",
        "answer": "42 days",
        "context": "The notice period is 42 days.",
        "source": "a test",
        "licence": "CC0-1.0",
    }
    without_licence = {key: value for key, value in row.items() if key != "licence"} | {"id": "law-2"}
    path = folder / "law.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(without_licence)}\n")
    return path


def test_an_import_can_be_tried_without_a_broker(tmp_path: Path) -> None:
    shown = CliRunner().invoke(build_app(), ["import", "jsonl", str(rows(tmp_path)), "--dry-run", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.output) == {
        "documents": {"law": 1},
        "pairs": {"law": 1},
        "refused": 1,
        "published": False,
    }


def test_a_refused_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = rows(tmp_path)
    shown = CliRunner().invoke(build_app(), ["import", "jsonl", str(path), "--dry-run"])
    assert f"{path}:2: row law-2 has no licence" in shown.output


def test_an_import_of_nothing_is_a_negative_result(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    shown = CliRunner().invoke(build_app(), ["import", "jsonl", str(empty), "--dry-run", "--json"])
    assert shown.exit_code == 1
    assert json.loads(shown.output)["documents"] == {}


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    runner, home = CliRunner(), tmp_path / "home"
    assert runner.invoke(build_app(), ["keys", "init", "--home", str(home)]).exit_code == 0
    made = {path.name: path.read_bytes() for path in (home / "keys").iterdir()}
    assert {"public.yaml", "gatekeeper-1.pem", "operator-1.pem"} <= set(made)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home / "keys").glob("*.pem"))
    assert runner.invoke(build_app(), ["keys", "init", "--home", str(home)]).exit_code == 0
    assert {path.name: path.read_bytes() for path in (home / "keys").iterdir()} == made
