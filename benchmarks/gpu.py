"""The trainer and the worker's model on a GPU: `python -m benchmarks.gpu`; ends with a line where there is none.

One update of 48 facts on the shipped foundation, on the CPU and on the GPU in float32, in bfloat16 autocast, and with
gradients accumulated over several forwards; each GPU way is done twice and must give the same bytes. Then the same
adapters answer on both devices. Last, some steps on a model of random weights, large enough for a GPU to matter.
Writes `benchmarks/results/gpu.json`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.adaptation import DOMAIN, FACTS, Task
from benchmarks.inference import prompts, random_adapter
from benchmarks.learning_setup import FORMAT, TINY, Bench, table, write_result
from services.trainer.learning.lora_update import Material, Update, train_update
from services.trainer.learning.replay_batches import Rows
from services.trainer.learning.settings import LearningSettings
from services.trainer.learning.stopwatch import Stopwatch
from twinloop.canonical import sha256_hex
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, load_foundation
from twinloop.model_runtime.generation import GenerationItem, Generator

SEED = 42
LARGE = LlamaConfig(
    vocab_size=1024,
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=24,
    num_attention_heads=16,
    max_position_embeddings=2048,
)
LARGE_STEPS = 12
WAYS: Mapping[str, Mapping[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, accumulated": {"precision": "bfloat16", "tokens_per_forward": 512},
}


def main() -> None:
    if not torch.cuda.is_available():
        print("gpu: skipped, this machine has no CUDA device")
        return
    runs = [_learn("cpu", "float32", WAYS["float32"])]
    runs += [_learn("cuda", name, way) for name, way in WAYS.items()]
    table(f"one update of {FACTS} facts on the shipped foundation", runs)
    served = _served()
    table("the same adapters on both devices", [served])
    large = _large()
    table(f"{LARGE_STEPS} steps on {large[0]['parameters']} parameters", large)
    write_result(
        "gpu",
        {
            "seeds": [SEED],
            "samples": {"facts": FACTS, "probes": served["probes"]},
            "figures": {
                "digests_repeat": all(run["repeats"] for run in runs),
                "gates_reached": all(run["held out"] >= 0.95 for run in runs),
                **served,
                "large_bfloat16_over_float32": large[0]["seconds"] / large[1]["seconds"],
            },
            "runs": runs,
            "large": large,
        },
        quick=False,
    )


def _learn(device: str, name: str, way: Mapping[str, Any]) -> dict[str, Any]:
    bench = Bench(device=device)
    task = Task(bench, SEED)
    found = [_update(bench, task, replace(LearningSettings(), **way)) for _ in range(2)]
    (first, _), (second, seconds) = found
    return {
        "device": device,
        "way": name,
        "steps": second.metrics["steps"],
        "seconds": round(seconds, 2),
        "held out": bench.score(second.files, task.held_out),
        "blind": bench.score(second.files, task.blind),
        "passages": bench.score(second.files, task.passages),
        "adapter": _digest(second)[:12],
        "repeats": _digest(first) == _digest(second),
    }


def _update(bench: Bench, task: Task, settings: LearningSettings) -> tuple[Update, float]:
    """The update and the wall seconds of its steps."""
    stopwatch = Stopwatch(time.perf_counter)
    general, _ = bench.general(DOMAIN)
    material = Material(new=task.lesson, gate=Rows(closed=task.held_out), general=general)
    update = train_update(
        bench.foundation, material, settings=settings, seed=SEED, clock=time.monotonic, report=stopwatch
    )
    return update, stopwatch.training


def _digest(update: Update) -> str:
    return sha256_hex(b"".join(update.files[name] for name in sorted(update.files)) + update.fisher)


def _served() -> dict[str, Any]:
    """Answers and logits of a mixed batch on the GPU against the CPU."""
    texts = prompts(64)
    names = [f"adapter-{number}" for number in range(4)]
    items = [GenerationItem(text, [*names, None][number % 5]) for number, text in enumerate(texts)]
    answers, logits = {}, {}
    for device in ("cpu", "cuda"):
        bench = Bench(device=device)
        bank = AdapterBank(bench.foundation.model)
        for number, name in enumerate(names):
            bank.load(name, random_adapter(bench, number))
        generator = Generator(bench.foundation, bank, max_new_tokens=FORMAT.max_new_tokens)
        answers[device] = [answer.tokens for answer in generator.answer_batch(items)]
        logits[device] = generator.next_token_logits(items).cpu()
    equal = sum(ours == theirs for ours, theirs in zip(answers["cpu"], answers["cuda"], strict=True))
    return {
        "probes": len(items),
        "answers_equal": equal / len(items),
        "largest_logit_difference": float((logits["cpu"] - logits["cuda"]).abs().max()),
        "largest_logit": float(logits["cpu"].abs().max()),
    }


def _large() -> list[dict[str, Any]]:
    """Wall seconds of some steps; the weights are random, so nothing is said about what is learned."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(LARGE)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
        found = []
        for name in ("float32", "bfloat16"):
            foundation = load_foundation(FoundationSpec(source=str(Path(folder)), device="cuda"))
            settings = replace(
                LearningSettings(), precision=name, max_steps=LARGE_STEPS, evaluate_every=LARGE_STEPS + 1
            )
            found.append(
                {
                    "parameters": model.num_parameters(),
                    "precision": name,
                    "seconds": _large_seconds(foundation, settings),
                    "gpu_megabytes": torch.cuda.max_memory_allocated() // 2**20,
                }
            )
    return found


def _large_seconds(foundation: Foundation, settings: LearningSettings) -> float:
    bench = Bench(device="cpu")
    task = Task(bench, SEED)
    general, _ = bench.general(DOMAIN)
    stopwatch = Stopwatch(time.perf_counter)
    torch.cuda.reset_peak_memory_stats()
    train_update(
        foundation,
        Material(new=task.lesson, general=general),
        settings=settings,
        seed=SEED,
        clock=time.monotonic,
        report=stopwatch,
    )
    return round(stopwatch.training, 2)


if __name__ == "__main__":
    main()
