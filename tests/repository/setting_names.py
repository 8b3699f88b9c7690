"""Whether an environment variable in a deployment file is a setting of the service that gets it."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from services.api.settings import ApiSettings
from services.gatekeeper.settings import GatekeeperSettings
from services.inference.settings import InferenceSettings
from services.router.settings import RouterSettings
from services.trainer.settings import TrainerSettings
from twinloop.settings_loader import ENVIRONMENT_PREFIX, ServiceSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "api": ApiSettings,
    "router": RouterSettings,
    "inference": InferenceSettings,
    "trainer": TrainerSettings,
    "gatekeeper": GatekeeperSettings,
}


def is_setting(variable: str, settings: type[ServiceSettings]) -> bool:
    """Whether TWINLOOP_REDIS__PASSWORD and so on sets a field of these settings."""
    return resolves(settings, variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))


def resolves(model: type[BaseModel], path: list[str]) -> bool:
    """Whether `redis`, `password` and so on lead from this settings class to a field."""
    field = {name.lower(): each for name, each in model.model_fields.items()}.get(path[0])
    if field is None:
        return False
    if len(path) == 1:
        return True
    return any(resolves(inner, path[1:]) for inner in models_in(field.annotation))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType):
        return [model for each in get_args(annotation) for model in models_in(each)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
