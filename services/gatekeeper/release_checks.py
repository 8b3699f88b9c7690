"""Looks at releases in the artifact store: is a proposal what it says, can the outgoing release be restored."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from schemas.gate_inputs import BlobsChecked, ProposalSeen
from schemas.releases import Release, ReleaseProposed, SignatureBlock
from services.gatekeeper.change_approval import Unapproved, check_approval
from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError, SignatureError, Transient
from twinloop.registry.blobs import BlobStore
from twinloop.registry.releases import load_release, release_id, verify_release
from twinloop.signing import KeyRing


class ReleaseChecks:
    """Reads blobs back from the store; every method may take as long as the store does."""

    def __init__(self, store: BlobStore, ring: KeyRing, *, local_foundation: str | None = None) -> None:
        self._store, self._ring, self._local_foundation = store, ring, local_foundation

    def load(self, name: str) -> Release:
        """A stored release whose signature was verified; raises ArtifactError, SignatureError, Transient."""
        return load_release(self._store, name, verify=self._verify).release

    def read_rules(self, digest: str) -> bytes:
        """The verified bytes of a rules document."""
        return self._store.get(digest)

    def proposal(self, event: ReleaseProposed, *, source_offset: int) -> ProposalSeen:
        """Signature, digests, evidence, every blob and any change of rules or prompt of a candidate.

        Raises Transient where the store is silent.
        """
        verdict, detail = "valid", ""
        try:
            self._check_signature(event)
        except SignatureError as error:
            verdict, detail = "forged", str(error)
        else:
            problems = self._problems(event)
            if problems:
                verdict, detail = "broken", "; ".join(problems)
        return ProposalSeen.model_validate(
            {
                "release": event.release_id,
                "parent": event.release.parent,
                "rules": event.release.rules,
                "proposed_by": event.proposed_by,
                "verdict": verdict,
                "detail": detail[:500],
                "source_offset": source_offset,
            }
        )

    def blobs(self, name: str, *, epoch: int) -> BlobsChecked:
        """Whether a release could be restored from the store alone; raises Transient where the store is silent."""
        try:
            problems = verify_release(self._store, self.load(name), local_foundation=self._local_foundation)
        except (ArtifactError, SignatureError) as error:
            problems = [str(error)]
        return BlobsChecked(release=name, epoch=epoch, ok=not problems, detail="; ".join(problems)[:500])

    def _problems(self, event: ReleaseProposed) -> list[str]:
        if release_id(event.release) != event.release_id:
            return [f"the release's digest is {release_id(event.release)}, not {event.release_id}"]
        problems = [f"the trainer says: {problem}" for problem in event.evidence.problems]
        problems = problems or verify_release(
            self._store, event.release, local_foundation=self._local_foundation
        )
        return problems or self._unapproved(event)

    def _unapproved(self, event: ReleaseProposed) -> list[str]:
        """Why its rules or prompt may not be judged; one without a parent is never staged, so nothing is asked."""
        parent = event.release.parent
        if parent is None:
            return []
        try:
            known = self.load(parent)
            check_approval(event.release, known, event.evidence, store=self._store, ring=self._ring)
        except (ArtifactError, SignatureError) as error:
            return [
                f"parent {parent[:8]} cannot be read, so nothing proves that rules and prompt are its own: {error}"
            ]
        except Unapproved as error:
            return [str(error)]
        return []

    def _check_signature(self, event: ReleaseProposed) -> None:
        if event.signed is None:
            raise SignatureError("the proposal is not signed")
        plain = event.model_dump(mode="json")
        plain.pop("signed")
        self._ring.verify(canonical_json(plain), event.signed.signature, event.signed.key_id, role="trainer")

    def _verify(self, message: bytes, block: SignatureBlock) -> None:
        self._ring.verify(message, block.signature, block.key_id, role="trainer")


class BlobCheckRunner:
    """Runs one blob check beside the judge; a check that found the store silent is simply asked for again."""

    def __init__(self, checks: ReleaseChecks) -> None:
        self._checks = checks
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="blob-check")
        self._asked: tuple[str, int] | None = None
        self._future: Future[BlobsChecked] | None = None

    def ask(self, release: str, epoch: int) -> BlobsChecked | None:
        """The result, once; None while it is not here yet. Asking for another release starts another check."""
        if self._asked != (release, epoch):
            self._asked = (release, epoch)
            self._future = self._pool.submit(self._checks.blobs, release, epoch=epoch)
        if self._future is None or not self._future.done():
            return None
        done, self._future = self._future, None
        try:
            return done.result()
        except Transient:
            self._asked = None
            raise

    def forget(self) -> None:
        """Nothing is asked any more: the next question starts anew, whatever the last check finds."""
        self._asked = self._future = None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
