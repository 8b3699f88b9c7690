"""What updates forget, and what each defence is worth: `python -m benchmarks.forgetting [--quick]`.

A. Eight updates of 16 facts, through the four domains twice. R[i][j] is the share of exact closed-book answers about
   update j's facts after update i, over the phrasings taught and one that no update holds; every domain is asked under
   the adapter that would serve it (routing is taken as right). Naive is one adapter for everything, fine-tuned on each
   update alone; then each defence by itself, then the shipped combination.
B. One domain, four updates of 16 facts, and a buffer that may hold 16 facts only: the honest, hard case.
Every method gets the same number of steps and no early stop. Forgetting counts only where learning accuracy stays high:
a strong penalty that learns nothing forgets nothing. Writes `benchmarks/results/forgetting.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.learning_setup import SEEDS, Bench, bank_facts, new_facts, probe_facts, table, write_result
from services.trainer.core.replay_buffer import BufferState, ReplayPolicy, open_buffer
from services.trainer.core.rows import ReplayRow
from services.trainer.learning.dataset import Example
from services.trainer.learning.evaluation import Forgetting, forgetting_of
from services.trainer.learning.lora_update import Parent
from services.trainer.learning.replay_batches import NO_ROWS, Rows
from services.trainer.learning.settings import LearningSettings
from twinloop.foundation_training.corpus import HELD_OUT_PHRASINGS, UPDATE_PHRASINGS, Fact

DOMAINS = ("law", "med", "fin", "gen")
FACTS_PER_UPDATE = 16
STEPS = 45
ASKED = (*UPDATE_PHRASINGS, HELD_OUT_PHRASINGS[0])
GOALS = {"reduction": 0.42, "learning_accuracy": 0.95}


@dataclass(frozen=True)
class Method:
    """A set of defences."""

    name: str
    isolated: bool = False
    """One adapter a domain instead of one for all."""
    replay: bool = False
    buffer_facts: int = 10_000
    ewc: bool = False
    general: bool = False


NAIVE = Method("naive: one adapter, nothing else")
SHIPPED = Method("shipped: all four", isolated=True, replay=True, ewc=True, general=True)
ACROSS = (
    NAIVE,
    Method("EWC alone", ewc=True),
    Method("replay alone", replay=True),
    Method("adapter a domain alone", isolated=True),
    Method("adapter a domain, replay, EWC", isolated=True, replay=True, ewc=True),
    SHIPPED,
)
BOUNDED = (
    NAIVE,
    Method("EWC alone", ewc=True),
    Method("replay, 16 facts kept", replay=True, buffer_facts=16),
    Method("shipped, 16 facts kept", isolated=True, replay=True, buffer_facts=16, ewc=True, general=True),
    Method("shipped, every fact kept", isolated=True, replay=True, ewc=True, general=True),
)


@dataclass(frozen=True)
class Course:
    """One method over one series of updates."""

    summary: Forgetting
    matrix: list[list[float]]
    grounded: float
    """Answers from a passage, mean over the domains in the series, after the last update."""
    bank: float
    """What the foundation knew by heart, likewise."""
    cpu_seconds: float

    def row(self, name: str, naive: Course | None) -> dict[str, Any]:
        reduced = None if naive is None or not naive.summary.forgetting else _reduction(self, naive)
        return {
            "method": name,
            "accuracy": self.summary.accuracy,
            "learning": self.summary.learning_accuracy,
            "forgetting": self.summary.forgetting,
            "BWT": self.summary.backward_transfer,
            "against naive": None if not reduced else -reduced,
            "passages": self.grounded,
            "bank": self.bank,
            "CPU s": round(self.cpu_seconds, 1),
        }


def series(seed: int, domains: Sequence[str]) -> list[tuple[Fact, ...]]:
    """Facts of each update; no entity or document id comes twice."""
    updates: list[tuple[Fact, ...]] = []
    for number, domain in enumerate(domains):
        known = [fact for facts in updates for fact in facts]
        updates.append(new_facts(1000 * seed + number, domain, FACTS_PER_UPDATE, avoid=known))
    return updates


def course(bench: Bench, method: Method, updates: Sequence[Sequence[Fact]], *, seed: int) -> Course:
    """Run the updates one after the other and ask about all earlier ones each time."""
    settings = LearningSettings(max_steps=STEPS, evaluate_every=STEPS + 1, evaluation_rows=1)
    settings = settings if method.ewc else replace(settings, ewc_lambda=0.0, fisher_samples=0)
    adapters: dict[str, Parent] = {}
    buffers: dict[str, dict[str, Fact]] = {}
    states: dict[str, BufferState] = {}
    matrix: list[list[float]] = []
    spent = 0.0
    asked = [bench.closed(facts, ASKED) for facts in updates]
    for number, facts in enumerate(updates):
        slot = facts[0].domain if method.isolated else "all"
        seen, state = buffers.setdefault(slot, {}), states.setdefault(slot, BufferState())
        trained = bench.train(
            bench.lesson(facts),
            seed=seed + number,
            settings=settings,
            replay=_rehearsed(bench, state, seen) if method.replay else NO_ROWS,
            general=bench.general(facts[0].domain)[0] if method.general else NO_ROWS,
            parent=adapters.get(slot),
        )
        spent += trained.cpu_seconds
        adapters[slot] = trained.parent if method.ewc else Parent(trained.update.files)
        seen.update({fact.document_id: fact for fact in facts})
        open_buffer(ReplayPolicy(max_rows=method.buffer_facts, seed=seed), state).add(map(buffered, facts))
        matrix.append(
            [_asked(bench, method, adapters, updates[j][0].domain, asked[j]) for j in range(number + 1)]
        )
    served = sorted({facts[0].domain for facts in updates})
    return Course(
        summary=forgetting_of(matrix),
        matrix=matrix,
        grounded=_mean_of(
            served, lambda d: _asked(bench, method, adapters, d, bench.grounded(probe_facts(d, 64)))
        ),
        bank=_mean_of(
            served, lambda d: _asked(bench, method, adapters, d, bench.closed(bank_facts(d), (0, 3)))
        ),
        cpu_seconds=spent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed; naive and shipped only")
    quick = parser.parse_args().quick
    seeds = SEEDS[:1] if quick else SEEDS
    bench = Bench()
    across: dict[str, list[Course]] = {}
    bounded: dict[str, list[Course]] = {}
    for seed in seeds:
        for methods, domains, found in ((ACROSS, DOMAINS * 2, across), (BOUNDED, ("law",) * 4, bounded)):
            chosen = [methods[0], methods[-1] if methods is ACROSS else methods[-2]] if quick else methods
            updates = series(seed, domains)
            for method in chosen:
                started = time.monotonic()
                done = course(bench, method, updates, seed=seed)
                found.setdefault(method.name, []).append(done)
                print(f"seed {seed}, {method.name}: {time.monotonic() - started:.0f} s", flush=True)
    table(
        f"A. eight updates of {FACTS_PER_UPDATE} facts over four domains, mean of {len(seeds)} seeds",
        [_mean(courses).row(name, _mean(across[NAIVE.name])) for name, courses in across.items()],
    )
    table(
        f"B. four updates of {FACTS_PER_UPDATE} facts in one domain, mean of {len(seeds)} seeds",
        [_mean(courses).row(name, _mean(bounded[NAIVE.name])) for name, courses in bounded.items()],
    )
    write_result("forgetting", _document(across, bounded, seeds), quick=quick)


def _document(
    across: Mapping[str, list[Course]], bounded: Mapping[str, list[Course]], seeds: Sequence[int]
) -> dict[str, Any]:
    naive, ours = _mean(across[NAIVE.name]), _mean(across[SHIPPED.name])
    tight_naive, tight = _mean(bounded[NAIVE.name]), _mean(bounded["shipped, 16 facts kept"])
    return {
        "seeds": list(seeds),
        "samples": {"facts_per_update": FACTS_PER_UPDATE, "questions_per_fact": len(ASKED), "steps": STEPS},
        "figures": {
            "reduction": _reduction(ours, naive),
            "reduction_by_seed": [
                _reduction(one, other)
                for one, other in zip(across[SHIPPED.name], across[NAIVE.name], strict=True)
            ],
            "reduction_bounded_buffer": _reduction(tight, tight_naive),
            "forgetting_naive": naive.summary.forgetting,
            "forgetting_ours": ours.summary.forgetting,
            "forgetting_naive_one_domain": tight_naive.summary.forgetting,
            "forgetting_ours_bounded_buffer": tight.summary.forgetting,
            "learning_accuracy": ours.summary.learning_accuracy,
            "learning_accuracy_bounded_buffer": tight.summary.learning_accuracy,
            "average_accuracy": ours.summary.accuracy,
            "average_accuracy_naive": naive.summary.accuracy,
        },
        "goals": GOALS,
        "across_domains": {name: _mean(courses).row(name, naive) for name, courses in across.items()},
        "one_domain": {name: _mean(courses).row(name, tight_naive) for name, courses in bounded.items()},
        "matrices": {name: courses[0].matrix for name, courses in across.items()},
    }


def _asked(
    bench: Bench, method: Method, adapters: Mapping[str, Parent], domain: str, examples: Sequence[Example]
) -> float:
    slot = domain if method.isolated else "all"
    return bench.score(adapters[slot].files if slot in adapters else None, examples)


def _rehearsed(bench: Bench, state: BufferState, seen: Mapping[str, Fact]) -> Rows:
    """What the shipped buffer kept, in every phrasing that was taught."""
    kept = [seen[name] for name in state.rows]
    return bench.lesson(kept) if kept else NO_ROWS


def buffered(fact: Fact) -> ReplayRow:
    return ReplayRow.model_validate(
        {
            "id": fact.document_id,
            "domain": fact.domain,
            "question": fact.questions()[0],
            "answer": fact.answer(),
            "rater": "benchmark",
        }
    )


def _reduction(ours: Course, naive: Course) -> float:
    return 1 - ours.summary.forgetting / naive.summary.forgetting


def _mean_of(domains: Sequence[str], measure: Any) -> float:
    return statistics.fmean(measure(domain) for domain in domains)


def _mean(courses: Sequence[Course]) -> Course:
    def of(pick: Any) -> float:
        return statistics.fmean(pick(each) for each in courses)

    return Course(
        summary=Forgetting(
            accuracy=of(lambda each: each.summary.accuracy),
            learning_accuracy=of(lambda each: each.summary.learning_accuracy),
            forgetting=of(lambda each: each.summary.forgetting),
            backward_transfer=of(lambda each: each.summary.backward_transfer),
        ),
        matrix=courses[0].matrix,
        grounded=of(lambda each: each.grounded),
        bank=of(lambda each: each.bank),
        cpu_seconds=of(lambda each: each.cpu_seconds),
    )


if __name__ == "__main__":
    main()
