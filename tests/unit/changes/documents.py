"""Rules, prompt and the shipped list of allowed paths, as many tests start from them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from schemas.changes import PatchOperation
from services.trainer.settings import ChangeSettings
from twinloop.changes.allowed_paths import ChangePolicy
from twinloop.changes.patching import Documents
from twinloop.model_runtime.prompt import PromptFormat

ROOT = Path(__file__).parents[3]


@cache
def shipped_policy() -> ChangePolicy:
    """What `configs/trainer.yaml` allows."""
    settings = yaml.safe_load((ROOT / "configs/trainer.yaml").read_text(encoding="utf-8"))
    return ChangeSettings.model_validate(settings["trainer"]["changes"]).policy()


@cache
def small_documents() -> Documents:
    """The shipped rules with a few keywords a domain, and a prompt."""
    rules = json.loads((ROOT / "configs/rules.json").read_bytes())
    for domain in rules["domains"].values():
        domain["keywords"] = dict(list(domain["keywords"].items())[:12])
        domain["exemplars"] = domain["exemplars"][:4]
    return Documents.read(json.dumps(rules).encode(), PromptFormat(min_passage_coverage=0.8).to_json())


def steps(*raw: dict[str, Any]) -> list[PatchOperation]:
    return [PatchOperation.model_validate(step) for step in raw]
