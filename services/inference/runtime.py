"""The model side of a worker put together: foundation, adapters, indexes, engine. Imports torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from schemas.event import DOMAINS
from schemas.releases import SignatureBlock
from services.inference.answering import AnswerEngine, Asked
from services.inference.releases import Preparer, ReadyRelease, ReleaseShelf
from services.inference.settings import InferenceSection
from twinloop.errors import ConfigError
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import FoundationSpec, load_foundation
from twinloop.model_runtime.generation import Generator, decoder_for
from twinloop.registry.blobs import open_store
from twinloop.registry.digests import sha256_of_hub_model
from twinloop.registry.manifests import digest_folder
from twinloop.registry.store_settings import StoreSettings
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.remembering_embedder import RememberingEmbedder
from twinloop.signing import KeyRing

_USERS_TURN_S = 0.05
"""Left free after each question of a warm-up: the engine's lock is not fair."""


@dataclass(frozen=True)
class Runtime:
    """Everything that turns questions into answers."""

    shelf: ReleaseShelf
    preparer: Preparer
    engine: AnswerEngine


def open_runtime(section: InferenceSection, store_settings: StoreSettings, ring: KeyRing) -> Runtime:
    """Load the foundation and make ready to prepare releases; raises ConfigError, ArtifactError."""
    spec, digest = foundation_spec(section)
    foundation = load_foundation(spec)
    bank = AdapterBank(foundation.model)
    decoder_for(foundation, bank, merge=section.merge_adapters)  # refuses at the start what cannot be merged
    engine = AnswerEngine(
        lambda max_new, max_prompt: Generator(
            foundation,
            bank,
            max_new_tokens=max_new,
            max_prompt_tokens=max_prompt,
            decoder=decoder_for(foundation, bank, merge=section.merge_adapters),
        ),
        chat=foundation.chat_template,
        retrieve=section.retrieve,
        clock_ms=lambda: time.perf_counter() * 1000,
    )
    shelf = ReleaseShelf(
        open_store(store_settings),
        bank,
        RememberingEmbedder(build_embedder(section.embedder), max_texts=section.remembered_questions),
        foundation_digest=digest,
        verify=lambda message, block: _verify(ring, message, block),
        warm=_WarmUp(engine, batch_max=section.batch_max),
    )
    return Runtime(shelf, Preparer(shelf, lambda: None), engine)


def foundation_spec(section: InferenceSection) -> tuple[FoundationSpec, str]:
    """How to load the foundation, and the digest releases name it by."""
    settings = section.foundation
    spec = FoundationSpec(
        source=settings.source,
        revision=settings.revision,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
    )
    folder = Path(settings.source)
    if folder.is_dir():
        return spec, digest_folder(folder, "foundation")
    if settings.revision is None:
        raise ConfigError(
            f"inference.foundation.source: {settings.source!r} is no folder here; run `make foundation`, or name a hub "
            "model together with its revision"
        )
    return spec, sha256_of_hub_model(settings.source, settings.revision)


def _verify(ring: KeyRing, message: bytes, block: SignatureBlock) -> None:
    ring.verify(message, block.signature, block.key_id, role="trainer")


class _WarmUp:
    """Answers made-up questions with a release before users' come: the first one of a process is worked in for longer.

    What the libraries choose and allocate for a shape of batch they keep, so that sizes up to the largest are tried;
    without it the first seconds of full traffic are ten times slower than those that follow. Each later release is
    asked a question a domain, one at a time: memory that lay idle may have been taken back, the embedder's too, but
    users are being answered meanwhile and wait for no more than one such question.
    """

    def __init__(self, engine: AnswerEngine, *, batch_max: int) -> None:
        self._engine, self._batch_max = engine, batch_max
        self._is_cold = True

    def __call__(self, ready: ReadyRelease) -> None:
        is_cold, self._is_cold = self._is_cold, False
        if is_cold:
            for size in _sizes(self._batch_max):
                for words in (1, 12):
                    self._engine.answer(_made_up(ready, size=size, words=words))
            return
        for words in (1, 6):
            for asked in _made_up(ready, size=len(DOMAINS), words=words):
                self._engine.answer([asked])
                time.sleep(_USERS_TURN_S)


def _sizes(most: int) -> list[int]:
    """Powers of two below `most`, and `most`."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]


def _made_up(ready: ReadyRelease, *, size: int, words: int) -> list[Asked]:
    return [
        Asked(
            " ".join([f"What is {number} of {ready.release_id[:8]}?"] * words),
            DOMAINS[number % len(DOMAINS)],
            ready,
        )
        for number in range(size)
    ]
