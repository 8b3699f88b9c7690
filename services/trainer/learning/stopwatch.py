"""Where an update's processor time goes: told from the events it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_TRAINING = ("step", "consolidated")


class Stopwatch:
    """Listens to `train_update`; `training` is the time of its steps and its Fisher information, no evaluation in it.

    `clock` gives processor seconds; what lies between two events counts for the second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self.training = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        now = self._clock()
        if event["event"] in _TRAINING:
            self.training += now - self._last
        self._last = now
