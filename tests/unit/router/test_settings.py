from __future__ import annotations

from pathlib import Path

import pytest

from services.router.settings import RouterSection, RouterSettings
from twinloop.errors import ConfigError
from twinloop.settings_loader import load_settings

SHIPPED = Path(__file__).resolve().parents[3] / "configs" / "router.yaml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text("store: {url: 'memory:///'}\n")
    return path


def test_the_shipped_file_says_what_the_defaults_are(site: Path) -> None:
    assert load_settings(RouterSettings, SHIPPED, site).router == RouterSection()


def test_the_environment_wins_over_the_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOOP_ROUTER__BATCH_MAX", "7")
    monkeypatch.setenv("TWINLOOP_ROUTER__OVERLOAD__LOW_SHARE", "0.1")
    router = load_settings(RouterSettings, SHIPPED, site).router
    assert (router.batch_max, router.overload.low_share, router.overload.normal_share) == (7, 0.1, 0.7)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("router: {batch_maximum: 5}", "batch_maximum"),
        ("router: {batch_max: 5000}", "batch_max"),
        ("router: {overload: {low_share: 0.9}}", "low_share"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, site: Path, text: str, named: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_settings(RouterSettings, SHIPPED, site, wrong)


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in RouterSection.model_fields.values())
