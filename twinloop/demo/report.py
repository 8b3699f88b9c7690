"""What a run of the demo measured: one JSON document, and a summary for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIN_GAIN = 0.3
MAX_OLD_LOSS = 0.05


@dataclass(frozen=True)
class Report:
    """The measured document and what in it is not as promised."""

    document: dict[str, Any]

    @property
    def problems(self) -> tuple[str, ...]:
        """Promises this run did not keep, one line each."""
        found = []
        document = self.document
        for count in ("lost", "duplicates"):
            if document[count] != 0:
                found.append(f"{count} is {document[count]}, not 0")
        if document["checks_learning"]:
            found += _learning_problems(document)
        else:
            found += _retrieval_problems(document)
        if document["accuracy_after_rollback"] != document["accuracy_before"]:
            found.append("the rollback did not restore the accuracy from before")
        must_hold = ["rollback_digests_equal", "rollback_probe_answers_equal"]
        must_hold += ["harmful_candidate_stopped"] if document["harm_tried"] else []
        for name in must_hold:
            if not document[name]:
                found.append(f"{name} is false")
        if document.get("recount_equal") is False:
            found.append("a recount from console consumers differs from this report")
        return tuple(found)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "report.json"
        path.write_text(
            json.dumps({**self.document, "problems": list(self.problems)}, indent=2) + "\n", encoding="utf-8"
        )
        return path

    def summary(self) -> list[str]:
        """What a person wants to know, a line each."""
        d = self.document
        lines = [
            f"{d['queries_sent']} queries, {d['answers']} answers, {d['errors']} told errors, "
            f"{d['dead_letters']} dead letters, {d['lost']} lost, {d['duplicates']} answered twice",
            f"new facts answered right: {_change(d['accuracy_before'], d['accuracy_after'])}, "
            f"after the rollback {d['accuracy_after_rollback']:.0%}",
            f"  by the adapters alone {_pair(d['accuracy_adapter_only'])}, "
            f"by the indexes alone {_pair(d['accuracy_index_only'])}, old facts {_pair(d['accuracy_old_facts'])}",
            f"swap {d['swap_ms']:.1f} ms, rollback {d['rollback_ms']:.1f} ms, "
            "from the start of the one Redis write until the last router acted on it",
            f"a release was proposed {d['feedback_to_proposal_s']:.0f} s after the first correction was sent",
            f"harmful candidates stopped: {', '.join(map(_harm, d['harmful_candidates'])) or 'none was tried'}",
            f"rollback: digests equal {_yes(d['rollback_digests_equal'])}, "
            f"answers to the probe set equal {_yes(d['rollback_probe_answers_equal'])}",
        ]
        if "retrieval_hit_rate" in d:
            lines.append("retrieval hit rate: " + "; ".join(_hits(d["retrieval_hit_rate"])))
        return [*lines, *(f"NOT AS PROMISED: {problem}" for problem in self.problems)]


def _learning_problems(document: dict[str, Any]) -> list[str]:
    found = []
    total = document["accuracy_after"] - document["accuracy_before"]
    adapter = document["accuracy_adapter_only"]["after"] - document["accuracy_adapter_only"]["before"]
    for name, gain in (("accuracy", total), ("accuracy_adapter_only", adapter)):
        if gain < MIN_GAIN:
            found.append(f"{name} rose by {gain:.2f}, less than {MIN_GAIN}")
    old = document["accuracy_old_facts"]
    if old["after"] < old["before"] - MAX_OLD_LOSS:
        found.append(f"old facts fell from {old['before']:.2f} to {old['after']:.2f}")
    return found


def _retrieval_problems(document: dict[str, Any]) -> list[str]:
    rates = document["retrieval_hit_rate"]
    before, after = rates["before"]["at_1"], rates["after"]["at_1"]
    return [
        f"retrieval hit rate of {domain} did not rise: {before[domain]:.2f} -> {after[domain]:.2f}"
        for domain in before
        if after[domain] <= before[domain]
    ]


def _change(before: float, after: float) -> str:
    return f"{before:.0%} -> {after:.0%}"


def _pair(values: dict[str, float]) -> str:
    return _change(values["before"], values["after"])


def _harm(candidate: dict[str, Any]) -> str:
    return f"{candidate['harm']} ({candidate['kind']}: {candidate['reason']})"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _hits(rates: dict[str, Any]) -> list[str]:
    before, after = rates["before"]["at_1"], rates["after"]["at_1"]
    return [f"{domain} {before[domain]:.0%} -> {after[domain]:.0%}" for domain in before]
