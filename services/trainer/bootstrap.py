"""The first release of an installation: adapters that change nothing, indexes of the given documents, rules, prompt.

`python -m services.trainer.bootstrap [--config FILE]... [--documents FILE] [--rules FILE]` prints one line of JSON:
`{"release_id": ..., "documents": {...}}`. Running it again with the same inputs gives the same release.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue, ValidationError

from schemas.documents import DocumentChange
from schemas.event import DOMAINS, Domain
from schemas.releases import Release, TrainingEvidence
from services.trainer.settings import FoundationSettings, IndexSettings, TrainerSection, TrainerSettings
from services.trainer.training_run import sign_block
from twinloop.canonical import canonical_json
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError, InvalidEvent
from twinloop.process import main_guard
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.digests import sha256_of_hub_model
from twinloop.registry.manifests import digest_folder, put_folder, put_manifest
from twinloop.registry.releases import publish_release
from twinloop.retrieval.document import Document
from twinloop.retrieval.embedder import Embedder
from twinloop.retrieval.embedder_choice import build_embedder
from twinloop.retrieval.index import DomainIndex
from twinloop.routing.rules import read_rules, rules_bytes
from twinloop.settings_loader import load_settings
from twinloop.signing import Signer, load_signer

DEFAULT_CONFIG = Path("configs/trainer.yaml")


def main(arguments: Sequence[str]) -> int:
    return main_guard("trainer.bootstrap", lambda: _bootstrap(_parsed(arguments)))


def first_release(
    store: BlobStore,
    signer: Signer,
    section: TrainerSection,
    *,
    documents: Sequence[Document],
    now_ms: int,
) -> str:
    """Publish the first release and return its id; raises ConfigError or ArtifactError naming what is missing."""
    embedder = build_embedder(section.embedder)
    foundation, is_stored = _foundation(store, section)
    adapter = put_manifest(store, "adapter", _identity_adapter(section, foundation))
    release = Release(
        foundation=foundation,
        embedder=embedder.digest,
        adapters=dict.fromkeys(DOMAINS, adapter),
        indexes={
            domain: _index(store, embedder, documents, domain, settings=section.index) for domain in DOMAINS
        },
        rules=_rules(store, section.bootstrap.rules),
        prompt=_prompt(store, section),
    )
    evidence = TrainingEvidence(
        dataset=store.put(canonical_json({"version": 1, "kind": "empty"})),
        seed=section.seed,
        rows={},
        documents={domain: sum(item.domain == domain for item in documents) for domain in DOMAINS},
        metrics={"artifacts": {"fisher": {}}},
        started_at=now_ms,
        finished_at=now_ms,
    )
    return publish_release(
        store,
        release,
        evidence,
        lambda payload: sign_block(signer, payload),
        local_foundation=None if is_stored else foundation,
    )


def read_documents(path: Path) -> list[Document]:
    """Documents of a JSONL file of document changes; raises ConfigError naming the line at fault."""
    documents: dict[tuple[str, str], Document] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            change = DocumentChange.model_validate_json(line)
            document = Document.from_change(change)
        except (ValidationError, InvalidEvent) as error:
            raise ConfigError(f"{path}, line {number}: not an upsert of a document: {error}") from error
        documents[(document.domain, document.id)] = document
    return list(documents.values())


def _bootstrap(arguments: argparse.Namespace) -> None:
    settings = load_settings(TrainerSettings, *(arguments.config or [DEFAULT_CONFIG]))
    section = settings.trainer
    if arguments.rules is not None:
        chosen = section.bootstrap.model_copy(update={"rules": arguments.rules})
        section = section.model_copy(update={"bootstrap": chosen})
    documents = read_documents(arguments.documents) if arguments.documents else []
    store = open_store(settings.store)
    release = first_release(
        store,
        load_signer(settings.keys.folder, settings.key_id),
        section,
        documents=documents,
        now_ms=SystemClock().now_ms(),
    )
    counts: dict[str, JsonValue] = {d: sum(item.domain == d for item in documents) for d in DOMAINS}
    print(json.dumps({"release_id": release, "documents": counts}))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="services.trainer.bootstrap", description=__doc__)
    parser.add_argument("--config", type=Path, action="append", help="settings file; later ones win")
    parser.add_argument("--documents", type=Path, help="JSONL of document changes for the first indexes")
    parser.add_argument("--rules", type=Path, help="router rules instead of trainer.bootstrap.rules")
    return parser.parse_args(list(arguments))


def _foundation(store: BlobStore, section: TrainerSection) -> tuple[str, bool]:
    """(digest the release names it by, whether the store holds it)."""
    source, revision = section.foundation.source, section.foundation.revision
    folder = Path(source)
    if folder.is_dir():
        if section.bootstrap.store_foundation:
            return put_folder(store, folder, "foundation"), True
        return digest_folder(folder, "foundation"), False
    if revision is None:
        raise ConfigError(
            f"trainer.foundation.source: {source!r} is no folder here; run `make foundation`, or name a hub model "
            "together with its revision"
        )
    return sha256_of_hub_model(source, revision), False


def _identity_adapter(section: TrainerSection, foundation: str) -> dict[str, bytes]:
    from services.trainer.identity_adapter import identity_adapter

    return identity_adapter(
        section.foundation,
        rank=section.bootstrap.rank,
        alpha=section.bootstrap.alpha,
        seed=section.seed,
        base_model=foundation,
    )


def _index(
    store: BlobStore,
    embedder: Embedder,
    documents: Sequence[Document],
    domain: Domain,
    *,
    settings: IndexSettings,
) -> str:
    mine = [document for document in documents if document.domain == domain]
    index = DomainIndex.build(mine, embedder, domain=domain, kind=settings.kind_for(len(mine)))
    return put_manifest(store, "index", index.files())


def _rules(store: BlobStore, path: Path) -> str:
    try:
        return store.put(rules_bytes(read_rules(path.read_bytes(), name=str(path))))
    except OSError as error:
        raise ConfigError(f"trainer.bootstrap.rules: {path} cannot be read: {error}") from error


def _prompt(store: BlobStore, section: TrainerSection) -> str:
    from twinloop.model_runtime.prompt import PromptFormat

    values = dict(section.bootstrap.prompt)
    if values.get("kind") == "auto":
        values["kind"] = "chat" if _has_chat_template(section.foundation) else "tagged"
    return store.put(PromptFormat.from_json(json.dumps(values).encode()).to_json())


def _has_chat_template(foundation: FoundationSettings) -> bool:
    from twinloop.model_runtime.foundation import load_tokenizer

    return bool(load_tokenizer(foundation.source, revision=foundation.revision).chat_template)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
