"""The lock files: exact, hashed, complete, and without the name of any package registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools.config.pyprojecttoml import read_configuration

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-minilm.lock")
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^ ;\\]+)(?P<rest>.*)$")
# Host names are put together here, so that this file does not spell one either.
_NAMES = ("pypi", "pythonhosted", "pytorch")
_TOP = ".org"
_ONE = f"(?:{'|'.join(_NAMES)}){re.escape(_TOP)}"
REGISTRIES = re.compile(
    rf"(?:https?:|//|\.|@)[\w./-]*{_ONE}|--(?:extra-)?index-url[ =]\S*://|repo\d?\.maven\.(?:apache\.)?org"
)


def blocks(lock: str) -> dict[str, list[tuple[Version, str, list[str]]]]:
    """Entries of a lock file by name: version, marker, hashes; a universal lock may name one package twice."""
    found: dict[str, list[tuple[Version, str, list[str]]]] = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        entry = ENTRY.match(line)
        if entry is not None:
            marker = entry["rest"].partition(";")[2].rstrip(" \\")
            place = (Version(entry["version"]), marker, [])
            found.setdefault(canonicalize_name(entry["name"]), []).append(place)
            last = place[2]
        elif "--hash=" in line:
            last.append(line.strip(" \\"))
    return found


@pytest.fixture(scope="module")
def wanted() -> list[Requirement]:
    project = read_configuration(ROOT / "pyproject.toml", expand=False)["project"]
    extras = project["optional-dependencies"].values()
    return [
        Requirement(text)
        for text in (*project["dependencies"], *(each for extra in extras for each in extra))
    ]


def test_every_dependency_is_pinned_to_a_version_it_allows(wanted: list[Requirement]) -> None:
    locked = blocks("requirements.lock")
    for requirement in wanted:
        versions = [version for version, _, _ in locked.get(canonicalize_name(requirement.name), [])]
        assert versions, f"{requirement.name} is not locked: run make lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement}: {versions}"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_has_hashes_and_nothing_but_exact_versions_is_named(lock: str) -> None:
    entries = blocks(lock)
    assert entries
    for name, versions in entries.items():
        for version, _, hashes in versions:
            assert hashes, f"{name}=={version} has no hash"
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        assert line.startswith(("#", "    ")) or ENTRY.match(line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(
        r"^\s*(?:-i|-f|--(?:extra-)?index-url|--find-links|--trusted-host)\b", text, re.MULTILINE
    )


def test_one_package_is_locked_twice_only_for_different_machines() -> None:
    for name, versions in blocks("requirements.lock").items():
        if len(versions) > 1:
            assert all(marker for _, marker, _ in versions), f"{name} is locked twice without a marker"


def test_the_lock_covers_the_oldest_supported_python() -> None:
    project = read_configuration(ROOT / "pyproject.toml", expand=False)["project"]
    assert project["requires-python"] == ">=3.10"
    assert "--python-version 3.10" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_no_tracked_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's own setting; this page is the one that may spell the names."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    here = Path(__file__).relative_to(ROOT).as_posix()
    named = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or name == here or not path.is_file():
            continue
        found = REGISTRIES.search(path.read_bytes().decode("utf-8", errors="replace"))
        if found is not None:
            named.append(f"{name}: {found[0]}")
    assert named == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (f"https://{_NAMES[0]}{_TOP}/simple", True),
        ("--index-url https://mirror.example/simple", True),
        (f"https://files.{_NAMES[1]}{_TOP}/packages/a", True),
        (f"https://download.{_NAMES[2]}{_TOP}/whl/cpu", True),
        ("--index-url <its address>", False),
        ("https://json-schema.org/draft", False),
    ],
)
def test_the_search_finds_what_it_is_for(text: str, is_one: bool) -> None:
    assert (REGISTRIES.search(text) is not None) is is_one
