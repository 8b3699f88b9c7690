"""Where decisions are posted to, and with which secret."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from twinloop.errors import ConfigError

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
EndpointName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class WebhookSettings(BaseModel):
    """Each decision is posted to every endpoint once, in order, until the endpoint takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    endpoints: dict[EndpointName, AnyHttpUrl] = Field(default_factory=dict)
    """URL by name; none means no webhook. The name keeps an endpoint's place in the log: a URL may move, a renamed
    endpoint begins with the next decision."""
    secret: SecretStr | None = None
    """`whsec_` and 24 to 64 bytes in base64. Several, separated by white space, all sign: that is how one is replaced.
    By environment; a file has `secret_file`."""
    secret_file: Path | None = None
    """File that holds the same, readable by this process alone."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    """An endpoint that has not answered by then is tried again."""
    first_retry_s: float = Field(default=1.0, gt=0)
    """Pause before the second attempt; it doubles with each further one."""
    longest_retry_s: float = Field(default=300.0, gt=0)
    """Longest pause between two attempts."""
    give_up_s: float = Field(default=259_200.0, gt=0)
    """A decision that an endpoint has not taken for so long is left out there, counted and logged, and the next one's
    turn comes. It stays in `decisions`."""

    @model_validator(mode="after")
    def is_not_contradictory(self) -> WebhookSettings:
        if self.endpoints and (self.secret is None) == (self.secret_file is None):
            raise ValueError(
                "endpoints need exactly one of secret and secret_file: unsigned posts prove nothing"
            )
        if self.first_retry_s > self.longest_retry_s:
            raise ValueError(
                f"first_retry_s {self.first_retry_s:g} must not exceed longest_retry_s {self.longest_retry_s:g}"
            )
        return self

    def keys(self) -> tuple[bytes, ...]:
        """The secrets as HMAC keys; raises ConfigError naming the setting, never the secret."""
        if self.secret is not None:
            place, text = "gatekeeper.webhook.secret", self.secret.get_secret_value()
        elif self.secret_file is not None:
            place = f"gatekeeper.webhook.secret_file: {self.secret_file}"
            try:
                text = self.secret_file.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{place}: cannot be read: {error}") from error
        else:
            return ()
        found = tuple(_key(word, place) for word in text.split())
        if not found:
            raise ConfigError(
                f"{place}: holds no secret; `openssl rand -base64 32` makes the part after {PREFIX}"
            )
        return found


def _key(word: str, place: str) -> bytes:
    try:
        key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not word.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ConfigError(
            f"{place}: a secret is {PREFIX} and {SHORTEST} to {LONGEST} bytes in base64; "
            f"`openssl rand -base64 32` makes the part after {PREFIX}"
        )
    return key
