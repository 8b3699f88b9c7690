"""Events from anywhere, folded offline through the shipped tally and judge."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schemas.decisions import Decision
from services.gatekeeper.core.policy import GatePolicy
from services.gatekeeper.event_file import read_event_file
from services.gatekeeper.replay import main
from services.gatekeeper.settings import read_policy_file
from services.gatekeeper.what_if import NO_COPIES, NO_EXAM, WhatIf
from tests.histories.script import digest
from twinloop.errors import ConfigError
from twinloop.statistics.windows import WindowPolicy

START = 1_700_000_000_000
OLD = digest("the release that serves")
NEW = digest("the release proposed")
POLICY = {
    "ramp": {"min_step_s": 5},
    "promote": {"bake_s": 30},
    "canary": {"stale_ttl_s": 20, "invalid_ttl_s": 20},
}


@dataclass
class Day:
    """Traffic written down as a file of events: 100 queries a second, a tenth of them to the shadow."""

    seed: int = 1
    lines: list[dict[str, Any]] = field(default_factory=list)
    _queries: int = 0

    def line(self, topic: str, at: int, event: dict[str, Any]) -> None:
        self.lines.append({"topic": topic, "time": at, "event": event})

    def proposal(self, at: int, *, parent: str = OLD) -> None:
        domains = ("law", "med", "fin", "gen")
        part = {
            "adapters": dict.fromkeys(domains, digest("a")),
            "indexes": dict.fromkeys(domains, digest("i")),
        }
        release = {
            **part,
            **{n: digest(n) for n in ("foundation", "embedder", "rules", "prompt")},
            "parent": parent,
        }
        evidence = {
            "dataset": digest("d"),
            "seed": 1,
            "rows": {},
            "documents": {},
            "started_at": at,
            "finished_at": at,
        }
        event = {
            "release_id": NEW,
            "release": release,
            "evidence": evidence,
            "proposed_by": "t",
            "proposed_at": at,
        }
        self.line("releases", at, event)

    def traffic(
        self,
        seconds: Iterable[int],
        *,
        shadow_errors: float = 0.04,
        answers: Callable[[str, int], bool] = lambda _arm, _second: True,
        shares: dict[int, int] | None = None,
    ) -> None:
        chance = random.Random(self.seed)
        for second in seconds:
            at = START + second * 1000
            assigned, answered = [], []
            for _ in range(100):
                self._queries += 1
                unit, bucket = f"{self._queries:016x}", chance.randrange(10_000)
                arm = "shadow" if bucket < 1000 else "active"
                same = {
                    "id": f"q{self._queries}",
                    "unit": unit,
                    "slot": "green" if arm == "shadow" else "blue",
                    "arm": arm,
                    "release": NEW if arm == "shadow" else OLD,
                    "epoch": 7,
                    "purpose": "user",
                    "domain": chance.choice(("law", "med", "fin", "gen")),
                    "assigned_at": at,
                }
                assigned.append({**same, "bucket": bucket, "deadline_at": at + 3000})
                failed = chance.random() < (shadow_errors if arm == "shadow" else 0.04)
                outcome = {
                    "answered_at": at + 200,
                    "latency_ms": 100 + 100 * chance.random(),
                    "error": "model" if failed else None,
                    "toxic": None if failed else False,
                }
                if answers(arm, second):
                    answered.append({**same, **outcome})
            self.line("assignments", at, {"origin": 0, "router": "r", "rows": assigned})
            if answered:
                batch = {"origin": 0, "worker": "w", "toxicity_classifier": "c/1", "rows": answered}
                self.line("outcomes", at + 400, batch)

    def copies(self, seconds: Iterable[int], *, errors: float = 0.04) -> None:
        """Twenty mirrored copies a second to the proposed release."""
        chance = random.Random(self.seed + 1)
        for second in seconds:
            at = START + second * 1000
            assigned, answered = [], []
            for number in range(20):
                same = {
                    "id": f"q{second}-{number}",
                    "unit": f"{second * 100 + number:016x}",
                    "slot": "green",
                    "arm": "shadow",
                    "release": NEW,
                    "epoch": 6,
                    "purpose": "mirror",
                    "domain": "law",
                    "assigned_at": at,
                }
                assigned.append({**same, "bucket": number, "deadline_at": at + 3000})
                error = "model" if chance.random() < errors else None
                timed = {"answered_at": at + 200, "latency_ms": 100 + 100 * chance.random()}
                answered.append({**same, **timed, "error": error, "toxic": None if error else False})
            self.line("assignments", at, {"origin": 0, "router": "r", "rows": assigned})
            batch = {"origin": 0, "worker": "w", "toxicity_classifier": "c/1", "rows": answered}
            self.line("outcomes", at + 400, batch)

    def examination(self, at: int, *, right: int = 200) -> None:
        for number in range(200):
            same = {
                "release": NEW,
                "epoch": 3,
                "domain": "law",
                "slot": "green",
                "arm": "shadow",
                "purpose": "qa",
            }
            error = None if number < right else {"kind": "model", "detail": "no"}
            name = f"qa-01234567-3.c.p{number:03}"
            text = {"text": "an answer"} if error is None else {"error": error}
            self.line("evaluations", at, {"query_id": name, "answered_at": at, **same, **text})
            row = {
                **same,
                "id": name,
                "unit": f"{number:016x}",
                "error": error and error["kind"],
                "assigned_at": at,
                "answered_at": at + 90,
                "latency_ms": 90.0,
                "toxic": False,
                "citation": "not_required",
            }
            batch = {"origin": 0, "worker": "w", "toxicity_classifier": "c/1", "rows": [row]}
            self.line("outcomes", at, batch)

    def write(self, folder: Path) -> Path:
        path = folder / "events.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in self.lines), encoding="utf-8")
        return path


def decide(
    day: Day, folder: Path, *, after_s: float = 0.0, policy: dict[str, Any] | None = None
) -> tuple[list[Decision], list[str]]:
    notes: list[str] = []
    question = WhatIf(
        policy=GatePolicy.model_validate({**POLICY, **(policy or {})}),
        windows=WindowPolicy(),
        software="test",
        after_s=after_s,
        tell=notes.append,
    )
    return list(question.decide(read_event_file(day.write(folder)).lines)), notes


def kinds(decisions: list[Decision]) -> list[str]:
    return [decision.kind for decision in decisions]


def test_a_healthy_candidate_would_be_promoted(tmp_path: Path) -> None:
    day = Day()
    day.traffic(range(10))
    day.proposal(START + 10_000)
    day.traffic(range(11, 160))
    decisions, notes = decide(day, tmp_path)
    assert kinds(decisions)[:3] == ["genesis", "stage", "canary"]
    assert "promote" in kinds(decisions)
    assert any(NO_EXAM in note for note in notes)


def test_a_harmful_candidate_would_be_stopped_early(tmp_path: Path) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 60), shadow_errors=0.5)
    decisions, _ = decide(day, tmp_path)
    assert (decisions[-1].kind, decisions[-1].evidence["outcome"]) == ("abort", "failed")


def test_a_candidate_that_never_answers_is_an_error_of_its_arm(tmp_path: Path) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 60), answers=lambda arm, _: arm == "active")
    decisions, _ = decide(day, tmp_path)
    assert decisions[-1].kind == "abort"
    assert decisions[-1].reason in ("error_margin", "early_stop")


def test_a_feed_that_ends_is_held_and_then_aborted_as_stale(tmp_path: Path) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 8))
    decisions, _ = decide(day, tmp_path, after_s=90)
    assert (decisions[-1].kind, decisions[-1].reason) == ("abort", "stale")


def test_an_examination_in_the_file_is_judged(tmp_path: Path) -> None:
    day = Day()
    day.traffic(range(3))
    day.proposal(START + 3000)
    day.examination(START + 8000, right=100)
    decisions, _ = decide(day, tmp_path)
    assert (decisions[-1].kind, decisions[-1].reason) == ("reject", "qa_pass_rate")


def test_a_passed_examination_leads_to_the_canary(tmp_path: Path) -> None:
    day = Day()
    day.traffic(range(3))
    day.proposal(START + 3000)
    day.examination(START + 8000)
    decisions, _ = decide(day, tmp_path)
    assert kinds(decisions) == ["genesis", "stage", "canary"]
    assert decisions[-1].reason == "qa_passed"


def test_thumbs_in_the_file_are_joined_by_query_and_judged(tmp_path: Path) -> None:
    """Receipts of elsewhere do not verify here: the file's own assignments say who answered."""
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 60))
    for line in list(day.lines):
        if line["topic"] != "assignments":
            continue
        for row in line["event"]["rows"][::2]:
            feedback = {
                "id": f"fb-{row['id']}",
                "query_id": row["id"],
                "receipt": "of elsewhere",
                "question": "why?",
                "rater": row["unit"],
                "given_at": line["time"] + 3000,
                "rating": "down" if row["arm"] == "shadow" else "up",
            }
            day.line("feedback", line["time"] + 3000, feedback)
    policy = {"ratings": {"window_s": 5, "maturity_s": 5}, "canary": {**POLICY["canary"], "min_shadow": 5000}}
    decisions, _ = decide(day, tmp_path, policy={**policy, "canary": {**policy["canary"], "ci_width": 0.0}})
    assert (decisions[-1].kind, decisions[-1].reason) == ("abort", "ratings")


MIRROR = {"mirror": {"basis_points": 2000, "min_units": 100, "min_s": 5}}


def test_a_file_without_copies_takes_mirrored_traffic_as_passed(tmp_path: Path) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 20))
    decisions, notes = decide(day, tmp_path, policy=MIRROR)
    assert kinds(decisions)[:4] == ["genesis", "stage", "mirror", "canary"]
    assert any(NO_COPIES in note for note in notes)


def test_copies_in_the_file_are_judged_before_the_canary(tmp_path: Path) -> None:
    day = Day()
    day.traffic(range(3))
    day.proposal(START + 3000)
    day.traffic(range(4, 40), answers=lambda arm, _: arm == "active")
    day.copies(range(9, 40), errors=0.6)
    decisions, _ = decide(day, tmp_path, policy=MIRROR)
    assert kinds(decisions) == ["genesis", "stage", "mirror", "abort"]
    assert decisions[-1].reason.startswith("mirror:")


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 30), shadow_errors=0.5)
    assert decide(day, tmp_path)[0] == decide(day, tmp_path)[0]


def test_an_event_that_breaks_its_contract_is_left_out_and_named(tmp_path: Path) -> None:
    day = Day()
    day.traffic(range(2))
    day.line("outcomes", START, {"origin": 0, "worker": "w", "toxicity_classifier": "c/1", "rows": []})
    found = read_event_file(day.write(tmp_path))
    assert [refusal.split(": ")[1] for refusal in found.refused] == ["outcomes"]


@pytest.mark.parametrize(
    "line", ["not json", '{"topic": "queries", "time": 1, "event": {}}', '{"topic": "releases", "event": {}}']
)
def test_a_line_that_is_no_event_names_its_place(line: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"events\.jsonl:2"):
        read_event_file(path)


def test_a_policy_file_may_hold_the_policy_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("canary: {min_shadow: 500}\n", encoding="utf-8")
    assert read_policy_file(path)[0].canary.min_shadow == 500
    path.write_text("gatekeeper: {policy: {canary: {min_shadows: 500}}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="min_shadows"):
        read_policy_file(path)


def test_the_program_prints_one_json_decision_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    day = Day()
    day.proposal(START)
    day.traffic(range(1, 20), shadow_errors=0.6)
    monkeypatch.setattr("sys.argv", ["replay", "--events", str(day.write(tmp_path)), "--json"])
    assert main() == 0
    printed = [Decision.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    assert printed[0].kind == "genesis"
    assert printed[-1].kind == "abort"
