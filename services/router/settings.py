"""Settings of a router."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from services.router.core.overload import OverloadPolicy
from twinloop.settings_loader import ServiceSettings


class RouterSection(BaseModel):
    """What is the router's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    batch_max: int = Field(default=500, ge=1, le=1000)
    """Most queries routed by one reading of the routing state."""
    idle_wait_ms: int = Field(default=20, ge=1, le=1000)
    """Longest wait for a query; an idle router reads the routing state this often."""
    batch_interval_ms: int = Field(default=2, ge=0, le=100)
    """Least time between two readings under load, so that a busy fleet does not become Redis's load."""
    commit_interval_ms: int = Field(default=25, ge=1, le=5000)
    """How long a transaction stays open; half of it is added to every query's way."""
    hold_max_ms: int = Field(default=2000, ge=0, le=600_000)
    """How long to hold queries while Redis is silent before routing by the last known good state."""
    dedup_window_s: int = Field(default=600, ge=1, le=86_400)
    """A second publication of a query id within this time is dropped."""
    dedup_max_ids: int = Field(default=1_000_000, ge=1000)
    """Most ids remembered for each partition (about 150 bytes each); beyond it the window shrinks."""
    readiness_interval_s: float = Field(default=2.0, gt=0, le=60)
    """How often readiness is repeated when nothing changes."""
    overload: OverloadPolicy = OverloadPolicy()
    """When waiting queries are shed."""


class RouterSettings(ServiceSettings):
    """Everything a router is told."""

    router: RouterSection = RouterSection()
    """The router's own section."""
