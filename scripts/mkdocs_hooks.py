"""What the docs site needs beyond Markdown: links out of `docs/`, and folders in the navigation.

Pages link to code and to other folders' pages as they do on GitHub (`../services/router/README.md`). The site holds
`docs/` alone, so such a link leads to `repo_url` where `mkdocs.yml` has one, and else shows its path when pointed at.
A target that is not in the repository stays as it is and fails a strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

SCHEME = "repository:"
_TARGET = re.compile(r"(\]\(|^\[[^\]]+\]: )(\.\./[^)\s#]+)", re.MULTILINE)
_ANCHOR = re.compile(
    rf'<a href="{SCHEME}(?P<path>[^"#]+)(?P<rest>#[^"]*)?"[^>]*>(?P<text>.*?)</a>', re.DOTALL
)


def on_config(config: Any) -> Any:
    """A navigation entry that ends in `/` stands for every page of that folder, so that none is forgotten."""
    config.nav = expanded(config.nav, Path(config.docs_dir))
    return config


def expanded(nav: Any, docs: Path) -> Any:
    if isinstance(nav, list):
        return [expanded(each, docs) for each in nav]
    if isinstance(nav, dict):
        return {title: expanded(each, docs) for title, each in nav.items()}
    if not nav.endswith("/"):
        return nav
    pages = sorted(page.relative_to(docs).as_posix() for page in (docs / nav).glob("*.md"))
    return sorted(pages, key=lambda page: not page.endswith("README.md"))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    return marked(
        markdown, page.file.src_uri, Path(config.config_file_path).parent, Path(config.docs_dir).name
    )


def marked(markdown: str, page: str, root: Path, docs: str) -> str:
    """Targets outside the docs folder get a scheme of their own, which no validation of the site looks into."""

    def mark(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(docs, posixpath.dirname(page), found[2]))
        is_outside = not path.startswith((f"{docs}/", "..")) and (root / path).exists()
        return f"{found[1]}{SCHEME}{path}" if is_outside else found[0]

    return _TARGET.sub(mark, markdown)


def on_page_content(html: str, config: Any, **_: Any) -> str:
    return resolved(html, config.repo_url)


def resolved(html: str, repository: str | None) -> str:
    """Marked links as links into the repository, or as text that names its path."""

    def resolve(found: re.Match[str]) -> str:
        if repository:
            address = f"{repository.rstrip('/')}/blob/main/{found['path']}{found['rest'] or ''}"
            return f'<a href="{address}">{found["text"]}</a>'
        return f'<span class="in-repository" title="{found["path"]}">{found["text"]}</span>'

    return _ANCHOR.sub(resolve, html)
