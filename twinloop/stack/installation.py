"""One installation brought up: keys, topics, first release, services; and taken down again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import ConfigError
from twinloop.signing import Role, create_keys
from twinloop.stack.backend import Backend, EmbeddedBackend, ExternalBackend, LocalServersBackend, Profile
from twinloop.stack.first_release import make_first_release
from twinloop.stack.home import Home
from twinloop.stack.supervisor import ServiceSpec, Supervisor, free_port
from twinloop.topics import TopicCatalogue, TopicSettings

KEYS: Mapping[str, tuple[Role, ...]] = {
    "gatekeeper-1": ("gatekeeper",),
    "inference-1": ("inference",),
    "trainer-1": ("trainer",),
    "operator-1": ("viewer", "operator", "break-glass"),
    "approver-1": ("viewer", "operator", "approver"),
    "approver-2": ("viewer", "operator", "approver"),
}
"""Keys an installation starts with; two approvers, so that a second person can approve."""

TRAINER_NICENESS = 10
"""On one machine learning must not take time from answering."""

ONE_THREAD: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For whatever computes vectors: another number gives other last bits, and two threads that wait for each other on a
busy machine have taken minutes for what one does in seconds."""

EMBEDDED_ENVIRONMENT: Mapping[str, Mapping[str, str]] = {
    "router": {"TWINLOOP_ROUTER__BATCH_INTERVAL_MS": "20", "TWINLOOP_ROUTER__COMMIT_INTERVAL_MS": "25"}
}
"""The in-process broker hands out one transaction a partition and fetch: fewer, larger ones keep readers current."""

REAL_BROKER_FETCH_WAIT_MS = 100
"""A real broker wakes a waiting fetch as records arrive, so that an idle reader may wait long."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to bring up."""

    home: Home
    profile: Profile = "embedded"
    configs: Path = Path("configs")
    documents: Path | None = None
    """JSONL of documents for the first release's indexes."""
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Environment variables by service, laid over the configuration files."""
    routers: int = 1
    workers_per_slot: int = 1
    with_trainer: bool = True
    api_port: int | None = None
    """Port of the admin API and its page on 127.0.0.1; 0 takes a free one, None leaves the API out."""
    bootstrap_servers: str = ""
    redis_url: str = ""


class Installation:
    """A running installation; leave the `with` block, or call `stop`, to take everything down."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.plan, self._say = plan, say
        self.topics = TopicCatalogue.under(TopicSettings())
        self._backend: Backend | None = None
        self._supervisor: Supervisor | None = None
        self.bootstrap_release = ""
        self._api_port = plan.api_port or free_port()

    @property
    def api_address(self) -> str | None:
        """Where the API listens; None where there is none."""
        return None if self.plan.api_port is None else f"http://127.0.0.1:{self._api_port}/"

    @property
    def backend(self) -> Backend:
        if self._backend is None:
            raise ConfigError("the installation is not up")
        return self._backend

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise ConfigError("the installation is not up")
        return self._supervisor

    @property
    def kafka(self) -> KafkaSettings:
        servers = self.backend.bootstrap_servers
        if self.plan.profile == "embedded":
            return KafkaSettings(bootstrap_servers=servers)
        return KafkaSettings(bootstrap_servers=servers, fetch_wait_max_ms=REAL_BROKER_FETCH_WAIT_MS)

    def start(self) -> Installation:
        """Bring everything up and wait until it serves; on any failure everything is taken down again."""
        self._refuse_running()
        try:
            self._prepare()
            self._start_services()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop services, then the backend; safe to call twice."""
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._backend is not None:
            self._backend.stop()
        self.plan.home.run_file.unlink(missing_ok=True)

    @contextmanager
    def servers_alone(self) -> Iterator[Installation]:
        """Kafka, Redis and the profile without topics, keys and services, for as long as the block runs."""
        self._refuse_running()
        try:
            self._start_servers()
            yield self
        finally:
            self.stop()

    def __enter__(self) -> Installation:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def config_files(self, service: str) -> tuple[Path, Path]:
        """The service's own file, then this installation's profile, which wins."""
        return self.plan.configs / f"{service}.yaml", self.plan.home.profile

    def _prepare(self) -> None:
        self._start_servers()
        create_keys(self.plan.home.keys, KEYS)
        KafkaAdmin(self.kafka).ensure_topics(
            self.topics.specs(), replication_factor=self.topics.settings.replication_factor
        )
        self.bootstrap_release = make_first_release(
            self.config_files("trainer"),
            self.plan.documents,
            {**ONE_THREAD, **self.plan.environment.get("trainer", {})},
        )
        self._say(f"first release {self.bootstrap_release[:12]}")

    def _refuse_running(self) -> None:
        """Before anything of this program's own could be taken down, the other one's run file included."""
        run_file = self.plan.home.run_file
        if run_file.exists():
            raise ConfigError(
                f"{run_file} exists: this installation is running, or was killed. Stop it, or delete that file"
            )

    def _start_servers(self) -> None:
        home = self.plan.home
        home.create()
        self._backend = self._start_backend()
        self._say(self._backend.description)
        KafkaAdmin(self.kafka).wait_ready()
        home.profile.write_text(yaml.safe_dump(self._profile(), sort_keys=False), encoding="utf-8")

    def _start_backend(self) -> Backend:
        plan = self.plan
        if plan.profile == "embedded":
            return EmbeddedBackend(plan.home.backend, logs=plan.home.logs, topics=self.topics.specs())
        if plan.profile == "kafka":
            return LocalServersBackend(plan.home.backend)
        if not (plan.bootstrap_servers and plan.redis_url):
            raise ConfigError("profile external needs bootstrap servers and a Redis URL")
        return ExternalBackend(bootstrap_servers=plan.bootstrap_servers, redis_url=plan.redis_url)

    def _profile(self) -> dict[str, Any]:
        home = self.plan.home
        return {
            "kafka": self.kafka.model_dump(include={"bootstrap_servers", "fetch_wait_max_ms"}),
            "redis": {"url": self.backend.redis_url},
            "store": {"url": f"file://{home.store.resolve()}", "create_folder": True},
            "keys": {"folder": str(home.keys.resolve())},
            "state_folder": str(home.state.resolve()),
            "topics": self.topics.settings.model_dump(),
        }

    def _start_services(self) -> None:
        specs = self._service_specs()
        self._supervisor = Supervisor(specs, logs=self.plan.home.logs)
        self._supervisor.start()
        self._write_run_file()
        self._say(f"starting {', '.join(spec.name for spec in specs)}")
        self._supervisor.wait_ready([spec.name for spec in specs], timeout_s=180)

    def _service_specs(self) -> list[ServiceSpec]:
        plan = self.plan
        specs = [
            self._spec("gatekeeper", "0", {"TWINLOOP_GATEKEEPER__BOOTSTRAP_RELEASE": self.bootstrap_release})
        ]
        specs += [self._spec("router", str(number), {}) for number in range(plan.routers)]
        for slot in ("blue", "green"):
            for number in range(plan.workers_per_slot):
                specs.append(self._spec("inference", f"{slot}-{number}", {"TWINLOOP_INFERENCE__SLOT": slot}))
        if plan.with_trainer:
            specs.append(self._spec("trainer", "0", {}))
        if plan.api_port is not None:
            specs.append(self._spec("api", "0", {"TWINLOOP_API__PORT": str(self._api_port)}))
        return specs

    def _spec(self, service: str, instance: str, environment: Mapping[str, str]) -> ServiceSpec:
        port = free_port()
        of_profile = EMBEDDED_ENVIRONMENT.get(service, {}) if self.plan.profile == "embedded" else {}
        return ServiceSpec(
            name=f"{service}-{instance}",
            module=f"services.{service}",
            configs=self.config_files(service),
            environment={
                **ONE_THREAD,
                "TWINLOOP_INSTANCE": instance,
                "TWINLOOP_TELEMETRY__PORT": str(port),
                **of_profile,
                **self.plan.environment.get(service, {}),
                **environment,
            },
            health_port=port,
            niceness=TRAINER_NICENESS if service == "trainer" else 0,
        )

    def _write_run_file(self) -> None:
        run = {
            "profile": self.plan.profile,
            "pid": os.getpid(),
            "bootstrap_servers": self.backend.bootstrap_servers,
            "redis_url": self.backend.redis_url,
            "api": self.api_address,
            "services": {
                name: {"health_port": spec.health_port, "log": str(self.supervisor.children[name].log)}
                for name, spec in self.supervisor.specs.items()
            },
        }
        self.plan.home.run_file.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
