"""The configuration reference, from the settings classes and the files in `configs/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.field_sentences import (
    cell,
    first_sentence,
    is_section,
    schema_of,
    sentences,
    type_words,
    value_words,
)
from services.api.settings import ApiSettings
from services.gatekeeper.settings import GatekeeperSettings
from services.inference.settings import InferenceSettings
from services.router.settings import RouterSettings
from services.trainer.learning.settings import LearningSettings
from services.trainer.settings import TrainerSettings
from twinloop.settings_loader import ENVIRONMENT_PREFIX, ServiceSettings, read_yaml

ROOT = Path(__file__).parents[1]
REQUIRED = PydanticUndefined
SERVICES: dict[str, type[ServiceSettings]] = {
    "router": RouterSettings,
    "inference": InferenceSettings,
    "trainer": TrainerSettings,
    "gatekeeper": GatekeeperSettings,
    "api": ApiSettings,
}
INTRODUCTION = """\
# Configuration reference

Written from the settings classes by `make contracts`; `make check` fails where this page and the classes differ.

A service reads the files named by `--config`, merged from left to right, and then the environment, which wins. Keys
that no class knows, values out of bounds and thresholds that contradict each other stop the start with a line that
names them. Lists and mappings in the environment are JSON. Where `configs/` ships another value than the class's
default, both are shown. Names carry the unit: `_s` seconds, `_ms` milliseconds, `_bytes` bytes, `basis_points`
ten-thousandths; rates are shares of 1.

`twinloop` itself reads the shared sections only: from `--config`, or from `profile.yaml` in the installation's folder.
"""
LEARNING = """\
## `trainer.job.learning`

Passed on to the learning job; an unknown key fails the training with a line that names it. In the environment the whole
mapping is one variable, `TWINLOOP_TRAINER__JOB__LEARNING='{"max_steps": 80}'`.
"""


@dataclass(frozen=True)
class Setting:
    """One key."""

    path: tuple[str, ...]
    words: str
    default: object
    shipped: object
    """What the file in `configs/` says; REQUIRED where it says nothing."""
    sentence: str
    is_set_through_parent: bool
    """A list in a plain dataclass: the environment reads it as JSON of the whole section only."""

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        if self.is_set_through_parent:
            return f"{variable_of(self.path[:-1])}='{{\"{self.path[-1]}\": [...]}}'"
        return variable_of(self.path)


@dataclass(frozen=True)
class Part:
    """The keys of one class in one place."""

    path: tuple[str, ...]
    described: type
    settings: tuple[Setting, ...]


def variable_of(path: tuple[str, ...]) -> str:
    """The environment variable of a key."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def parts(
    described: type, path: tuple[str, ...], default: object, shipped: Mapping[str, Any]
) -> Iterator[Part]:
    """A class and, after it, the classes its fields hold."""
    schema, told = schema_of(described), sentences(described)
    definitions, properties = schema.get("$defs", {}), schema["properties"]
    found: list[Setting] = []
    within: list[Part] = []
    for name, annotation, own in annotated_defaults(described):
        value = own if default is REQUIRED else getattr(default, name)
        given = shipped.get(name, REQUIRED)
        if is_section(annotation):
            within += parts(annotation, (*path, name), value, given if isinstance(given, Mapping) else {})
        else:
            words = type_words(properties[name], definitions)
            through_parent = is_dataclass(described) and words.startswith(("list", "mapping"))
            found.append(Setting((*path, name), words, value, given, told.get(name, ""), through_parent))
    yield Part(path, described, tuple(found))
    yield from within


def annotated_defaults(described: type) -> Iterator[tuple[str, Any, object]]:
    """Name, annotation and default of each field of a pydantic model or a dataclass."""
    if issubclass(described, BaseModel):
        for name, field in described.model_fields.items():
            yield name, field.annotation, _default(field)
    elif is_dataclass(described):
        hints = get_type_hints(described)
        for each in fields(described):
            yield each.name, hints[each.name], each.default


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True, validated_data={})


def shared_parts() -> list[Part]:
    """What every service is told."""
    return list(parts(ServiceSettings, (), REQUIRED, {}))


def service_parts(service: str) -> list[Part]:
    """What one service is told besides."""
    section = SERVICES[service].model_fields[service]
    shipped = read_yaml(ROOT / "configs" / f"{service}.yaml").get(service, {})
    assert isinstance(section.annotation, type)
    return list(parts(section.annotation, (service,), _default(section), shipped))


def learning_part() -> Part:
    """The keys of the learning job, which only the trainer's child knows."""
    return next(parts(LearningSettings, ("trainer", "job", "learning"), REQUIRED, {}))


def page() -> str:
    """The whole page."""
    blocks = [INTRODUCTION, "## Every service\n", *(_block(part) for part in shared_parts())]
    for service in SERVICES:
        first, *others = service_parts(service)
        blocks += [f"## `{service}`\n", _block(first, heading=False), *map(_block, others)]
        if service == "trainer":
            blocks += [LEARNING, _table(learning_part(), variables=False)]
    return "\n".join(blocks).rstrip() + "\n"


def _block(part: Part, *, heading: bool = True) -> str:
    title = f"### `{'.'.join(part.path)}`\n\n" if heading and part.path else ""
    told = first_sentence(part.described)
    return f"{title}{told}\n\n{_table(part)}" if part.settings else f"{title}{told}\n"


def _table(part: Part, *, variables: bool = True) -> str:
    lines = [
        f"| key{' and environment variable' if variables else ''} | type | default | what |",
        "|---|---|---|---|",
    ]
    for each in part.settings:
        name = f"`{each.key}`<br>`{each.variable}`" if variables else f"`{each.key}`"
        lines.append(f"| {name} | {cell(each.words)} | {cell(_values(each))} | {cell(each.sentence)} |")
    return "\n".join(lines) + "\n"


def _values(setting: Setting) -> str:
    default = "required" if setting.default is REQUIRED else value_words(setting.default)
    if setting.shipped is REQUIRED:
        return default
    shipped = value_words(setting.shipped)
    return default if _same(setting.default, setting.shipped) else f"{default}, shipped {shipped}"


def _same(default: object, shipped: object) -> bool:
    plain = (
        list(default)
        if isinstance(default, tuple)
        else str(default)
        if isinstance(default, Path)
        else default
    )
    return plain == shipped
