"""A dataset version: rows, replay, documents and where they were read, named by the digest of its manifest.

Everything a training depends on besides foundation, parent and settings is in here, so a training that was killed is
done again from the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from schemas.documents import DocumentChange
from schemas.event import Domain
from schemas.releases import OffsetRange
from services.trainer.core.ledger_state import LoggedDocument, TaughtRow
from services.trainer.core.rows import ReplayRow, replay_weight
from services.trainer.core.selection import Selection
from twinloop.canonical import canonical_json, sha256_hex

ROWS = "rows"
REPLAY = "replay"
DOCUMENTS = "documents"
_HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class Dataset:
    """Blobs to store and the manifest that names them; the manifest's SHA-256 is the dataset's digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return sha256_hex(self.manifest)


@dataclass(frozen=True)
class DatasetOrigin:
    """Where a dataset comes from and on what terms."""

    parent: str
    seed: int
    licence: str
    classifiers: tuple[str, ...]
    offsets: tuple[OffsetRange, ...]


@dataclass(frozen=True)
class TrainingMaterial:
    """One domain's rows as the learning job reads them."""

    rows: tuple[dict[str, JsonValue], ...]
    gate_rows: tuple[dict[str, JsonValue], ...]
    replay_rows: tuple[dict[str, JsonValue], ...]


def build_dataset(
    rows: Sequence[TaughtRow],
    *,
    replay: Sequence[ReplayRow],
    documents: Sequence[LoggedDocument],
    selections: Mapping[Domain, Selection],
    origin: DatasetOrigin,
) -> Dataset:
    """Equal arguments give equal bytes; rows stand in log order, documents in order of domain and id."""
    ordered = sorted(rows, key=lambda item: (item.row.domain, item.row.order, item.row.id))
    changes = sorted(documents, key=lambda item: item.key)
    blobs = {
        ROWS: _jsonl(_row_json(item) for item in ordered),
        REPLAY: _jsonl(row.model_dump(mode="json") for row in sorted(replay, key=lambda r: (r.domain, r.id))),
        DOCUMENTS: _jsonl(item.change.model_dump(mode="json") for item in changes),
    }
    refused = Counter(
        reason.split(":")[0]
        for selection in selections.values()
        for reason in (*selection.rejected.values(), *selection.quarantined.values())
    )
    manifest: dict[str, JsonValue] = {
        "version": 1,
        "kind": "dataset",
        "blobs": {name: sha256_hex(data) for name, data in blobs.items()},
        "rows": dict(sorted(Counter(item.row.domain for item in ordered).items())),
        "replay_rows": dict(sorted(Counter(row.domain for row in replay).items())),
        "documents": dict(sorted(Counter(item.change.domain for item in changes).items())),
        "raters": len({item.row.rater for item in ordered}),
        "refused": dict(sorted(refused.items())),
        "parent": origin.parent,
        "seed": origin.seed,
        "licence": origin.licence,
        "classifiers": [*sorted(origin.classifiers)],
        "offsets": [item.model_dump(mode="json") for item in origin.offsets],
    }
    return Dataset(canonical_json(manifest), blobs)


def blob_digests(manifest: bytes) -> dict[str, str]:
    """Blob name to digest, from a stored manifest."""
    blobs = json.loads(manifest)["blobs"]
    return {name: str(blobs[name]) for name in (ROWS, REPLAY, DOCUMENTS)}


def training_material(rows: bytes, replay: bytes, *, domain: Domain, seed: int) -> TrainingMaterial:
    """Render one domain's part of a stored dataset for the learning job.

    Each row is taught closed book and, where its citation is a known document, from that passage too. Of a quarter
    of the facts with three or more phrasings one is held out: it stops the training early and measures it.
    """
    mine = [row for row in _parsed(rows) if row["domain"] == domain]
    held_out = _held_out(mine, seed)
    train = [row for row in mine if row["id"] not in held_out]
    gate = [row for row in mine if row["id"] in held_out]
    old = [row for row in _parsed(replay) if row["domain"] == domain]
    return TrainingMaterial(
        rows=tuple(_renderings(train)),
        gate_rows=tuple(_renderings(gate)),
        replay_rows=tuple(_renderings(old)),
    )


def stored_replay_rows(rows: bytes, *, update: str) -> list[ReplayRow]:
    """The rows of a stored dataset as the replay buffer keeps them: how a lost buffer is made again."""
    names = tuple(name for name in ReplayRow.model_fields if name != "update")
    return [
        ReplayRow.model_validate({name: row[name] for name in names} | {"update": update})
        for row in _parsed(rows)
    ]


def stored_documents(documents: bytes) -> list[DocumentChange]:
    """The document changes of a stored dataset."""
    return [DocumentChange.model_validate(entry) for entry in _parsed(documents)]


def split_general_rows(
    text: str, *, domain: Domain, probes: int, seed: int
) -> tuple[list[dict[str, JsonValue]], list[dict[str, JsonValue]]]:
    """(general replay, probe) rows of a JSONL file for one domain; probes have passages and are never trained.

    A file that has no row of the domain serves with all its rows.
    """
    everything = _parsed(text.encode())
    mine = [row for row in everything if row["domain"] == domain] or everything
    with_passage = sorted(
        (row for row in mine if row.get("passage")), key=lambda r: _draw(seed, str(r["id"]))
    )
    chosen = {str(row["id"]) for row in with_passage[: min(probes, len(with_passage) // 2)]}
    as_domain = [{**row, "domain": domain} for row in mine]
    return (
        [row for row in as_domain if str(row["id"]) not in chosen],
        [row for row in as_domain if str(row["id"]) in chosen],
    )


def to_jsonl(rows: Iterable[Mapping[str, JsonValue]]) -> bytes:
    """One canonical JSON object a line."""
    return _jsonl(dict(row) for row in rows)


def _row_json(item: TaughtRow) -> dict[str, JsonValue]:
    row = item.row
    return {
        "id": row.id,
        "domain": row.domain,
        "question": row.question,
        "answer": row.answer,
        "passage": item.passage,
        "rater": row.rater,
        "weight": replay_weight(row.feedback),
        "query_id": row.feedback.query_id,
        "corrects": row.release,
        "imported": row.is_imported,
        "logged": list(row.logged),
    }


def _renderings(rows: Iterable[Mapping[str, JsonValue]]) -> Iterable[dict[str, JsonValue]]:
    for row in rows:
        plain: dict[str, JsonValue] = {name: row[name] for name in ("id", "domain", "question", "answer")}
        if row.get("update") is not None:
            plain["update"] = row["update"]
        yield {**plain, "passage": None}
        if row["passage"] is not None:
            yield {**plain, "id": f"{row['id']}+passage", "passage": row["passage"]}


def _held_out(rows: Sequence[Mapping[str, JsonValue]], seed: int) -> set[str]:
    phrasings: dict[str, list[str]] = {}
    for row in rows:
        phrasings.setdefault(str(row["answer"]), []).append(str(row["id"]))
    # Only of some facts: what is held out is not taught in those words, and a sample measures as well.
    first = [min(ids, key=lambda name: _draw(seed, name)) for ids in phrasings.values() if len(ids) >= 3]
    ordered = sorted(first, key=lambda name: _draw(seed + 1, name))
    return set(ordered[: math.ceil(_HELD_OUT_SHARE * len(ordered))])


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()


def _jsonl(rows: Iterable[Mapping[str, JsonValue]]) -> bytes:
    return b"".join(canonical_json(dict(row)) + b"\n" for row in rows)


def _parsed(data: bytes) -> list[dict[str, JsonValue]]:
    return [json.loads(line) for line in data.splitlines() if line.strip()]
