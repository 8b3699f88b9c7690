"""One candidate at a time: of those waiting the newest wins, and its parent must be the active release."""

from __future__ import annotations

from tests.histories.script import BOOT, GOOD, NEWER, History, digest

NEWEST = digest("newest candidate")


def test_the_newest_waiting_candidate_wins_and_the_older_one_is_superseded() -> None:
    history = History().begin()
    history.propose(GOOD)
    history.propose(NEWER)
    history.propose(NEWEST)
    assert (history.last.kind, history.last.reason) == ("reject", "superseded")
    assert history.last.release == NEWER
    assert history.last.evidence["feedback"] == "retrain"
    assert history.routing.phase == "qa", "the staged candidate goes on"
    assert history.routing.releases["green"] == GOOD
    history.order("abort")
    assert history.last.kind == "stage"
    assert history.last.release == NEWEST


def test_superseding_does_not_disturb_a_running_canary() -> None:
    history = History({"ramp": {"min_step_s": 5}}).begin()
    history.warm()
    history.to_canary()
    canary = history.routing.canary
    history.propose(NEWER)
    history.propose(NEWEST)
    assert history.routing.canary == canary
    history.traffic(100)
    history.blobs()
    assert history.last.kind == "promote"


def test_a_candidate_built_on_another_release_is_sent_back() -> None:
    history = History().begin()
    history.propose(GOOD, parent=digest("somebody else"))
    assert (history.last.kind, history.last.reason) == ("reject", "stale_parent")
    assert history.last.evidence["feedback"] == "retrain"
    assert history.routing.releases == {"blue": BOOT, "green": BOOT}


def test_a_candidate_without_a_parent_is_sent_back() -> None:
    history = History().begin()
    history.propose(GOOD, parent=None)
    assert history.last.reason == "stale_parent"


def test_a_candidate_that_waited_through_a_promote_is_sent_back() -> None:
    history = History({"ramp": {"min_step_s": 5}, "promote": {"bake_s": 5}}).begin()
    history.warm()
    history.to_canary()
    history.propose(NEWER)
    history.traffic(100)
    history.blobs()
    history.tick(6)
    assert (history.last.kind, history.last.reason) == ("reject", "stale_parent")
    assert history.last.release == NEWER


def test_the_same_proposal_read_twice_counts_once() -> None:
    history = History().begin()
    history.propose(source_offset=3)
    history.propose(source_offset=3)
    assert history.kinds == ["genesis", "stage"]
    assert history.audits == []
