"""When to train: enough rows, rows old enough, drift, documents waiting, or an operator's word.

Drift is what users say (they turn away) or what they ask (other things than the adapter was made for).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.event import Domain

ORDERED = "command"
"""The reason of a training that a person asked for."""


@dataclass(frozen=True)
class SchedulePolicy:
    """What is news enough for a release."""

    min_rows: int = 16
    """Waiting corrections of a domain that start a training."""
    least_rows: int = 4
    """Fewer corrections of a domain are trained by an order alone: a stray one would bend the adapter to itself.

    They wait for others, also while the domain's documents are refreshed. Never more than `min_rows`.
    """
    max_age_s: float = 3600.0
    """A correction that has waited this long starts one, where at least `least_rows` wait."""
    min_documents: int = 1
    """Waiting document changes of a domain that refresh its index ..."""
    documents_delay_s: float = 30.0
    """... once the first of them has waited this long, so that a bulk import makes one release."""
    drift_window: int = 200
    """Ratings of a domain that are looked at, newest last."""
    drift_min_ratings: int = 50
    """Fewer say nothing."""
    drift_down_share: float = 0.3
    """Share of `down` among them that counts as drift ..."""
    drift_input_shift: float = 0.3
    """... and so does this distance, in bits, of what users ask from what the adapter was made for."""
    drift_min_rows: int = 4
    """Waiting corrections that then suffice."""
    cooldown_s: float = 0.0
    """Least time between the starts of two trainings."""

    @property
    def floor(self) -> int:
        """The fewest corrections of a domain that are trained."""
        return min(self.least_rows, self.min_rows)


@dataclass(frozen=True)
class DomainNews:
    """What waits in one domain; times are milliseconds since 1970, None where nothing waits."""

    rows: int = 0
    oldest_row_at: int | None = None
    documents: int = 0
    oldest_document_at: int | None = None
    ratings: int = 0
    down_ratings: int = 0
    input_shift: float | None = None
    """How far recent questions are from earlier ones; None where too few were asked."""


@dataclass(frozen=True)
class Readiness:
    """Whether a training may start at all."""

    has_active_release: bool
    is_paused: bool
    is_running: bool
    has_undecided_candidate: bool
    last_started_at: int | None


@dataclass(frozen=True)
class StartTraining:
    """Train these domains now; the reason is one of `rows`, `age`, `drift`, `documents`, `command`."""

    domains: tuple[Domain, ...]
    reason: str


def decide(
    policy: SchedulePolicy,
    news: Mapping[Domain, DomainNews],
    readiness: Readiness,
    *,
    commanded: frozenset[Domain],
    now_ms: int,
) -> StartTraining | None:
    """Start, or None; one training at a time, and none while a candidate waits for its decision unless commanded."""
    if not readiness.has_active_release or readiness.is_running:
        return None
    ordered = [domain for domain in sorted(commanded) if news[domain].rows or news[domain].documents]
    if ordered:
        return StartTraining(tuple(ordered), ORDERED)
    if readiness.is_paused or readiness.has_undecided_candidate:
        return None
    last = readiness.last_started_at
    if last is not None and now_ms - last < policy.cooldown_s * 1000:
        return None
    reasons = {domain: _reason(policy, entry, now_ms) for domain, entry in sorted(news.items())}
    due = {domain: reason for domain, reason in reasons.items() if reason is not None}
    if not due:
        return None
    return StartTraining(tuple(due), "+".join(dict.fromkeys(due.values())))


def _reason(policy: SchedulePolicy, news: DomainNews, now_ms: int) -> str | None:
    if news.rows >= policy.min_rows:
        return "rows"
    if news.rows >= policy.floor:
        if news.oldest_row_at is not None and now_ms - news.oldest_row_at >= policy.max_age_s * 1000:
            return "age"
        if news.rows >= policy.drift_min_rows and _has_drifted(policy, news):
            return "drift"
    if news.oldest_document_at is not None and news.documents >= policy.min_documents:
        return "documents" if now_ms - news.oldest_document_at >= policy.documents_delay_s * 1000 else None
    return None


def _has_drifted(policy: SchedulePolicy, news: DomainNews) -> bool:
    if news.input_shift is not None and news.input_shift >= policy.drift_input_shift:
        return True
    if news.ratings < policy.drift_min_ratings:
        return False
    return news.down_ratings >= policy.drift_down_share * news.ratings
