"""The gatekeeper's small world, with the API in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.api.served import Served
from tests.integration.gatekeeper.conftest import broker, start, world
from tests.integration.gatekeeper.world import World
from twinloop.api_tokens import TokenRole, add_token

__all__ = ["broker", "start", "world"]

HOLDERS: dict[str, tuple[TokenRole, str | None]] = {
    "vera": ("viewer", None),
    "olga": ("operator", "operator-1"),
    "anna": ("approver", "approver-1"),
    "aron": ("approver", "approver-1"),
    "bea": ("approver", "approver-2"),
}


@pytest.fixture
def tokens(world: World) -> dict[str, str]:
    """A token for each holder."""
    path = world.folder / "keys" / "tokens.yaml"
    return {
        name: add_token(path, name, role, key_id=key, now_ms=world.now_ms())
        for name, (role, key) in HOLDERS.items()
    }


@pytest.fixture
def serve(world: World, tokens: dict[str, str]) -> Iterator[Callable[..., Served]]:
    """Starts the API before this world and stops it at the end."""
    begun: list[Served] = []

    def begin(**section: Any) -> Served:
        settings = world.settings()
        settings.pop("gatekeeper")
        section = {"lag_every_s": 0.5, **section}
        begun.append(Served({**settings, "api": section}).start())
        return begun[-1]

    yield begin
    for served in begun:
        served.stop()
