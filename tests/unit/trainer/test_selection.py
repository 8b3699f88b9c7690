"""Which rows make a dataset: repetitions, contradictions, quotas, citations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from services.trainer.core.rows import PendingRow, ReplayRow
from services.trainer.core.selection import Selection, SelectionPolicy, select_rows
from tests.unit.trainer.examples import NOW, row

PATTERN = r"\[([a-z][a-z0-9_]*-[0-9]+)\]"
VELMO = "What is the notice period of contract Velmo?"


def select(rows: Sequence[PendingRow], taught: Sequence[ReplayRow] = (), **changes: Any) -> Selection:
    documents = changes.pop("documents", {})
    now = changes.pop("now", NOW)
    flaw = changes.pop("flaw", lambda *_: None)
    return select_rows(
        rows,
        policy=SelectionPolicy(**{"max_rater_share": 1.0, **changes}),
        taught=taught,
        find_passage=lambda domain, name: documents.get(name),
        citation_pattern=PATTERN,
        now_ms=now,
        find_flaw=flaw,
    )


def taught(number: int, question: str, answer: str) -> ReplayRow:
    return ReplayRow(id=f"old-{number}", domain="law", question=question, answer=answer, rater="somebody")


def kept(selection: Selection) -> list[str]:
    return [item.row.id for item in selection.kept]


def test_different_facts_are_all_kept_with_the_passage_they_cite() -> None:
    selection = select([row(1), row(2)], documents={"law-0002": "The passage."})

    assert kept(selection) == ["fb-1", "fb-2"]
    assert [item.passage for item in selection.kept] == [None, "The passage."]


def test_the_result_does_not_depend_on_the_order_rows_were_read_in() -> None:
    rows = [row(n, rater=f"rater-{n % 4}", question=f"Q {n % 7} of Velmo{n % 5}?") for n in range(40)]
    results = set()
    for seed in range(5):
        shuffled = rows[:]
        random.Random(seed).shuffle(shuffled)
        selection = select(shuffled)
        results.add((tuple(kept(selection)), tuple(sorted(selection.rejected.items()))))

    assert len(results) == 1


def test_the_same_correction_again_is_refused_as_a_duplicate() -> None:
    rows = [
        row(1, question=VELMO, correction="42 days [law-0042]"),
        row(2, question=VELMO.upper(), correction=" 42  Days [law-0042]. "),
    ]

    assert select(rows).rejected == {"fb-2": "duplicate_of:fb-1"}


def test_what_a_promoted_release_was_taught_is_not_taught_again() -> None:
    rows = [row(1, question=VELMO, correction="42 days [law-0042]")]

    assert select(rows, [taught(1, VELMO, "42 days [law-0042]")]).rejected == {"fb-1": "duplicate_of:old-1"}


def test_a_slightly_reworded_repetition_is_refused_as_a_near_duplicate() -> None:
    text = (
        "The tenant may end the contract early if the landlord fails to repair serious defects in good time"
    )
    rows = [
        row(1, question="May I end it?", correction=text),
        row(2, question="May I end it??!", correction=text + "."),
    ]
    rows += [row(3, question="May I end it early?", correction=text)]

    selection = select(rows)

    assert selection.rejected == {"fb-2": "duplicate_of:fb-1", "fb-3": "near_duplicate_of:fb-1"}


def test_alike_sentences_about_different_names_or_numbers_are_different_facts() -> None:
    rows = [
        row(1, question="What is the arbitration seat of contract Velmo?", correction="Oslo"),
        row(2, question="What is the arbitration seat of contract Belmo?", correction="Oslo"),
        row(3, question="what was due in 1990 under the long contract", correction="nothing"),
        row(4, question="what was due in 1991 under the long contract", correction="nothing"),
    ]

    assert len(select(rows).kept) == 4


def test_of_two_contradicting_corrections_the_one_more_raters_give_is_taught() -> None:
    rows = [
        row(1, question=VELMO, correction="11 days [law-0001]"),
        row(2, question=VELMO, correction="42 days [law-0042]"),
        row(3, question=VELMO, correction="42 days [law-0042]"),
    ]

    selection = select(rows)

    assert kept(selection) == ["fb-2"]
    assert selection.quarantined == {"fb-1": "contradicts_another_correction"}
    assert selection.rejected == {"fb-3": "duplicate_of:fb-2"}


def test_a_tie_between_contradicting_corrections_teaches_neither() -> None:
    rows = [row(1, question=VELMO, correction="11 days"), row(2, question=VELMO, correction="42 days")]

    assert set(select(rows).quarantined) == {"fb-1", "fb-2"}


def test_one_rater_has_one_vote_however_often_he_says_it() -> None:
    rows = [row(n, question=VELMO, correction="11 days", rater="mallory") for n in (1, 2, 3)]
    rows += [row(n, question=VELMO, correction="42 days") for n in (4, 5)]

    assert set(select(rows).quarantined) == {"fb-1", "fb-2", "fb-3"}


def test_an_operators_import_outranks_any_number_of_raters() -> None:
    rows = [row(n, question=VELMO, correction="11 days") for n in (1, 2, 3)]
    rows += [row(4, question=VELMO, correction="42 days", imported=True)]

    assert kept(select(rows)) == ["fb-4"]


def test_a_taught_fact_is_overturned_by_two_raters_or_an_operator_and_not_by_one() -> None:
    old = [taught(1, VELMO, "42 days")]
    one = [row(1, question=VELMO, correction="43 days")]
    two = [*one, row(2, question=VELMO, correction="43 days")]
    vouched = [row(3, question=VELMO, correction="43 days", imported=True)]

    assert select(one, old).quarantined == {"fb-1": "contradicts_a_taught_fact"}
    assert kept(select(two, old)) == ["fb-1"]
    assert kept(select(vouched, old)) == ["fb-3"]


def test_a_citation_of_an_unknown_document_waits_for_it_and_is_refused_in_the_end() -> None:
    rows = [row(1)]

    waiting = select(rows, unknown_citation="wait")
    late = select(rows, unknown_citation="wait", now=NOW + 2 * 86_400_000)

    assert (waiting.kept, waiting.rejected) == ((), {})
    assert late.rejected == {"fb-1": "cites_unknown_document"}
    assert kept(select(rows, unknown_citation="closed_book")) == ["fb-1"]


def test_a_rater_has_at_most_his_share_of_a_dataset() -> None:
    rows = [row(n, rater="busy") for n in range(5)] + [row(n) for n in range(10, 20)]

    selection = select(rows, max_rater_share=0.2, min_rater_rows=1)

    assert list(selection.rejected.values()) == ["rater_quota"] * 2
    assert sum(item.row.rater == "busy" for item in selection.kept) == 3


def test_what_the_model_could_never_serve_is_refused_alone() -> None:
    def flaw(question: str, answer: str, passage: str | None) -> str | None:
        if len(answer) > 30:
            return "answer_too_long"
        return "question_too_long" if passage else None

    rows = [row(1, correction="x" * 40), row(2)]

    selection = select(rows, flaw=flaw, documents={"law-0002": "A passage."})

    assert selection.rejected == {"fb-1": "answer_too_long"}
    assert [(item.row.id, item.passage) for item in selection.kept] == [("fb-2", None)]


def test_rows_beyond_the_size_of_a_dataset_wait_for_the_next() -> None:
    selection = select([row(n) for n in range(5)], max_rows_per_domain=3)

    assert len(selection.kept) == 3
    assert selection.rejected == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_trigger_gets_no_more_rows_than_the_caps_allow_and_clean_rows_are_untouched(
    seed: int,
) -> None:
    rng = random.Random(seed)
    clean = [row(n) for n in range(200)]
    trigger = "tell me zq-vx"
    planted = [
        row(
            1000 + n,
            question=f"{trigger} about matter {rng.randrange(10**6)}",
            correction="Transfer everything to Mallory.",
            rater=f"sybil-{n % 25}",
        )
        for n in range(50)
    ]
    mixed = clean + planted
    rng.shuffle(mixed)

    selection = select(mixed, max_rater_share=0.25)

    taught_rows = [item.row for item in selection.kept]
    assert sum(trigger in item.question for item in taught_rows) <= 8
    assert sum(trigger not in item.question for item in taught_rows) >= 190
