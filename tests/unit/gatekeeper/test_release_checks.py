"""A proposal is what it says, and an outgoing release is there to the last byte, or no promotion follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.event import DOMAINS
from schemas.releases import Release, ReleaseProposed, SignatureBlock, TrainingEvidence
from services.gatekeeper.release_checks import ReleaseChecks
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.manifests import put_manifest
from twinloop.registry.releases import publish_release
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.rules import DomainRules, RouterRules, rules_bytes
from twinloop.signing import KeyRing, Signer, create_keys, load_signer


class Shelf:
    """One published release and who may sign for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ring = KeyRing.load(
            create_keys(folder / "keys", {"trainer-1": ("trainer",), "operator-1": ("operator",)})
        )
        self.store: BlobStore = open_store(StoreSettings(url=f"file://{folder}/store", create_folder=True))
        self.checks = ReleaseChecks(self.store, ring)
        self.evidence = TrainingEvidence(
            dataset=self.store.put(b"d"), seed=1, rows={}, documents={}, started_at=0, finished_at=1
        )
        self.release = self._release()
        self.name = publish_release(self.store, self.release, self.evidence, self._block("trainer-1"))

    def _block(self, key_id: str):  # type: ignore[no-untyped-def]
        signer = self.signer(key_id)
        return lambda message: SignatureBlock(key_id=key_id, signature=signer.sign(message))

    def signer(self, key_id: str) -> Signer:
        return load_signer(self.folder / "keys", key_id)

    def _release(self) -> Release:
        put = self.store.put
        self.adapter_blob = b"weights"
        files = {"adapter_model.safetensors": self.adapter_blob, "adapter_config.json": b"{}"}
        embedder = "e" * 64
        indexes = {
            domain: put_manifest(
                self.store,
                "index",
                {
                    "index.faiss": b"f",
                    "documents.jsonl": b"",
                    "meta.json": canonical_json({"embedder_digest": embedder, "domain": domain}),
                },
            )
            for domain in DOMAINS
        }
        rules = RouterRules(domains={domain: DomainRules() for domain in DOMAINS})
        return Release(
            foundation=put_manifest(self.store, "foundation", {"model.safetensors": b"frozen"}),
            embedder=embedder,
            adapters=dict.fromkeys(DOMAINS, put_manifest(self.store, "adapter", files)),
            indexes=indexes,
            rules=put(rules_bytes(rules)),
            prompt=put(b"prompt"),
        )

    def proposal(self, *, key_id: str = "trainer-1", problems: tuple[str, ...] = ()) -> ReleaseProposed:
        event = ReleaseProposed(
            release_id=self.name,
            release=self.release,
            evidence=self.evidence.model_copy(update={"problems": problems}),
            proposed_by="trainer-1",
            proposed_at=1,
        )
        plain = event.model_dump(mode="json")
        plain.pop("signed")
        signature = self.signer(key_id).sign(canonical_json(plain))
        return event.model_copy(update={"signed": SignatureBlock(key_id=key_id, signature=signature)})

    def lose(self, content: bytes) -> None:
        (self.folder / "store" / "blobs" / "sha256" / sha256_hex(content)).unlink()


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
