"""`docs/performance.md` from the stored results: `python -m benchmarks.page`; only the words are written by hand."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_file import FOLDER

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
HEAD = """# Performance: routing, swaps and availability

Every figure is a benchmark's own, recomputed from its samples by `python -m benchmarks.result_file`, and this page is
written from the results by `python -m benchmarks.page`. They run the shipped classes on the shipped configuration, on a
real Kafka and a real Redis of their own where the section does not say otherwise. Repeat one with `make bench NAME=…`
(a few minutes each, `availability` eleven). Two shared virtual cores carry broker, Redis, services and load generator
together: ratios travel to other machines, milliseconds do not. Learning is on [its own page](learning.md), the gates'
error rates are in [verdicts](verdicts.md); `make test-faults` breaks things on purpose and writes [faults](faults.md).
"""
WORDS: Mapping[str, str] = {
    "propagation": """
        From the start of the one Redis write until the last of 1, 10, 100 reader processes has routed
        its first batch by the new epoch; each runs the shipped state reader, signature check included.
        No broker. The control looks every 50 ms.
        `floor_ms_100` is what one look of a hundred readers takes of two cores that do nothing else: a
        process that wakes after 20 ms finds its caches cold. Looking more often would make that worse,
        and a quarter of the control's time needs more cores. A hint pushed beside the looks would not
        help here: even if it woke all hundred at once, each has its look still to make, so the floor
        stays; it is above a quarter of the control's time.
    """,
    "router": """
        One router process on a preloaded topic against a bare loop that sends every record on as it is:
        same client, broker, settings, transactions. The router parses, verifies the state, drops
        duplicates, assigns, chooses the domain, stamps, writes assignment rows and seen ids; it decides the
        next batch while Kafka commits the last. What is left between it and the bare loop: two keyed hashes,
        JSON in and out and the domain's words, each one native call a query already, and in librdkafka the
        larger record with two headers more. More rate comes from more partitions and processes.
        `end_to_end`: from publishing a query, at 200 a second, to reading it, committed, behind the router and
        behind the bare loop; half the commit interval and a commit are in both. For reference, the same records
        over aiokafka's transactions, and over faust, which commits offsets after its records: at least once.
    """,
    "commit_interval": """
        What the router's transactions cost: a query is seen behind it once its transaction is committed.
        From publishing a query to reading it, committed, from the slot's topic, at 200 a second, and the
        rate at which a full topic is worked off, for commits every 5 to 400 ms. The shipped interval is
        the longest that users do not notice beside an answer.
    """,
    "freshness": """
        What reading the state anew for every batch of 64 costs, against routing by one state in memory.
    """,
    "swap_under_load": """
        Stretches without and with swaps (a write every two seconds) take turns; then swaps follow each
        other quickly, fifteen of them across a frozen router. `stale`: asked after a swap was
        acknowledged and routed by a lower epoch. `control_stale`: answers that a worker's fence sent on,
        each of which would have been wrong without it.
    """,
    "rollback": """
        From before the order is signed to the time Kafka gave to the last answer of the bad release; the
        order is sent as the command line sends it, by a process that has not spoken to Kafka yet. An
        idempotent producer's id alone, which librdkafka asks for after 500 ms, took more than all the
        rest: an order does without, its nonce makes a second copy harmless.
    """,
    "availability": """
        Three brokers, two routers, two workers a slot, 15 queries a second with a deadline of 10 s, twelve
        faults of ten kinds, one every 51 s. A second is down where a query asked in it was not answered
        within 2 s. What was killed, or ended because Kafka fenced it, is started again at once, as every
        supervisor does: `restarts` counts both.
    """,
    "gatekeeper": """
        Outcomes a second that the gatekeeper's tally stage takes from the topic, and the time to fold a
        window.
    """,
    "auto_rollback": """
        From the onset of a fault in the active release to its last bad answer, at 100 queries a second.
    """,
}
_GOAL = re.compile(r"(<=|>=|<|>)?\s*(\d[\d.]*)")


def page() -> str:
    """The page's text; a benchmark without a result says so."""
    parts = [HEAD]
    for name, words in WORDS.items():
        path = FOLDER / f"{name}.json"
        parts.append(f"## {name}\n\n{textwrap.fill(' '.join(words.split()), 120)}\n")
        parts.append(_table(json.loads(path.read_text())) if path.exists() else "Not measured yet.\n")
    return "\n".join(parts)


def _table(result: Mapping[str, Any]) -> str:
    machine, goals = result["machine"], result["goals"]
    lines = [
        f"Commit {str(result['commit'])[:12]}, {machine['cores']} cores, load before {machine['load'][0]}, "
        f"Python {machine['python']}{_libraries(machine)}.",
        "",
        "| figure | measured | goal | |",
        "|---|---|---|---|",
    ]
    for name, value in result["figures"].items():
        goal = goals.get(name, "")
        lines.append(f"| `{name}` | {_shown(value)} | {goal} | {_verdict(value, goal)} |")
    return "\n".join(lines) + "\n"


def _verdict(value: object, goal: str) -> str:
    found = _GOAL.match(goal)
    if found is None or not isinstance(value, int | float):
        return ""
    sign, limit = found[1] or "=", float(found[2])
    is_met = {
        "<=": value <= limit,
        ">=": value >= limit,
        "<": value < limit,
        ">": value > limit,
        "=": value == limit,
    }[sign]
    return "met" if is_met else "**missed**"


def _libraries(machine: Mapping[str, Any]) -> str:
    return "".join(f", {name} {version}" for name, version in machine.get("libraries", {}).items())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, float):
        return (
            f"{value:.4f}" if 0.99 < value < 1 else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        )
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
