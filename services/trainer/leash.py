"""Runs another module in this process and ends the process when its parent is gone, killed parents included.

`python -m services.trainer.leash PARENT_PID MODULE [ARGUMENT]...`
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time

_LOOK_S = 0.25


def main(arguments: list[str]) -> None:
    parent, module, *rest = arguments
    threading.Thread(target=_end_with, args=(int(parent),), name="leash", daemon=True).start()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(143)


if __name__ == "__main__":
    main(sys.argv[1:])
