"""A second start in the folder of a running installation leaves the first one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.errors import ConfigError
from twinloop.stack.backend import Profile
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan


def test_a_refused_start_leaves_the_run_file_of_the_running_installation(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.run_file.write_text("{}")
    profiles: tuple[Profile, ...] = ("embedded", "kafka")
    for profile in profiles:
        installation = Installation(Plan(home=home, profile=profile), print)
        with pytest.raises(ConfigError, match="is running, or was killed"):
            installation.start()
        with pytest.raises(ConfigError, match="is running, or was killed"), installation.servers_alone():
            pass
    assert home.run_file.read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
