"""Where the artifact store is and how to sign in to it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class StoreSettings(BaseModel):
    """Address and credentials of one artifact store; unknown keys are refused.

    Credentials left empty come from the environment the cloud's own tools read (`AWS_ACCESS_KEY_ID`, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """`file:///absolute/folder`, `memory:///`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`."""
    create_folder: bool = False
    """Make the folder of a `file://` URL where it is missing; otherwise a missing folder is an error."""
    cache_folder: Path | None = None
    """Folder of verified copies of blobs read from a remote store; null reads the store each time."""
    cache_max_bytes: int = Field(default=8 << 30, gt=0)
    """The cache drops its least recently read blobs above this size."""
    endpoint: str | None = None
    """Address of an S3-compatible server; null means the cloud's own."""
    region: str = "us-east-1"
    """Region name sent to an S3-compatible server."""
    access_key_id: SecretStr | None = None
    """S3 access key; null reads the environment."""
    secret_access_key: SecretStr | None = None
    """S3 secret key; null reads the environment."""
    allow_http: bool = False
    """Permit an `endpoint` without TLS (a server on this host or in a private network)."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for one request."""
    max_retries: int = Field(default=3, ge=0)
    """Repeats of a request the server answered with 5xx or not at all."""
    retry_timeout_s: float = Field(default=60.0, gt=0)
    """No further repeat starts this long after the first try."""
