"""Why a proposed change is not taken."""

from __future__ import annotations

from schemas.changes import RefusalCode
from twinloop.errors import TwinLoopError


class ChangeRefused(TwinLoopError):
    """The change is not applied; `code` names the kind of reason for programs."""

    def __init__(self, code: RefusalCode, why: str) -> None:
        super().__init__(why)
        self.code = code
