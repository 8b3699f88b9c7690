"""A transactional relay as its own process, for tests that kill it: `python relay_worker.py '{"bootstrap": ...}'`.

Copies topic `source` to topic `sink`, same partition numbers, in small polls and one commit per `commit_every_s`.
Ends at SIGTERM by committing what it has; prints `ready` when partitions are assigned.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.stream import TransactionalStream
from twinloop.errors import Transient


def relay(wanted: dict[str, Any], stopped: threading.Event) -> None:
    """Runs until `stopped`."""
    settings = KafkaSettings(
        bootstrap_servers=wanted["bootstrap"], group_protocol=wanted.get("group_protocol", "classic")
    )
    with TransactionalStream(
        settings,
        group=wanted["group"],
        topics=[wanted["source"]],
        instance_id=wanted["instance"],
        on_assigned=_say_ready,
    ) as stream:
        due = time.monotonic() + wanted["commit_every_s"]
        while not stopped.is_set():
            try:
                for record in stream.poll(wanted["max_records"], 0.05):
                    stream.send(
                        Outgoing(
                            wanted["sink"],
                            record.value,
                            record.key,
                            record.headers,
                            partition=record.partition,
                        )
                    )
                time.sleep(wanted["pause_s"])
                if time.monotonic() >= due:
                    stream.commit()
                    due = time.monotonic() + wanted["commit_every_s"]
            except Transient as undone:
                sys.stderr.write(f"undone: {undone}\n")
        stream.commit()


def _say_ready(_: object) -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main() -> None:
    """Reads the settings from the first argument."""
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    relay(json.loads(sys.argv[1]), stopped)


if __name__ == "__main__":
    main()
