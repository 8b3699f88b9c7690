"""Where the admin API is put together: `python -m services.api --config FILE...`."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry

from services.api.app import build_app
from services.api.auditing import Auditor
from services.api.change_desk import ChangeDesk
from services.api.follower import FOLLOWED, Follower
from services.api.lag_watch import LagWatch
from services.api.metrics import ApiMetrics
from services.api.order_desk import OrderDesk
from services.api.parts import Parts
from services.api.question_desk import QuestionDesk
from services.api.release_shelf import ReleaseShelf
from services.api.settings import ApiSettings
from services.api.token_file import TokenFile
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.client.async_client import AsyncClient
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError
from twinloop.process import StopSignal, config_arguments, main_guard
from twinloop.registry.blobs import open_store
from twinloop.settings_loader import load_settings
from twinloop.signing import KeyRing, load_signer
from twinloop.telemetry.health import HealthServer
from twinloop.telemetry.logging import configure_logging, get_logger
from twinloop.telemetry.tracing import open_tracer
from twinloop.topics import TopicCatalogue

DEFAULT_CONFIG = Path("configs/api.yaml")
_GRACE_S = 3
_log = get_logger(__name__)


@asynccontextmanager
async def running_parts(settings: ApiSettings, stop: StopSignal) -> AsyncIterator[Parts]:
    """Everything the routes need, started; stopped at the end."""
    section, clock = settings.api, SystemClock()
    topics = TopicCatalogue.under(settings.topics)
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    with ExitStack() as stack:
        follower = Follower(
            LogReader(settings.kafka, topics=[topics.name(topic) for topic in FOLLOWED]),
            LogReader(settings.kafka, topics=[topics.name("readiness")], start="end"),
            topics,
            clock,
        )
        stack.callback(follower.close)
        lag = LagWatch(settings.kafka, topics, follower, metrics=metrics, every_s=section.lag_every_s)
        stack.callback(lag.close)
        producer = IdempotentProducer(settings.kafka)
        stack.callback(producer.close, 5.0)
        auditor = Auditor(producer, topics, source=f"api/{settings.instance}", metrics=metrics, clock=clock)
        follower.start()
        lag.start()
        # A name of its own at every start: answers to questions of an earlier life are nobody's any more.
        releases = ReleaseShelf(open_store(settings.store), KeyRing.load(settings.keys.public_path))
        name = f"api-{settings.instance}-{uuid.uuid4().hex[:8]}"
        tracer = open_tracer("api", settings.instance, os.environ)
        if tracer is not None:
            stack.callback(tracer.close)
        async with await AsyncClient.open(settings.kafka, topics, name=name, tracer=tracer) as client:
            yield Parts(
                section=section,
                follower=follower,
                orders=OrderDesk(
                    producer,
                    topics,
                    follower,
                    signer_for=lambda key_id: load_signer(settings.keys.folder, key_id),
                    clock=clock,
                    wait_s=section.order_wait_s,
                ),
                changes=ChangeDesk(
                    producer,
                    topics,
                    follower,
                    releases,
                    signer_for=lambda key_id: load_signer(settings.keys.folder, key_id),
                    clock=clock,
                    wait_s=section.order_wait_s,
                ),
                questions=QuestionDesk(
                    client,
                    clock=clock,
                    metrics=metrics,
                    max_waiting=section.max_waiting,
                    margin_s=section.answer_margin_s,
                ),
                releases=releases,
                tokens=TokenFile(settings.tokens_path),
                auditor=auditor,
                metrics=metrics,
                registry=registry,
                clock=clock,
                is_stopping=stop.is_set,
            )


async def serve(settings: ApiSettings, stop: StopSignal) -> None:
    """Answer calls until stopped; raises ConfigError where the port is taken."""
    async with running_parts(settings, stop) as parts:
        server = _Server(
            uvicorn.Config(
                build_app(parts),
                host=settings.api.host,
                port=settings.api.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        telemetry = settings.telemetry
        health = HealthServer(
            telemetry.host, telemetry.port, parts.registry, lambda: _is_ready(server, parts)
        )
        try:
            serving = asyncio.create_task(server.serve())
            while not (stop.is_set() or serving.done()):
                await asyncio.sleep(0.1)
                if server.started:
                    server.announce()
            server.should_exit = True
            await serving
        except SystemExit as error:
            raise ConfigError(
                f"api.port: cannot bind {settings.api.host}:{settings.api.port}; choose another port, or 0"
            ) from error
        finally:
            health.close()


class _Server(uvicorn.Server):
    """Leaves signals to this process, and says once where it listens."""

    _has_announced = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def announce(self) -> None:
        if not self._has_announced and self.servers:
            self._has_announced = True
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            _log.info("serving", address=f"http://{host}:{port}/")


def _is_ready(server: _Server, parts: Parts) -> tuple[bool, str]:
    return parts.is_ready() if server.started else (False, "not listening yet")


def main() -> int:
    def start() -> None:
        settings = load_settings(ApiSettings, *config_arguments(sys.argv[1:], DEFAULT_CONFIG))
        configure_logging("api", settings.instance, settings.telemetry.log_level)
        asyncio.run(serve(settings, StopSignal.installed()))

    return main_guard("api", start)


if __name__ == "__main__":
    sys.exit(main())
