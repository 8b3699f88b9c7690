"""What a reference loop is asked to do, and its process; without the clients themselves, which the router's has not."""

from __future__ import annotations

import json
import subprocess
import sys

from pydantic import BaseModel, ConfigDict

from twinloop.bus.settings import KafkaSettings

REFERENCES = ("aiokafka", "faust")
TIMEOUT_S = 60.0
"""Longest time, in seconds, that a loop may take to start, join its group and stop."""


class Task(BaseModel):
    """What one loop is to carry from where to where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: KafkaSettings
    source: str
    target: str
    partitions: int
    group: str
    batch_max: int
    commit_interval_s: float
    count: int
    limit_s: float
    """Ends before `count` where it takes longer, so that a slow client costs a rate and not minutes."""


def reference_rates(client: str, task: Task) -> tuple[float, float]:
    """Records a second of wall time and of processor time by that client, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.reference_loops", client, task.model_dump_json()]
    answer = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=task.limit_s + 2 * TIMEOUT_S
    )
    wall, cpu = json.loads(answer.stdout.splitlines()[-1])
    return float(wall), float(cpu)
