"""The script that replaces compose's services one by one: which, in which order, and when it stops."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = """#!/bin/sh
for last; do :; done
echo "$last" >> "$CALLS"
[ "$last" != "$SICK" ]
"""


def run(folder: Path, *arguments: str, sick: str = "") -> tuple[int, list[str], str]:
    """(exit status, services asked for in order, errors) with a `docker` that only writes down what it is asked."""
    docker, calls = folder / "docker", folder / "calls"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    calls.write_text("")
    done = subprocess.run(
        [str(ROOT / "scripts" / "rolling_upgrade.sh"), *arguments],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "SICK": sick},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, calls.read_text().split(), done.stderr


def test_every_service_of_the_compose_file_is_replaced_readers_first_and_back_the_other_way(
    tmp_path: Path,
) -> None:
    status, forward, _ = run(tmp_path)
    assert status == 0
    assert forward.pop(0) == "init", "a topic that the new version reads must be there before it is"
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    ours = {name for name, each in declared.items() if "services." in str(each.get("command", ""))}
    assert set(forward) == {name for name in ours if not name.endswith("-gpu")}
    assert forward.index("gatekeeper") < forward.index("inference-blue") < forward.index("router")
    assert run(tmp_path, "--back")[1] == forward[::-1]


def test_it_stops_at_the_first_service_that_does_not_become_healthy(tmp_path: Path) -> None:
    status, asked, errors = run(tmp_path, sick="inference-green")
    assert (status, asked[-1]) == (1, "inference-green")
    assert "--back" in errors


def test_on_the_way_back_it_says_how_to_move_away_a_checkpoint_that_the_older_trainer_cannot_read(
    tmp_path: Path,
) -> None:
    status, asked, errors = run(tmp_path, "--back", sick="trainer")
    assert (status, asked[-1]) == (1, "trainer")
    profile = yaml.safe_load((ROOT / "configs" / "profiles" / "compose.yaml").read_text(encoding="utf-8"))
    checkpoint = f"{profile['state_folder']}/trainer-0/checkpoint.json"
    assert f"trainer mv {checkpoint} {checkpoint}.newer" in errors
    assert "checkpoint" not in run(tmp_path, sick="trainer")[2]


def test_on_the_way_back_it_says_that_a_newer_policy_needs_the_newer_gatekeeper(tmp_path: Path) -> None:
    status, asked, errors = run(tmp_path, "--back", sick="gatekeeper")
    assert (status, asked[-1]) == (1, "gatekeeper")
    assert "policy" in errors
    assert "policy" not in run(tmp_path, sick="gatekeeper")[2]


def test_nothing_is_replaced_where_the_topics_cannot_be_made(tmp_path: Path) -> None:
    status, asked, errors = run(tmp_path, sick="init")
    assert (status, asked) == (1, ["init"])
    assert "nothing has been replaced" in errors


def test_an_unknown_argument_replaces_nothing(tmp_path: Path) -> None:
    status, asked, errors = run(tmp_path, "--force")
    assert (status, asked) == (2, [])
    assert "usage" in errors
