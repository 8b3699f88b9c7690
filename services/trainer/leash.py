"""The process that learns: imports a job program, waits for its jobs, does them, and never outlives its parent.

`python -m services.trainer.leash PARENT_PID MODULE NICE` reads one line from standard input,
`{"folder": .., "jobs": [..]}`, and calls `MODULE.main([job])` for each job file in turn; the first status that is not 0
ends it, told in `failed.json`. Importing before the line arrives is the point: it takes longer than many a training.
`NICE` keeps a training from taking the cores of workers on the same machine: users wait for those.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.25
FAILED = "failed.json"


def main(arguments: Sequence[str]) -> int:
    parent, name, nice = arguments
    _stand_back(int(nice))
    threading.Thread(target=_end_with, args=(int(parent),), name="leash", daemon=True).start()
    program: Callable[[list[str]], int] = importlib.import_module(name).main
    line = sys.stdin.readline()
    if not line:
        return 0
    order = json.loads(line)
    folder = Path(order["folder"])
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # an orphan of a killed parent keeps it until it is gone
        _redirect(folder)
        return _do(program, order["jobs"], folder)


def _stand_back(nice: int) -> None:
    os.nice(nice)
    # Where Linux groups processes by session, niceness counts within the group only; the group has one of its own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def _do(program: Callable[[list[str]], int], jobs: Sequence[str], folder: Path) -> int:
    for job in jobs:
        status = program([job])
        if status != 0:
            (folder / FAILED).write_text(json.dumps({"job": job, "status": status}))
            return status
    return 0


def _redirect(folder: Path) -> None:
    for stream, name in ((sys.stdout, "stdout.jsonl"), (sys.stderr, "stderr.log")):
        stream.flush()
        with (folder / name).open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
