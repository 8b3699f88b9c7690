"""Settings of a gatekeeper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.event import Sha256
from services.gatekeeper.core.policy import GatePolicy
from services.gatekeeper.webhook_settings import WebhookSettings
from twinloop.errors import ConfigError
from twinloop.settings_loader import ServiceSettings, read_yaml
from twinloop.statistics.windows import WindowPolicy

LONGEST_SILENCE_S = 10.0
"""No stage runs for longer without a progress line."""


class ProbeSettings(BaseModel):
    """Where the QA probes come from and how fast they are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: Path = Path("configs/qa/probes.jsonl")
    """JSON Lines, one probe a line: id, domain, question, needs_citation, expect, expect_pattern."""
    blob: Sha256 | None = None
    """Takes the same lines from this blob of the artifact store instead."""
    max_in_flight: int = Field(default=8, ge=1, le=1000)
    """Probes sent and not yet answered; the shadow's worker also serves the canary of nobody else meanwhile."""
    deadline_ms: int = Field(default=10_000, ge=100, le=600_000)
    """Deadline each probe carries; after it the probe counts as unanswered and the next one is sent."""


class GatekeeperSection(BaseModel):
    """What is the gatekeeper's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bootstrap_release: Sha256 | None = None
    """The release both slots start with when `decisions` is empty; it must be in the artifact store."""
    local_foundation: Sha256 | None = None
    """Digest of a foundation that is kept in folders and not in the artifact store, so that it is not missed there."""
    tick_s: float = Field(default=0.5, ge=0.05, le=5)
    """How often the time is logged while a stage runs."""
    idle_tick_s: float = Field(default=5.0, ge=0.05, le=60)
    """How often the time is logged while none does; a new candidate waits this long at most."""
    redis_check_s: float = Field(default=1.0, gt=0, le=60)
    """How often the routing key is compared with the log."""
    readiness_repeat_s: float = Field(default=5.0, gt=0, le=60)
    """Unchanged readiness is logged this often; must be well below policy.readiness.live_s."""
    checkpoint_records: int = Field(default=20_000, ge=100)
    """A restart folds at most about so many records again."""
    read_back_timeout_s: float = Field(default=10.0, gt=0)
    """How long a decision may take to come back from the log."""
    probes: ProbeSettings = ProbeSettings()
    """The QA probes."""
    webhook: WebhookSettings = WebhookSettings()
    """Who is told of each decision by HTTP."""
    windows: WindowPolicy = WindowPolicy()
    """How assignments and outcomes are cut into windows."""
    policy: GatePolicy = GatePolicy()
    """Every threshold; logged, and named by its digest in each decision."""

    @field_validator("windows", mode="before")
    @classmethod
    def knows_every_window_key(cls, value: object) -> object:
        if isinstance(value, dict):
            unknown = sorted(set(value) - set(WindowPolicy.__dataclass_fields__))
            if unknown:
                raise ValueError(f"unknown key {', '.join(map(str, unknown))}")
        return value

    @model_validator(mode="after")
    def is_finite(self) -> GatekeeperSection:
        """Such a number would not survive the log, which is JSON, and no later start could read the policy."""
        values = {"policy": self.policy.model_dump(), "windows": asdict(self.windows)}
        for name, value in _numbers(values):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value}")
        return self

    @model_validator(mode="after")
    def is_not_contradictory(self) -> GatekeeperSection:
        watch = self.policy.watch
        if max(self.tick_s, self.idle_tick_s) >= watch.max_gap_s:
            raise ValueError(
                f"tick_s {self.tick_s:g} and idle_tick_s {self.idle_tick_s:g} must be below "
                f"policy.watch.max_gap_s {watch.max_gap_s:g}, or every canary ends as unwatched"
            )
        if self.tick_s > self.idle_tick_s:
            raise ValueError(f"tick_s {self.tick_s:g} must not exceed idle_tick_s {self.idle_tick_s:g}")
        if watch.progress_s + self.tick_s > LONGEST_SILENCE_S:
            raise ValueError(
                f"policy.watch.progress_s {watch.progress_s:g} and tick_s {self.tick_s:g} together must not exceed "
                f"{LONGEST_SILENCE_S:g}: whoever watches a stage must not be left without a word for longer"
            )
        if self.readiness_repeat_s * 2 > self.policy.readiness.live_s:
            raise ValueError(
                f"readiness_repeat_s {self.readiness_repeat_s:g} must be at most half of "
                f"policy.readiness.live_s {self.policy.readiness.live_s:g}, or live workers look silent"
            )
        return self


def _numbers(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, float]]:
    """Every number below, with its place."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{place}{name}.")
        elif isinstance(value, int | float):
            yield f"{place}{name}", value


class GatekeeperSettings(ServiceSettings):
    """Everything a gatekeeper is told."""

    gatekeeper: GatekeeperSection = GatekeeperSection()
    """The gatekeeper's own section."""


def read_policy_file(path: Path) -> tuple[GatePolicy, WindowPolicy]:
    """Thresholds and windows of a configuration file, or of one that holds nothing but the keys of `policy`.

    Raises ConfigError naming file and key.
    """
    document = read_yaml(path)
    found = document.get("gatekeeper", document)
    section = found if isinstance(found, dict) and {"policy", "windows"} & set(found) else {"policy": found}
    wanted = {name: section[name] for name in ("policy", "windows") if name in section}
    try:
        read = GatekeeperSection.model_validate(wanted)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return read.policy, read.windows
