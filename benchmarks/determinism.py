"""What is equal bit for bit: `python -m benchmarks.determinism [--quick]`.

For each seed two fresh processes make the same update on a parent (replay, EWC and general replay included), the same
replay buffer, the same index from documents in another order, and the release that names them; every digest must be
equal. Then the parent's release is served, the new one, and the parent's again from its bytes: logits and answers of
100 probes, in batches of a fixed composition, must be those from before. Writes
`benchmarks/results/determinism.json`; the exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.forgetting import buffered
from benchmarks.learning_setup import (
    FORMAT,
    ROOT,
    SEEDS,
    Bench,
    Trained,
    new_facts,
    probe_facts,
    table,
    write_result,
)
from schemas.releases import Release
from services.trainer.core.replay_buffer import BufferState, ReplayPolicy, open_buffer
from services.trainer.learning.settings import LearningSettings
from twinloop.foundation_training.corpus import Fact
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.generation import GenerationItem, Generator
from twinloop.model_runtime.prompt import Passage, render
from twinloop.registry.releases import release_id
from twinloop.retrieval.document import Document
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.retrieval.index import DomainIndex

DOMAINS = ("law", "med", "fin", "gen")
PROBES, BATCH = 100, 8


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents."""
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def updates(bench: Bench, *, seed: int, steps: int) -> tuple[Trained, Trained]:
    """A parent and an update on it, with every defence at work."""
    settings = LearningSettings(max_steps=steps, evaluate_every=steps + 1, fisher_samples=16)
    first, second = new_facts(seed, "law", 16), new_facts(seed + 1, "law", 16)
    general, _ = bench.general("law")
    parent = bench.train(bench.lesson(first), seed=seed, settings=settings, general=general)
    child = bench.train(
        bench.lesson(second),
        seed=seed,
        settings=settings,
        general=general,
        replay=bench.lesson(first),
        parent=parent.parent,
    )
    return parent, child


def made(bench: Bench, *, seed: int, steps: int, is_reversed: bool) -> dict[str, str]:
    """Digests of everything a training makes; the order in which facts come must not matter for buffer and index."""
    parent, child = updates(bench, seed=seed, steps=steps)
    facts = _unique([fact for number in range(3) for fact in new_facts(seed + number, "law", 64)])
    facts = facts[::-1] if is_reversed else facts
    state = BufferState()
    open_buffer(ReplayPolicy(max_rows=64, seed=seed), state).add(map(buffered, facts))
    index = DomainIndex.build(map(_document, facts), HashingEmbedder(), domain="law").files()
    adapter, foundation = digest(child.update.files), bench.foundation.digest or ""
    release = Release(
        foundation=foundation,
        embedder=HashingEmbedder().digest,
        adapters=dict.fromkeys(DOMAINS, adapter),
        indexes=dict.fromkeys(DOMAINS, digest(index)),
        rules=hashlib.sha256(b"{}").hexdigest(),
        prompt=FORMAT.digest,
    )
    return {
        "parent adapter": digest(parent.update.files),
        "adapter": adapter,
        "fisher": hashlib.sha256(child.update.fisher).hexdigest(),
        "buffer": hashlib.sha256(
            state.model_copy(update={"rows": dict(sorted(state.rows.items()))}).model_dump_json().encode()
        ).hexdigest(),
        "index": digest(index),
        "release": release_id(release),
    }


def rolled_back(bench: Bench, *, seed: int, steps: int) -> dict[str, bool]:
    """Serve the parent, the child, and the parent loaded anew; compare what the parent says."""
    parent, child = updates(bench, seed=seed, steps=steps)
    bank = AdapterBank(bench.foundation.model)
    generator = Generator(bench.foundation, bank, max_new_tokens=FORMAT.max_new_tokens)
    facts = [fact for domain in DOMAINS for fact in probe_facts(domain, PROBES // len(DOMAINS))]
    texts = [_prompt(fact, number) for number, fact in enumerate(facts)]
    starts = range(0, PROBES, BATCH)

    def ask(name: str) -> tuple[torch.Tensor, list[Any]]:
        items = [GenerationItem(text, name) for text in texts]
        return generator.next_token_logits(items), [
            generator.answer_batch(items[start : start + BATCH]) for start in starts
        ]

    bank.load("parent", parent.update.files)
    logits, answers = ask("parent")
    bank.load("child", child.update.files)
    other_logits, _ = ask("child")
    bank.evict("parent")
    bank.load("parent", dict(parent.update.files))
    again_logits, again_answers = ask("parent")
    return {
        "rollback_logits_equal": torch.equal(logits, again_logits) and not torch.equal(logits, other_logits),
        "rollback_answers_equal": answers == again_answers,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 steps an update instead of 20")
    parser.add_argument("--child", choices=("forwards", "backwards"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = 4 if arguments.quick else 20
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    if arguments.child:
        bench, is_reversed = Bench(), arguments.child == "backwards"
        digests = {str(seed): made(bench, seed=seed, steps=steps, is_reversed=is_reversed) for seed in seeds}
        print(json.dumps(digests))
        return 0
    one, other = (_child(order, quick=arguments.quick) for order in ("forwards", "backwards"))
    figures = {
        f"{name}_equal": all(one[seed][name] == other[seed][name] for seed in one)
        for name in ("adapter", "buffer", "fisher", "index", "release")
    }
    back = [rolled_back(Bench(), seed=seed, steps=steps) for seed in seeds]
    figures |= {name: all(each[name] for each in back) for name in back[0]}
    table(
        "two processes, and a rollback", [{"what": name, "equal": value} for name, value in figures.items()]
    )
    write_result(
        "determinism",
        {
            "seeds": list(seeds),
            "samples": {"processes": 2, "steps": steps, "probes": PROBES},
            "figures": figures,
            "goals": dict.fromkeys(figures, True),
            "digests": one,
        },
        quick=arguments.quick,
    )
    return 0 if all(figures.values()) else 1


def _child(order: str, *, quick: bool) -> dict[str, dict[str, str]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.determinism",
        "--child",
        order,
        *(["--quick"] if quick else []),
    ]
    # Another hash seed each: nothing may depend on the order of a set.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "1" if order == "forwards" else "2",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    digests: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return digests


def _prompt(fact: Fact, number: int) -> str:
    return render(
        FORMAT, fact.questions()[number % 5], [Passage(fact.document_id, fact.sentence(number % 3))]
    )


def _unique(facts: list[Fact]) -> list[Fact]:
    """One fact a document; worlds of different seeds may share an id by chance."""
    return list(
        {
            fact.document_id: fact for fact in sorted(facts, key=lambda fact: (fact.document_id, fact.entity))
        }.values()
    )


def _document(fact: Fact) -> Document:
    return Document(
        id=fact.document_id,
        domain=fact.domain,
        title="",
        text=fact.sentence(),
        source="synthetic",
        licence="CC0-1.0",
        publisher="benchmark",
        retrieved_at=0,
    )


if __name__ == "__main__":
    sys.exit(main())
