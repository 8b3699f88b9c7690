"""Writes `results/NAME.json`: what was measured (samples) and the figures that the benchmark computes from them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def write_result(
    name: str,
    *,
    seeds: Sequence[int],
    samples: Mapping[str, Any],
    figures: Callable[[Mapping[str, Any]], dict[str, float]],
    goals: Mapping[str, str],
    load_before: Sequence[float],
    **about: Any,
) -> dict[str, float]:
    """Writes the file and returns the figures, computed from exactly the samples that were written."""
    kept = json.loads(json.dumps(samples))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    found = {
        "name": name,
        "commit": commit.stdout.strip(),
        "machine": {
            "cores": os.cpu_count(),
            "load": [round(load, 1) for load in load_before],
            "python": platform.python_version(),
        },
        "seeds": list(seeds),
        "figures": figures(kept),
        "goals": dict(goals),
        **about,
        "samples": kept,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({"figures": found["figures"], "goals": found["goals"]}, indent=1))
    return dict(found["figures"])
