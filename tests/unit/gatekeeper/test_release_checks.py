"""A proposal is what it says, and an outgoing release is there to the last byte, or no promotion follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.releases import ReleaseProposed
from tests.unit.gatekeeper.release_shelf import Shelf
from twinloop.canonical import sha256_hex


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def verdict_of(shelf: Shelf, event: ReleaseProposed) -> tuple[str, str]:
    seen = shelf.checks.proposal(event, source_offset=0)
    return seen.verdict, seen.detail


def test_a_sound_proposal_is_valid(shelf: Shelf) -> None:
    assert verdict_of(shelf, shelf.proposal()) == ("valid", "")


def test_a_proposal_that_no_trainer_signed_is_forged(shelf: Shelf) -> None:
    assert verdict_of(shelf, shelf.proposal(key_id="operator-1"))[0] == "forged"
    assert verdict_of(shelf, shelf.proposal().model_copy(update={"signed": None}))[0] == "forged"


def test_a_proposal_changed_after_signing_is_forged(shelf: Shelf) -> None:
    assert verdict_of(shelf, shelf.proposal().model_copy(update={"proposed_at": 2}))[0] == "forged"


def test_problems_that_the_trainer_names_break_it(shelf: Shelf) -> None:
    verdict, detail = verdict_of(shelf, shelf.proposal(problems=("forgetting above 10 %",)))
    assert (verdict, "forgetting" in detail) == ("broken", True)


def test_a_missing_blob_breaks_it_and_is_named(shelf: Shelf) -> None:
    shelf.lose(shelf.adapter_blob)
    verdict, detail = verdict_of(shelf, shelf.proposal())
    assert verdict == "broken"
    assert "adapter" in detail


def test_a_whole_release_can_be_restored(shelf: Shelf) -> None:
    assert shelf.checks.blobs(shelf.name, epoch=3).ok


def test_a_release_with_a_missing_or_changed_byte_cannot(shelf: Shelf) -> None:
    path = shelf.folder / "store" / "blobs" / "sha256" / sha256_hex(shelf.adapter_blob)
    path.chmod(0o644)
    path.write_bytes(b"Weights")
    assert not shelf.checks.blobs(shelf.name, epoch=3).ok
    shelf.lose(shelf.adapter_blob)
    checked = shelf.checks.blobs(shelf.name, epoch=3)
    assert not checked.ok
    assert "adapter" in checked.detail


def test_a_release_nobody_published_cannot(shelf: Shelf) -> None:
    assert not shelf.checks.blobs("ab" * 32, epoch=3).ok
