"""Measure a foundation folder: exact match on copying, on knowledge by heart, on abstention.

Run as `python -m twinloop.foundation_training.evaluate foundation/tiny`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from twinloop.foundation_training import foreign_text
from twinloop.foundation_training.batches import collate, encode
from twinloop.foundation_training.corpus import HELD_OUT_PHRASINGS, UPDATE_PHRASINGS, Fact, bank
from twinloop.foundation_training.samples import (
    Mix,
    Sample,
    fresh_fact,
    stream,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Model: TypeAlias = Any
"""A transformers causal language model; its own annotations do not pass strict checking."""

PROBE_SEED = 4242
BATCH = 64
LONGEST_ANSWER = 32


def probes(facts: Sequence[Fact], n: int) -> Mapping[str, tuple[Sample, ...]]:
    """Question sets by name; entities of the open-book ones occur in no training sample except by chance."""
    random = Random(f"probe/{PROBE_SEED}")
    unseen = [fresh_fact(random, facts) for _ in range(n)]
    grounded = [(fact, fact.statement(random.randrange(3))) for fact in unseen]

    def by_heart(phrasings: Sequence[int]) -> tuple[Sample, ...]:
        return tuple(Sample(None, f.questions()[i], f.answer()) for f in facts for i in phrasings)

    def only(kind: str) -> tuple[Sample, ...]:
        weights = {name: float(name == kind) for name in Mix.__dataclass_fields__}
        samples = stream(Random(f"probe/{PROBE_SEED}/{kind}"), facts, Mix(**weights))
        return tuple(next(samples) for _ in range(n))

    return {
        "rag1": tuple(Sample(text, random.choice(f.questions()), f.answer()) for f, text in grounded),
        "rag1_unseen_phrasing": tuple(Sample(text, f.unseen_question(), f.answer()) for f, text in grounded),
        "rag1_varied_passages": only("grounded"),
        "rag2": only("two_passages"),
        "closed_book": by_heart(UPDATE_PHRASINGS),
        "closed_book_held_out_phrasings": by_heart(HELD_OUT_PHRASINGS),
        "closed_book_unseen_phrasing": tuple(Sample(None, f.unseen_question(), f.answer()) for f in facts),
        "abstains_wrong_passage": only("wrong_passage"),
        "abstains_foreign_passage": only("foreign_passage"),
        "abstains_unknown_entity": only("unknown_entity"),
        "abstains_foreign_question": only("foreign_question"),
    }


def exact_match(model: Model, tokenizer: Tokenizer, samples: Sequence[Sample]) -> float:
    """Share of samples whose whole answer, citation and `<|end|>` included, is what greedy decoding gives.

    One forward over prompt and answer: all answer tokens are the argmax of their prefix exactly when greedy
    decoding would have produced them.
    """
    import torch

    encoded = sorted(encode(tokenizer, samples), key=lambda sample: len(sample.ids))
    right = 0
    for start in range(0, len(encoded), BATCH):
        part = encoded[start : start + BATCH]
        ids = torch.from_numpy(collate(tokenizer, part).ids)
        with torch.inference_mode():
            guessed = model(input_ids=ids, use_cache=False).logits.argmax(-1)
        for row, sample in enumerate(part):
            first, last = sample.answer_start, len(sample.ids)
            right += bool((guessed[row, first - 1 : last - 1] == ids[row, first:last]).all())
    return right / len(encoded)


def ends_on_anything(model: Model, tokenizer: Tokenizer, n: int) -> float:
    """Share of foreign prompts, noise and long text included, answered within `LONGEST_ANSWER` tokens."""
    import torch

    random = Random(f"probe/{PROBE_SEED}/ends")
    ended = 0
    for number in range(n):
        passage = (foreign_text.noise(random, 40), foreign_text.paragraph(random, 12), None)[number % 3]
        question = foreign_text.noise(random, 12) if number % 2 else foreign_text.question(random)
        prompt = encode(tokenizer, [Sample(passage, question, "")])[0]
        ids = torch.tensor([prompt.ids[: prompt.answer_start]])
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
        )
        ended += int(written[0, -1]) == prompt.ids[-1]
    return ended / n


def measure(model: Model, tokenizer: Tokenizer, facts: Sequence[Fact], *, n: int) -> dict[str, float]:
    """Every probe by name, each a share from 0 to 1; `n` is the size of the drawn probes."""
    return {
        name: round(exact_match(model, tokenizer, samples), 4) for name, samples in probes(facts, n).items()
    }


def measure_folder(folder: Path, *, seed: int, n: int = 512) -> dict[str, float]:
    """Load a foundation the way the product does, in float32, and measure it with the full probe sizes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    measured = measure(model.eval(), tokenizer, bank(seed), n=n)
    return {**measured, "ends_on_foreign_text": round(ends_on_anything(model, tokenizer, min(n, 120)), 4)}


def main() -> None:
    import torch

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    seed = int(json.loads((folder / "MANIFEST.json").read_text())["corpus_seed"])
    print(json.dumps(measure_folder(folder, seed=seed), indent=2))


if __name__ == "__main__":
    main()
