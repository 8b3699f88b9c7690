"""Writes the reference pages: `python -m scripts.reference_pages`; `--check` only compares, and exits 1."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts import configuration_page, topics_page

DOCS = Path(__file__).parents[1] / "docs"


def rendered() -> dict[Path, str]:
    """Every generated page and its text."""
    return {DOCS / "configuration.md": configuration_page.page(), DOCS / "topics.md": topics_page.page()}


def main(arguments: list[str]) -> int:
    drifted = [
        path
        for path, text in rendered().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in drifted:
        if "--check" in arguments:
            print(f"{path.relative_to(DOCS.parent)}: differs; run `make contracts`", file=sys.stderr)
        else:
            path.write_text(rendered()[path], encoding="utf-8")
    return 1 if drifted and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
