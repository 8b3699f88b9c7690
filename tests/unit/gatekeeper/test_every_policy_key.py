"""Every key of the policy: a sentence says what it is, the environment sets it, and nonsense is refused by its name."""

from __future__ import annotations

import ast
import inspect
import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from services.gatekeeper.core.policy import GatePolicy
from services.gatekeeper.settings import GatekeeperSettings
from services.gatekeeper.webhook_settings import WebhookSettings
from twinloop.errors import ConfigError
from twinloop.settings_loader import load_settings
from twinloop.statistics.windows import WindowPolicy

SHIPPED = Path("configs/gatekeeper.yaml")
SAMPLES = {
    "error_mode": "relative",
    "silent_shadow": "error",
    "baseline_min_units": 400,
    "domains": ["law", "med"],
    "basis_points": [50, 100],
    "mode": "approval",
    "paired": True,
    "partial": False,
    "force_approvers": 1,
    "interval_alpha": 0.1,
}
"""Another valid value, where nearly the same number is none."""


@dataclass(frozen=True)
class Key:
    """One threshold or duration, by its place in the settings."""

    path: tuple[str, ...]
    default: Any
    sentence: str

    @property
    def sample(self) -> Any:
        """Another valid value, where one is kept."""
        kept = SAMPLES.get(self.path[-1])
        return kept if isinstance(kept, list) == isinstance(self.default, tuple) else None

    @property
    def variable(self) -> str:
        return "__".join(["TWINLOOP_GATEKEEPER", *(part.upper() for part in self.path)])

    def document(self, value: Any, *, name: str | None = None) -> dict[str, Any]:
        inner: Any = value
        for part in reversed((*self.path[:-1], name or self.path[-1])):
            inner = {part: inner}
        return dict(inner)

    def in_force(self, loaded: GatekeeperSettings) -> Any:
        """Its value; the default where its whole section is optional and absent."""
        value: Any = loaded.gatekeeper
        for part in self.path:
            if value is None:
                return self.default
            value = getattr(value, part)
        return value


def sentences(holder: type) -> dict[str, str]:
    """The string under each field of a class."""
    if issubclass(holder, BaseModel):
        return {name: field.description or "" for name, field in holder.model_fields.items()}
    body = ast.parse(textwrap.dedent(inspect.getsource(holder))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for this, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
        if isinstance(this, ast.AnnAssign) and isinstance(this.target, ast.Name):
            is_said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[this.target.id] = str(following.value.value) if is_said else ""  # type: ignore[union-attr]
    return found


def keys_of(value: Any, path: tuple[str, ...]) -> Iterator[Key]:
    said = sentences(type(value))
    names = [field.name for field in fields(value)] if is_dataclass(value) else list(type(value).model_fields)
    for name in names:
        inner = getattr(value, name)
        if inner is None and isinstance(value, BaseModel):
            inner = optional_section(type(value).model_fields[name].annotation)
        if isinstance(inner, BaseModel) or is_dataclass(inner):
            yield from keys_of(inner, (*path, name))
        else:
            yield Key((*path, name), inner, said.get(name, ""))


def optional_section(annotation: Any) -> BaseModel | None:
    """The section with its own defaults, of a key that may be absent as a whole."""
    classes = [
        each for each in get_args(annotation) if isinstance(each, type) and issubclass(each, BaseModel)
    ]
    return classes[0]() if classes else None


KEYS = [*keys_of(GatePolicy(), ("policy",)), *keys_of(WindowPolicy(), ("windows",))]
each_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(key.path))
each_number = pytest.mark.parametrize(
    "key",
    [key for key in KEYS if isinstance(key.default, int | float) and not isinstance(key.default, bool)],
    ids=lambda key: ".".join(key.path),
)


def load(folder: Path, section: dict[str, Any] | None = None) -> GatekeeperSettings:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"store": {"url": "memory://"}, "gatekeeper": section or {}}))
    return load_settings(GatekeeperSettings, SHIPPED, path)


def another(key: Key, shipped: Any) -> Any:
    """A value near the one shipped that contradicts nothing."""
    if key.sample is not None:
        return key.sample
    if isinstance(shipped, bool):
        return not shipped
    if isinstance(shipped, int):
        return shipped + 1
    return shipped * 0.99 if shipped else 0.01


def test_there_are_as_many_keys_as_a_reader_would_count() -> None:
    assert len(KEYS) > 60
    assert len({key.path for key in KEYS}) == len(KEYS)


@each_key
def test_a_sentence_says_what_it_is(key: Key) -> None:
    assert len(key.sentence.split()) >= 3, key.path


@each_key
def test_the_environment_sets_it(key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = key.in_force(load(tmp_path))
    wanted = another(key, shipped)
    monkeypatch.setenv(key.variable, json.dumps(wanted) if isinstance(wanted, list) else str(wanted))
    found = key.in_force(load(tmp_path))
    assert found == (tuple(wanted) if isinstance(wanted, list) else wanted)
    assert found != shipped


@each_key
def test_a_misspelt_one_is_refused_by_name(key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = f"{key.path[-1]}x"
    with pytest.raises(ConfigError, match=wrong):
        load(tmp_path, key.document(key.default, name=wrong))
    monkeypatch.setenv(f"{key.variable}X", "1")
    with pytest.raises(ConfigError, match=wrong):
        load(tmp_path)


@each_number
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "many", None], ids=str)
def test_what_is_no_possible_number_is_refused(key: Key, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=key.path[-1]):
        load(tmp_path, key.document(value))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_of_values_is_taken_whole_or_refused_by_a_name(
    data: st.DataObject, tmp_path: Path
) -> None:
    """Whatever is set, in any combination: the policy in force is exactly that, or nothing starts."""
    chosen = data.draw(
        st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique_by=lambda key: key.path)
    )
    section: dict[str, Any] = {}
    wanted: dict[Key, Any] = {}
    for key in chosen:
        value = _drawn(data, key)
        wanted[key] = value
        place = section
        for part in key.path[:-1]:
            place = place.setdefault(part, {})
        place[key.path[-1]] = value
    try:
        loaded = load(tmp_path, section)
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert any(key.path[-1] in refusal or key.path[-2] in refusal for key in chosen)
        return
    for key, value in wanted.items():
        found = key.in_force(loaded)
        assert found == (tuple(value) if isinstance(value, list) else value), key.path


def _drawn(data: st.DataObject, key: Key) -> Any:
    if key.sample is not None:
        return data.draw(
            st.sampled_from(
                [key.sample, list(key.default) if isinstance(key.default, tuple) else key.default]
            )
        )
    if isinstance(key.default, bool):
        return data.draw(st.booleans())
    if isinstance(key.default, int):
        return data.draw(st.integers(-10, 100_000))
    return data.draw(st.floats(-1, 1000, allow_nan=False).map(lambda value: round(value, 4)))


def test_the_webhook_says_what_each_key_is() -> None:
    assert all(len(said.split()) >= 3 for said in sentences(WebhookSettings).values())
