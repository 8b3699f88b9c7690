"""A release described for people: what it was made from, what was measured, how to get back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property

from pydantic import JsonValue

from schemas.event import DOMAINS, Domain
from schemas.releases import Release
from services.trainer.core.evidence import EvidencePolicy, Metrics, problems_of
from services.trainer.core.forgetting_matrix import MatrixRow, forgetting_matrix
from services.trainer.core.ledger_state import Run
from twinloop.canonical import canonical_json


@dataclass(frozen=True)
class ModelCard:
    """One release's card; no user's words and no names of raters are in it."""

    run: Run
    release: Release
    parent: Release
    licence: str
    metrics: Mapping[Domain, Metrics]
    policy: EvidencePolicy

    def to_json(self) -> bytes:
        """The card as canonical JSON."""
        run = self.run
        first, last = self._window or (None, None)
        policy: dict[str, JsonValue] = dict(asdict(self.policy))
        return canonical_json(
            {
                "version": 2,
                "foundation": self.release.foundation,
                "parent": run.parent,
                "rollback_target": run.parent,
                "dataset": run.dataset,
                "dataset_licence": self.licence,
                "data_window": {
                    "first_logged_at": first,
                    "last_logged_at": last,
                    "offsets": [item.model_dump(mode="json") for item in run.offsets],
                },
                "raters": self._raters,
                "reason": run.reason,
                "domains": {domain: self._changes(domain) for domain in DOMAINS},
                "metrics": {domain: dict(values) for domain, values in self.metrics.items()},
                "forgetting": [row.to_json() for row in self._matrix],
                "evidence_policy": policy,
                "problems": [*self._problems],
            }
        )

    def to_markdown(self) -> bytes:
        """The same card as Markdown."""
        return ("\n".join([*self._head(), *self._measured(), *self._tail()]) + "\n").encode()

    def _head(self) -> Iterator[str]:
        run = self.run
        yield "# Release card"
        yield ""
        yield f"- foundation (frozen): `{self.release.foundation}`"
        yield f"- parent and rollback target: `{run.parent}`"
        yield f"- dataset: `{run.dataset}`, licence: {self.licence}"
        yield f"- data window: {self._window_text()}"
        yield (
            f"- {len(run.rows)} corrections of {self._raters} raters, {len(run.documents)} document changes; "
            f"started because of: {run.reason}"
        )
        verdict = "; ".join(self._problems) or "nothing against it"
        yield f"- the trainer's own verdict, before any gate: {verdict}"
        yield ""
        yield "| domain | adapter | index | corrections | documents |"
        yield "|---|---|---|---|---|"
        for domain in DOMAINS:
            changes = self._changes(domain)
            adapter = "new" if changes["adapter_changed"] else "as in parent"
            index = "new" if changes["index_changed"] else "as in parent"
            yield f"| {domain} | {adapter} | {index} | {changes['rows']} | {changes['documents']} |"

    def _measured(self) -> Iterator[str]:
        yield from (
            "",
            "## What was known before and after",
            "",
            "| domain | what | asked | before | after |",
        )
        yield "|---|---|---|---|---|"
        for row in self._matrix:
            if row.is_untouched:
                yield f"| {row.domain} | adapter untouched: as in parent | | | |"
            else:
                cells = (row.domain, row.knowledge, row.rows, row.before, row.after)
                yield f"| {' | '.join(map(_shown, cells))} |"
        for domain, values in sorted(self.metrics.items()):
            yield from ("", f"## Measured: {domain}", "", "| what | value |", "|---|---|")
            for name, value in sorted(values.items()):
                if not isinstance(value, list):
                    yield f"| {name} | {_shown(value)} |"

    def _tail(self) -> Iterator[str]:
        yield ""
        yield "Limits: a low-rank adapter learns the rows it was given and little beyond them. Retracted rows leave the"
        yield "replay buffer and later datasets; the weights of this release keep what they learnt from them until"
        yield "it is replaced. What the gates measured stands in the decision log: this card is written before them."

    def _changes(self, domain: Domain) -> dict[str, JsonValue]:
        return {
            "adapter_changed": self.release.adapters[domain] != self.parent.adapters[domain],
            "index_changed": self.release.indexes[domain] != self.parent.indexes[domain],
            "rows": sum(item.row.domain == domain for item in self.run.rows),
            "documents": sum(item.change.domain == domain for item in self.run.documents),
        }

    @cached_property
    def _matrix(self) -> tuple[MatrixRow, ...]:
        return forgetting_matrix(self.metrics)

    @cached_property
    def _problems(self) -> tuple[str, ...]:
        return problems_of(self.policy, self.metrics)

    @property
    def _raters(self) -> int:
        return len({item.row.rater for item in self.run.rows})

    @property
    def _window(self) -> tuple[int, int] | None:
        """When the first and the last record of the dataset were logged, in milliseconds since 1970."""
        times = [item.row.order.timestamp_ms for item in self.run.rows]
        times += [item.logged_at for item in self.run.documents]
        return (min(times), max(times)) if times else None

    def _window_text(self) -> str:
        if self._window is None:
            return "no record of its own"
        first, last = (datetime.fromtimestamp(at / 1000, tz=timezone.utc) for at in self._window)
        places = ", ".join(
            f"{item.topic}/{item.partition} [{item.first}, {item.end})" for item in self.run.offsets
        )
        return f"{first.isoformat(timespec='seconds')} to {last.isoformat(timespec='seconds')}, {places}"


def _shown(value: JsonValue) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
