"""A program for the leash whose jobs only wait: a job file holds `[seconds, status]`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    seconds, status = json.loads(Path(arguments[0]).read_bytes())
    print(os.getpid(), flush=True)
    time.sleep(seconds)
    return int(status)
