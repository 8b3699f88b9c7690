"""Settings of an inference worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.event import Slot
from services.inference.core.circuit_breaker import BreakerPolicy
from services.inference.core.overload import OverloadPolicy
from twinloop.settings_loader import ServiceSettings


class FoundationSettings(BaseModel):
    """Which frozen model answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = "foundation/tiny"
    """A folder in Hugging Face layout, or a hub name with `revision`."""
    revision: str | None = None
    """Full commit id of a hub name."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights in memory."""
    device: str = "cpu"
    """Torch device, such as `cpu` or `cuda:0`."""
    threads: int = Field(default=1, ge=1, le=256)
    """Torch threads; another number gives other last bits, and two on two shared cores are slower than one."""


class InferenceSection(BaseModel):
    """What is the worker's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    slot: Slot = "blue"
    """The slot whose topic this worker consumes."""
    foundation: FoundationSettings = FoundationSettings()
    """The frozen model."""
    embedder: dict[str, Any] = {"kind": "hashing", "dim": 1024}
    """The embedder of the retrieval indexes; its digest must be the one releases name."""
    remembered_questions: int = Field(default=10_000, ge=0, le=10_000_000)
    """Recent questions whose vectors are kept in memory, four bytes a dimension each; 0 keeps none."""
    toxicity: dict[str, Any] = {"kind": "toxicity"}
    """The classifier behind the toxicity gate."""
    batch_max: int = Field(default=16, ge=1, le=256)
    """Most queries answered in one forward pass."""
    merge_adapters: bool = False
    """For a worker that mostly serves one domain: batches under one adapter use weights with it added in, at a copy of
    the weights an adapter. A question answered alone and in a mixed batch may then differ in its last bits."""
    batch_wait_ms: int = Field(default=20, ge=1, le=1000)
    """Longest wait for the first query of a batch; an idle worker reads the routing state this often."""
    retrieve: int = Field(default=4, ge=1, le=64)
    """Passages looked up for each question; the release's prompt says how many the model is shown."""
    hold_max_ms: int = Field(default=2000, ge=0, le=600_000)
    """How long to hold queries while Redis is silent before answering by the last known good state."""
    overload: OverloadPolicy = OverloadPolicy()
    """When waiting queries are shed."""
    breaker: BreakerPolicy = BreakerPolicy()
    """When a release with which the model keeps failing is not asked any more, and how it is tried again."""
    max_hops: int = Field(default=3, ge=1, le=16)
    """How often a query may be forwarded before it ends as a `rerouted` error."""
    readiness_interval_s: float = Field(default=2.0, gt=0, le=60)
    """How often readiness is repeated when nothing changes."""
    prepare_timeout_s: float = Field(default=30.0, gt=0)
    """How long a query may wait for its release to be prepared before it ends as `unavailable`."""
    keep_releases: int = Field(default=6, ge=3, le=64)
    """Releases kept in memory, the routing state's own first; rollback targets among them need no preparation."""
    cache_folder: Path | None = None
    """Where artifacts are materialised; `state_folder`/artifacts where absent."""


class InferenceSettings(ServiceSettings):
    """Everything an inference worker is told."""

    inference: InferenceSection = InferenceSection()
    """The worker's own section."""
