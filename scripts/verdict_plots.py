"""Draws `docs/verdicts/*.svg` from the shipped functions: `python -m scripts.verdict_plots`. Seeded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from twinloop.statistics.canary_state import CanaryState, advance
from twinloop.statistics.ecusum import ECusumState, detect, evidence
from twinloop.statistics.gate_rows import gate_rows
from twinloop.statistics.latency import BINS, bins_of, sparse
from twinloop.statistics.policy import CanaryPolicy
from twinloop.statistics.tally import Arms, ArmTally, WindowTally
from twinloop.statistics.triggers import TriggerPolicy, trigger_specs

FOLDER = Path(__file__).parents[1] / "docs" / "verdicts"
WINDOWS, SHADOW, ACTIVE, SEED = 80, 30, 270, 42
Line = list[tuple[float, float]]
TRUTHS: dict[str, dict[str, dict[str, float]]] = {
    "error_margin": {"good: 4 %, as active": {}, "bad: 15 % against 4 %": {"error": 0.15}},
    "early_stop": {"good: 4 %, as active": {}, "bad: 10 % against 4 %": {"error": 0.10}},
    "p95": {"good: as fast as active": {}, "bad: 150 ms slower": {"shift": 150.0}},
    "toxicity": {"good: 1 % flagged": {}, "bad: 15 % flagged": {"toxic": 0.15}},
}
COLOURS = ("#1b7837", "#b2182b")


def histogram(values: Sequence[float]) -> tuple[tuple[int, float], ...]:
    return tuple(sparse(np.bincount(bins_of(values), minlength=BINS).astype(float)))


def arm(chance: np.random.Generator, units: int, *, error: float, shift: float, toxic: float) -> ArmTally:
    failed = int(chance.binomial(units, error))
    latencies = 200 * np.exp(0.5 * chance.standard_normal(units - failed)) + shift
    flagged = float(chance.binomial(units - failed, toxic))
    return ArmTally(
        queries=units,
        units=units,
        errors=float(failed),
        answered=units - failed,
        latency=histogram(latencies.tolist()),
        toxic=flagged,
        new_keys=units,
    )


def canary(gate: str, truth: Mapping[str, float]) -> dict[str, Line]:
    """log10 of a gate's e-values after each window, by kind."""
    chance, policy = np.random.default_rng(SEED), CanaryPolicy(warmup_units=0, domains=())
    healthy = {"error": 0.04, "shift": 0.0, "toxic": 0.01}
    before = 200 * np.exp(0.5 * chance.standard_normal(3000))
    base = np.bincount(bins_of(before.tolist()), minlength=BINS).astype(float)
    state = CanaryState.begin(policy, now=0.0, baseline=base)
    lines: dict[str, Line] = {}
    for number in range(WINDOWS):
        arms = Arms(active=arm(chance, ACTIVE, **healthy), shadow=arm(chance, SHADOW, **{**healthy, **truth}))
        window = WindowTally(start=number, end=number + 1, epoch=1, canary_bp=1000, total=arms)
        state = advance(policy, state, window, number + 1.0)
        for row in gate_rows(policy, state):
            if row.name == gate:
                at = ((number + 1) * SHADOW, row.log_e / math.log(10))
                lines.setdefault(row.kind, [(0.0, 0.0)]).append(at)
    return lines


def rollback(rate: float) -> Line:
    """log10 of the error detector's evidence; the fault begins at request 1000."""
    chance, spec = np.random.default_rng(SEED), trigger_specs(TriggerPolicy())["error"]
    state, line = ECusumState.start(spec), [(0.0, 0.0)]
    for number in range(200):
        state = detect(spec, state, 10.0, float(chance.binomial(10, 0.04 if number < 100 else rate)))
        line.append(((number + 1) * 10, float(evidence(state)) / math.log(10)))
    return line


def svg(title: str, lines: Mapping[str, tuple[Line, str, str]], *, threshold: float, across: str) -> str:
    """Named (points, colour, dash) over a dashed threshold; both axes linear, the evidence already a logarithm."""
    points = [point for line, _, _ in lines.values() for point in line]
    right, top, low = max(x for x, _ in points), threshold * 4, -2.0

    def place(x: float, y: float) -> str:
        return f"{50 + 560 * x / right:.1f},{30 + 200 * (top - min(max(y, low), top)) / (top - low):.1f}"

    edge = place(0, threshold).split(",")[1]
    body = [
        f'<text x="50" y="18" font-weight="bold">{title}</text>',
        f'<path d="M50 30V230H610" fill="none" stroke="#444"/><text x="260" y="248">{across}</text>',
        f'<text x="50" y="246">0</text><text x="610" y="246" text-anchor="end">{right:g}</text>',
        f'<path d="M50 {edge}H610" stroke="#444" stroke-dasharray="2 4"/>',
        f'<text x="2" y="{edge}">{10**threshold:g}</text><text x="2" y="{place(0, 0).split(",")[1]}">e = 1</text>',
    ]
    for number, (name, (line, colour, dash)) in enumerate(lines.items()):
        path = " ".join(place(x, y) for x, y in line)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>')
        body.append(
            f'<text x="60" y="{268 + 16 * number}" fill="{colour}">{"- - " if dash else "— "}{name}</text>'
        )
    height = 280 + 16 * len(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="640" height="{height}" fill="white"/>{"".join(body)}</svg>\n'
    )


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for gate, truths in TRUTHS.items():
        shown: dict[str, tuple[Line, str, str]] = {}
        for colour, (name, truth) in zip(COLOURS, truths.items(), strict=True):
            for kind, line in canary(gate, truth).items():
                shown[f"{name}: evidence to {kind}"] = (line, colour, "5 4" if kind == "promote" else "")
        drawn = svg(f"gate {gate}", shown, threshold=math.log10(20), across="shadow queries")
        (FOLDER / f"{gate}.svg").write_text(drawn, encoding="utf-8")
    watched = {
        "errors go from 4 to 30 % at request 1000": (rollback(0.30), COLOURS[1], ""),
        "errors stay at 4 %": (rollback(0.04), COLOURS[0], ""),
    }
    drawn = svg(
        "rollback trigger: error > 15 %", watched, threshold=4.0, across="answers of the active release"
    )
    (FOLDER / "rollback.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
