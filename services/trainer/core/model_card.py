"""A release described for people: what it was made from, what was measured, how to get back."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from schemas.event import DOMAINS, Domain
from schemas.releases import Release
from services.trainer.core.ledger_state import Run
from twinloop.canonical import canonical_json


def card_json(
    run: Run,
    release: Release,
    *,
    parent: Release,
    licence: str,
    metrics: Mapping[Domain, Mapping[str, JsonValue]],
) -> bytes:
    """The card as canonical JSON; no user's words, no names of raters."""
    changed: dict[str, JsonValue] = {
        domain: {
            "adapter_changed": release.adapters[domain] != parent.adapters[domain],
            "index_changed": release.indexes[domain] != parent.indexes[domain],
            "rows": sum(item.row.domain == domain for item in run.rows),
            "documents": sum(item.change.domain == domain for item in run.documents),
        }
        for domain in DOMAINS
    }
    return canonical_json(
        {
            "version": 1,
            "foundation": release.foundation,
            "parent": run.parent,
            "rollback_target": run.parent,
            "dataset": run.dataset,
            "dataset_licence": licence,
            "raters": len({item.row.rater for item in run.rows}),
            "reason": run.reason,
            "domains": changed,
            "metrics": {domain: dict(values) for domain, values in metrics.items()},
        }
    )


def card_markdown(
    run: Run,
    release: Release,
    *,
    parent: Release,
    licence: str,
    metrics: Mapping[Domain, Mapping[str, JsonValue]],
) -> bytes:
    """The same card as Markdown."""
    lines = [
        "# Release card",
        "",
        f"- foundation (frozen): `{release.foundation}`",
        f"- parent and rollback target: `{run.parent}`",
        f"- dataset: `{run.dataset}`, licence: {licence}",
        f"- {len(run.rows)} corrections of {len({item.row.rater for item in run.rows})} raters, "
        f"{len(run.documents)} document changes; started because of: {run.reason}",
        "",
        "| domain | adapter | index | corrections | documents |",
        "|---|---|---|---|---|",
    ]
    for domain in DOMAINS:
        adapter = "new" if release.adapters[domain] != parent.adapters[domain] else "as in parent"
        index = "new" if release.indexes[domain] != parent.indexes[domain] else "as in parent"
        rows = sum(item.row.domain == domain for item in run.rows)
        documents = sum(item.change.domain == domain for item in run.documents)
        lines.append(f"| {domain} | {adapter} | {index} | {rows} | {documents} |")
    for domain, values in sorted(metrics.items()):
        lines += ["", f"## Measured: {domain}", "", "| what | value |", "|---|---|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in sorted(values.items())]
    lines += [
        "",
        "Limits: a low-rank adapter learns the rows it was given and little beyond them; retracted rows leave the",
        "replay buffer and later datasets, the weights of this release keep what they learnt until it is replaced.",
        "",
    ]
    return "\n".join(lines).encode()


def _shown(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
