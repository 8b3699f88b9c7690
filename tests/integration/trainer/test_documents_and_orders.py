"""Documents refresh indexes, orders start trainings, and a long training never loses the group."""

from __future__ import annotations

import json

import pytest

from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import TrainerBench
from twinloop.registry.manifests import read_files
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.index import DomainIndex


def index_of(bench: TrainerBench, release: str, domain: str) -> DomainIndex:
    digest = bench.release(release).release.indexes[domain]  # type: ignore[index]
    embedder = build_embedder(bench.settings.trainer.embedder)
    return DomainIndex.load(read_files(bench.store, digest, kind="index"), embedder, domain=domain)


def put(bench: TrainerBench, *changes: object) -> None:
    for change in changes:
        bench.publish("documents", change, key=f"{change.domain} {change.document_id}")  # type: ignore[attr-defined, arg-type]
    bench.producer.flush()


def test_documents_make_a_release_whose_index_equals_a_fresh_build(make_bench: MakeBench) -> None:
    bench = make_bench()
    starters = [bench.document(f"law-{n:04d}", f"The old rule number {n}.") for n in range(3)]
    bench = make_bench(documents=starters)
    bench.genesis()
    bench.start()
    put(
        bench,
        bench.document("law-0001", "", op="delete"),
        bench.document("law-0002", "The rule as amended."),
        bench.document("law-0009", "A rule that is new."),
        bench.document("law-0000", "The old rule number 0."),  # changes nothing
    )

    proposed = bench.proposal()

    index = index_of(bench, proposed.release_id, "law")
    assert [item.id for item in index.documents] == ["law-0000", "law-0002", "law-0009"]
    fresh = DomainIndex.build(index.documents, index.embedder, domain="law")
    assert fresh.files() == index.files()
    before = bench.release(bench.first).release
    assert proposed.release.adapters == before.adapters, "no rows, so nothing is trained"
    assert {d for d in before.indexes if proposed.release.indexes[d] != before.indexes[d]} == {"law"}
    assert proposed.evidence.documents == {"law": 3}


def test_an_index_past_its_exact_size_is_rebuilt_as_the_configured_approximate_kind(
    make_bench: MakeBench,
) -> None:
    bench = make_bench()
    starters = [bench.document(f"law-{n:04d}", f"The old rule number {n}.") for n in range(3)]
    bench = make_bench(documents=starters, trainer={"index": {"exact_up_to": 3, "approximate": "ivf"}})
    bench.genesis()
    bench.start()
    put(bench, bench.document("law-0009", "A rule that is new."))

    index = index_of(bench, bench.proposal().release_id, "law")

    assert index_of(bench, bench.first, "law").kind == "flat"
    assert index.kind == "ivf"
    assert [hits[0].document.id for hits in index.search(["a rule that is new"], 1)] == ["law-0009"]


def test_a_correction_is_also_taught_from_the_passage_it_cites(make_bench: MakeBench) -> None:
    bench = make_bench()
    document = bench.document("law-0042", "The notice period of contract Velmo is 42 days.")
    bench = make_bench(documents=[document], trainer={"schedule": {"min_rows": 1}})
    bench.genesis()
    bench.start()
    bench.give(bench.feedback(1, "What is the notice period of contract Velmo?", "42 days [law-0042]"))

    proposed = bench.proposal()

    (row,) = bench.dataset_rows(proposed.release_id)
    assert row["passage"] == "The notice period of contract Velmo is 42 days."


def test_a_stray_correction_waits_while_documents_are_refreshed_and_is_trained_with_others(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(trainer={"schedule": {"documents_delay_s": 3.0, "least_rows": 4}})
    bench.genesis()
    bench.start()
    bench.give(bench.feedback(1, "Seat of contract Velmo?", "Oslo [law-0001]"))
    bench.wait_status({"fb-0001": "accepted"})
    put(bench, bench.document("law-0009", "A rule that is new."))

    refreshed = bench.proposal()
    assert refreshed.evidence.feedback_ids == ()
    assert refreshed.release.adapters == bench.release(bench.first).release.adapters

    bench.decide("promote", refreshed.release_id)
    for number in (2, 3, 4):
        bench.give(
            bench.feedback(number, f"Seat of contract Belmo{number}?", f"Rome {number} [law-000{number}]")
        )
    trained = bench.proposal(2)
    assert sorted(trained.evidence.feedback_ids) == ["fb-0001", "fb-0002", "fb-0003", "fb-0004"]


def test_an_operators_order_trains_what_waits_and_a_strangers_does_not(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"schedule": {"min_rows": 100}})
    bench.genesis()
    bench.start()
    bench.give(bench.feedback(1, "Seat of contract Velmo?", "Oslo [law-0001]"))
    bench.wait_status({"fb-0001": "accepted"})

    bench.command("train", "n-1", key="stranger-1")
    bench.wait(lambda: True if "command_refused" in bench.log else None, timeout_s=20)
    assert bench.proposals() == []
    bench.command("train", "n-2", domain="law")

    assert bench.proposal().evidence.feedback_ids == ("fb-0001",)


def test_a_pause_of_training_holds_until_it_is_lifted(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"schedule": {"min_rows": 1}})
    bench.genesis()
    bench.command("pause", "n-1", what="training")
    bench.start()
    bench.wait(lambda: True if '"action": "pause"' in bench.log else None, timeout_s=20)
    bench.give(bench.feedback(1, "Seat of contract Velmo?", "Oslo [law-0001]"))
    bench.wait_status({"fb-0001": "accepted"})
    assert '"event": "training"' not in bench.log

    bench.command("resume", "n-2", what="training")

    bench.proposal()


def test_a_failing_job_is_tried_again_and_then_quarantines_its_rows(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"job": {"learning": {"fail_with": 1}}})
    bench.genesis()
    bench.start()
    given = [bench.feedback(n, f"Seat of contract Velmo{n}?", f"Oslo [law-{n:04d}]") for n in range(4)]
    bench.give(*given)

    statuses = bench.wait_status({item.id: "quarantined" for item in given})

    assert bench.log.count('"event": "training_failed"') == 2
    assert (statuses["fb-0000"].reason or "").startswith("training_failed:law: exit status 1")
    assert bench.proposals() == []


def test_a_card_describes_the_release_without_naming_raters(make_bench: MakeBench) -> None:
    bench = make_bench(trainer={"schedule": {"min_rows": 1}})
    bench.genesis()
    bench.start()
    bench.give(bench.feedback(1, "Seat of contract Velmo?", "Oslo [law-0001]"))

    artifacts = bench.proposal().evidence.metrics["artifacts"]

    assert isinstance(artifacts, dict)
    markdown = bench.store.get(str(artifacts["card_markdown"])).decode()
    card = json.loads(bench.store.get(str(artifacts["card_json"])))
    assert bench.first in markdown
    assert "rater-0001" not in markdown
    assert card["rollback_target"] == bench.first
    assert card["domains"]["law"] == {
        "adapter_changed": True,
        "index_changed": False,
        "rows": 1,
        "documents": 0,
    }


@pytest.mark.slow
def test_a_training_longer_than_the_poll_interval_keeps_its_partitions_and_feedback_is_still_told(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(trainer={"job": {"learning": {"seconds": 9.0}}, "schedule": {"min_rows": 1}})
    profile = bench.config.read_text().replace("kafka:\n", "kafka:\n  max_poll_interval_ms: 6000\n")
    bench.config.write_text(profile)
    bench.genesis()
    bench.start()
    bench.give(bench.feedback(1, "Seat of contract Velmo?", "Oslo [law-0001]"))
    bench.wait(lambda: True if '"event": "training"' in bench.log else None, timeout_s=30)
    bench.give(bench.feedback(2, "Year of contract Tarko?", "1990 [law-0002]"))
    bench.wait_status({"fb-0002": "accepted"}, timeout_s=6)

    assert bench.proposal().evidence.feedback_ids == ("fb-0001",)
    assert "starting_over" not in bench.log
