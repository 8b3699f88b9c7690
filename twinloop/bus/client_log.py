"""Where the Kafka clients' own log lines go: the standard logger `twinloop.bus.librdkafka`."""

from __future__ import annotations

import logging

CLIENT_LOG = logging.getLogger("twinloop.bus.librdkafka")
"""Given to every client; lines arrive when the client is polled."""
