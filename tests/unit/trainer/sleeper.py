"""Prints its process id, sleeps, exits: `python -m ... SECONDS STATUS`."""

from __future__ import annotations

import os
import sys
import time

if __name__ == "__main__":
    print(os.getpid(), flush=True)
    time.sleep(float(sys.argv[1]))
    sys.exit(int(sys.argv[2]))
