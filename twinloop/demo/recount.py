"""A second count of a demo run, from what Kafka's own console consumer printed: `python -m twinloop.demo.recount DIR`.

`capture` lets plain console consumers write every record of three topics into a folder; `recount` works the figures out
again from those files and the list of expected answers alone, and `differences` compares them with the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinloop.demo.material import Question
from twinloop.demo.scoring import is_right
from twinloop.errors import ConfigError, Transient
from twinloop.kafka_jars.jars import fetch_tools
from twinloop.topics import DEAD_LETTERS, TopicCatalogue

CAPTURED = ("queries", "answers", DEAD_LETTERS)
EXPECTED = "expected.jsonl"
_CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
_IDLE_MS = 5000
_LABELS = {
    "before-new": "accuracy_before",
    "after-new": "accuracy_after",
    "rolled-back-new": "accuracy_after_rollback",
}


def capture(bootstrap_servers: str, topics: TopicCatalogue, folder: Path) -> None:
    """Write one file a topic, a record's value a line, with the console consumer; raises Transient where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for topic in CAPTURED:
        with (folder / f"{topic}.jsonl").open("wb") as output:
            ended = subprocess.run(
                _command(bootstrap_servers, topics.name(topic)),
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=120,
                check=False,
            )
        if ended.returncode != 0:
            raise Transient(f"the console consumer of {topics.name(topic)} failed: {ended.stderr[-500:]!r}")


def write_expected(folder: Path, asked: Mapping[str, Question]) -> None:
    """Write the answer each measured query should have had, a line each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        json.dumps({"query_id": query_id, "expected": question.expected}) + "\n"
        for query_id, question in sorted(asked.items())
    ]
    (folder / EXPECTED).write_text("".join(rows), encoding="utf-8")


def recount(folder: Path) -> dict[str, Any]:
    """The report's counts and accuracies, from the files in `folder`; raises ConfigError naming a missing one."""
    queries = {row["id"] for row in _rows(folder / "queries.jsonl")}
    answers = [row for row in _rows(folder / "answers.jsonl") if row["query_id"] in queries]
    dead = len(_rows(folder / f"{DEAD_LETTERS}.jsonl"))
    expected = {row["query_id"]: row["expected"] for row in _rows(folder / EXPECTED)}
    received = Counter(row["query_id"] for row in answers)
    texts = {row["query_id"]: row.get("text") for row in reversed(answers)}
    first = {row["query_id"]: row for row in reversed(answers)}
    errors = sum(1 for row in first.values() if row.get("error") is not None)
    return {
        "queries_sent": len(queries),
        "answers": len(first) - errors,
        "errors": errors,
        "dead_letters": dead,
        "lost": max(0, len(queries) - len(first) - dead),
        "duplicates": sum(count - 1 for count in received.values()),
        **{name: _accuracy(label, expected, texts) for label, name in _LABELS.items()},
        "accuracy_old_facts": {
            when: _accuracy(f"{when}-old", expected, texts) for when in ("before", "after")
        },
    }


def differences(report: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[str, ...]:
    """One line for each figure that differs."""
    return tuple(
        f"{name}: the report says {report[name]}, console consumers say {value}"
        for name, value in again.items()
        if report[name] != value
    )


def _accuracy(label: str, expected: Mapping[str, str | None], texts: Mapping[str, str | None]) -> float:
    ids = [query_id for query_id in expected if query_id.rpartition("-")[0] == label]
    right = [is_right(texts.get(query_id), expected[query_id]) for query_id in ids]
    return sum(right) / len(right) if right else 0.0


def _command(bootstrap_servers: str, topic: str) -> list[str]:
    return fetch_tools().command(
        _CONSOLE_CONSUMER,
        "--bootstrap-server",
        bootstrap_servers,
        "--topic",
        topic,
        "--from-beginning",
        "--isolation-level",
        "read_committed",
        "--timeout-ms",
        str(_IDLE_MS),
        heap_mb=256,
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); run the demo with PROFILE=kafka first"
        ) from error
    return [json.loads(line) for line in lines]


def main(arguments: Sequence[str]) -> int:
    """Print the figures of DIR/console and how they differ from DIR/report.json; returns 1 where they do."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m twinloop.demo.recount build/demo\n")
        return 2
    folder = Path(arguments[0])
    again = recount(folder / "console")
    found = differences(json.loads((folder / "report.json").read_text(encoding="utf-8")), again)
    sys.stdout.write(json.dumps(again, indent=2) + "\n" + "".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
