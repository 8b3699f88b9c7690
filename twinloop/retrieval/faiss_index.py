"""The FAISS side of an index: vectors and ids in, bytes out, and back with every bound checked."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from twinloop.errors import ArtifactError
from twinloop.retrieval.embedder import Vectors

# The wheel's own type stubs cover a part of what it exports.
faiss: Any = _typed_faiss

IndexKind = Literal["flat", "hnsw", "ivf"]
Ids = NDArray[np.int64]

_HNSW_LINKS = 32
_HNSW_BUILD_DEPTH = 80
_HNSW_SEARCH_DEPTH = 64
_IVF_PROBES = 16
_MAX_LOOP = 1 << 32
_INNER_CLASS = {"flat": "IndexFlatIP", "hnsw": "IndexHNSWFlat", "ivf": "IndexIVFFlat"}
# FAISS keeps its deserialisation limits per process: one load at a time may set them.
_LIMITS = threading.Lock()


def build(vectors: Vectors, ids: Ids, *, kind: IndexKind) -> Any:
    """An `IndexIDMap2` over inner products; equal input gives equal bytes (built on one thread)."""
    dim = vectors.shape[1]
    with _one_thread():
        inner = _empty_inner(dim, count=len(vectors), kind=kind)
        if kind == "ivf" and len(vectors):
            inner.train(vectors)
        index = faiss.IndexIDMap2(inner)
        if len(vectors):
            index.add_with_ids(vectors, ids)
    return index


def to_bytes(index: Any) -> bytes:
    """The serialised index."""
    return bytes(faiss.serialize_index(index).tobytes())


def from_bytes(data: bytes, *, kind: IndexKind, dim: int, ids: Ids) -> Any:
    """The index in `data`, which must hold exactly these ids in this order; else ArtifactError.

    FAISS parses, it does not authenticate: the caller has checked the digest of `data` before.
    """
    index = _parse(data)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap2) else None
    if inner is None or type(inner).__name__ != _INNER_CLASS[kind]:
        raise ArtifactError(f"index.faiss is not an IndexIDMap2 over {_INNER_CLASS[kind]}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ArtifactError("index.faiss does not compare by inner product")
    if (index.d, inner.d, index.ntotal, inner.ntotal) != (dim, dim, len(ids), len(ids)):
        raise ArtifactError(
            f"index.faiss holds {index.ntotal} x {index.d}, meta.json says {len(ids)} x {dim}"
        )
    if not np.array_equal(faiss.vector_to_array(index.id_map), ids):
        raise ArtifactError("index.faiss holds other ids than documents.jsonl, or another order")
    if kind == "hnsw":
        inner.hnsw.efSearch = _HNSW_SEARCH_DEPTH
    if kind == "ivf":
        inner.nprobe = min(_IVF_PROBES, inner.nlist)
    return index


def vectors_of(index: Any) -> Vectors:
    """Every stored vector, float32 [n, dim], in order of insertion."""
    if index.ntotal == 0:
        return np.zeros((0, index.d), dtype=np.float32)
    vectors: Vectors = faiss.downcast_index(index.index).reconstruct_n(0, index.ntotal)
    return vectors


def search(
    index: Any, queries: Vectors, *, k: int, kind: IndexKind, allowed: Ids | None
) -> tuple[NDArray[np.float32], Ids]:
    """(scores, ids), each [n, k], best first; id -1 where there are fewer. `allowed` restricts the ids."""
    if allowed is None:
        scores, ids = index.search(queries, k)
        return scores, ids
    selector = faiss.IDSelectorBatch(allowed)
    parameters = {
        "flat": lambda: faiss.SearchParameters(sel=selector),
        "hnsw": lambda: faiss.SearchParametersHNSW(sel=selector, efSearch=_HNSW_SEARCH_DEPTH),
        "ivf": lambda: faiss.SearchParametersIVF(sel=selector, nprobe=_IVF_PROBES),
    }[kind]()
    scores, ids = index.search(queries, k, params=parameters)
    return scores, ids


def checked_kind(kind: object) -> IndexKind:
    """`kind` as a known kind of index; raises ArtifactError for another."""
    known: dict[str, IndexKind] = {name: name for name in get_args(IndexKind)}
    if not isinstance(kind, str) or kind not in known:
        raise ArtifactError(f"index kind {str(kind)[:40]!r} is unknown: use {', '.join(known)}")
    return known[kind]


def _empty_inner(dim: int, *, count: int, kind: IndexKind) -> Any:
    if kind == "hnsw":
        inner = faiss.IndexHNSWFlat(dim, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        inner.hnsw.efConstruction = _HNSW_BUILD_DEPTH
        inner.hnsw.efSearch = _HNSW_SEARCH_DEPTH
        return inner
    if kind == "ivf":
        lists = max(1, min(int(4 * math.sqrt(count)), count // 39))  # FAISS asks for 39 points a centroid
        quantizer = faiss.IndexFlatIP(dim)
        inner = faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)
        inner.nprobe = min(_IVF_PROBES, lists)
        return inner
    return faiss.IndexFlatIP(dim)


def _parse(data: bytes) -> Any:
    with _LIMITS:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        # No vector inside the file can be longer than the file.
        faiss.set_deserialization_vector_byte_limit(max(len(data), 1))
        faiss.set_deserialization_loop_limit(min(max(len(data), 1), _MAX_LOOP))
        try:
            return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        except (RuntimeError, AssertionError, MemoryError) as error:
            raise ArtifactError(f"index.faiss cannot be read: {str(error)[:200]}") from error
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


@contextmanager
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
