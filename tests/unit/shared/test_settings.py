"""Settings: files merged, environment on top, nothing unknown let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.settings import InferenceSettings
from twinloop.errors import ConfigError
from twinloop.process import config_arguments
from twinloop.settings_loader import load_settings, merge

STORE = "store: {url: 'file:///tmp/store'}\n"


def _file(folder: Path, text: str, name: str = "inference.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_shipped_configuration_loads(tmp_path: Path) -> None:
    profile = _file(tmp_path, STORE, "profile.yaml")
    settings = load_settings(InferenceSettings, Path("configs/inference.yaml"), profile)
    assert settings.inference == InferenceSettings(store={"url": "file:///tmp/store"}).inference


def test_later_files_win_and_the_environment_wins_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _file(tmp_path, STORE + "inference: {batch_max: 4, max_hops: 2}\n", "a.yaml")
    second = _file(tmp_path, "inference: {batch_max: 5}\n", "b.yaml")
    monkeypatch.setenv("TWINLOOP_KAFKA__BOOTSTRAP_SERVERS", "broker:1")
    settings = load_settings(InferenceSettings, first, second)
    assert (settings.inference.batch_max, settings.inference.max_hops) == (5, 2)
    assert settings.kafka.bootstrap_servers == "broker:1"
    monkeypatch.setenv("TWINLOOP_INFERENCE__BATCH_MAX", "6")
    assert load_settings(InferenceSettings, first, second).inference.batch_max == 6


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (STORE + "inference: {batch_maximum: 3}\n", "inference.batch_maximum"),
        (STORE + "unknown: 1\n", "unknown"),
        (STORE + "inference: {batch_max: 0}\n", "inference.batch_max"),
        (STORE + "inference: {slot: red}\n", "inference.slot"),
        ("inference: {}\n", "store"),
        (STORE + "topics: {prefix: 'UPPER'}\n", "topics.prefix"),
        ("- a list\n", "mapping"),
        ("a: [\n", "YAML"),
    ],
)
def test_bad_settings_name_the_file_and_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_settings(InferenceSettings, path)
    assert named in str(refused.value)
    assert "inference.yaml" in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_settings(InferenceSettings, tmp_path / "nowhere.yaml")


def test_nested_mappings_merge_and_everything_else_is_replaced() -> None:
    assert merge({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2]}, "d": None}) == {
        "a": {"b": 1, "c": [2]},
        "d": None,
    }


def test_config_arguments_are_files_or_the_default() -> None:
    default = Path("configs/x.yaml")
    assert config_arguments([], default) == [default]
    assert config_arguments(["--config", "a", "--config=b"], default) == [Path("a"), Path("b")]
    for wrong in (["--confg", "a"], ["--config"], ["a"]):
        with pytest.raises(ConfigError, match="usage"):
            config_arguments(wrong, default)
