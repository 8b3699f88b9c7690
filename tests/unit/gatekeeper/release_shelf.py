"""One release in a store, candidates that follow it, and the keys of everybody who may have a say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from schemas.event import DOMAINS
from schemas.releases import Release, ReleaseProposed, SignatureBlock, TrainingEvidence
from services.gatekeeper.release_checks import ReleaseChecks
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.model_runtime.prompt import PromptFormat
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.manifests import put_manifest
from twinloop.registry.releases import Sign, publish_release, release_id
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.rules import DomainRules, RouterRules, rules_bytes
from twinloop.signing import KeyRing, Role, Signer, create_keys, load_signer

KEYS: dict[str, tuple[Role, ...]] = {
    "trainer-1": ("trainer",),
    "operator-1": ("operator",),
    "approver-1": ("operator", "approver"),
    "approver-2": ("operator", "approver"),
    "both-1": ("trainer", "approver"),
}


class Shelf:
    """One published release and who may sign for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ring = KeyRing.load(create_keys(folder / "keys", KEYS))
        self.store: BlobStore = open_store(StoreSettings(url=f"file://{folder}/store", create_folder=True))
        self.checks = ReleaseChecks(self.store, ring)
        self.evidence = TrainingEvidence(
            dataset=self.store.put(b"d"), seed=1, rows={}, documents={}, started_at=0, finished_at=1
        )
        self.release = self._release()
        self.name = publish_release(self.store, self.release, self.evidence, self._block("trainer-1"))

    def _block(self, key_id: str) -> Sign:
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
            prompt=put(PromptFormat().to_json()),
        )

    def child(self, *, metrics: Mapping[str, JsonValue] | None = None, **parts: str) -> ReleaseProposed:
        """A signed and published candidate whose parent is the one release, with other parts."""
        release = self.release.model_copy(update={"parent": self.name, **parts})
        evidence = self.evidence.model_copy(update={"metrics": dict(metrics or {})})
        publish_release(self.store, release, evidence, self._block("trainer-1"))
        return self._signed(release, evidence, key_id="trainer-1")

    def proposal(self, *, key_id: str = "trainer-1", problems: tuple[str, ...] = ()) -> ReleaseProposed:
        return self._signed(
            self.release, self.evidence.model_copy(update={"problems": problems}), key_id=key_id
        )

    def _signed(self, release: Release, evidence: TrainingEvidence, *, key_id: str) -> ReleaseProposed:
        event = ReleaseProposed(
            release_id=release_id(release),
            release=release,
            evidence=evidence,
            proposed_by="trainer-1",
            proposed_at=1,
        )
        plain = event.model_dump(mode="json")
        plain.pop("signed")
        signature = self.signer(key_id).sign(canonical_json(plain))
        return event.model_copy(update={"signed": SignatureBlock(key_id=key_id, signature=signature)})

    def lose(self, content: bytes) -> None:
        (self.folder / "store" / "blobs" / "sha256" / sha256_hex(content)).unlink()
