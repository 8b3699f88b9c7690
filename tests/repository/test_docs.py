"""Every link of the documents leads somewhere, and the feature list is whole."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = sorted(
    {
        *(ROOT / name for name in TOP if (ROOT / name).exists()),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("services/**/README.md"),
        *ROOT.glob("twinloop/**/README.md"),
        *ROOT.glob("benchmarks/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
    }
)
OURS = [ROOT / "ARCHITECTURE.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "services/inference/README.md"]
FEATURES = ROOT / "docs/features.md"
MATRIX = (
    "Blue/Green (Active/Shadow)",
    "Continuous learning",
    "Localized plasticity",
    "External factual memory",
    "QA without side effects",
    "Canary & A/B",
    "Atomic swap",
    "Instant rollback",
    "Artifacts & lineage",
    "Safe self-modifications",
    "Determinism",
)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
_DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_REFERENCE = re.compile(r"(?<![\]\w!`])\[([^\[\]]+)\](?![\[(:])")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


def text_of(page: Path) -> str:
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def without_code_spans(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "`", text)


def targets(page: Path) -> list[str]:
    text = text_of(page)
    return [*_INLINE.findall(text), *(target for _, target in _DEFINITION.findall(text))]


def anchors(page: Path) -> set[str]:
    """Anchors of headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(text_of(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        kept = [c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN"]
        anchor = "".join(kept).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


def broken(page: Path, target: str) -> str | None:
    """Why a link leads nowhere; None where it does, or leads out of the repository."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.is_relative_to(ROOT):
        return "leads out of the repository"
    if not found.exists():
        return "is not there"
    if anchor and found.suffix == ".md" and anchor not in anchors(found):
        return f"has no heading #{anchor}"
    return None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_resolves(page: Path) -> None:
    faults = [f"{target} {why}" for target in targets(page) if (why := broken(page, target))]
    assert faults == []


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_reference_is_defined_and_used(page: Path) -> None:
    text = text_of(page)
    defined = {name for name, _ in _DEFINITION.findall(text)}
    used = set(_REFERENCE.findall(without_code_spans(_DEFINITION.sub("", text))))
    assert defined <= used, f"defined and not used: {sorted(defined - used)}"
    assert used <= defined, f"used and not defined: {sorted(used - defined)}"


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_lines_fit_a_screen(page: Path) -> None:
    """Rows of tables may be longer: they cannot be broken."""
    lines = page.read_text(encoding="utf-8").splitlines()
    long = [number for number, line in enumerate(lines, 1) if len(line) > 150 and not line.startswith("|")]
    assert long == []


def rows(heading: str) -> list[list[str]]:
    section = FEATURES.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_matrix_has_every_row_once_with_a_module_and_a_test() -> None:
    found = rows("Matrix")
    assert tuple(row[0] for row in found) == MATRIX
    links = dict(_DEFINITION.findall(FEATURES.read_text(encoding="utf-8")))
    for requirement, how, modules, tests in found:
        assert how, requirement
        code = [links[name] for name in re.findall(r"\[([^\]]+)\]", modules)]
        shown = [links[name] for name in re.findall(r"\[([^\]]+)\]", tests)]
        assert code, f"{requirement} names no module"
        assert shown, f"{requirement} names no test"
        assert not any("/tests/" in link for link in code)
        assert all("/tests/" in link for link in shown)


def test_every_gate_names_a_module_and_a_test() -> None:
    for gate in rows("Operational gates"):
        assert len(gate) == 4
        assert all("[" in cell for cell in gate[2:]), gate[0]


def test_the_readme_shows_the_gates_whole_and_as_shipped() -> None:
    block = re.search(
        r"```yaml\n(policy:\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    shipped = yaml.safe_load((ROOT / "configs/gatekeeper.yaml").read_text(encoding="utf-8"))["gatekeeper"]
    assert yaml.safe_load(block[1])["policy"] == shipped["policy"]


def test_the_index_of_decisions_names_every_page_by_its_title() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(page for page in folder.glob("*.md") if page.name != "README.md")
    assert len(pages) >= 12
    for number, page in enumerate(pages, 1):
        text = page.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix(f"# {number:04d}. ")
        assert page.name.startswith(f"{number:04d}-")
        assert f"| [{number:04d}]({page.name}) | {title} |" in index
        assert [line for line in text.splitlines() if line.startswith("## ")] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]


@pytest.mark.parametrize("service", ["router", "inference", "trainer", "gatekeeper"])
def test_every_service_has_a_page_that_says_what_it_reads_writes_and_promises(service: str) -> None:
    page = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8").lower()
    assert "read" in page
    assert "write" in page or "publishes" in page
    assert "promise" in page


@pytest.mark.parametrize(
    ("target", "is_broken"),
    [
        ("features.md", False),
        ("features.md#matrix", False),
        ("features.md#matrices", True),
        ("nowhere.md", True),
        ("../../elsewhere", True),
        ("https://example.org/x", False),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(target: str, is_broken: bool) -> None:
    assert (broken(FEATURES, target) is not None) is is_broken
