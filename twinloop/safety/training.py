"""Trains the shipped n-gram weights: `python -m twinloop.safety.training --data DIR [--out DIR]`.

DIR holds JSON Lines: toxicity.jsonl (`text`, `toxic`), injection.jsonl (`text`), pii.jsonl (`text`) and the domain
files law, med, fin and gen (`question`, `answer`, `context`). Seeded and on one thread: equal data and numpy/scipy
versions give equal weights. A fifth of all texts, chosen by hash, is never trained on, nor is any of gen; the report
printed at the end is about those.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.safety.injection import find_wordings
from twinloop.safety.ngram_model import NgramFeatures, NgramModel, NgramWeights, Windows, windows_of

SEED = 42
DIM = 1 << 16
TRAINED_DOMAINS = ("law", "med", "fin")
HELD_OUT_DOMAIN = "gen"
_FOLDS = 4
_TEST_PERCENT = 20


@dataclass(frozen=True)
class Text:
    """One text, where it comes from, and whether it is of the kind to be found."""

    text: str
    group: str
    positive: bool


@dataclass(frozen=True)
class Task:
    """One classifier to train and how its threshold is chosen."""

    label: str
    cut: Windows
    l2: float
    max_false_positives: dict[str, float]
    """By group, the share of harmless training texts that may be flagged (out of fold)."""


TASKS = (
    Task(
        "toxicity",
        Windows(40, 20),
        1.0,
        {"law": 0.002, "med": 0.002, "fin": 0.002, "chat": 0.01, "forum": 0.12},
    ),
    Task(
        "injection",
        Windows(60, 30),
        1.0,
        {"law": 0.002, "med": 0.002, "fin": 0.002, "chat": 0.01, "forum": 0.02},
    ),
)


def read_texts(folder: Path, label: str) -> list[Text]:
    """All texts of one task, each once; harmless ones are grouped by domain, as `chat` or as `forum`."""
    texts = []
    for domain in (*TRAINED_DOMAINS, HELD_OUT_DOMAIN):
        for row in _rows(folder / f"{domain}.jsonl"):
            texts += [
                Text(row[name], domain, False) for name in ("question", "answer", "context") if row.get(name)
            ]
    texts += [Text(row["text"], "chat", False) for row in _rows(folder / "pii.jsonl")]
    for row in _rows(folder / "toxicity.jsonl"):
        toxic = bool(row["toxic"])
        texts.append(Text(row["text"], "toxic" if toxic else "forum", toxic and label == "toxicity"))
    if label == "injection":
        texts += [Text(row["text"], "injection", True) for row in _rows(folder / "injection.jsonl")]
    return list({text.text: text for text in texts}.values())


def is_test(text: Text) -> bool:
    """True for the texts that are only ever measured on."""
    return text.group == HELD_OUT_DOMAIN or _hash_percent(text.text) < _TEST_PERCENT


def train(task: Task, texts: Sequence[Text]) -> NgramWeights:
    """Weights from the training part of `texts`, with the lowest threshold that keeps the task's limits."""
    known = [text for text in texts if not is_test(text)]
    fold = np.array([_hash_percent("fold" + text.text) % _FOLDS for text in known])
    scores = np.zeros(len(known))
    for number in range(_FOLDS):
        model = NgramModel(_fit(task, [known[i] for i in np.flatnonzero(fold != number)]))
        for i in np.flatnonzero(fold == number):
            scores[i] = model.classify([known[i].text])[0].score
    return replace(_fit(task, known), threshold=_threshold(task, known, scores))


def report(texts: Sequence[Text], model: NgramModel, *, rules: bool) -> list[str]:
    """A Markdown table of what the classifier does to the texts it was not trained on.

    `X in med` are the texts of X put between two halves of a medical passage.
    """
    lines = ["| texts | kind | flagged | not flagged | share flagged |", "|---|---|---|---|---|"]
    tested = [text for text in texts if is_test(text)]
    passages = [text.text for text in tested if text.group == "med" and len(text.text) > 400]
    for number, text in enumerate([text for text in tested if text.positive] if passages else []):
        passage = passages[number % len(passages)]
        half = passage.index(" ", len(passage) // 2)
        tested.append(
            replace(text, text=f"{passage[:half]} {text.text}{passage[half:]}", group=f"{text.group} in med")
        )
    for group in sorted({text.group for text in tested}):
        part = [text for text in tested if text.group == group]
        flagged = sum(
            model.classify([t.text])[0].label or (rules and bool(find_wordings(t.text))) for t in part
        )
        kind = "to be found" if part[0].positive else "harmless"
        lines.append(
            f"| {group} | {kind} | {flagged} | {len(part) - flagged} | {100 * flagged / len(part):.1f} % |"
        )
    return lines


def _fit(task: Task, texts: Sequence[Text]) -> NgramWeights:
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    windows = _training_windows(task, texts)
    features = NgramFeatures(DIM)
    rows = [features.buckets(window) for window, _ in windows]
    starts = np.concatenate([[0], np.cumsum([len(buckets) for buckets, _ in rows])])
    matrix: Any = csr_matrix(
        (
            np.concatenate([values for _, values in rows]),
            np.concatenate([buckets for buckets, _ in rows]),
            starts,
        ),
        shape=(len(rows), DIM),
    )
    signs = np.array([1.0 if positive else -1.0 for _, positive in windows])
    # Both kinds weigh the same in all, however many windows each has.
    importance = np.where(signs > 0, 0.5 / np.sum(signs > 0), 0.5 / np.sum(signs < 0)) * len(signs)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values, bias = parameters[:-1], parameters[-1]
        margins = signs * (matrix @ values + bias)
        slope = -signs * importance / (1.0 + np.exp(np.clip(margins, -30, 30)))
        total = float(importance @ np.logaddexp(0.0, -margins) + 0.5 * task.l2 * values @ values)
        return total, np.append(matrix.T @ slope + task.l2 * values, slope.sum())

    found = minimize(loss, np.zeros(DIM + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return NgramWeights("", task.label, task.cut, 0.5, float(found.x[-1]), found.x[:-1].astype(np.float32))


def _training_windows(task: Task, texts: Sequence[Text]) -> list[tuple[str, bool]]:
    """Every window, and each positive one once more between harmless words of a domain.

    Without the second kind the model would learn that a text with legal or medical words is harmless.
    """
    random = np.random.default_rng(SEED)
    windows = [
        (text.text[start:end], text.positive)
        for text in texts
        for start, end in windows_of(text.text, task.cut)
    ]
    harmless = [text.text.split() for text in texts if text.group in TRAINED_DOMAINS and len(text.text) > 40]
    mixed = []
    for window in [window for window, positive in windows if positive]:
        words = harmless[int(random.integers(len(harmless)))]
        length = int(random.integers(3, task.cut.words // 2))
        first = int(random.integers(0, max(1, len(words) - length)))
        around = words[first : first + length]
        before = int(random.integers(0, len(around) + 1))
        mixed.append((" ".join([*around[:before], window, *around[before:]]), True))
    return windows + mixed


def _threshold(task: Task, texts: Sequence[Text], scores: NDArray[np.float64]) -> float:
    lowest = 0.5
    for group, share in task.max_false_positives.items():
        harmless = np.sort(
            [s for s, t in zip(scores, texts, strict=True) if t.group == group and not t.positive]
        )
        if len(harmless):
            allowed = int(share * len(harmless))
            lowest = max(lowest, float(harmless[len(harmless) - 1 - allowed]) + 1e-4)
    return round(min(lowest, 0.999), 4)


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _hash_percent(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every task, write the weights, print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the JSON Lines files")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "weights", help="folder for the weights"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        texts = read_texts(options.data, task.label)
        weights = train(task, texts)
        (options.out / f"{task.label}.json").write_bytes(weights.to_bytes())
        print(f"\n{task.label}: threshold {weights.threshold}\n")
        print("\n".join(report(texts, NgramModel(weights), rules=task.label == "injection")))


if __name__ == "__main__":
    main()
