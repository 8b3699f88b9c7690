"""One form for every result: what was measured (samples) and, recomputed from it, what it comes to (figures)."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
RECOMPUTED = (
    "propagation",
    "router",
    "commit_interval",
    "freshness",
    "swap_under_load",
    "rollback",
    "availability",
    "gatekeeper",
    "auto_rollback",
)
"""Benchmarks whose module has `figures(samples)`, a pure function."""
_BUSY = 0.5
"""Load a core, before the start, from which on others' work is in the figures."""
_LIBRARIES = ("confluent-kafka", "redis", "msgspec", "pydantic")


def machine(*, load_before: Sequence[float] | None = None) -> dict[str, Any]:
    """What the figures are taken on; `is_shared` says that others worked on it at the start."""
    cores = os.cpu_count() or 1
    load = list(load_before or os.getloadavg())
    return {
        "cores": cores,
        "processor": processor(),
        "load": [round(each, 1) for each in load],
        "is_shared": load[0] > _BUSY * cores,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def write(
    name: str,
    *,
    seeds: Sequence[int],
    samples: Mapping[str, Any],
    goals: Mapping[str, str],
    load_before: Sequence[float],
    **about: Any,
) -> dict[str, Any]:
    """Writes `results/NAME.json` and returns the figures, computed from exactly what was written."""
    kept = json.loads(json.dumps(samples))
    figures = figures_of(name, kept)
    found = {
        "name": name,
        "commit": _commit(),
        "machine": machine(load_before=load_before),
        "seeds": list(seeds),
        "figures": figures,
        "goals": dict(goals),
        **about,
        "samples": kept,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({"figures": figures, "goals": goals}, indent=1))
    return figures


def figures_of(name: str, samples: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of these samples by the benchmark's own function."""
    return dict(importlib.import_module(f"benchmarks.{name}").figures(samples))


def main() -> int:
    """Recomputes the figures of every stored result that can be; the exit status is 1 where one differs."""
    wrong = 0
    for name in RECOMPUTED:
        path = FOLDER / f"{name}.json"
        if not path.exists():
            print(f"{name}: no result yet; python -m benchmarks {name}")
            continue
        stored = json.loads(path.read_text())
        figures = figures_of(name, stored["samples"])
        is_same = figures == stored["figures"]
        wrong += not is_same
        print(f"{name}: {'as stored' if is_same else 'DIFFERS'} {json.dumps(figures)}")
    return 1 if wrong else 0


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
