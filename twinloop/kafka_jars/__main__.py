"""`python -m twinloop.kafka_jars`: a real Kafka for development (`up`, `down`, `status`) and its console tools.

python -m twinloop.kafka_jars up --port 9092
python -m twinloop.kafka_jars console-consumer --topic twinloop.decisions --from-beginning
python -m twinloop.kafka_jars down
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinloop.errors import TwinLoopError
from twinloop.kafka_jars.broker import KafkaBroker
from twinloop.kafka_jars.jars import default_cache, fetch_tools

_TOOLS = {
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "topics": "org.apache.kafka.tools.TopicCommand",
}
_MAIN_CLASS = "kafka.Kafka"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    wanted, more = _parser().parse_known_args(arguments)
    folder: Path = wanted.dir or default_cache() / "run"
    if more and wanted.command not in _TOOLS:
        sys.stderr.write(f"unknown arguments: {' '.join(more)}\n")
        return 2
    try:
        if wanted.command == "up":
            return _up(folder, ports=wanted.port, nodes=wanted.nodes)
        if wanted.command == "down":
            return _down(folder, wipe=wanted.wipe)
        if wanted.command == "status":
            return _status(folder)
        return _tool(wanted.command, folder, more)
    except TwinLoopError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _up(folder: Path, *, ports: Sequence[int], nodes: int) -> int:
    state = _read_state(folder)
    if state and all(_is_kafka(pid) for pid in state["pids"]):
        sys.stdout.write(f"{state['bootstrap_servers']}\n")
        return 0
    if state and not ports:
        ports = [int(server.rpartition(":")[2]) for server in state["bootstrap_servers"].split(",")]
        nodes = len(ports)
    if ports and len(ports) != nodes:
        sys.stderr.write(f"{nodes} nodes need {nodes} times --port, got {len(ports)}\n")
        return 2
    broker = KafkaBroker(
        folder=folder, nodes=nodes, ports=ports or [9092 + n for n in range(nodes)], outlives_us=True
    )
    broker.start()
    state = {"bootstrap_servers": broker.bootstrap_servers, "pids": [node.pid for node in broker.nodes]}
    (folder / "kafka.json").write_text(json.dumps(state) + "\n")
    sys.stdout.write(f"{broker.bootstrap_servers}\n")
    return 0


def _down(folder: Path, *, wipe: bool) -> int:
    state = _read_state(folder)
    alive = [pid for pid in (state or {}).get("pids", []) if _is_kafka(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while any(_is_kafka(pid) for pid in alive):
        if time.monotonic() > deadline:
            for pid in alive:
                if _is_kafka(pid):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    if wipe and state is not None:
        shutil.rmtree(folder)
    sys.stdout.write(f"stopped {len(alive)} of Kafka's processes\n")
    return 0


def _status(folder: Path) -> int:
    state = _read_state(folder)
    if state is None or not all(_is_kafka(pid) for pid in state["pids"]):
        sys.stdout.write(f"not running (state in {folder})\n")
        return 1
    sys.stdout.write(f"{state['bootstrap_servers']}\n")
    return 0


def _tool(name: str, folder: Path, arguments: Sequence[str]) -> int:
    state = _read_state(folder)
    where: list[str] = []
    if "--bootstrap-server" not in arguments and state is not None:
        where = ["--bootstrap-server", state["bootstrap_servers"]]
    return subprocess.run(
        fetch_tools().command(_TOOLS[name], *where, *arguments, heap_mb=256), check=False
    ).returncode


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / "kafka.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def _is_kafka(pid: int) -> bool:
    """The process runs and is a Kafka: a process id on file may belong to somebody else by now."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return _MAIN_CLASS in answer.stdout and not answer.stdout.startswith("Z")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m twinloop.kafka_jars",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start Kafka, print its bootstrap servers, leave it running")
    up.add_argument(
        "--port", type=int, action="append", default=[], help="client port (once per node; default 9092)"
    )
    up.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="number of nodes")
    down = commands.add_parser("down", help="stop it")
    down.add_argument("--wipe", action="store_true", help="remove its data too")
    commands.add_parser("status", help="print the bootstrap servers, or say that it does not run")
    for name in _TOOLS:
        commands.add_parser(name, help=f"Kafka's own {name}; further arguments are passed on", add_help=False)
    for command in commands.choices.values():
        command.add_argument("--dir", type=Path, help="run folder (default: ~/.cache/twinloop/run)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
