"""Draws `docs/verdicts/*.svg` from the shipped functions: `python -m scripts.verdict_plots`. Seeded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binom

from twinloop.statistics.canary_state import CanaryState, advance
from twinloop.statistics.ecusum import ECusumState, detect, evidence
from twinloop.statistics.gate_rows import gate_rows
from twinloop.statistics.latency import BINS, bins_of, sparse
from twinloop.statistics.policy import CanaryPolicy
from twinloop.statistics.qa import ProbeResult, QaKind, QaPolicy, judge_exam
from twinloop.statistics.ratings import RatedArms, RatingRule, RatingState, rate, rating_row
from twinloop.statistics.srm import SrmState, count_keys
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


def ratings(down: float) -> Line:
    """log10 of the guardrail's evidence against a shadow this share of whose keys rate it down; active: 20 %."""
    chance, rule = np.random.default_rng(SEED), RatingRule(0.15, 0.01, suspicion=0.05, min_rated=0)
    state, line = RatingState.begin(rule), [(0.0, 0.0)]
    for number in range(WINDOWS):
        counts = RatedArms(5.0, float(chance.binomial(5, down)), 45.0, float(chance.binomial(45, 0.2)))
        state = rate(rule, state, partition=0, start=float(number), epoch=1, counts=counts)
        line.append(((number + 1) * 5.0, rating_row(rule, state).log_e / math.log(10)))
    return line


def key_split(share: float) -> Line:
    """log10 of the evidence against 10 % while this share of new keys reaches the shadow."""
    chance, state, line = np.random.default_rng(SEED), SrmState(), [(0.0, 0.0)]
    for number in range(100):
        shadow = int(chance.binomial(100, share))
        state = count_keys(state, epoch=1, canary_bp=1000, shadow=shadow, active=100 - shadow)
        line.append(((number + 1) * 100.0, state.log_e / math.log(10)))
    return line


def examination(probes: int) -> Line:
    """Chance of passing a dry run of so many probes, by the true share of right answers in per cent."""
    names, policy = [str(number) for number in range(probes)], QaPolicy(min_probes=1)

    def passes(right: int) -> bool:
        results = (
            ProbeResult(name, ok=True, correct=number < right, toxic=False, latency_ms=1.0)
            for number, name in enumerate(names)
        )
        return judge_exam(policy, names, results).kind is QaKind.PASS

    enough = next(right for right in range(probes + 1) if passes(right))
    return [(float(x), float(binom.sf(enough - 1, probes, x / 100))) for x in range(101)]


def svg(
    title: str,
    lines: Mapping[str, tuple[Line, str, str]],
    *,
    across: str,
    low: float,
    top: float,
    marks: Mapping[float, str],
) -> str:
    """Named (points, colour, dash) over named heights, of which the first is dashed; both axes are linear."""
    points = [point for line, _, _ in lines.values() for point in line]
    right = max(x for x, _ in points)

    def place(x: float, y: float) -> str:
        return f"{50 + 560 * x / right:.1f},{30 + 200 * (top - min(max(y, low), top)) / (top - low):.1f}"

    heights = {name: place(0, y).split(",")[1] for y, name in marks.items()}
    edge = next(iter(heights.values()))
    body = [
        f'<text x="50" y="18" font-weight="bold">{title}</text>',
        f'<path d="M50 30V230H610" fill="none" stroke="#444"/><text x="260" y="248">{across}</text>',
        f'<text x="50" y="246">0</text><text x="610" y="246" text-anchor="end">{right:g}</text>',
        f'<path d="M50 {edge}H610" stroke="#444" stroke-dasharray="2 4"/>',
        *(f'<text x="2" y="{y}">{name}</text>' for name, y in heights.items()),
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


def evidence_svg(
    title: str, lines: Mapping[str, tuple[Line, str, str]], *, threshold: float, across: str
) -> str:
    """Logarithms of evidence under the e-value that decides."""
    top, marks = math.log10(threshold) * 4, {math.log10(threshold): f"{threshold:g}", 0.0: "e = 1"}
    return svg(title, lines, across=across, low=-2.0, top=top, marks=marks)


def good_and_bad(good: tuple[str, Line], bad: tuple[str, Line]) -> dict[str, tuple[Line, str, str]]:
    return {good[0]: (good[1], COLOURS[0], ""), bad[0]: (bad[1], COLOURS[1], "")}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for gate, truths in TRUTHS.items():
        shown: dict[str, tuple[Line, str, str]] = {}
        for colour, (name, truth) in zip(COLOURS, truths.items(), strict=True):
            for kind, line in canary(gate, truth).items():
                shown[f"{name}: evidence to {kind}"] = (line, colour, "5 4" if kind == "promote" else "")
        drawn = evidence_svg(f"gate {gate}", shown, threshold=20, across="shadow queries")
        (FOLDER / f"{gate}.svg").write_text(drawn, encoding="utf-8")
    others = {
        "rollback": evidence_svg(
            "rollback trigger: error > 15 %",
            good_and_bad(
                ("errors stay at 4 %", rollback(0.04)),
                ("errors go from 4 to 30 % at request 1000", rollback(0.30)),
            ),
            threshold=10_000,
            across="answers of the active release",
        ),
        "ratings": evidence_svg(
            "users' thumbs: evidence to abort",
            good_and_bad(
                ("good: 20 % rate down, as active", ratings(0.2)), ("bad: 60 % against 20 %", ratings(0.6))
            ),
            threshold=100,
            across="rated keys of the shadow",
        ),
        "key_split": evidence_svg(
            "split of keys: evidence that it is not the intended 10 %",
            good_and_bad(("10 % of keys reach the shadow", key_split(0.1)), ("8 %", key_split(0.08))),
            threshold=1000,
            across="unique keys",
        ),
        "examination": svg(
            "QA dry run: chance of passing",
            good_and_bad(("200 probes, as shipped", examination(200)), ("50 probes", examination(50))),
            across="true share of right answers, per cent",
            low=0.0,
            top=1.0,
            marks={0.5: "50 %", 1.0: "100 %"},
        ),
    }
    for name, drawn in others.items():
        (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
