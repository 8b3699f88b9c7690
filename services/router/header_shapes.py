"""What a record's header names alone say, told once for each set of names: producers rarely use more than a few."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from twinloop.routing.stamp import OWN_PREFIX

_MOST_KEPT = 256
"""Beyond it a shape is told anew each time: nobody fills the memory by inventing names."""


class HeaderShape(msgspec.Struct, frozen=True):
    """What records with these header names, in this order, have in common."""

    names_size: int
    """Bytes of all the names."""
    type_at: int | None
    """Position of the last `ce_type`."""
    is_plain: bool
    """No header of this system and no trace: the record's headers can be forwarded as they are."""


class HeaderShapes:
    """Shapes by names."""

    def __init__(self) -> None:
        self._known: dict[Sequence[str], HeaderShape] = {}

    def of(self, names: tuple[str, ...]) -> HeaderShape:
        shape = self._known.get(names)
        if shape is None:
            shape = _shape(names)
            if len(self._known) < _MOST_KEPT:
                self._known[names] = shape
        return shape


def _shape(names: Sequence[str]) -> HeaderShape:
    types = [at for at, name in enumerate(names) if name == "ce_type"]
    return HeaderShape(
        names_size=sum(map(len, names)),
        type_at=types[-1] if types else None,
        is_plain=not any(name == "traceparent" or name.startswith(OWN_PREFIX) for name in names),
    )
