"""One decision as a signed POST, by the Standard Webhooks specification (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import httpx
from pydantic import JsonValue

from schemas.decisions import Decision
from twinloop.canonical import canonical_json
from twinloop.errors import Transient


@dataclass(frozen=True)
class WebhookMessage:
    """The same id and bytes at every attempt and from every instance, so that a receiver can drop doubles."""

    id: str
    body: bytes


def message_of(decision: Decision) -> WebhookMessage:
    """Type, time and the whole logged decision; the id is the decision's own."""
    decided_at = datetime.fromtimestamp(decision.decided_at / 1000, timezone.utc)
    document: dict[str, JsonValue] = {
        "type": Decision.type,
        "timestamp": decided_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": decision.model_dump(mode="json"),
    }
    return WebhookMessage(decision.decision_id, canonical_json(document))


def headers_of(message: WebhookMessage, keys: tuple[bytes, ...], *, at_s: int) -> Mapping[str, str]:
    """Id, time of the attempt (Unix seconds) and one `v1` signature a key over `id.time.body`."""
    signed = f"{message.id}.{at_s}.".encode() + message.body
    signatures = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signatures),
    }


class WebhookClient:
    """Posts to one endpoint; follows no redirect and reads no answer beyond its status."""

    def __init__(self, url: str, keys: tuple[bytes, ...], *, timeout_s: float) -> None:
        self._url, self._keys = url, keys
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)

    def post(self, message: WebhookMessage, *, at_s: int) -> None:
        """Returns once the endpoint took it (a 2xx status); raises Transient otherwise."""
        headers = headers_of(message, self._keys, at_s=at_s)
        try:
            with self._client.stream("POST", self._url, content=message.body, headers=headers) as answer:
                is_taken, status = answer.is_success, answer.status_code
        except httpx.HTTPError as error:
            raise Transient(f"no answer: {type(error).__name__}") from error
        if not is_taken:
            raise Transient(f"status {status}")

    def close(self) -> None:
        self._client.close()
