"""Puts a back-up into an empty installation: keys, store, then the log at the offsets it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twinloop.api_tokens import TOKENS_FILE
from twinloop.backup.log_capture import ends_of, records_until
from twinloop.backup.manifest import Backup, BackupPartition, read_manifest
from twinloop.backup.record_file import digest_of_records, read_records
from twinloop.backup.taking import KEYS, STORE, own_store, write_private
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.records import TopicPartition
from twinloop.bus.refill import LogRefill
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ArtifactError, ConfigError, Transient
from twinloop.registry.blobs import BLOBS, BlobStore, open_store
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.settings_loader import ServiceSettings
from twinloop.signing import PUBLIC_FILE, KeyRing, public_entries
from twinloop.topics import TopicCatalogue

Say = Callable[[str], None]


def check_backup(folder: Path, trusted: Path | None) -> Backup:
    """Read every byte of a back-up and change nothing.

    The signature is checked with the public keys in `trusted` where that file exists, else with those in the back-up,
    which shows that nothing was damaged but not who made it. Raises ArtifactError, SignatureError, ConfigError.
    """
    own = folder / KEYS / PUBLIC_FILE
    is_foreign = trusted is not None and trusted.exists()
    if not is_foreign and not own.exists():
        raise ArtifactError(f"{own} is missing: {folder} is no back-up, or one that was interrupted")
    return read_manifest(folder, KeyRing.load(trusted if trusted is not None and is_foreign else own))


def restore_backup(folder: Path, settings: ServiceSettings, say: Say) -> Backup:
    """Put a back-up into the empty installation that `settings` describe; returns its manifest.

    Nothing is touched before every byte was checked and the installation was found empty. Raises ArtifactError or
    SignatureError for a back-up that cannot be believed, ConfigError where the installation is not empty or is laid
    out otherwise, Transient where Kafka, Redis or the store does not answer: an installation that is half restored
    has to be emptied before the next attempt.
    """
    backup = check_backup(folder, settings.keys.public_path)
    say(f"{len(backup.files)} files are as they were written")
    _refuse_other_layout(backup, settings)
    _refuse_life(settings)
    _refuse_other_keys(folder, settings)
    try:
        _restore_keys(folder, settings, say)
    except OSError as error:
        raise Transient(
            f"cannot write the keys to {settings.keys.folder}: {error.strerror or error}"
        ) from error
    count = _restore_store(folder, open_store(settings.store))
    say(f"store: {count} blobs and documents")
    _restore_log(folder, backup, settings, say)
    return backup


def missing_private_keys(settings: ServiceSettings) -> list[str]:
    """Ids in `public.yaml` whose private key is not in this installation's folder."""
    keys = settings.keys
    return [name for name in public_entries(keys.public_path) if not (keys.folder / f"{name}.pem").exists()]


def _refuse_other_layout(backup: Backup, settings: ServiceSettings) -> None:
    if settings.topics.origin_partitions != backup.origin_partitions:
        raise ConfigError(
            f"the back-up has {backup.origin_partitions} partitions of queries, topics.origin_partitions is "
            f"{settings.topics.origin_partitions}: set it to {backup.origin_partitions}"
        )
    if settings.topics.prefix != backup.prefix:
        raise ConfigError(
            f"the back-up is of topics {backup.prefix!r}, topics.prefix is {settings.topics.prefix!r}: evidence of "
            "releases names topics in full, so give it the same prefix"
        )


def _refuse_life(settings: ServiceSettings) -> None:
    """Raise ConfigError where anything was logged, installed or remembered here."""
    topics, kafka = TopicCatalogue.under(settings.topics), settings.kafka
    admin = KafkaAdmin(kafka)
    admin.wait_ready(kafka.request_timeout_s)
    if admin.is_mock_cluster():
        raise ConfigError("the embedded broker forgets its log: restore into a real Kafka")
    there = admin.partition_counts(spec.name for spec in topics.specs())
    for source, end in ends_of(kafka, sorted(there)).items():
        if end:
            raise ConfigError(
                f"{source.topic}[{source.partition}] holds records up to offset {end}: a back-up is restored into an "
                "empty installation only; delete its topics while nothing runs, or use fresh brokers"
            )
    store = RedisRoutingStore(settings.redis)
    try:
        raw = store.read()
    finally:
        store.close()
    if raw is not None:
        raise ConfigError(
            f"redis: key {settings.redis.key} exists: a back-up is restored into an empty installation only; delete "
            "that key, the gatekeeper puts the restored state back"
        )
    state = settings.state_folder
    if state.exists() and (left := sorted(state.iterdir())):
        raise ConfigError(
            f"{left[0]} is left from another life: move {state} away, every process makes its state from the log again"
        )


def _refuse_other_keys(folder: Path, settings: ServiceSettings) -> None:
    path = settings.keys.public_path
    if not path.exists():
        return
    here = public_entries(path)
    for name, entry in public_entries(folder / KEYS / PUBLIC_FILE).items():
        if here.get(name) != entry:
            raise ConfigError(
                f"{path} lacks key {name!r} of the back-up or has another one: signatures in the log would not be "
                "believed; add it, or move the file away"
            )


def _restore_keys(folder: Path, settings: ServiceSettings, say: Say) -> None:
    """Keys that are here already stay; private ones come only from a back-up that was made with them."""
    target = settings.keys.folder
    for path in sorted((folder / KEYS).iterdir()):
        place = settings.keys.public_path if path.name == PUBLIC_FILE else target / path.name
        if place.exists():
            continue
        if path.suffix == ".pem" or path.name in (PUBLIC_FILE, TOKENS_FILE):
            write_private(place, path.read_bytes())
            say(f"keys: {path.name}")


def _restore_store(folder: Path, target: BlobStore) -> int:
    source = own_store(folder)
    blobs, documents = source.list_blobs(), source.list_documents()
    for digest in blobs:
        target.put_file(folder / STORE / BLOBS / digest)
    for name in documents:
        target.put_document(name, source.get_document(name))
    return len(blobs) + len(documents)


def _restore_log(folder: Path, backup: Backup, settings: ServiceSettings, say: Say) -> None:
    kafka, topics = settings.kafka, TopicCatalogue.under(settings.topics)
    admin = KafkaAdmin(kafka)
    counts: dict[str, int] = {}
    for part in backup.partitions:
        name = topics.name(part.topic)
        counts[name] = max(counts.get(name, 0), part.partition + 1)
    specs = [replace(spec, partitions=counts.get(spec.name, spec.partitions)) for spec in topics.specs()]
    made = admin.ensure_topics(specs, replication_factor=settings.topics.replication_factor)
    for name, count in counts.items():
        if made[name] != count:
            raise ConfigError(
                f"topic {name} has {made[name]} partitions, the back-up {count}: delete the empty topic"
            )
    # A cleaner must not run, and records must be deletable, until everything is in its place.
    policies = {spec.name: spec.config["cleanup.policy"] for spec in specs if spec.name in counts}
    compacted = {name: policy for name, policy in policies.items() if policy != "delete"}
    for name in compacted:
        admin.set_topic_config(name, "cleanup.policy", "delete")
    with LogRefill(kafka, transactional_id=f"{settings.topics.prefix}restore") as refill:
        # Causes before effects: a process that starts too early finds nothing to act on yet.
        for part in reversed(backup.partitions):
            _restore_partition(folder, part, backup, topics, kafka, refill, say)
    for name, policy in compacted.items():
        admin.set_topic_config(name, "cleanup.policy", policy)


def _restore_partition(
    folder: Path,
    part: BackupPartition,
    backup: Backup,
    topics: TopicCatalogue,
    kafka: KafkaSettings,
    refill: LogRefill,
    say: Say,
) -> None:
    source = TopicPartition(topics.name(part.topic), part.partition)
    refill.fill(source, read_records(folder / part.file, source), end=part.end)
    found = ends_of(kafka, [source.topic])[source]
    digest = digest_of_records(records_until(kafka, source, found))
    if (found, digest) != (part.end, backup.file(part.file).sha256):
        raise ArtifactError(
            f"{source.topic}[{source.partition}] came back otherwise than {part.file} says (it ends at offset {found}, "
            f"not {part.end}, or a record differs): did something else write to it, or does the topic stamp its own "
            "time (message.timestamp.type)? Empty the installation and try again"
        )
    say(f"log: {part.topic}[{part.partition}] {part.records} records up to offset {part.end}")
