"""`python -m benchmarks [NAME] [options]`: runs one benchmark, or lists them; options go to the benchmark."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

NAMES = (
    "adaptation",
    "auto_rollback",
    "availability",
    "canary",
    "commit_interval",
    "determinism",
    "forgetting",
    "freshness",
    "gatekeeper",
    "gpu",
    "inference",
    "propagation",
    "realdata",
    "rollback",
    "router",
    "swap_under_load",
)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print(f"make bench NAME=... with one of: {', '.join(NAMES)}")
        print(
            "`python -m benchmarks.result_file` recomputes the figures of the routing benchmarks from their samples"
        )
        print(f"results are kept in {Path(__file__).parent.name}/results, one JSON file each")
        return 0 if not arguments else 2
    name, *options = arguments
    sys.argv = [f"benchmarks/{name}.py", *options]
    # Not run as `__main__`: processes that a benchmark spawns must find its functions under its own name.
    return int(importlib.import_module(f"benchmarks.{name}").main() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
