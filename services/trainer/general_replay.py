"""Writes what the shipped foundation must keep while adapters learn: its fact bank, and copying from passages.

`python -m services.trainer.general_replay` writes `foundation/general_replay.jsonl`; `--check` writes nothing and exits
1 where the file differs. For another foundation, give `trainer.replay.general_file` a file of the same form, made of
what that model is expected to keep.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from schemas.event import DOMAINS
from services.trainer.core.dataset import to_jsonl
from twinloop.foundation_training.corpus import Fact, World, bank

PATH = Path("foundation/general_replay.jsonl")
_WORLD_SEED = 7001
_GROUNDED_PER_DOMAIN = 256
_PHRASINGS = 5


def rows() -> Iterator[dict[str, JsonValue]]:
    """Closed-book rows of the bank, three phrasings a fact, and a grounded row for each fact of another world."""
    for number, fact in enumerate(bank()):
        for phrasing in range(3):
            yield _row(f"bank-{number:03d}-{phrasing}", fact, (number + phrasing) % _PHRASINGS, passage=None)
    for domain in DOMAINS:
        for number, fact in enumerate(World.generate(_WORLD_SEED, domain, _GROUNDED_PER_DOMAIN).facts):
            passage = fact.sentence(number % 3)
            yield _row(f"passage-{domain}-{number:03d}", fact, number % _PHRASINGS, passage=passage)


def main(arguments: list[str]) -> int:
    data = to_jsonl(rows())
    if "--check" not in arguments:
        PATH.write_bytes(data)
        return 0
    if PATH.exists() and PATH.read_bytes() == data:
        return 0
    print(f"{PATH}: differs; run `python -m services.trainer.general_replay`", file=sys.stderr)
    return 1


def _row(name: str, fact: Fact, phrasing: int, *, passage: str | None) -> dict[str, JsonValue]:
    return {
        "id": name,
        "domain": fact.domain,
        "question": fact.questions()[phrasing],
        "answer": fact.answer(),
        "passage": passage,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
