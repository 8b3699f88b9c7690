"""Makes a back-up while the services run: the log first, then the store, which only ever grows; the manifest last."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from schemas.decisions import Decision
from schemas.routing import RoutingState
from twinloop.api_tokens import TOKENS_FILE
from twinloop.backup.config_copy import without_secrets
from twinloop.backup.log_capture import ends_of, records_until
from twinloop.backup.manifest import Backup, BackupPartition, files_under, write_manifest
from twinloop.backup.record_file import read_records, write_records
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.records import TopicPartition
from twinloop.codec import decode
from twinloop.errors import ArtifactError, ConfigError, InvalidEvent, SignatureError, Transient
from twinloop.registry.blobs import BLOBS, BlobStore, open_store
from twinloop.registry.releases import load_release, verify_release
from twinloop.registry.store_settings import StoreSettings
from twinloop.settings_loader import ServiceSettings
from twinloop.signing import KeyRing, Signer, sign_document, verify_document
from twinloop.topics import TopicCatalogue

Say = Callable[[str], None]

LOG, STORE, KEYS, CONFIG = "log", "store", "keys", "config"


@dataclass(frozen=True)
class BackupPlan:
    """What to keep of an installation, and where."""

    settings: ServiceSettings
    config_files: Sequence[Path]
    folder: Path
    """A new or an empty folder."""
    with_private_keys: bool = False


def take_backup(plan: BackupPlan, signer: Signer, *, now_ms: int, software: str, say: Say) -> Backup:
    """Write a complete back-up and return its manifest.

    Raises ConfigError where the folder, the key or the installation cannot be used, Transient where Kafka or the
    store does not answer or the disk is full, ArtifactError where the store lacks a release that the log names.
    Whatever it leaves behind then has no manifest and is refused by a restore.
    """
    ring = KeyRing.load(plan.settings.keys.public_path)
    if "operator" not in ring.roles_of(signer.key_id):
        raise ConfigError(
            f"key {signer.key_id!r} may not act as operator: a back-up is signed by one who may"
        )
    _make_folder(plan.folder)
    try:
        return _take(plan, signer, ring, now_ms=now_ms, software=software, say=say)
    except OSError as error:
        raise Transient(
            f"cannot write the back-up {plan.folder}: {error.strerror or error}; delete it, make room and try again"
        ) from error


def _take(plan: BackupPlan, signer: Signer, ring: KeyRing, *, now_ms: int, software: str, say: Say) -> Backup:
    settings = plan.settings
    partitions = _copy_log(plan, say)
    state = _last_state(plan, partitions, ring)
    copied = _copy_store(open_store(settings.store), plan.folder)
    say(f"store: {copied} blobs and documents")
    _check_releases(own_store(plan.folder), state, ring)
    _copy_keys(plan)
    _copy_config(plan)
    os.sync()
    backup = Backup(
        made_at=now_ms,
        software=software,
        prefix=settings.topics.prefix,
        origin_partitions=settings.topics.origin_partitions,
        incarnation=state.incarnation,
        epoch=state.epoch,
        active_release=state.active_release,
        partitions=partitions,
        files=files_under(plan.folder),
        has_private_keys=plan.with_private_keys,
        key_id=signer.key_id,
    )
    signed = sign_document(backup, signer)
    write_manifest(plan.folder, signed)
    return signed


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: name a new folder for the back-up")
        # It holds what users wrote.
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{folder} cannot hold a back-up: {error.strerror or error}") from error


def _copy_log(plan: BackupPlan, say: Say) -> tuple[BackupPartition, ...]:
    kafka, topics = plan.settings.kafka, TopicCatalogue.under(plan.settings.topics)
    admin = KafkaAdmin(kafka)
    admin.wait_ready(kafka.request_timeout_s)
    if admin.is_mock_cluster():
        raise ConfigError(
            "the embedded broker keeps its log in memory only: there is nothing that could be restored; "
            "run the kafka profile where an installation is to last"
        )
    ends = ends_of(kafka, [topics.name(each) for each in topics.backed_up()])
    found = []
    for source, end in ends.items():
        topic = topics.declared_name(source.topic)
        path = plan.folder / LOG / topic / f"{source.partition}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = write_records(path, records_until(kafka, source, end))
        say(f"log: {topic}[{source.partition}] {count} records up to offset {end}")
        found.append(
            BackupPartition(
                topic=topic,
                partition=source.partition,
                records=count,
                end=end,
                file=path.relative_to(plan.folder).as_posix(),
            )
        )
    return tuple(found)


def _last_state(plan: BackupPlan, partitions: Sequence[BackupPartition], ring: KeyRing) -> RoutingState:
    """The signed state of the highest epoch in the copied decisions; raises ConfigError where there is none."""
    last: RoutingState | None = None
    for part in partitions:
        if part.topic != "decisions":
            continue
        for record in read_records(plan.folder / part.file, TopicPartition(part.topic, part.partition)):
            if record.header("ce_type") != Decision.type.encode():
                continue
            try:
                state = verify_document(decode(record, Decision).state, ring, role="gatekeeper")
            except (InvalidEvent, SignatureError):
                continue  # every reader of the log ignores it
            if last is None or state.epoch > last.epoch:
                last = state
    if last is None:
        raise ConfigError(
            "the decision log is empty: this installation has not begun, so there is nothing to keep"
        )
    return last


def _copy_store(source: BlobStore, folder: Path) -> int:
    """Copy blobs and documents into a file store; raises ArtifactError for a damaged blob, Transient, OSError."""
    target = own_store(folder)
    # A release's document is written after its parts: in this order no listed release lacks a blob.
    documents = source.list_documents()
    blobs = source.list_blobs()
    place = folder / STORE / BLOBS
    place.mkdir(parents=True, exist_ok=True)
    for digest in blobs:
        source.fetch_to(digest, place / digest)
    for name in documents:
        target.put_document(name, source.get_document(name))
    return len(blobs) + len(documents)


def own_store(folder: Path) -> BlobStore:
    """The store inside a back-up, which any file store's reader can read."""
    return open_store(StoreSettings(url=(folder.resolve() / STORE).as_uri(), create_folder=True))


def _check_releases(store: BlobStore, state: RoutingState, ring: KeyRing) -> None:
    """Raise ArtifactError unless every release that serves, stands by or could be rolled back to is whole."""
    for name in sorted({*state.releases.values(), *([state.previous] if state.previous else [])}):
        stored = load_release(
            store, name, verify=lambda text, block: ring.verify(text, block.signature, block.key_id)
        )
        # A foundation that the services read from a folder is not in the store, and not in the back-up.
        is_local = not store.exists(stored.release.foundation)
        problems = verify_release(
            store, stored.release, local_foundation=stored.release.foundation if is_local else None
        )
        if problems:
            raise ArtifactError(
                f"release {name} could not be restored from this back-up: {'; '.join(problems)}"
            )


def _copy_keys(plan: BackupPlan) -> None:
    keys = plan.settings.keys
    names = [path for path in (keys.public_path, keys.folder / TOKENS_FILE) if path.exists()]
    if plan.with_private_keys:
        names += sorted(keys.folder.glob("*.pem"))
    for path in names:
        write_private(
            plan.folder / KEYS / ("public.yaml" if path == keys.public_path else path.name), path.read_bytes()
        )


def _copy_config(plan: BackupPlan) -> None:
    for number, path in enumerate(plan.config_files):
        try:
            text = without_secrets(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
        write_private(plan.folder / CONFIG / f"{number}-{path.name}", text.encode())


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone may read; raises OSError, FileExistsError where it exists."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
