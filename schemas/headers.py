"""Names of the record headers this system adds; CloudEvents and W3C headers keep their own names."""

from __future__ import annotations

from typing import Final

SLOT: Final = "tl-slot"
ARM: Final = "tl-arm"
RELEASE: Final = "tl-release"
EPOCH: Final = "tl-epoch"
DOMAIN: Final = "tl-domain"
PURPOSE: Final = "tl-purpose"
HOPS: Final = "tl-hops"
ORIGIN: Final = "tl-origin"
"""Partition of `queries` the record came from, in decimal."""
ASSIGNED_AT: Final = "tl-assigned-at"
"""Milliseconds since 1970 UTC of the first assignment, in decimal."""
BUCKET: Final = "tl-bucket"
UNIT: Final = "tl-unit"
UNCONFIRMED: Final = "tl-unconfirmed"
CLIENT: Final = "tl-client"
QUERY_ID: Final = "tl-query-id"

ERROR: Final = "tl-error"
ERROR_KIND: Final = "tl-error-kind"
ORIGIN_TOPIC: Final = "tl-origin-topic"
ORIGIN_PARTITION: Final = "tl-origin-partition"
ORIGIN_OFFSET: Final = "tl-origin-offset"
SERVICE: Final = "tl-service"
AT: Final = "tl-at"
