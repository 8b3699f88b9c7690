"""`docs/faults.md` from a run of the fault tests: `python -m tests.faults.report RESULTS.xml COUNTS.jsonl PAGE.md`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twinloop.kafka_jars.jars import KAFKA_VERSION

_HEAD = """# Faults: what was broken on purpose, and what was counted

Written by `make test-faults`: the shipped services as processes over a real Kafka and a real Redis of their own; users
ask meanwhile. *lost*: asked and neither answered nor dead-lettered. *doubled*: ended more than once. *stale*: answered
after a swap was acknowledged by the slot it put aside. *at work*: killed or frozen with a transaction open or a batch
not yet committed.
"""


def page(results: Path, counts: Path) -> str:
    """The page's text; raises OSError where a file is missing."""
    # Written by pytest a moment ago on this machine: no foreign input.
    cases = list(ElementTree.parse(results).iter("testcase"))
    counted = _counted(counts)
    took = sum(float(case.get("time", 0)) for case in cases) / 60
    lines = [
        _HEAD,
        f"{_machine()} {len(cases)} tests, {took:.0f} minutes.",
        "",
        "| test | s | outcome | counted |",
    ]
    lines.append("|---|---|---|---|")
    for case in cases:
        name = str(case.get("name"))
        facts = "; ".join(f"{key} {_shown(value)}" for key, value in counted.get(name, {}).items())
        lines.append(f"| {_sentence(name)} | {float(case.get('time', 0)):.0f} | {_outcome(case)} | {facts} |")
    return "\n".join(lines) + "\n"


def _counted(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row.pop("test")] = row
    return found


def _sentence(name: str) -> str:
    stem, _, parameter = name.partition("[")
    return stem.removeprefix("test_").replace("_", " ") + (f" ({parameter.rstrip(']')})" if parameter else "")


def _outcome(case: ElementTree.Element) -> str:
    if (skipped := case.find("skipped")) is not None:
        return f"skipped: {skipped.get('message', '')}"
    return "FAILED" if case.find("failure") is not None or case.find("error") is not None else "passed"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {each}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        # Without brackets, which would make references of a Markdown page.
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _machine() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return (
        f"Commit {commit.stdout.strip()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"confluent-kafka {version('confluent-kafka')}, Kafka {KAFKA_VERSION} from Maven jars."
    )


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(page(Path(sys.argv[1]), Path(sys.argv[2])), encoding="utf-8")
