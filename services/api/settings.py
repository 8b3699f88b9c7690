"""Settings of the admin API."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from twinloop.api_tokens import TOKENS_FILE
from twinloop.settings_loader import ServiceSettings


class ApiSection(BaseModel):
    """What is the API's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address the API binds; put a proxy that ends TLS before any other."""
    port: int = Field(default=8085, ge=0, le=65535)
    """Its port; 0 takes a free one and logs it."""
    tokens_file: Path | None = None
    """Digests of the bearer tokens, read again when it changes; `tokens.yaml` beside the keys where absent."""
    order_wait_s: float = Field(default=20.0, gt=0, le=120)
    """How long a call waits for what the gatekeeper makes of its order before it answers 202."""
    answer_margin_s: float = Field(default=5.0, gt=0, le=60)
    """How long past its deadline the answer to a question is waited for."""
    max_waiting: int = Field(default=200, ge=1, le=10_000)
    """Questions that may wait for their answers at once; one more is refused with 429."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Largest request body."""
    max_streams: int = Field(default=100, ge=1, le=10_000)
    """Event streams that may be open at once."""
    idempotency_s: float = Field(default=86_400.0, gt=0)
    """How long the reply to an `Idempotency-Key` is kept."""
    idempotency_keys: int = Field(default=10_000, ge=1)
    """How many of them are kept; the oldest go first."""
    lag_every_s: float = Field(default=5.0, gt=0)
    """How often consumer lag is asked for."""
    model: str = Field(default="twinloop", pattern=r"^[a-z0-9][a-z0-9._-]{0,40}$")
    """Name of the model under `/v1/models`; with a domain after a dash it fixes the domain."""


class ApiSettings(ServiceSettings):
    """Everything the API is told."""

    api: ApiSection = ApiSection()
    """The API's own section."""

    @property
    def tokens_path(self) -> Path:
        return self.api.tokens_file or self.keys.folder / TOKENS_FILE
