"""What updates forget, and what each defence is worth: `python -m benchmarks.forgetting [--quick]
[--processes N]`.

A. Eight updates of 16 facts, through the four domains twice. R[i][j] is the share of exact closed-book answers about
   update j's facts after update i, over the phrasings taught and one that no update holds. Every question is asked
   under the adapter of the domain that the shipped router chooses for it, and once more under its own (an oracle).
   Naive is one adapter for everything, fine-tuned on each update alone; then each defence by itself, then the shipped
   combination.
B. One domain, four updates of 16 facts, and a buffer that may hold 16 facts only: the honest, hard case.
Every method gets the same number of steps and no early stop; settings were chosen on seed 41, which is in no result.
Forgetting counts only where learning accuracy stays high: a strong penalty that learns nothing forgets nothing.
`reduction` is the smaller one of A by the shipped router and of B with every fact kept. Writes
`benchmarks/results/forgetting.json`.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from typing import Any

from benchmarks.learning_setup import (
    ROOT,
    SEEDS,
    Bench,
    bank_facts,
    new_facts,
    probe_facts,
    table,
    write_result,
)
from services.trainer.core.replay_buffer import BufferState, ReplayPolicy, open_buffer
from services.trainer.core.rows import ReplayRow
from services.trainer.learning.dataset import Example
from services.trainer.learning.evaluation import Forgetting, forgetting_of
from services.trainer.learning.lora_update import Parent
from services.trainer.learning.replay_batches import NO_ROWS, Rows
from services.trainer.learning.settings import LearningSettings
from twinloop.foundation_training.corpus import HELD_OUT_PHRASINGS, UPDATE_PHRASINGS, Fact
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules

DOMAINS = ("law", "med", "fin", "gen")
FACTS_PER_UPDATE = 16
STEPS = 25
RULES = ROOT / "configs" / "rules.json"
_SUMMARY = tuple(field.name for field in fields(Forgetting))
ASKED = (*UPDATE_PHRASINGS, HELD_OUT_PHRASINGS[0])
GOALS = {"reduction": 0.9, "reduction_bounded_buffer": 0.6, "learning_accuracy": 0.95}


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
ISOLATED = Method("adapter a domain alone", isolated=True)
ACROSS = (
    NAIVE,
    Method("EWC alone", ewc=True),
    Method("replay alone", replay=True),
    Method("replay and EWC", replay=True, ewc=True),
    ISOLATED,
    Method("adapter a domain, replay, EWC", isolated=True, replay=True, ewc=True),
    SHIPPED,
)
TIGHT = replace(SHIPPED, name="shipped, 16 facts kept", buffer_facts=16)
BOUNDED = (
    NAIVE,
    Method("EWC alone", ewc=True),
    Method("replay, 16 facts kept", replay=True, buffer_facts=16),
    Method("replay and EWC, 16 facts kept", replay=True, ewc=True, buffer_facts=16),
    TIGHT,
    SHIPPED,
)


@dataclass(frozen=True)
class Course:
    """One method over one series of updates."""

    summary: Forgetting
    """Questions go where the shipped router sends them."""
    oracle: Forgetting
    """Questions go to their own domain."""
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
            "by oracle": self.oracle.forgetting,
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


class _Questions:
    """What is asked about one update's facts, by the domain that a question is sent to."""

    def __init__(self, bench: Bench, facts: Sequence[Fact], chooser: DomainChooser) -> None:
        self.own: dict[str, tuple[Example, ...]] = {facts[0].domain: bench.closed(facts, ASKED)}
        sent: dict[str, list[Example]] = {}
        for fact in facts:
            for phrasing in ASKED:
                domain = chooser.choose(fact.questions()[phrasing])
                sent.setdefault(domain, []).extend(bench.closed([fact], [phrasing]))
        self.sent: dict[str, Sequence[Example]] = dict(sorted(sent.items()))


def course(
    bench: Bench, method: Method, updates: Sequence[Sequence[Fact]], *, seed: int, chooser: DomainChooser
) -> Course:
    """Run the updates one after the other and ask about all earlier ones each time."""
    settings = LearningSettings(max_steps=STEPS, evaluate_every=STEPS + 1, evaluation_rows=1)
    settings = settings if method.ewc else replace(settings, ewc_lambda=0.0, fisher_samples=0)
    adapters: dict[str, Parent] = {}
    buffers: dict[str, dict[str, Fact]] = {}
    states: dict[str, BufferState] = {}
    matrix: list[list[float]] = []
    oracle: list[list[float]] = []
    spent = 0.0
    questions = [_Questions(bench, facts, chooser) for facts in updates]
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
        earlier = questions[: number + 1]
        oracle.append([_answered(bench, method, adapters, each.own) for each in earlier])
        # One adapter for everything answers alike wherever a question is sent.
        matrix.append(
            [_answered(bench, method, adapters, each.sent) for each in earlier]
            if method.isolated
            else oracle[-1]
        )
    served = sorted({facts[0].domain for facts in updates})
    return Course(
        summary=forgetting_of(matrix),
        oracle=forgetting_of(oracle),
        matrix=matrix,
        grounded=_mean_of(
            served, lambda d: _asked(bench, method, adapters, d, bench.grounded(probe_facts(d, 64)))
        ),
        bank=_mean_of(
            served, lambda d: _asked(bench, method, adapters, d, bench.closed(bank_facts(d), (0, 3)))
        ),
        cpu_seconds=spent,
    )


@functools.cache
def _bench() -> Bench:
    return Bench()


def _course_of(order: tuple[str, Method, int]) -> Course:
    """One course, in a process of the pool, which loads the foundation once."""
    part, method, seed = order
    updates = series(seed, DOMAINS * 2 if part == "across" else ("law",) * 4)
    chooser = DomainChooser(read_rules(RULES.read_bytes(), name=RULES.name))
    return course(_bench(), method, updates, seed=seed, chooser=chooser)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed; naive and shipped only")
    parser.add_argument("--processes", type=int, default=1, help="courses run side by side, one thread each")
    arguments = parser.parse_args()
    quick, seeds = arguments.quick, SEEDS[:1] if arguments.quick else SEEDS
    across: dict[str, list[Course]] = {}
    bounded: dict[str, list[Course]] = {}
    orders = [
        (part, method, seed)
        for part, methods in (("across", ACROSS), ("bounded", BOUNDED))
        for method in methods
        for seed in seeds
        if not quick or method in (NAIVE, SHIPPED, TIGHT)
    ]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for (part, method, seed), done in zip(orders, pool.map(_course_of, orders), strict=True):
            found = across if part == "across" else bounded
            found.setdefault(method.name, []).append(done)
            print(f"seed {seed}, {part}, {method.name}: {done.cpu_seconds:.0f} CPU s", flush=True)
    write_result("forgetting", _document(across, bounded, seeds), quick=quick)
    for title, courses in (
        (f"A. eight updates of {FACTS_PER_UPDATE} facts over four domains", across),
        (f"B. four updates of {FACTS_PER_UPDATE} facts in one domain", bounded),
    ):
        naive = _mean(courses[NAIVE.name])
        rows = [_mean(each).row(name, naive) for name, each in courses.items()]
        table(f"{title}, mean of {len(seeds)} seeds", rows)


def _document(
    across: Mapping[str, list[Course]], bounded: Mapping[str, list[Course]], seeds: Sequence[int]
) -> dict[str, Any]:
    naive, ours = _mean(across[NAIVE.name]), _mean(across[SHIPPED.name])
    tight_naive, tight = _mean(bounded[NAIVE.name]), _mean(bounded[TIGHT.name])
    roomy = _mean(bounded[SHIPPED.name])
    isolated = _mean(across[ISOLATED.name]) if ISOLATED.name in across else None
    return {
        "seeds": list(seeds),
        "samples": {"facts_per_update": FACTS_PER_UPDATE, "questions_per_fact": len(ASKED), "steps": STEPS},
        "figures": {
            "reduction": min(_reduction(ours, naive), _reduction(roomy, tight_naive)),
            "reduction_four_domains": _reduction(ours, naive),
            "reduction_one_domain": _reduction(roomy, tight_naive),
            "reduction_against_isolation_alone": None if isolated is None else _reduction(ours, isolated),
            "reduction_by_seed": [
                _reduction(one, other)
                for one, other in zip(across[SHIPPED.name], across[NAIVE.name], strict=True)
            ],
            "reduction_bounded_buffer": _reduction(tight, tight_naive),
            "reduction_bounded_buffer_by_seed": [
                _reduction(one, other)
                for one, other in zip(bounded[TIGHT.name], bounded[NAIVE.name], strict=True)
            ],
            "forgetting_naive": naive.summary.forgetting,
            "forgetting_ours": ours.summary.forgetting,
            "forgetting_naive_one_domain": tight_naive.summary.forgetting,
            "forgetting_ours_bounded_buffer": tight.summary.forgetting,
            "learning_accuracy": ours.summary.learning_accuracy,
            "learning_accuracy_by_oracle": ours.oracle.learning_accuracy,
            "forgetting_ours_by_oracle": ours.oracle.forgetting,
            "average_accuracy_by_oracle": ours.oracle.accuracy,
            "learning_accuracy_bounded_buffer": tight.summary.learning_accuracy,
            "average_accuracy": ours.summary.accuracy,
            "average_accuracy_naive": naive.summary.accuracy,
        },
        "goals": GOALS,
        "across_domains": {name: _mean(courses).row(name, naive) for name, courses in across.items()},
        "one_domain": {name: _mean(courses).row(name, tight_naive) for name, courses in bounded.items()},
        "matrices": {name: courses[0].matrix for name, courses in across.items()},
    }


def _answered(
    bench: Bench, method: Method, adapters: Mapping[str, Parent], sent: Mapping[str, Sequence[Example]]
) -> float:
    right = sum(
        len(examples) * _asked(bench, method, adapters, domain, examples) for domain, examples in sent.items()
    )
    return right / sum(map(len, sent.values()))


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

    def mean(pick: Callable[[Course], Forgetting]) -> Forgetting:
        return Forgetting(**{name: of(lambda each: getattr(pick(each), name)) for name in _SUMMARY})  # noqa: B023

    return Course(
        summary=mean(lambda each: each.summary),
        oracle=mean(lambda each: each.oracle),
        matrix=courses[0].matrix,
        grounded=of(lambda each: each.grounded),
        bank=of(lambda each: each.bank),
        cpu_seconds=of(lambda each: each.cpu_seconds),
    )


if __name__ == "__main__":
    main()
