"""A gatekeeper does not start on settings it does not understand or that contradict each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from services.gatekeeper.core.policy import (
    GatePolicy,
    MirrorPolicy,
    PromotePolicy,
    RatingsPolicy,
    WatchPolicy,
    policy_change,
    read_policy,
)
from services.gatekeeper.settings import GatekeeperSettings
from twinloop.errors import ConfigError
from twinloop.settings_loader import load_settings

SHIPPED = Path("configs/gatekeeper.yaml")


def load(tmp_path: Path, section: dict[str, object]) -> GatekeeperSettings:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"store": {"url": "memory://"}, "gatekeeper": section}))
    return load_settings(GatekeeperSettings, SHIPPED, path)


def test_the_shipped_file_says_what_the_code_defaults_to(tmp_path: Path) -> None:
    """But for the keys that came later: their defaults are what logs without them were decided by."""
    shipped = load(tmp_path, {}).gatekeeper.policy
    later = {
        "canary": replace(GatePolicy().canary, baseline_units=1000, silent_shadow="hold"),
        "promote": PromotePolicy(force_approvers=2, partial=True, freezes_training=True),
        "ratings": RatingsPolicy(),
        "mirror": MirrorPolicy(bake_basis_points=500),
        "rollback": replace(GatePolicy().rollback, min_windows=3),
        "watch": WatchPolicy(window_progress_s=0.5, interval_alpha=0.05),
    }
    assert shipped == GatePolicy().model_copy(update=later)


def test_a_key_that_came_later_leaves_the_digest_of_older_policies_alone() -> None:
    dumped = GatePolicy().model_dump(mode="json")
    assert not {"force_approvers", "partial", "freezes_training"} & set(dumped["promote"])
    assert not {"mirror", "ratings"} & set(dumped)
    assert not {"window_progress_s", "interval_alpha"} & set(dumped["watch"])
    assert GatePolicy(promote=PromotePolicy(force_approvers=2)).digest != GatePolicy().digest


def test_the_shipped_file_names_every_threshold(tmp_path: Path) -> None:
    shipped = yaml.safe_load(SHIPPED.read_text())["gatekeeper"]["policy"]
    for section, values in (
        GatePolicy(mirror=MirrorPolicy(), ratings=RatingsPolicy()).model_dump(mode="json").items()
    ):
        assert set(shipped[section]) | {"domains"} >= set(values), section


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"tick": 1}, "tick"),
        ({"policy": {"canary": {"min_shadwo": 5}}}, "min_shadwo"),
        ({"policy": {"qa": {"pass_rate": 0.9}}}, "pass_rate"),
        ({"policy": {"rollback": {"error": 0.9}}}, "error"),
        ({"policy": {"ramp": {"steps": [1]}}}, "steps"),
        ({"policy": {"mirror": {"share": 1}}}, "share"),
        ({"windows": {"second": 1}}, "second"),
        ({"probes": {"path": "x"}}, "path"),
    ],
)
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, section: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, section)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"tick_s": 4.0, "idle_tick_s": 2.0}, "idle_tick_s"),
        ({"idle_tick_s": 60.0}, "max_gap_s"),
        ({"readiness_repeat_s": 10.0}, "live_s"),
        ({"policy": {"watch": {"progress_s": 9.8}}}, "progress_s"),
        ({"policy": {"ramp": {"basis_points": [500, 100]}}}, "rise"),
        ({"policy": {"ramp": {"basis_points": [100, 2000]}}}, "1000"),
        ({"policy": {"ramp": {"basis_points": []}}}, "basis_points"),
        ({"policy": {"ramp": {"min_step_s": 90_000.0}}}, "max_duration_s"),
        ({"policy": {"canary": {"max_shadow": 10}}}, "max_shadow"),
        ({"policy": {"canary": {"alpha_abort": 1.5}}}, "alpha_abort"),
        ({"policy": {"promote": {"mode": "maybe"}}}, "mode"),
        ({"policy": {"mirror": {"min_s": 4000.0}}}, "max_s"),
    ],
)
def test_a_contradiction_is_refused_by_name(tmp_path: Path, section: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, section)


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOOP_GATEKEEPER__POLICY__CANARY__MIN_SHADOW", "123")
    policy = load(tmp_path, {}).gatekeeper.policy
    assert policy.canary.min_shadow == 123
    assert policy.canary.domains == ("law", "med", "fin", "gen")


def test_a_policy_survives_the_log_and_its_digest_names_it() -> None:
    policy = GatePolicy.model_validate({"canary": {"min_shadow": 7}})
    change = policy_change(policy, software="0.1.0", origin_partitions=4)
    assert read_policy(change) == policy
    assert policy.digest != GatePolicy().digest
    with pytest.raises(ConfigError, match="digest"):
        read_policy(change.model_copy(update={"digest": GatePolicy().digest}))
