"""Names of the record headers this system adds; CloudEvents and W3C headers keep their own names."""

from __future__ import annotations

from typing import Final

STAMP: Final = "tl-stamp"
"""The router's decision about a routed record, as JSON: slot, arm, release, epoch, domain, purpose, origin (partition
of `queries` the record came from), assigned_at (milliseconds since 1970 UTC), bucket, unit, hops, unconfirmed."""
CLIENT: Final = "tl-client"

ERROR: Final = "tl-error"
ERROR_KIND: Final = "tl-error-kind"
ORIGIN_TOPIC: Final = "tl-origin-topic"
ORIGIN_PARTITION: Final = "tl-origin-partition"
ORIGIN_OFFSET: Final = "tl-origin-offset"
SERVICE: Final = "tl-service"
AT: Final = "tl-at"
