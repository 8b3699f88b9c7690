"""`python -m twinloop.embedded`: mock Kafka and Valkey in one process, until SIGTERM.

Prints one JSON line, `{"bootstrap_servers": ..., "redis_url": ..., "pid": ...}`, when both answer, and writes the same
to `--state-file`. The Kafka part is in memory: a new start is a new, empty log.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from twinloop.bus.mock_cluster import MockCluster
from twinloop.bus.topic_spec import TopicSpec
from twinloop.embedded.valkey import EmbeddedValkey


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both servers until SIGTERM or SIGINT; returns the exit status."""
    wanted = _parser().parse_args(arguments)
    stopped = threading.Event()

    def stop(_signum: int, _frame: FrameType | None) -> None:
        stopped.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    data_dir = wanted.data_dir or Path(tempfile.mkdtemp(prefix="twinloop-"))
    with (
        MockCluster(brokers=wanted.brokers, topics=wanted.topic) as kafka,
        EmbeddedValkey(data_dir / "valkey", port=wanted.redis_port) as valkey,
    ):
        state = {"bootstrap_servers": kafka.bootstrap_servers, "redis_url": valkey.url, "pid": os.getpid()}
        _announce(state, wanted.state_file)
        while not stopped.wait(0.5):
            if wanted.parent_pid and os.getppid() != wanted.parent_pid:
                break
    return 0


def _announce(state: dict[str, object], state_file: Path | None) -> None:
    line = json.dumps(state)
    if state_file is not None:
        # A reader polls for this file: it must never see half of it.
        unfinished = state_file.with_suffix(".part")
        state_file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(line + "\n")
        unfinished.replace(state_file)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m twinloop.embedded", description=__doc__)
    parser.add_argument(
        "--data-dir", type=Path, help="where Valkey keeps its data (default: a new temporary folder)"
    )
    parser.add_argument("--state-file", type=Path, help="also write the JSON line to this file")
    parser.add_argument("--redis-port", type=int, default=0, help="Valkey's port (default 0: a free one)")
    parser.add_argument("--brokers", type=int, default=1, help="number of mock Kafka brokers")
    parser.add_argument(
        "--topic",
        type=_topic,
        action="append",
        default=[],
        metavar="NAME=PARTITIONS",
        help="create this topic; repeat for more (others appear on first use, with 4 partitions)",
    )
    parser.add_argument(
        "--parent-pid",
        type=int,
        default=0,
        help="stop when this parent process is gone (default: do not look)",
    )
    return parser


def _topic(text: str) -> TopicSpec:
    name, separator, partitions = text.rpartition("=")
    if not separator or not name or not partitions.isdigit() or int(partitions) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PARTITIONS")
    return TopicSpec(name, int(partitions))


if __name__ == "__main__":
    sys.exit(main())
