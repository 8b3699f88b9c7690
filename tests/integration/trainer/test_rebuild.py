"""The state made again where the checkpoint is lost knows what was taught, and rehearses what is still true."""

from __future__ import annotations

from typing import Any

from schemas.releases import TrainingEvidence
from services.trainer.child_process import WarmProcess
from services.trainer.core.dataset import DatasetOrigin, build_dataset
from services.trainer.core.ledger_state import LedgerState, TaughtRow
from services.trainer.core.rows import PendingRow
from services.trainer.rebuild import rebuilt_state
from services.trainer.release_reader import ReleaseReader
from services.trainer.training_run import Tools, sign_block
from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import FAKE_JOB, NOW, TrainerBench
from tests.unit.trainer.examples import row
from twinloop.registry.releases import publish_release
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.signing import load_signer


def taught(bench: TrainerBench, parent: str, given: PendingRow) -> str:
    """A stored release that was taught one row on top of `parent`."""
    dataset = build_dataset(
        [TaughtRow(row=given, passage=None)],
        replay=[],
        documents=[],
        selections={},
        origin=DatasetOrigin(parent=parent, seed=42, licence="CC0-1.0", classifiers=(), offsets=()),
    )
    for blob in (*dataset.blobs.values(), dataset.manifest):
        bench.store.put(blob)
    signer = load_signer(bench.keys, "trainer-1")
    return publish_release(
        bench.store,
        bench.release(parent).release.model_copy(update={"parent": parent}),
        TrainingEvidence(
            dataset=dataset.digest,
            seed=42,
            rows={given.domain: 1},
            documents={},
            feedback_ids=(given.id,),
            started_at=NOW,
            finished_at=NOW,
        ),
        lambda payload: sign_block(signer, payload),
    )


def rebuilt(bench: TrainerBench) -> LedgerState:
    tools = Tools(
        store=bench.store,
        ring=bench.ring,
        signer=load_signer(bench.keys, "trainer-1"),
        embedder=build_embedder(bench.settings.trainer.embedder),
        settings=bench.settings.trainer,
        classifiers=(),
        work_folder=bench.folder / "work",
        process=WarmProcess(FAKE_JOB, log=bench.folder / "learning.log"),
        now_ms=lambda: NOW,
    )
    return rebuilt_state(bench.settings, bench.topics, ReleaseReader(bench.store, bench.ring), tools)


def after(bench: TrainerBench, *rows: PendingRow) -> LedgerState:
    """The state rebuilt after releases that were taught these rows, one each, and promoted in turn."""
    release = bench.first
    for given in rows:
        release = taught(bench, release, given)
    bench.genesis()
    bench.decide("promote", release, about=release)
    return rebuilt(bench)


def changed(number: int, **changes: Any) -> PendingRow:
    return row(number, question="What is the notice period of contract Velmo?", **changes)


def test_a_fact_that_was_overturned_is_not_rehearsed_by_a_rebuilt_state(make_bench: MakeBench) -> None:
    state = after(make_bench(), changed(1, correction="30 days"), changed(2, correction="60 days"))

    assert list(state.seen) == ["fb-1", "fb-2"]
    assert list(state.buffers["law"].rows) == ["fb-2"]


def test_however_many_releases_ago_a_row_was_taught_a_rebuilt_state_knows_it(make_bench: MakeBench) -> None:
    rows = [row(number) for number in range(70)]

    state = after(make_bench(), *rows)

    assert list(state.seen) == [item.id for item in rows]
    assert set(state.buffers["law"].rows) == {item.id for item in rows}
