"""What a wheel would hold, asked of setuptools itself without building one."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py

from twinloop.topics import DECLARATIONS

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "services", "twinloop")


@pytest.fixture(scope="module")
def builder() -> build_py:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        distribution = Distribution()
        with warnings.catch_warnings():
            # A missing README.md is for the tests of the documents to tell.
            warnings.filterwarnings("ignore", message=".*README.md' cannot be found")
            distribution.parse_config_files(["pyproject.toml"])
        command = distribution.get_command_obj("build_py")
        assert isinstance(command, build_py)
        command.ensure_finalized()
        # Asked for here, while the working folder is the repository's.
        _ = command.data_files
        return command


def tracked(*suffix_excluded: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\n") if name and not name.endswith(suffix_excluded)]


def packed(builder: build_py) -> set[str]:
    return {
        f"{package.replace('.', '/')}/{Path(name).as_posix()}"
        for package, _source, _target, names in builder.data_files
        for name in names
    }


def test_every_file_that_code_reads_from_its_own_folder_is_in_the_wheel(builder: build_py) -> None:
    missing = set(tracked(".py", "README.md")) - packed(builder)
    assert not missing, f"add these to [tool.setuptools.package-data]: {sorted(missing)}"


def test_the_list_of_topics_is_among_them(builder: build_py) -> None:
    assert DECLARATIONS.relative_to(ROOT).as_posix() in packed(builder)


def test_every_folder_with_code_is_a_package_of_the_wheel(builder: build_py) -> None:
    folders = {Path(name).parent.as_posix() for name in tracked() if name.endswith(".py")}
    packages = {package.replace(".", "/") for package in builder.packages}
    assert folders == packages


def test_the_console_script_names_a_function_that_exists() -> None:
    script = re.search(r'^twinloop = "([\w.]+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert script is not None
    source = (ROOT / (script[1].replace(".", "/") + ".py")).read_text(encoding="utf-8")
    assert f"def {script[2]}(" in source
