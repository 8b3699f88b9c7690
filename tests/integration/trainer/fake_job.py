"""A learning job that learns nothing: it keeps the real one's files and promises, without torch and in no time.

The adapter's bytes depend on exactly what decides the real one's: rows, replay, parent, seed.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

KINDS = ("rows", "gate_rows", "replay_rows", "general_rows", "probe_rows")


def main(arguments: list[str]) -> int:
    path = Path(arguments[0])
    job = json.loads(path.read_bytes())
    folder = path.parent
    settings = job["settings"]
    if settings.get("fail_with"):
        return int(settings["fail_with"])
    decides = hashlib.sha256(json.dumps([job["seed"], job["domain"]]).encode())
    for kind in KINDS:
        if kind in job:
            decides.update((folder / job[kind]).read_bytes())
    weights = Path(job["parent"]["adapter"]) / "adapter_model.safetensors"
    decides.update(weights.read_bytes())
    print(json.dumps({"event": "started"}), flush=True)
    time.sleep(settings.get("seconds", 0.3))
    out = folder / "out"
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    files = {
        "adapter/adapter_config.json": (weights.parent / "adapter_config.json").read_bytes(),
        "adapter/adapter_model.safetensors": decides.digest(),
        "fisher.safetensors": b"fisher" + decides.digest(),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)
    result: dict[str, dict[str, Any]] = {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "metrics": {"steps": 1, "update_exact_match": settings.get("score", 1.0)},
    }
    if settings.get("steps_digits"):
        result["metrics"]["steps"] = int("9" * settings["steps_digits"])
    if settings.get("lose"):
        (out / settings["lose"]).unlink()
    partial = out / "result.partial"
    partial.write_text(json.dumps(result))
    partial.rename(out / "result.json")
    return 0
