"""How often the canary rule is wrong, and how soon it is right: `python -m benchmarks.canary [--quick]`.

Every scenario is judged on the same traffic by four judges: the shipped rule; the naive one (literal limits, stop
at twice the error from 100 shadow queries, promote at 1000); Fisher's test at every look; and a Mann-Whitney judge
over points in the manner of Kayenta. The latter three decide at 1000 shadow queries at the latest. Then come the
single claims: type I error at the very edge, ramps, sticky keys, hung requests, key split, rollback, cost.
Writes `benchmarks/results/canary.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np

from benchmarks.canary_claims import SECTIONS
from benchmarks.canary_judges import BASE, JUDGES, SEED, Figures, summary
from twinloop.statistics.gates import CanaryPolicy
from twinloop.statistics.simulation import ABORTED, PROMOTED, Scenario, simulate

RESULTS = Path(__file__).parent / "results" / "canary.json"
STOP_LIMITS = (20, 100, 120, 250, 850, 1700, 1800, 9000)
"""Shadow queries within which the acceptance tests want 95 % of the runs of one scenario or another stopped."""
RECORDED = 125
"""Windows kept for the other judges: 1000 shadow queries at 10 %, with room."""

SHORT = (
    Scenario("A/A 4 %"),
    Scenario("A/A 0.2 %", error_s=0.002, error_a=0.002),
    Scenario("A/A 4 %, canary 5 %", share=0.05),
    Scenario("4 -> 6 %", error_s=0.06),
    Scenario("4 -> 12 %", error_s=0.12),
    Scenario("4 -> 15 %", error_s=0.15),
    Scenario("4 -> 20 %", error_s=0.20),
    Scenario("4 -> 30 %", error_s=0.30),
    Scenario("4 -> 100 %", error_s=1.0),
    Scenario("10 -> 20 %", error_s=0.20, error_a=0.10),
    Scenario("10 -> 25 %", error_s=0.25, error_a=0.10),
    Scenario("2 -> 6 %", error_s=0.06, error_a=0.02),
    Scenario("p95 +150 ms", shift_ms=150.0),
    Scenario("toxicity 8 %", toxic_s=0.08),
    Scenario("toxicity 20 %", toxic_s=0.20),
)
LONG = (
    Scenario("A/A 4 %, canary 1 %", share=0.01),
    Scenario("4 -> 9 %", error_s=0.09),
    Scenario("p95 +30 ms", shift_ms=30.0),
    Scenario("p95 +50 ms (edge)", shift_ms=50.0),
    Scenario("p95 +80 ms", shift_ms=80.0),
    Scenario("toxicity 5 % (edge)", toxic_s=0.05),
)


def scenario_figures(policy: CanaryPolicy, scenario: Scenario, runs: int, seed: int) -> Figures:
    """One row of the table: four judges on the same streams."""
    record = RECORDED if scenario.share == 0.1 else 0
    result = simulate(policy, scenario, runs=runs, rng=np.random.default_rng(seed), record=record)
    row: Figures = {"runs": runs, "twinloop": summary(result.decision, result.units)}
    row["twinloop"]["promoted_by_5000"] = float(
        np.mean((result.decision == PROMOTED) & (result.units <= 5000))
    )
    row["twinloop"]["stopped_by"] = {
        f"{limit:g}": float(np.mean((result.decision == ABORTED) & (result.units <= limit)))
        for limit in STOP_LIMITS
    }
    for name, other in JUDGES.items():
        if record:
            row[name] = other(result, policy)
    return row


def _cell(figures: Figures | None) -> str:
    if figures is None:
        return "-".center(30)
    units = "-" if figures["n_median"] is None else f"{figures['n_median']:.0f} ({figures['n_p95']:.0f})"
    shares = "/".join(f"{100 * figures[key]:.1f}" for key in ("abort", "promote", "inconclusive"))
    return f"{shares:>17} {units:>12}"


def scenario_table(scale: float) -> Figures:
    """All scenarios; prints a line per scenario."""
    print(
        f"abort/promote/inconclusive %, median (p95) shadow queries\n{'scenario':22} {'twinloop':^30} {'naive':^30} "
        f"{'Fisher per peek':^30} {'Mann-Whitney':^30}"
    )
    table: Figures = {}
    plan = [(s, BASE, 1000) for s in SHORT] + [(s, BASE, 300) for s in LONG]
    plan.append((Scenario("A/A 4 %, warm-up 50"), CanaryPolicy(), 1000))
    plan.append((Scenario("A/A 4 %, no CI path"), replace(BASE, ci_width=0.0), 1000))
    for number, (scenario, policy, runs) in enumerate(plan):
        row = scenario_figures(policy, scenario, max(int(runs * scale), 20), SEED + number)
        table[scenario.name] = row
        cells = " ".join(_cell(row.get(name)) for name in ("twinloop", *JUDGES))
        print(f"{scenario.name:22} {cells}", flush=True)
    return table


def _at_most(share: float, limit: float, runs: int) -> bool:
    """Whether a measured share agrees with a limit: three standard errors of the run count are allowed."""
    return share <= limit + 3.0 * sqrt(limit * (1.0 - limit) / runs)


def _goals(scenarios: Figures, claims: Figures) -> Figures:
    """The acceptance limits and whether this run kept them."""
    rows = {name: {**row["twinloop"], "runs": row["runs"]} for name, row in scenarios.items()}

    def share(name: str, kind: str, limit: float) -> bool:
        return _at_most(rows[name][kind], limit, rows[name]["runs"])

    def units(name: str, limit: float) -> bool:
        return _at_most(1.0 - rows[name]["stopped_by"][f"{limit:g}"], 0.05, rows[name]["runs"])

    def late(name: str) -> bool:
        return _at_most(
            1.0 - rows[name]["promoted_by_5000"], 0.02 if name == "A/A 4 %" else 0.05, rows[name]["runs"]
        )

    edge, sticky, hung = claims["edge"], claims["sticky keys"], claims["hung requests"]
    split, rollback = claims["key split"], claims["rollback"]
    aa = ("A/A 0.2 %", "A/A 4 %, canary 1 %", "A/A 4 %, canary 5 %")
    return {
        "1 A/A: abort <= 5 %, promoted by 5000 >= 98 %, median <= 1200": share("A/A 4 %", "abort", 0.05)
        and late("A/A 4 %")
        and rows["A/A 4 %"]["n_median"] <= 1200,
        "2 A/A at 0.2 %, at canary 1 % and 5 %: abort <= 1 %": all(share(name, "abort", 0.01) for name in aa),
        "3 6 %: abort <= 5 %, promoted by 5000 >= 95 %": share("4 -> 6 %", "abort", 0.05)
        and late("4 -> 6 %"),
        "4 9 %: promote <= 5 %": share("4 -> 9 %", "promote", 0.05),
        "5 12 %: promote <= 5 %, p95 <= 1800": share("4 -> 12 %", "promote", 0.05)
        and units("4 -> 12 %", 1800),
        "6 20/30/100 %: p95 <= 250/100/20": units("4 -> 20 %", 250)
        and units("4 -> 30 %", 100)
        and units("4 -> 100 %", 20),
        "7 p95 +150: p95 <= 850; +80: promote <= 5 %, p95 <= 9000; +50: decided <= 10 %": units(
            "p95 +150 ms", 850
        )
        and share("p95 +80 ms", "promote", 0.05)
        and units("p95 +80 ms", 9000)
        and _at_most(
            1.0 - rows["p95 +50 ms (edge)"]["inconclusive"], 0.10, rows["p95 +50 ms (edge)"]["runs"]
        ),
        "8 toxicity 8 %: p95 <= 1700; 20 %: <= 120; 5 %: promote, abort <= 5 %": units("toxicity 8 %", 1700)
        and units("toxicity 20 %", 120)
        and share("toxicity 5 % (edge)", "promote", 0.05)
        and share("toxicity 5 % (edge)", "abort", 0.05),
        "9 edges: crossing <= nominal": all(
            _at_most(value, 0.0125 if "2x" in name else 0.05, edge["runs"])
            for name, value in edge.items()
            if name != "runs"
        ),
        "11 ramp: abort <= 1 %, pooled test flags > 90 %": _at_most(
            claims["ramp"]["A/A aborts"], 0.01, claims["ramp"]["runs"]
        )
        and claims["ramp"]["pooled z-test flags"] > 0.9,
        "12 sticky keys counted once: A/A aborts <= 1 %, 9 % edge promotes <= 5 %": _at_most(
            sticky["spread, key once: A/A aborts (2x)"], 0.01, sticky["runs"]
        )
        and _at_most(sticky["spread, key once: promote at the 9 % edge"], 0.05, sticky["runs"])
        and _at_most(sticky["burst, key mean: promote at the 9 % edge"], 0.05, sticky["runs"]),
        "13 hung requests: none promoted by assignment, all by arrival": hung["by assignment: promoted"]
        == 0.0
        and hung["by arrival: promoted"] == 1.0,
        "14 key split: 8 % held by 10,000 keys >= 95 %, 10 % held <= 0.1 %": split[
            "8% for 10 %: held within 10,000 keys"
        ]
        >= 0.95
        and _at_most(split["10% for 10 %: held within 100,000 keys"], 0.001, split["runs"]),
        "17 rollback: no alarm at 8 %, 30 % seen within 260, 100 % within 10": rollback["false alarms at 8%"]
        == 0.0
        and rollback["delay 4 -> 30%: p95"] <= 260
        and rollback["delay 4 -> 100%: p95"] <= 10,
        "19 cost <= 10 ms per window": claims["cost"]["ms per window of 1000: median"] <= 10.0,
    }


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Run everything, print it and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs (one CPU minute)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="this share of the runs (1.0: ten CPU minutes)"
    )
    chosen = parser.parse_args()
    scale = 0.1 if chosen.quick else chosen.scale
    begun = time.process_time()
    scenarios = scenario_table(scale)
    claims: Figures = {}
    for name, section in SECTIONS.items():
        claims[name] = section(scale)
        print(f"\n{name}")
        for key, value in claims[name].items():
            print(f"  {key}: {value}", flush=True)
    goals = _goals(scenarios, claims)
    print("\ngoals")
    for name, held in goals.items():
        print(f"  {'held  ' if held else 'MISSED'} {name}")
    record = {
        "name": "canary",
        "commit": _commit(),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
        "seeds": {"first": SEED},
        "samples": {name: row["runs"] for name, row in scenarios.items()},
        "scale": scale,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "figures": {"scenarios": scenarios, "claims": claims},
        "goals": {name: bool(held) for name, held in goals.items()},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"\n{record['cpu_seconds']} CPU seconds; written to {RESULTS}")


if __name__ == "__main__":
    main()
