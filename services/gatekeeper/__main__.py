"""Where a gatekeeper is put together: `python -m services.gatekeeper --config FILE...`."""

from __future__ import annotations

import secrets
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.gatekeeper.checkpoint import Checkpoint
from services.gatekeeper.core.probes import ProbeSet
from services.gatekeeper.decision_log import DecisionLog
from services.gatekeeper.gate_log import GateLog
from services.gatekeeper.judge_loop import JudgeLoop, JudgeParts
from services.gatekeeper.metrics import GatekeeperMetrics
from services.gatekeeper.probe_run import Chooser
from services.gatekeeper.release_checks import BlobCheckRunner, ReleaseChecks
from services.gatekeeper.routing_key import RoutingKey
from services.gatekeeper.settings import GatekeeperSettings
from services.gatekeeper.webhook import WebhookClient
from services.gatekeeper.webhook_feed import WebhookFeed
from services.gatekeeper.worker import GatekeeperWorker, WorkerParts
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.bus.stream import TransactionalStream
from twinloop.clock import Clock, SystemClock
from twinloop.errors import ConfigError
from twinloop.process import StopSignal, config_arguments, main_guard
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules import read_rules
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, load_signer
from twinloop.telemetry.health import HealthServer
from twinloop.telemetry.logging import configure_logging, get_logger
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/gatekeeper.yaml")
DEFAULT_KEY = "gatekeeper-1"


def run(settings: GatekeeperSettings, stop: StopSignal) -> None:
    """Judge until stopped."""
    with ExitStack() as stack:
        worker = build_worker(settings, stack)
        for feed in worker.feeds:
            feed.start()
            stack.callback(feed.close)
        health = HealthServer(
            settings.telemetry.host, settings.telemetry.port, worker.registry, worker.worker.is_ready
        )
        stack.callback(health.close)
        get_logger(__name__).info("serving", health_port=health.port)
        worker.worker.run(settings.kafka, stop, group=f"{settings.topics.prefix}gatekeeper")


class Built:
    """A worker with the registry of its metrics and the feeds beside it, which are not started yet."""

    def __init__(
        self, worker: GatekeeperWorker, registry: CollectorRegistry, feeds: Sequence[WebhookFeed]
    ) -> None:
        self.worker, self.registry, self.feeds = worker, registry, feeds


def build_worker(settings: GatekeeperSettings, stack: ExitStack) -> Built:
    """Put one gatekeeper together; `stack` closes what was opened."""
    section, clock = settings.gatekeeper, SystemClock()
    name = f"gatekeeper-{settings.instance}"
    session = uuid.uuid4().hex[:12]
    topics = TopicCatalogue.under(settings.topics)
    ring = KeyRing.load(settings.keys.public_path)
    signer = load_signer(settings.keys.folder, settings.keys.key_id or DEFAULT_KEY)
    if "gatekeeper" not in ring.roles_of(signer.key_id):
        raise ConfigError(
            f"keys.key_id: {signer.key_id!r} may not act as gatekeeper; see {settings.keys.public_path}"
        )
    registry = CollectorRegistry()
    metrics = GatekeeperMetrics(registry)
    store = open_store(settings.store)
    checks = ReleaseChecks(store, ring, local_foundation=section.local_foundation)
    probes = read_probes(settings, store)
    producer = IdempotentProducer(settings.kafka)
    stack.callback(producer.close, 5.0)
    key_store = RedisRoutingStore(settings.redis)
    stack.callback(key_store.close)
    decisions_reader = LogReader(settings.kafka, partitions=[TopicPartition(topics.name("decisions"), 0)])
    stack.callback(decisions_reader.close)
    inputs = TopicPartition(topics.name("gate-inputs"), 0)

    def open_inputs(offset: int) -> LogReader:
        return LogReader(settings.kafka, partitions=[inputs], offsets={inputs: offset})

    def end_of_inputs() -> int:
        reader = LogReader(settings.kafka, partitions=[inputs], start="end")
        try:
            return reader.high_watermarks()[inputs]
        finally:
            reader.close()

    @lru_cache(maxsize=8)
    def chooser_of(rules: str) -> Chooser:
        return DomainChooser(read_rules(checks.read_rules(rules), name=rules))

    log = GateLog(producer, topic=inputs.topic, name=name, session=session, clock=clock)
    judge = JudgeLoop(
        JudgeParts(
            open_inputs=open_inputs,
            end_of_inputs=end_of_inputs,
            log=log,
            decisions=DecisionLog(
                producer,
                decisions_reader,
                topic=topics.name("decisions"),
                audit_topic=topics.name("audit"),
                signer=signer,
                ring=ring,
                source=f"gatekeeper/{name}/{session}",
                clock=clock,
            ),
            key=RoutingKey(key_store, ring=ring, clock=clock),
            blob_checks=BlobCheckRunner(checks),
            probes=probes,
            chooser_of=chooser_of,
            producer=producer,
            topics=topics,
            checkpoint=Checkpoint(settings.state_folder / f"{name}.checkpoint"),
            metrics=metrics,
            clock=clock,
            new_incarnation=lambda: secrets.token_hex(16),
            bootstrap=lambda: bootstrap_release(settings, checks),
        ),
        section,
        name=name,
        software=software_version(),
    )
    worker = GatekeeperWorker(
        WorkerParts(
            judge=judge,
            log=log,
            producer=producer,
            checks=checks,
            ring=ring,
            probes=probes,
            topics=topics,
            metrics=metrics,
            clock=clock,
        ),
        section,
        name=name,
    )
    feeds = build_feeds(settings, topics=topics, ring=ring, metrics=metrics, clock=clock)
    return Built(worker, registry, feeds)


def build_feeds(
    settings: GatekeeperSettings,
    *,
    topics: TopicCatalogue,
    ring: KeyRing,
    metrics: GatekeeperMetrics,
    clock: Clock,
) -> list[WebhookFeed]:
    """One feed an endpoint; one that was never fed begins with the next decision."""
    webhook, source = settings.gatekeeper.webhook, TopicPartition(topics.name("decisions"), 0)
    if not webhook.endpoints:
        return []
    keys = webhook.keys()
    with LogReader(settings.kafka, partitions=[source], start="end") as reader:
        begin_at = reader.high_watermarks()[source]

    def open_stream(feed: WebhookFeed, *, name: str) -> TransactionalStream:
        return TransactionalStream(
            settings.kafka,
            group=f"{settings.topics.prefix}webhook-{name}",
            topics=[source.topic],
            instance_id=f"gatekeeper-{settings.instance}",
            on_assigned=feed.starts,
            before_revoke=lambda _: {},
        )

    return [
        WebhookFeed(
            name,
            open_stream=partial(open_stream, name=name),
            begin_at=begin_at,
            source=source,
            client=WebhookClient(str(url), keys, timeout_s=webhook.timeout_s),
            settings=webhook,
            ring=ring,
            metrics=metrics,
            clock=clock,
        )
        for name, url in sorted(webhook.endpoints.items())
    ]


def read_probes(settings: GatekeeperSettings, store: BlobStore) -> ProbeSet:
    """The QA probes; raises ConfigError where there are too few for the policy ever to pass."""
    section = settings.gatekeeper
    source = section.probes
    if source.blob is not None:
        probes = ProbeSet.read(store.get(source.blob), name=f"blob {source.blob}")
    else:
        try:
            probes = ProbeSet.read(source.file.read_bytes(), name=str(source.file))
        except OSError as error:
            raise ConfigError(f"gatekeeper.probes.file: cannot read {source.file}: {error}") from error
    wanted = section.policy.qa.min_probes
    if len(probes.probes) < wanted:
        raise ConfigError(
            f"gatekeeper.probes: {len(probes.probes)} probes, but policy.qa.min_probes is {wanted}: "
            "no candidate could ever pass; add probes or lower it"
        )
    return probes


def bootstrap_release(settings: GatekeeperSettings, checks: ReleaseChecks) -> tuple[str, str]:
    """(release, rules) to begin with; raises ConfigError where none is named."""
    name = settings.gatekeeper.bootstrap_release
    if name is None:
        raise ConfigError(
            "gatekeeper.bootstrap_release: the decision log is empty, so the first release must be named "
            "(TWINLOOP_GATEKEEPER__BOOTSTRAP_RELEASE); `python -m services.trainer.bootstrap` makes one"
        )
    return name, checks.load(name).rules


def software_version() -> str:
    """The installed version, as decisions name it."""
    try:
        return version("nexus-twinloop")
    except PackageNotFoundError:
        return "0.0.0+uninstalled"


def main() -> int:
    def start() -> None:
        settings = load_settings(GatekeeperSettings, *config_arguments(sys.argv[1:], DEFAULT_CONFIG))
        configure_logging("gatekeeper", settings.instance, settings.telemetry.log_level)
        run(settings, StopSignal.installed())

    return main_guard("gatekeeper", start)


if __name__ == "__main__":
    sys.exit(main())
