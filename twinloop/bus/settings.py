"""How to reach Kafka, and the few librdkafka knobs this project depends on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
"""Size limit of a dead letter: the largest record there is, plus its history in headers, with room to spare."""


class KafkaSettings(BaseModel):
    """Connection and client settings shared by every edge; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bootstrap_servers: str = "127.0.0.1:9092"
    """Comma-separated host:port pairs to find the cluster by."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the connection is protected; anything but PLAINTEXT in production."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """SASL mechanism; needed with the two SASL protocols."""
    sasl_username: str | None = None
    """SASL user."""
    sasl_password: SecretStr | None = None
    """SASL password; never logged."""
    ssl_ca_location: str | None = None
    """PEM file of the authorities that may sign the brokers' certificates."""
    ssl_certificate_location: str | None = None
    """PEM file of this client's certificate, where brokers ask for one."""
    ssl_key_location: str | None = None
    """PEM file of this client's private key."""
    ssl_key_password: SecretStr | None = None
    """Password of the private key; never logged."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """Group protocol; `consumer` is KIP-848, whose time-outs the broker sets."""
    session_timeout_ms: int = Field(default=6000, ge=1000)
    """A worker silent for this long loses its partitions; only the classic protocol sends it."""
    max_poll_interval_ms: int = Field(default=300_000, ge=6000)
    """Longest time between two polls before the worker is thrown out of its group."""
    transaction_timeout_ms: int = Field(default=20_000, ge=1000)
    """The broker aborts a transaction that stays open this long; it bounds what a dead worker holds up."""
    commit_timeout_s: float = Field(default=15.0, gt=0)
    """A commit that Kafka has neither confirmed nor refused by then is settled by a fresh producer."""
    fetch_wait_max_ms: int = Field(default=5, ge=0)
    """Longest time a broker holds an empty fetch; the in-process broker adds all of it to every hop."""
    fetch_queue_backoff_ms: int = Field(default=10, ge=0)
    """Pause of the prefetcher when its queue is full; librdkafka's own 1000 costs two thirds of the throughput."""
    queued_min_messages: int = Field(default=20_000, ge=1)
    """Records per partition the client tries to hold ready."""
    linger_ms: int = Field(default=1, ge=0)
    """How long a produced record may wait for company in its batch."""
    max_message_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Key, value and headers together may have this many bytes; a larger record is an InvalidEvent."""
    request_timeout_s: float = Field(default=10.0, gt=0)
    """How long one question to the cluster (metadata, offsets, topic creation) may take."""
    librdkafka: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further librdkafka properties; they win over everything above."""

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> KafkaSettings:
        wants_sasl = self.security_protocol.startswith("SASL_")
        if wants_sasl and not (self.sasl_mechanism and self.sasl_username and self.sasl_password):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
            )
        if not wants_sasl and self.sasl_mechanism:
            raise ValueError("sasl_mechanism is set: use security_protocol SASL_SSL (or SASL_PLAINTEXT)")
        return self

    def client_config(self) -> dict[str, Any]:
        """librdkafka properties every client shares; holds the passwords in clear, so never log it."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 1000,
        }
        optional = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": self.ssl_key_password.get_secret_value() if self.ssl_key_password else None,
        }
        config.update({name: value for name, value in optional.items() if value is not None})
        return config

    def consumer_config(self, **more: Any) -> dict[str, Any]:
        """Properties of a consumer that reads committed records and commits nothing by itself."""
        return {
            **self.client_config(),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": self.fetch_wait_max_ms,
            "fetch.queue.backoff.ms": self.fetch_queue_backoff_ms,
            "queued.min.messages": self.queued_min_messages,
            **more,
            **self._extra(consumer=True),
        }

    def producer_config(self, **more: Any) -> dict[str, Any]:
        """Properties of an idempotent producer; the record limit leaves room for dead letters."""
        return {
            **self.client_config(),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": self.linger_ms,
            "message.max.bytes": max(self.max_message_bytes, DEAD_LETTER_MAX_BYTES) + 64 * 1024,
            **more,
            **self._extra(consumer=False),
        }

    def _extra(self, *, consumer: bool) -> dict[str, Any]:
        foreign = _PRODUCER_ONLY if consumer else _CONSUMER_ONLY
        return {name: value for name, value in self.librdkafka.items() if not name.startswith(foreign)}


_PRODUCER_ONLY = (
    "linger.",
    "batch.",
    "compression.",
    "queue.buffering.",
    "message.timeout.",
    "message.send.",
    "delivery.",
    "acks",
)
_CONSUMER_ONLY = (
    "fetch.",
    "queued.",
    "max.poll.",
    "session.",
    "heartbeat.",
    "auto.offset.",
    "group.",
    "isolation.",
    "check.crcs",
)
