"""How to reach the store of the routing key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class RedisSettings(BaseModel):
    """Connection to a Redis 6.2+ or Valkey server; time-outs are short and nothing is retried."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^(redis|rediss|unix)://")
    """Address of the server without its password; `rediss://` for TLS."""
    username: str | None = None
    """ACL user; the server's default user where absent."""
    password: SecretStr | None = None
    """Password of that user; never logged."""
    tls_ca_file: str | None = None
    """PEM file of the authorities that may sign the server's certificate, with `rediss://`."""
    timeout_ms: int = Field(default=50, ge=1, le=10_000)
    """A read or a connection attempt without an answer for this long counts as silence."""
    install_timeout_ms: int = Field(default=2_000, ge=10, le=60_000)
    """How long the one write may take, its fsync included."""
    wait_replicas: int = Field(default=0, ge=0, le=16)
    """A write counts as durable only after so many replicas acknowledged it."""
    wait_ms: int = Field(default=100, ge=0, le=10_000)
    """How long to wait for the local fsync and the replicas before reporting a write as not durable."""
    key: str = Field(default="twinloop:routing", min_length=1, max_length=200)
    """Name of the routing key; a write publishes its epoch on the channel of the same name."""
