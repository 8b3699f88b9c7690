"""The routing state: the one document that says which release answers whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.event import EpochMs, Frozen, Identifier, Sha256, Slot

Phase = Literal["steady", "qa", "canary", "promoting", "bake"]


class Canary(Frozen):
    """The share of subjects the shadow answers."""

    slot: Slot
    basis_points: Annotated[int, Field(ge=1, le=1000)]
    """Out of 10,000 buckets; at most 10 %."""
    salt: Annotated[str, StringConstraints(min_length=16, max_length=64)]


class Mirror(Frozen):
    """The share of users' queries of which the shadow gets a copy that nobody is shown."""

    slot: Slot
    basis_points: Annotated[int, Field(ge=1, le=10_000)]
    salt: Annotated[str, StringConstraints(min_length=16, max_length=64)]


class RoutingState(Frozen):
    """One epoch of routing, signed by the gatekeeper; readers install higher epochs of one incarnation only."""

    version: Literal[1] = 1
    incarnation: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    """One life of the decision log; a state of another incarnation is never installed."""
    epoch: Annotated[int, Field(ge=1)]
    active: Slot
    releases: dict[Slot, Sha256]
    previous: Sha256 | None
    """What served before the active release; stays resident so that a rollback is one write."""
    canary: Canary | None = None
    mirror: Mirror | None = None
    rules: dict[Sha256, Sha256]
    """Router rules by release, for every release named above."""
    revoked: tuple[Sha256, ...] = ()
    """Releases that must not answer again, oldest first."""
    phase: Phase
    decision_id: Identifier
    changed_at: EpochMs
    changed_by: Identifier
    key_id: Identifier = "unsigned"
    signature: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]{86})?$")] = ""
    """Ed25519 over the canonical JSON without this field, base64url without padding."""

    @property
    def shadow(self) -> Slot:
        return "green" if self.active == "blue" else "blue"

    @property
    def active_release(self) -> Sha256:
        return self.releases[self.active]

    @property
    def shadow_release(self) -> Sha256:
        return self.releases[self.shadow]

    @property
    def resident(self) -> tuple[Sha256, ...]:
        """Every release a worker keeps loaded, active first, each once."""
        named = (self.active_release, self.shadow_release, self.previous)
        return tuple(dict.fromkeys(release for release in named if release is not None))

    @model_validator(mode="after")
    def is_consistent(self) -> RoutingState:
        if set(self.releases) != {"blue", "green"}:
            raise ValueError("releases must name blue and green")
        if self.canary is not None and self.canary.slot != self.shadow:
            raise ValueError("the canary must be on the shadow slot")
        if self.mirror is not None and self.mirror.slot != self.shadow:
            raise ValueError("mirrored traffic must go to the shadow slot")
        if self.active_release in self.revoked:
            raise ValueError("the active release is revoked")
        if self.canary is not None and self.shadow_release in self.revoked:
            raise ValueError("the canary's release is revoked")
        missing = [release for release in self.resident if release not in self.rules]
        if missing:
            raise ValueError(f"rules lacks {', '.join(missing)}")
        return self
