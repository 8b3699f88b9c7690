"""A change by hand: the patch as it was typed, and what the trainer makes of it."""

from __future__ import annotations

import io
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from schemas.changes import ChangeProposed, ChangeReviewed, ChangeStatus
from tests.unit.cli.events import FakeLog, audit, example
from twinloop.changes.change_log import KnownChange
from twinloop.cli import pr_commands
from twinloop.cli.change_desk import follow
from twinloop.errors import CommandRefused, ConfigError, Transient

PROPOSED = ChangeProposed.model_validate(example("changes/v1/proposed.json"))
REVIEWED = ChangeReviewed.model_validate(example("changes/v1/reviewed.json"))
OPEN = ChangeStatus.model_validate(example("changes/v1/open.json"))
ESCROW = "/rules/domains/law/keywords/escrow"


def told(event: ChangeProposed | ChangeReviewed, *, changes: FakeLog, audits: FakeLog) -> Any:
    seconds = count()
    return follow(event, changes=changes, audit=audits, timeout_s=9, monotonic=lambda: float(next(seconds)))


def test_a_proposal_ends_when_the_trainer_has_examined_it() -> None:
    accepted = audit(result="accepted", detail=f"3 of 1800 [{PROPOSED.id}]")
    outcome = told(PROPOSED, changes=FakeLog([PROPOSED, OPEN]), audits=FakeLog([accepted]))
    assert outcome == OPEN


def test_a_review_ends_with_the_entry_that_names_it() -> None:
    other = audit(result="refused", detail="of another [n-1]")
    mine = audit(result="accepted", detail="read [n-7]")
    assert told(REVIEWED, changes=FakeLog(), audits=FakeLog([other], [mine])) == mine


def test_a_refusal_is_raised_with_its_reason() -> None:
    refused = audit(result="refused", detail=f"/rules/top_k: 99 is above the maximum 10 [{PROPOSED.id}]")
    with pytest.raises(CommandRefused, match="above the maximum 10"):
        told(PROPOSED, changes=FakeLog([PROPOSED]), audits=FakeLog([refused]))


def test_silence_says_what_to_look_at() -> None:
    with pytest.raises(Transient, match="is it running"):
        told(PROPOSED, changes=FakeLog(), audits=FakeLog())


def test_values_are_set_and_taken_out_without_a_file() -> None:
    typed = pr_commands._steps(
        None, [f"{ESCROW}=2", "/prompt/system=Cite a = b"], ["/rules/domains/law/keywords/court"]
    )
    assert [(each.op, each.path, each.value) for each in typed] == [
        ("add", ESCROW, 2),
        ("add", "/prompt/system", "Cite a = b"),
        ("remove", "/rules/domains/law/keywords/court", None),
    ]


def test_a_patch_comes_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps([{"op": "replace", "path": "/rules/top_k", "value": 3}])
    path = tmp_path / "patch.json"
    path.write_text(raw)
    monkeypatch.setattr("sys.stdin", io.StringIO(raw))
    assert pr_commands._steps(path, [], []) == pr_commands._steps(Path("-"), [], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("{}", "a list of operations"),
        ('[{"op": "move", "path": "/rules/top_k", "from": "/x"}]', "operation 1: op"),
        ('[{"op": "add", "path": "/rules/domains/law", "value": {"priority": 1}}]', "operation 1: value"),
        ("[]", "name a file"),
    ],
)
def test_a_file_that_is_no_patch_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "patch.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        pr_commands._steps(path, [], [])


@pytest.mark.parametrize("assignment", ["/rules/top_k", ""])
def test_an_assignment_has_a_value(assignment: str) -> None:
    with pytest.raises(ConfigError, match="PATH=VALUE"):
        pr_commands._steps(None, [assignment], [])


def test_what_is_shown_names_stage_patch_moves_and_people(capsys: pytest.CaptureFixture[str]) -> None:
    pr_commands._tell(KnownChange(PROPOSED, OPEN, (REVIEWED,)), as_json=False)
    shown = capsys.readouterr().out
    for words in (
        "pr-3f2a91c07b5e by olga: escrow is law",
        f"add {ESCROW} = 2.0",
        "remove /rules/domains/law/keywords/objection",
        "3 of 1800 would go to another domain; 200 more had theirs fixed",
        "gen -> law: 3",
        "agree with 198 of 200 probes now, with 199 then",
        "anna wants to approve: report looks right",
    ):
        assert words in shown


def test_the_list_has_one_line_a_change() -> None:
    assert pr_commands._line(KnownChange(PROPOSED, OPEN)) == (
        "pr-3f2a91c07b5e  open        by olga, moves 3 of 1800: escrow is law"
    )
    assert "unexamined" in pr_commands._line(KnownChange(PROPOSED))


def test_a_program_reads_the_whole_change(capsys: pytest.CaptureFixture[str]) -> None:
    pr_commands._tell(KnownChange(PROPOSED), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert ChangeProposed.model_validate(shown["proposal"]) == PROPOSED
    assert (shown["status"], shown["reviews"]) == (None, [])
