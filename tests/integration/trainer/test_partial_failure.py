"""A candidate that harmed one domain comes again without it, and only that domain's feedback is set aside."""

from __future__ import annotations

from tests.integration.trainer.conftest import MakeBench


def test_the_spared_domains_are_proposed_anew_and_the_harmed_one_is_set_aside(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.genesis()
    bench.command("pause", "n-1", what="training")
    bench.start()
    law, med = (
        [
            bench.feedback(
                n,
                f"What is the term of {domain} case Velmo{n}?",
                f"{n} days [{domain}-{n:04d}]",
                domain=domain,
            )
            for n in range(first, first + 4)
        ]
        for domain, first in (("law", 0), ("med", 4))
    )
    bench.give(*law, *med)
    bench.wait_status({item.id: "accepted" for item in (*law, *med)})
    bench.command("resume", "n-2", what="training")
    whole = bench.proposal(1)
    assert whole.evidence.rows == {"law": 4, "med": 4}

    bench.decide(
        "abort",
        bench.first,
        about=whole.release_id,
        revoked=[whole.release_id],
        evidence={"outcome": "failed", "feedback": "quarantine_domains", "failed_domains": ["med"]},
    )

    rest = bench.proposal(2)
    before = bench.release(bench.first).release
    assert rest.release.parent == bench.first
    assert rest.release.adapters == {**before.adapters, "law": whole.release.adapters["law"]}
    assert rest.release.indexes == {**before.indexes, "law": whole.release.indexes["law"]}
    assert rest.evidence.feedback_ids == tuple(sorted(item.id for item in law))
    bench.wait_status({item.id: "quarantined" for item in med})
    assert {item.feedback.id for item in bench.quarantined()} == {item.id for item in med}

    bench.decide("promote", rest.release_id, about=rest.release_id)

    bench.wait_status({item.id: "trained" for item in law})
