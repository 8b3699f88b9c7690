"""Thumbs of users: each key once, by the time of the answer, after they had time to come; a guardrail and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.feedback import Feedback
from services.gatekeeper.core.policy import RatingsPolicy
from services.gatekeeper.core.rating_windows import PartitionRatings, Rating, RatingScope
from services.gatekeeper.core.state import CanaryRun
from services.gatekeeper.gate_log import GateLog
from services.gatekeeper.intake import rating_of
from services.gatekeeper.rating_stage import RatingStage
from tests.histories.generate import in_canary
from tests.histories.script import BOOT, GOOD, History
from twinloop.bus.records import Outgoing, TopicPartition
from twinloop.clock import FixedClock
from twinloop.receipts import Receipt, issue_receipt, question_digest
from twinloop.signing import KeyRing, Signer, create_keys, load_signer

SCOPE = RatingScope(frozenset({BOOT, GOOD}), 3)


def thumb(
    number: int, *, at: float = 0.0, down: bool = True, unit: int | None = None, **fields: object
) -> Rating:
    values = {
        "feedback_id": f"fb-{number}",
        "query_id": f"q-{number}",
        "rater": "ada",
        "release": GOOD,
        "epoch": 3,
        "unit": f"{number if unit is None else unit:016x}",
        "answered_at": at,
        "is_down": down,
        **fields,
    }
    return Rating(**values)  # type: ignore[arg-type]


def ratings() -> PartitionRatings:
    found = PartitionRatings(0, window_s=10.0, maturity_s=30.0)
    found.watch(SCOPE)
    return found


def test_a_window_closes_once_ratings_of_its_answers_had_time_to_come() -> None:
    found = ratings()
    found.rated(thumb(1, at=5.0), 0)
    assert found.close(39.9) == ()
    (tally,) = found.close(40.0)
    assert (tally.start, tally.end, tally.epoch) == (0.0, 10.0, 3)
    assert [(counts.release, counts.rated, counts.down) for counts in tally.counts] == [(GOOD, 1, 1.0)]


def test_a_key_counts_once_with_the_mean_of_its_thumbs() -> None:
    found = ratings()
    found.rated(thumb(1, unit=7, down=True), 0)
    found.rated(thumb(2, unit=7, down=False), 1)
    found.rated(thumb(3, unit=7, at=12.0), 2)
    first, *later = found.close(100.0)
    assert (first.counts[0].rated, first.counts[0].down) == (1, 0.5)
    assert later == [], "one user with many answers is still one user"


def test_the_last_thumb_under_an_answer_holds_and_a_retracted_one_does_not_count() -> None:
    found = ratings()
    found.rated(thumb(1, down=True), 0)
    found.rated(thumb(1, down=False, feedback_id="fb-again"), 1)
    found.rated(thumb(2), 2)
    found.retracted("fb-2", "bob")
    found.rated(thumb(3), 3)
    found.retracted("fb-3", "ada")
    (tally,) = found.close(100.0)
    assert (tally.counts[0].rated, tally.counts[0].down) == (2, 1.0)


def test_ratings_of_other_releases_or_of_before_the_canary_count_for_nothing() -> None:
    found = ratings()
    found.rated(thumb(1, release="ab" * 32), 0)
    found.rated(thumb(2, epoch=2), 1)
    assert found.close(100.0) == ()
    assert found.restart_offset() is None


def test_a_thumb_after_its_window_closed_is_counted_as_late() -> None:
    found = ratings()
    found.rated(thumb(1), 0)
    found.close(50.0)
    found.rated(thumb(2, at=3.0), 1)
    found.rated(thumb(3, at=45.0), 2)
    (tally,) = found.close(100.0)
    assert (tally.late, tally.counts[0].rated) == (1, 1)


def test_another_canary_begins_anew() -> None:
    found = ratings()
    found.rated(thumb(1), 0)
    found.watch(RatingScope(frozenset({BOOT, GOOD}), 9))
    assert found.close(100.0) == ()


def canary(**ratings_policy: object) -> History:
    return in_canary(ratings=ratings_policy)


def test_few_or_no_ratings_block_nothing_and_are_said_in_the_evidence() -> None:
    history = canary()
    history.until_cleared(40)
    history.blobs()
    assert history.last.kind == "promote"
    gates = history.last.evidence["verdict"]["gates"]  # type: ignore[index, call-overload]
    (row,) = [gate for gate in gates if gate["kind"] == "guardrail"]  # type: ignore[union-attr, index, call-overload]
    assert "not enough ratings" in row["line"]  # type: ignore[index, call-overload, operator]


def test_without_a_ratings_section_no_verdict_speaks_of_them() -> None:
    history = in_canary()
    history.ratings(shadow=50, shadow_down=50.0, active=50)
    history.until_cleared(40)
    history.blobs()
    assert history.last.kind == "promote"
    assert "guardrail" not in str(history.last.evidence)


def test_a_promote_waits_for_ratings_only_where_the_policy_says_so() -> None:
    history = canary(min_rated=30)
    history.until_cleared(40)
    assert "promote" not in history.kinds
    assert any("ratings of 30 more shadow keys" in progress.line for progress in history.progress)
    history.ratings(shadow=30, shadow_down=3.0, active=270, active_down=27.0)
    history.until_cleared(3)
    history.blobs()
    assert history.last.kind == "promote"


def test_dissatisfied_users_stop_the_canary_and_it_counts_as_harm() -> None:
    history = canary()
    history.traffic(2)
    history.ratings(shadow=40, shadow_down=32.0, active=360, active_down=36.0)
    assert (history.last.kind, history.last.reason) == ("abort", "ratings")
    assert history.routing.revoked == (GOOD,)


def test_dissatisfaction_within_the_margin_is_no_reason() -> None:
    history = canary()
    history.traffic(2)
    for _ in range(5):
        history.tick(1.0)
        history.ratings(shadow=40, shadow_down=8.0, active=360, active_down=36.0)
    assert history.last.kind == "canary"


def test_a_window_logged_twice_counts_once() -> None:
    history = canary()
    history.traffic(1)
    for _ in range(9):
        history.ratings(shadow=5, shadow_down=5.0, active=45, active_down=5.0)
    stage = history.state.stage
    assert isinstance(stage, CanaryRun)
    assert stage.ratings is not None
    assert float(stage.ratings.process.n_s[0]) == 5.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, KeyRing]:
    folder: Path = tmp_path_factory.mktemp("keys")
    ring = KeyRing.load(create_keys(folder, {"inference-1": ("inference",), "trainer-1": ("trainer",)}))
    return load_signer(folder, "inference-1"), ring


def quoted(signer: Signer, **fields: object) -> Feedback:
    receipt = {
        "kind": "answer",
        "query_id": "q-1",
        "question_sha256": question_digest("why?"),
        "domain": "law",
        "release": GOOD,
        "epoch": 3,
        "issued_at": 5000,
        "unit": "0" * 16,
        **fields,
    }
    return Feedback(
        id="fb-1",
        query_id="q-1",
        receipt=issue_receipt(Receipt.model_validate(receipt), signer),
        question="why?",
        rater="ada",
        given_at=6000,
        rating="down",
    )


def test_a_thumb_counts_for_the_release_and_key_of_its_receipt(keys: tuple[Signer, KeyRing]) -> None:
    signer, ring = keys
    rating = rating_of(quoted(signer), ring)
    assert rating is not None
    assert (rating.release, rating.unit, rating.answered_at, rating.is_down) == (GOOD, "0" * 16, 5.0, True)


@pytest.mark.parametrize(
    "fields", [{"query_id": "q-2"}, {"question_sha256": question_digest("what?")}, {"unit": None}]
)
def test_a_receipt_that_does_not_cover_the_thumb_counts_for_nothing(
    keys: tuple[Signer, KeyRing], fields: dict[str, object]
) -> None:
    signer, ring = keys
    assert rating_of(quoted(signer, **fields), ring) is None


def test_a_forged_receipt_counts_for_nothing(keys: tuple[Signer, KeyRing]) -> None:
    signer, ring = keys
    forged = quoted(signer).model_copy(update={"receipt": "a.b.c"})
    assert rating_of(forged, ring) is None


class Written:
    """Keeps what was produced."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    def send(self, outgoing: Outgoing) -> None:
        self.records.append(outgoing)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Everything is there already."""


def test_a_restart_reads_the_ratings_of_the_running_canary_again(keys: tuple[Signer, KeyRing]) -> None:
    signer, ring = keys
    scope: list[RatingScope | None] = [None]
    log = GateLog(Written(), topic="gate-inputs", name="g-0", session="s", clock=FixedClock())
    stage = RatingStage(log, RatingsPolicy(), ring, topic="feedback", scope_of=lambda: scope[0])
    place = TopicPartition("feedback", 0)
    stage.given(quoted(signer), partition=0, offset=10)
    assert stage.commitable() == {place: 11}, "while no canary runs nothing is kept"
    scope[0] = SCOPE
    stage.given(quoted(signer), partition=0, offset=11)
    stage.given(quoted(signer), partition=0, offset=12)
    assert stage.commitable() == {place: 11}
    scope[0] = None
    assert stage.commitable() == {place: 13}
