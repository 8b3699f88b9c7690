"""What the site does to links out of `docs/`, and that it asks nothing of the network."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.mkdocs_hooks import expanded, marked, resolved

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without running what its tags name."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, suffix, _node: suffix)


@pytest.fixture(scope="module")
def config() -> dict[str, object]:
    return dict(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader))  # noqa: S506


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("operations.md", "[x](../README.md)", "[x](repository:README.md)"),
        ("operations.md", "[x](../README.md#limits)", "[x](repository:README.md#limits)"),
        ("decisions/0008-tiny-foundation.md", "[x](../../foundation)", "[x](repository:foundation)"),
        ("features.md", "[fold]: ../services/gatekeeper/core/fold.py", None),
        ("runbooks/TwinLoopNoLeader.md", "[x](../operations.md)", "[x](../operations.md)"),
        ("operations.md", "[x](../nowhere.md)", "[x](../nowhere.md)"),
        ("operations.md", "[x](../../elsewhere)", "[x](../../elsewhere)"),
    ],
)
def test_only_links_to_files_outside_the_docs_are_marked(page: str, written: str, shown: str | None) -> None:
    wanted = shown or "[fold]: repository:services/gatekeeper/core/fold.py"
    assert marked(written, page, ROOT, "docs") == wanted


def test_a_marked_link_leads_to_the_repository_or_names_its_path() -> None:
    html = '<p><a href="repository:twinloop/a.py#top">code</a> <a href="b/">b</a></p>'
    assert 'href="https://git.example/t/blob/main/twinloop/a.py#top"' in resolved(
        html, "https://git.example/t/"
    )
    assert '<span class="in-repository" title="twinloop/a.py">code</span>' in resolved(html, None)
    assert '<a href="b/">b</a>' in resolved(html, None)


def test_a_folder_in_the_navigation_is_every_page_of_it() -> None:
    found = expanded([{"Decisions": "decisions/"}, "index.md"], DOCS)
    assert found[1] == "index.md"
    assert found[0]["Decisions"][0] == "decisions/README.md"
    assert len(found[0]["Decisions"]) == len(list((DOCS / "decisions").glob("*.md")))


def test_the_site_loads_nothing_from_the_network(config: dict[str, object]) -> None:
    theme = config["theme"]
    assert isinstance(theme, dict)
    assert theme["font"] is False
    assert config["strict"] is True
    assert config["plugins"] == ["search"]
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "```mermaid" not in text, f"{page}: the theme would fetch mermaid from a server"
        assert not re.search(r"!\[[^\]]*\]\(https?:", text), f"{page}: a picture from the network"


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("nowhere.md", "is not found among documentation files"),
        ("../scripts/nowhere.py", "is not found among documentation files"),
        ("index.md#no-such-heading", "no such anchor"),
    ],
)
def test_the_build_of_make_check_fails_on_a_broken_link(page: str, fault: str, tmp_path: Path) -> None:
    """The command line as it stands in the Makefile: with `--quiet` mkdocs would count no warning."""
    line = next(
        each.strip().removeprefix("$(BIN)/")
        for each in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
        if "mkdocs build" in each
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# A site\n\n[a link]({page})\n", encoding="utf-8")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/mkdocs_hooks.py", tmp_path / "scripts")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{text}\nnav: [index.md]\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert fault in ended.stderr
    assert ended.returncode == 1


def test_the_picture_is_one_for_light_and_for_dark() -> None:
    picture = (DOCS / "concepts.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in picture
    assert "<title" in picture
    assert not re.search(r"(?:href|src)=", picture)
