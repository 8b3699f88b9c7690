"""What serving many adapters costs: `python -m benchmarks.inference [--quick]`.

On the shipped foundation, one thread: answers as the worker makes them (stop at the end token) at batch 1 and 8; a
batch of 8 over 4 adapters against the same batch under one, tokens forced so that both do equal work, in alternating
rounds; and how long it takes until a batch under another resident adapter, or one that has to be loaded from bytes
first, gives its first token. Writes `benchmarks/results/inference.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.learning_setup import FORMAT, Bench, probe_facts, table, write_result
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.adapter_files import Adapter, AdapterConfig, adapter_files
from twinloop.model_runtime.decoding import ModelDecoder
from twinloop.model_runtime.generation import GenerationItem, Generator
from twinloop.model_runtime.prompt import Passage, render

ADAPTERS = 4
FORCED_TOKENS = 16
GOALS = {"mixed_over_single": 0.7, "p95_ms_b1": 500.0, "p95_ms_b8": 500.0, "adapter_switch_p95_ms": 20.0}


def random_adapter(bench: Bench, seed: int, *, rank: int = 16) -> dict[str, bytes]:
    """A dense adapter of the shipped shape; its values are small enough to leave answers sensible."""
    random = torch.Generator().manual_seed(seed)
    shapes = _shapes(bench)
    factors = {
        path: (
            torch.randn(rank, fan_in, generator=random) * 0.01,
            torch.randn(fan_out, rank, generator=random) * 0.01,
        )
        for path, (fan_in, fan_out) in shapes.items()
    }
    names = tuple(sorted({path.split(".")[-1] for path in shapes}))
    return adapter_files(Adapter(AdapterConfig(rank=rank, alpha=64.0, target_modules=names), factors))


def prompts(count: int) -> list[str]:
    """RAG prompts as the tiny foundation gets them."""
    facts = probe_facts("law", count)
    return [
        render(FORMAT, fact.questions()[number % 5], [Passage(fact.document_id, fact.sentence(number % 3))])
        for number, fact in enumerate(facts)
    ]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Timings:
    """One number a batch."""

    wall_ms: list[float]
    cpu_ms: list[float]


class ForcedTokens:
    """Decodes a fixed number of tokens, so that batches under different adapters do the same amount of work."""

    def __init__(self, bench: Bench, bank: AdapterBank, texts: Sequence[str]) -> None:
        generator = Generator(bench.foundation, bank, max_new_tokens=FORCED_TOKENS)
        self._decoder, self._bank = generator.decoder, bank
        self._tokens, self._real = generator.padded([generator.encoded(text) for text in texts])

    def run(self, rows: Sequence[str | None]) -> float:
        """Processor seconds of one batch: other programs on the machine do not count."""
        started = time.thread_time()
        with torch.inference_mode(), self._bank.use(rows):
            logits = self._decoder.start(self._tokens, self._real, room=FORCED_TOKENS)
            for _ in range(FORCED_TOKENS - 1):
                logits = self._decoder.step(logits.argmax(-1))
        return time.thread_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    rounds = 30 if quick else 200
    bench = Bench()
    bank = AdapterBank(bench.foundation.model)
    names = [f"adapter-{number}" for number in range(ADAPTERS)]
    for number, name in enumerate(names):
        bank.load(name, random_adapter(bench, number))
    generator = Generator(bench.foundation, bank, max_new_tokens=FORMAT.max_new_tokens)
    texts = prompts(64)

    slow = Generator(
        bench.foundation,
        bank,
        max_new_tokens=FORMAT.max_new_tokens,
        decoder=ModelDecoder(bench.foundation.model),
    )
    paths = {"shipped": generator, "transformers": slow}
    latencies = {size: _latencies(paths, texts, names[0], size=size, rounds=rounds) for size in (1, 8)}
    mixed, single, base = _throughput(bench, bank, texts[:8], names, rounds=rounds)
    switch = _switches(generator, texts, names, rounds=rounds)
    cold = _cold_switches(bench, bank, generator, texts, rounds=max(10, rounds // 5))
    table(
        "answers from a passage under one adapter, to the end token",
        [
            {
                "path": name,
                "batch": size,
                "p50 ms": statistics.median(times.wall_ms),
                "p95 ms": percentile(times.wall_ms, 0.95),
                "p50 CPU ms": statistics.median(times.cpu_ms),
                "p95 CPU ms": percentile(times.cpu_ms, 0.95),
            }
            for size, found in latencies.items()
            for name, times in found.items()
        ],
    )
    table(
        f"batch of 8, {FORCED_TOKENS} forced tokens, tokens a processor second",
        [
            {"rows": name, "median": value, "of one adapter": value / single}
            for name, value in (
                ("no adapter", base),
                ("one adapter", single),
                (f"{ADAPTERS} adapters", mixed),
            )
        ],
    )
    table(
        "from the decision for another adapter to the first token under it",
        [
            {
                "adapter": name,
                "p50 ms": statistics.median(times),
                "p95 ms": percentile(times, 0.95),
                "max ms": max(times),
            }
            for name, times in (("resident", switch), ("loaded from bytes", cold))
        ],
    )
    write_result(
        "inference",
        {
            "seeds": [0],
            "samples": rounds,
            "figures": {
                "mixed_over_single": mixed / single,
                "single_over_base": single / base,
                "tokens_per_cpu_s_single_b8": single,
                "tokens_per_cpu_s_mixed_b8": mixed,
                **_latency_figures(latencies),
                "adapter_switch_p95_ms": percentile(switch, 0.95),
                "adapter_load_and_switch_p95_ms": percentile(cold, 0.95),
            },
            "goals": GOALS,
        },
        quick=quick,
    )


def _latencies(
    paths: Mapping[str, Generator], texts: Sequence[str], adapter: str, *, size: int, rounds: int
) -> dict[str, Timings]:
    """Both paths answer the same batches in alternating rounds, so that other programs disturb them alike."""
    found = {name: Timings([], []) for name in paths}
    for number in range(-1, rounds):
        items = [GenerationItem(texts[(number * size + row) % len(texts)], adapter) for row in range(size)]
        for name, generator in paths.items():
            started, worked = time.perf_counter(), time.thread_time()
            answers = generator.answer_batch(items)
            wall, work = time.perf_counter() - started, time.thread_time() - worked
            if not all(answer.finished for answer in answers):
                raise RuntimeError("an answer did not end by itself; the adapters are no longer harmless")
            if number >= 0:
                found[name].wall_ms.append(wall * 1000)
                found[name].cpu_ms.append(work * 1000)
    return found


def _latency_figures(latencies: Mapping[int, Mapping[str, Timings]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size, found in latencies.items():
        ours, plain = found["shipped"], found["transformers"]
        figures |= {
            f"p50_ms_b{size}": statistics.median(ours.wall_ms),
            f"p95_ms_b{size}": percentile(ours.wall_ms, 0.95),
            f"p50_cpu_ms_b{size}": statistics.median(ours.cpu_ms),
            f"transformers_p50_ms_b{size}": statistics.median(plain.wall_ms),
            f"transformers_p95_ms_b{size}": percentile(plain.wall_ms, 0.95),
            f"transformers_p50_cpu_ms_b{size}": statistics.median(plain.cpu_ms),
        }
    return figures


def _throughput(
    bench: Bench, bank: AdapterBank, texts: Sequence[str], names: Sequence[str], *, rounds: int
) -> tuple[float, float, float]:
    """Tokens a processor second of mixed, one-adapter and bare batches; medians over alternating rounds."""
    forced = ForcedTokens(bench, bank, texts)
    kinds: dict[str, list[str | None]] = {
        "mixed": [names[row * ADAPTERS // len(texts)] for row in range(len(texts))],
        "single": [names[0]] * len(texts),
        "base": [None] * len(texts),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 2):
        for kind, rows in kinds.items():
            spent = forced.run(rows)
            if number >= 2:
                times[kind].append(spent)
    tokens = len(texts) * FORCED_TOKENS
    mixed, single, base = (tokens / statistics.median(times[kind]) for kind in ("mixed", "single", "base"))
    return mixed, single, base


def _switches(
    generator: Generator, texts: Sequence[str], names: Sequence[str], *, rounds: int
) -> list[float]:
    for name in names:
        generator.next_token_logits([GenerationItem(texts[0], name)])
    times = []
    for number in range(rounds):
        item = GenerationItem(texts[0], names[number % ADAPTERS])
        started = time.perf_counter()
        generator.next_token_logits([item])
        times.append((time.perf_counter() - started) * 1000)
    return times


def _cold_switches(
    bench: Bench, bank: AdapterBank, generator: Generator, texts: Sequence[str], *, rounds: int
) -> list[float]:
    files = random_adapter(bench, 99)

    times = []
    for number in range(rounds):
        name = f"cold-{number}"
        started = time.perf_counter()
        bank.load(name, files)
        generator.next_token_logits([GenerationItem(texts[0], name)])
        times.append((time.perf_counter() - started) * 1000)
        bank.evict(name)
    return times


def _shapes(bench: Bench) -> dict[str, tuple[int, int]]:
    bank = AdapterBank(bench.foundation.model)
    bank.close()
    return dict(bank.shapes)


if __name__ == "__main__":
    main()
