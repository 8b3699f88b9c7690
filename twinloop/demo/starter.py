"""Writes the files an installation with the shipped foundation starts with: documents, and the exam about them.

`python -m twinloop.demo.starter` writes them under `configs/`; `--check` writes nothing and exits 1 where they differ.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from twinloop.demo.synthetic import starter_documents, starter_probes

DOCUMENTS = Path("configs/starter/documents.jsonl")
PROBES = Path("configs/qa/probes.jsonl")


def rendered() -> dict[Path, str]:
    """Each file and its text."""
    return {
        DOCUMENTS: "".join(document.model_dump_json() + "\n" for document in starter_documents()),
        PROBES: "".join(json.dumps(asdict(probe)) + "\n" for probe in starter_probes()),
    }


def main(arguments: list[str]) -> int:
    differing = []
    for path, text in rendered().items():
        if "--check" in arguments:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                differing.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in differing:
        print(
            f"{path}: differs from the starter world; run `python -m twinloop.demo.starter`", file=sys.stderr
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
