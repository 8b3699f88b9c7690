"""What a candidate shows of itself: counts, measurements, and the trainer's own doubts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.event import Domain
from schemas.releases import TrainingEvidence
from services.trainer.core.forgetting_matrix import forgetting_matrix, lost_updates
from services.trainer.core.ledger_state import Run

Metrics = Mapping[str, JsonValue]


@dataclass(frozen=True)
class EvidencePolicy:
    """What the trainer itself holds to be a failed training."""

    min_update_exact_match: float = 0.8
    """Share of the taught rows the new adapter must answer exactly."""
    max_probe_drop: float = 0.15
    """How much the share of right answers from a given passage may fall."""
    max_replay_loss: float = 0.3
    """How much of the replay rows the new adapter may have forgotten."""
    max_update_drop: float = 0.3
    """How much of any one earlier update may be lost ..."""
    min_update_rows: int = 8
    """... where at least this many of its rows were asked; fewer say nothing."""


def problems_of(policy: EvidencePolicy, metrics: Mapping[Domain, Metrics]) -> tuple[str, ...]:
    """Why a candidate should fail, one line each; a number that was not measured is no problem here."""
    found = []
    for domain, values in sorted(metrics.items()):
        taught = _number(values, "update_exact_match")
        if taught is not None and taught < policy.min_update_exact_match:
            found.append(f"{domain}: taught rows {taught:.3f} < {policy.min_update_exact_match:.3f}")
        before = _number(values, "probe_before")
        after = _number(values, "probe_after")
        if before is not None and after is not None and after < before - policy.max_probe_drop:
            found.append(
                f"{domain}: grounding {before:.3f} -> {after:.3f}, allowed drop {policy.max_probe_drop}"
            )
        replayed = _number(values, "replay_exact_match")
        if replayed is not None and replayed < 1 - policy.max_replay_loss:
            found.append(f"{domain}: replayed rows {replayed:.3f} < {1 - policy.max_replay_loss:.3f}")
    lost = lost_updates(
        forgetting_matrix(metrics), max_drop=policy.max_update_drop, least_rows=policy.min_update_rows
    )
    for row in lost:
        found.append(
            f"{row.domain}: {row.knowledge}, {row.rows} rows {row.before:.3f} -> {row.after:.3f}, "
            f"allowed drop {policy.max_update_drop}"
        )
    return tuple(found)


def training_evidence(
    run: Run,
    *,
    metrics: Mapping[Domain, Metrics],
    artifacts: Mapping[str, JsonValue],
    classifiers: tuple[str, ...],
    policy: EvidencePolicy,
    finished_at: int,
) -> TrainingEvidence:
    """The evidence of one run; `artifacts` are digests of what stands beside the release (Fisher, cards)."""
    rows = Counter(item.row.domain for item in run.rows)
    documents = Counter(item.change.domain for item in run.documents)
    change: dict[str, JsonValue] = (
        {} if run.change is None else {"change": run.change.model_dump(mode="json")}
    )
    return TrainingEvidence(
        dataset=run.dataset,
        seed=run.seed,
        offsets=run.offsets,
        rows=dict(sorted(rows.items())),
        documents=dict(sorted(documents.items())),
        feedback_ids=tuple(sorted(item.row.id for item in run.rows)),
        metrics={
            "domains": {name: dict(values) for name, values in metrics.items()},
            "forgetting": [row.to_json() for row in forgetting_matrix(metrics)],
            "artifacts": dict(artifacts),
            **change,
        },
        classifiers=tuple(sorted(classifiers)),
        problems=problems_of(policy, metrics),
        started_at=run.started_at,
        finished_at=max(finished_at, run.started_at),
    )


def fisher_of(evidence: TrainingEvidence) -> dict[str, str]:
    """Domain to digest of the Fisher information that the next training of the domain starts from."""
    artifacts = evidence.metrics.get("artifacts")
    fisher = artifacts.get("fisher") if isinstance(artifacts, dict) else None
    return {name: str(digest) for name, digest in fisher.items()} if isinstance(fisher, dict) else {}


def _number(values: Metrics, name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
