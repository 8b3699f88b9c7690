"""What the exit statuses of `twinloop` mean; documented in the README."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""It was done, and the result is negative: an error answer, a check that failed."""
CONFIG: Final = 2
"""Settings, arguments or files cannot be used; nothing was done."""
UNREACHABLE: Final = 3
"""Kafka or Redis did not answer in time, or a disk was full; it may be tried again."""
REFUSED: Final = 4
"""The gatekeeper refused the order."""
