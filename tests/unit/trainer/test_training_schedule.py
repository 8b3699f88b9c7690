"""When a training starts, and when it must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.event import DOMAINS, Domain
from services.trainer.core.training_schedule import (
    DomainNews,
    Readiness,
    SchedulePolicy,
    StartTraining,
    decide,
)

NOW = 1_000_000_000
POLICY = SchedulePolicy(
    min_rows=8,
    least_rows=1,
    max_age_s=60,
    documents_delay_s=10,
    drift_min_ratings=10,
    drift_down_share=0.5,
    drift_min_rows=2,
)
READY = Readiness(
    has_active_release=True,
    is_paused=False,
    is_running=False,
    has_undecided_candidate=False,
    last_started_at=None,
)


def ask(
    news: dict[Domain, DomainNews],
    readiness: Readiness = READY,
    commanded: frozenset[Domain] = frozenset(),
    policy: SchedulePolicy = POLICY,
) -> StartTraining | None:
    everywhere = {domain: news.get(domain, DomainNews()) for domain in DOMAINS}
    return decide(policy, everywhere, readiness, commanded=commanded, now_ms=NOW)


@pytest.mark.parametrize(
    ("news", "reason"),
    [
        (DomainNews(rows=8, oldest_row_at=NOW), "rows"),
        (DomainNews(rows=1, oldest_row_at=NOW - 60_000), "age"),
        (DomainNews(rows=2, oldest_row_at=NOW, ratings=10, down_ratings=5), "drift"),
        (DomainNews(rows=2, oldest_row_at=NOW, input_shift=0.3), "drift"),
        (DomainNews(documents=1, oldest_document_at=NOW - 10_000), "documents"),
    ],
)
def test_each_trigger_starts_a_training_of_its_domain_alone(news: DomainNews, reason: str) -> None:
    assert ask({"med": news}) == StartTraining(("med",), reason)


@pytest.mark.parametrize(
    "news",
    [
        DomainNews(),
        DomainNews(rows=7, oldest_row_at=NOW - 59_999),
        DomainNews(rows=2, oldest_row_at=NOW, ratings=9, down_ratings=9),
        DomainNews(rows=2, oldest_row_at=NOW, ratings=10, down_ratings=4),
        DomainNews(rows=1, oldest_row_at=NOW, ratings=10, down_ratings=10),
        DomainNews(documents=1, oldest_document_at=NOW - 9_999),
    ],
)
def test_just_below_each_trigger_nothing_starts(news: DomainNews) -> None:
    assert ask({"med": news}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"has_active_release": False},
        {"is_paused": True},
        {"is_running": True},
        {"has_undecided_candidate": True},
    ],
)
def test_enough_rows_do_not_start_a_training_that_must_wait(change: dict[str, bool]) -> None:
    assert ask({"law": DomainNews(rows=99, oldest_row_at=0)}, replace(READY, **change)) is None


def test_an_order_needs_no_trigger_and_no_decision_about_the_last_candidate() -> None:
    waiting = replace(READY, is_paused=True, has_undecided_candidate=True)
    news: dict[Domain, DomainNews] = {"law": DomainNews(rows=1, oldest_row_at=NOW)}

    assert ask(news, waiting, frozenset(("law", "med"))) == StartTraining(("law",), "command")


def test_an_order_starts_nothing_while_a_training_runs_or_nothing_waits() -> None:
    assert ask({}, READY, frozenset(("law",))) is None
    news: dict[Domain, DomainNews] = {"law": DomainNews(rows=1, oldest_row_at=NOW)}
    assert ask(news, replace(READY, is_running=True), frozenset(("law",))) is None


def test_the_cooldown_is_kept() -> None:
    policy = replace(POLICY, cooldown_s=30)
    news: dict[Domain, DomainNews] = {"law": DomainNews(rows=99, oldest_row_at=NOW)}

    assert ask(news, replace(READY, last_started_at=NOW - 29_999), policy=policy) is None
    assert ask(news, replace(READY, last_started_at=NOW - 30_000), policy=policy) is not None


def test_several_domains_that_are_due_train_in_one_run() -> None:
    news: dict[Domain, DomainNews] = {
        "law": DomainNews(rows=8, oldest_row_at=NOW),
        "fin": DomainNews(documents=1, oldest_document_at=0),
        "med": DomainNews(rows=1, oldest_row_at=NOW),
    }

    assert ask(news) == StartTraining(("fin", "law"), "documents+rows")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [(3, None), (4, "age")],
)
def test_too_few_corrections_wait_however_old_they_are(rows: int, reason: str | None) -> None:
    policy = replace(POLICY, least_rows=4, drift_min_rows=1)
    news = DomainNews(rows=rows, oldest_row_at=0, ratings=10, down_ratings=10)

    assert ask({"med": news}, policy=policy) == (StartTraining(("med",), reason) if reason else None)


def test_the_floor_is_never_above_the_number_that_starts_a_training() -> None:
    assert replace(POLICY, min_rows=2, least_rows=4).floor == 2


def test_an_order_trains_however_few_wait() -> None:
    news: dict[Domain, DomainNews] = {"med": DomainNews(rows=1, oldest_row_at=NOW)}

    assert ask(news, commanded=frozenset(("med",)), policy=replace(POLICY, least_rows=4)) is not None
