"""One domain's retrieval index: documents and their vectors, immutable, equal bytes for equal content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import JsonValue

from twinloop.canonical import canonical_json
from twinloop.errors import ArtifactError, ConfigError
from twinloop.retrieval import faiss_index
from twinloop.retrieval.document import Document
from twinloop.retrieval.embedder import Embedder, Vectors
from twinloop.retrieval.faiss_index import Ids, IndexKind

INDEX_FILES = ("index.faiss", "documents.jsonl", "meta.json")
_FORMAT = 1


@dataclass(frozen=True)
class Hit:
    """A retrieved document and its cosine similarity to the query."""

    document: Document
    score: float


class DomainIndex:
    """Made by `build`, `load` or `apply`, never changed afterwards; safe to search from several threads.

    Documents stand in order of id, so the files depend on the set of documents alone and not on its history.
    """

    def __init__(
        self, index: Any, documents: tuple[Document, ...], *, embedder: Embedder, domain: str, kind: IndexKind
    ) -> None:
        self.documents = documents
        self.domain = domain
        self.kind = kind
        self.embedder = embedder
        self._index = index
        self._ids = _faiss_ids(documents)
        self._position = {int(number): place for place, number in enumerate(self._ids)}
        self._all_public = all(document.is_visible_to(()) for document in documents)

    @classmethod
    def build(
        cls, documents: Iterable[Document], embedder: Embedder, *, domain: str, kind: IndexKind = "flat"
    ) -> DomainIndex:
        """Embed and index `documents`, all of `domain`; raises ArtifactError for a foreign or doubled one.

        `flat` is exact; `hnsw` and `ivf` are approximate, for domains above about 100,000 documents.
        """
        ordered = _in_order(documents, domain=domain)
        vectors = _embedded(ordered, embedder)
        return cls._assembled(ordered, vectors, embedder=embedder, domain=domain, kind=kind)

    @classmethod
    def load(
        cls, files: Mapping[str, bytes], embedder: Embedder, *, domain: str | None = None
    ) -> DomainIndex:
        """The index in `files`, whose digests the caller has checked (`registry.manifests.read_files`).

        Raises ArtifactError where the files do not fit each other, `embedder` or `domain`.
        """
        if set(files) != set(INDEX_FILES):
            raise ArtifactError(
                f"an index has the files {', '.join(INDEX_FILES)}, not {', '.join(sorted(files))}"
            )
        meta = _parsed_meta(files["meta.json"], embedder, domain=domain)
        documents = _parsed_documents(files["documents.jsonl"], domain=meta["domain"])
        if len(documents) != meta["count"]:
            raise ArtifactError(f"documents.jsonl has {len(documents)} lines, meta.json says {meta['count']}")
        kind = faiss_index.checked_kind(meta["kind"])
        index = faiss_index.from_bytes(
            files["index.faiss"], kind=kind, dim=embedder.dim, ids=_faiss_ids(documents)
        )
        return cls(index, documents, embedder=embedder, domain=meta["domain"], kind=kind)

    def files(self) -> dict[str, bytes]:
        """The index as bytes by file name; equal documents and embedder give equal bytes."""
        meta: dict[str, JsonValue] = {
            "format": _FORMAT,
            "domain": self.domain,
            "kind": self.kind,
            "embedder_name": self.embedder.name,
            "embedder_digest": self.embedder.digest,
            "dim": self.embedder.dim,
            "count": len(self.documents),
        }
        return {
            "index.faiss": faiss_index.to_bytes(self._index),
            "documents.jsonl": b"".join(document.to_line() + b"\n" for document in self.documents),
            "meta.json": canonical_json(meta),
        }

    def apply(
        self,
        upserts: Iterable[Document] = (),
        deletes: Iterable[str] = (),
        *,
        kind_for: Callable[[int], IndexKind] | None = None,
    ) -> DomainIndex:
        """A new index with `deletes` (ids, absent ones ignored) taken out and then `upserts` put in.

        Its bytes equal those of a fresh build of the same documents; only new texts are embedded. `kind_for` chooses
        the kind by the number of documents; without it the kind stays.
        """
        fresh = _in_order(upserts, domain=self.domain)
        gone = set(deletes)
        merged = {document.id: document for document in self.documents if document.id not in gone}
        merged.update((document.id, document) for document in fresh)
        ordered = _in_order(merged.values(), domain=self.domain)
        kind = self.kind if kind_for is None else kind_for(len(ordered))
        return DomainIndex._assembled(
            ordered, self._vectors_for(ordered), embedder=self.embedder, domain=self.domain, kind=kind
        )

    def search(self, queries: Sequence[str], k: int, *, held: Collection[str] = ()) -> list[list[Hit]]:
        """For each query its `k` most similar documents that a reader holding these labels may see."""
        return self.search_vectors(self.embedder.embed(queries), k, held=held)

    def search_vectors(self, vectors: Vectors, k: int, *, held: Collection[str] = ()) -> list[list[Hit]]:
        """As `search`, for unit vectors float32 [n, dim]; best first, equal scores in order of document id.

        A zero row (a query without any feature) finds nothing.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.embedder.dim:
            raise ConfigError(f"query vectors are {vectors.shape}, this index needs [n, {self.embedder.dim}]")
        allowed = None if self._all_public else self._allowed(held)
        count = min(k, len(self.documents) if allowed is None else len(allowed))
        if count <= 0 or len(vectors) == 0:
            return [[] for _ in vectors]
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, ids = faiss_index.search(self._index, queries, k=count, kind=self.kind, allowed=allowed)
        return [
            self._hits(row_scores, row_ids) if query.any() else []
            for query, row_scores, row_ids in zip(queries, scores, ids, strict=True)
        ]

    def document(self, document_id: str) -> Document | None:
        """The document with this id, or None."""
        place = self._position.get(_faiss_id(document_id))
        return None if place is None else self.documents[place]

    @classmethod
    def _assembled(
        cls,
        documents: tuple[Document, ...],
        vectors: Vectors,
        *,
        embedder: Embedder,
        domain: str,
        kind: IndexKind,
    ) -> DomainIndex:
        index = faiss_index.build(vectors, _faiss_ids(documents), kind=kind)
        return cls(index, documents, embedder=embedder, domain=domain, kind=kind)

    def _vectors_for(self, ordered: tuple[Document, ...]) -> Vectors:
        kept = faiss_index.vectors_of(self._index)
        vectors = np.zeros((len(ordered), self.embedder.dim), dtype=np.float32)
        unknown: list[int] = []
        for row, document in enumerate(ordered):
            place = self._position.get(_faiss_id(document.id))
            same = place is not None and self.documents[place].searchable_text() == document.searchable_text()
            if place is not None and same:
                vectors[row] = kept[place]
            else:
                unknown.append(row)
        if unknown:
            vectors[unknown] = _embedded([ordered[row] for row in unknown], self.embedder)
        return vectors

    def _allowed(self, held: Collection[str]) -> Ids:
        visible = [document.is_visible_to(held) for document in self.documents]
        allowed: Ids = self._ids[np.array(visible, dtype=bool)]
        return allowed

    def _hits(self, scores: Any, ids: Any) -> list[Hit]:
        hits = [
            Hit(self.documents[self._position[int(number)]], float(score))
            for score, number in zip(scores, ids, strict=True)
            if number >= 0
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.document.id))


def _faiss_id(document_id: str) -> int:
    """63 bits of the SHA-256 of the document's id: stable, and never FAISS's -1."""
    return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8], "big") >> 1


def _faiss_ids(documents: Sequence[Document]) -> Ids:
    ids = np.array([_faiss_id(document.id) for document in documents], dtype=np.int64)
    if len(np.unique(ids)) != len(ids):
        raise ArtifactError("two document ids share one 63-bit hash: rename one of the documents")
    return ids


def _in_order(documents: Iterable[Document], *, domain: str) -> tuple[Document, ...]:
    ordered = tuple(sorted(documents, key=lambda document: document.id))
    for before, after in pairwise(ordered):
        if before.id == after.id:
            raise ArtifactError(f"document {after.id!r} is given twice")
    for document in ordered:
        if document.domain != domain:
            raise ArtifactError(f"document {document.id!r} is of domain {document.domain}, not {domain}")
    return ordered


def _embedded(documents: Sequence[Document], embedder: Embedder) -> Vectors:
    vectors = embedder.embed([document.searchable_text() for document in documents])
    if vectors.shape != (len(documents), embedder.dim) or not np.isfinite(vectors).all():
        raise ArtifactError(f"embedder {embedder.name} gave {vectors.shape} or values that are not finite")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _parsed_meta(data: bytes, embedder: Embedder, *, domain: str | None) -> dict[str, Any]:
    try:
        meta = json.loads(data)
        found = {name: meta[name] for name in ("format", "domain", "kind", "embedder_digest", "dim", "count")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"meta.json of an index is malformed: {error}") from error
    if found["format"] != _FORMAT:
        raise ArtifactError(f"meta.json has format {found['format']!r}, this program reads {_FORMAT}")
    if (found["embedder_digest"], found["dim"]) != (embedder.digest, embedder.dim):
        raise ArtifactError(
            f"the index was built with embedder {meta.get('embedder_name')!r} {found['embedder_digest']} of "
            f"{found['dim']} dimensions, this process has {embedder.name} {embedder.digest} of {embedder.dim}"
        )
    if domain is not None and found["domain"] != domain:
        raise ArtifactError(f"the index is of domain {found['domain']!r}, not {domain!r}")
    return found


def _parsed_documents(data: bytes, *, domain: str) -> tuple[Document, ...]:
    documents = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            documents.append(Document.from_line(line))
        except ValueError as error:
            raise ArtifactError(f"documents.jsonl, line {number}: {error}") from error
    ordered = _in_order(documents, domain=domain)
    if ordered != tuple(documents) or (data and not data.endswith(b"\n")):
        raise ArtifactError("documents.jsonl is not in order of id, or its last line is cut")
    return ordered
