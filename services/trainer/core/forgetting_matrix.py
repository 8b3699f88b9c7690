"""What a candidate still knows: every domain and every earlier update of it, before and after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.event import DOMAINS, Domain

Metrics = Mapping[str, JsonValue]
_PAIRS = (
    ("foundation's own facts", "general_exact_match_before", "general_exact_match_after"),
    ("answers from a passage", "probe_before", "probe_after"),
)


@dataclass(frozen=True)
class MatrixRow:
    """Share of exact answers to one body of knowledge; None where nothing was asked."""

    domain: Domain
    knowledge: str
    """`update RELEASE`, `foundation's own facts`, `answers from a passage`, or `everything` of an untouched domain."""
    rows: int | None
    """Questions asked, where that is known."""
    before: float | None
    after: float | None
    is_untouched: bool = False
    """The domain's adapter is the parent's, byte for byte: nothing can have been lost."""

    @property
    def lost(self) -> float:
        """Share of the questions that only the parent answers; negative where the candidate knows more."""
        return 0.0 if self.before is None or self.after is None else self.before - self.after

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "domain": self.domain,
            "knowledge": self.knowledge,
            "rows": self.rows,
            "before": self.before,
            "after": self.after,
            "untouched": self.is_untouched,
        }


def forgetting_matrix(metrics: Mapping[Domain, Metrics]) -> tuple[MatrixRow, ...]:
    """The matrix of a run from what its learning jobs measured, in order of domain; one row an untouched domain."""
    found: list[MatrixRow] = []
    for domain in sorted(DOMAINS):
        values = metrics.get(domain)
        if values is None:
            found.append(MatrixRow(domain, "everything", None, None, None, is_untouched=True))
        else:
            found += _earlier(domain, values.get("forgetting"))
            found += [
                MatrixRow(domain, name, None, _share(values.get(before)), _share(values.get(after)))
                for name, before, after in _PAIRS
            ]
    return tuple(found)


def lost_updates(matrix: Sequence[MatrixRow], *, max_drop: float, least_rows: int) -> tuple[MatrixRow, ...]:
    """The earlier updates of which more than `max_drop` was lost; fewer than `least_rows` questions say nothing."""
    return tuple(
        row
        for row in matrix
        if row.knowledge.startswith("update ") and (row.rows or 0) >= least_rows and row.lost > max_drop
    )


def _earlier(domain: Domain, entries: JsonValue) -> list[MatrixRow]:
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            rows = entry.get("rows")
            found.append(
                MatrixRow(
                    domain,
                    f"update {entry.get('update')}",
                    rows if isinstance(rows, int) else None,
                    _share(entry.get("before")),
                    _share(entry.get("after")),
                )
            )
    return found


def _share(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
