"""One step of the fold while it is being worked out: the state so far and the effects so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from schemas.audit import AuditEntry
from schemas.decisions import Decision, DecisionKind, Progress
from schemas.event import Sha256
from schemas.routing import Canary, Mirror, Phase, RoutingState
from services.gatekeeper.core.effects import (
    Audit,
    CheckBlobs,
    Effect,
    PublishDecision,
    PublishProgress,
    SendProbes,
)
from services.gatekeeper.core.policy import GatePolicy
from services.gatekeeper.core.state import (
    AbTest,
    Bake,
    CanaryRun,
    Examining,
    Forcing,
    JudgeState,
    Mirroring,
    Preparing,
    Returning,
)
from twinloop.canonical import digest_of

CHANGED_BY = "gatekeeper"
"""One name for every instance: whichever decides, the bytes are the same."""

MAX_SHARES = 256
"""Epochs whose canary share is remembered; a tally is never older."""

MAX_REVOKED_IN_ROUTING = 64
"""Routing states name the newest revoked releases; the judge itself remembers all."""


class Turn:
    """Mutable inside one call of `fold` only; never seen by anybody else."""

    def __init__(self, state: JudgeState, offset: int) -> None:
        self.state = state.model_copy(update={"offset": offset})
        self.effects: list[Effect] = []
        self.command: str | None = None
        """Nonce of the order being carried out: decisions it leads to name it."""

    @property
    def policy(self) -> GatePolicy:
        """The policy in force; the fold sees that one is logged before anything needs it."""
        if self.state.policy is None:
            raise RuntimeError("gate-inputs: a record needs a policy, but none was logged before it")
        return self.state.policy

    @property
    def routing(self) -> RoutingState:
        """The last decided state; exists after genesis."""
        if self.state.routing is None:
            raise RuntimeError(
                "gate-inputs: a record needs a routing state, but there was no genesis before it"
            )
        return self.state.routing

    def set(self, **changes: Any) -> None:
        """Replace fields of the state."""
        self.state = self.state.model_copy(update=changes)

    def audit(
        self, *, actor: str, action: str, target: str, result: str, detail: str, via: str = "gatekeeper"
    ) -> None:
        """Note what became of somebody's wish."""
        entry = AuditEntry.model_validate(
            {
                "at": self.state.now,
                "actor": actor,
                "via": via,
                "action": action,
                "target": target[:200],
                "result": result,
                "detail": detail[:500],
            }
        )
        self.effects.append(Audit(entry))

    def send_probes(self, stage: Examining) -> None:
        self.effects.append(probes_of(self.state, stage))

    def check_blobs(self) -> None:
        self.effects.append(CheckBlobs(self.routing.active_release, self.routing.epoch))

    def note_window(self) -> None:
        """A window has closed: a running stage owes people a word, where the policy wants one for each."""
        if self.state.stage is not None and self.policy.watch.window_progress_s > 0:
            self.set(has_untold_window=True)

    @property
    def is_progress_due(self) -> bool:
        """Whether people have waited long enough for a word, or are owed one for a closed window."""
        waited_s = (self.state.now - self.state.progress_at) / 1000
        watch = self.policy.watch
        if self.state.has_untold_window and waited_s >= watch.window_progress_s:
            return True
        return waited_s >= watch.progress_s

    def tell(self, line: str, *, release: Sha256, needed: str = "") -> None:
        """A progress line of a running stage, where one is due."""
        if not self.is_progress_due:
            return
        routing = self.routing
        self.progress(
            Progress(
                at=self.state.now,
                epoch=routing.epoch,
                phase=routing.phase,
                release=release,
                line=line[:1000],
                needed=needed[:500],
            )
        )

    def progress(self, progress: Progress) -> None:
        self.effects.append(PublishProgress(progress))
        self.set(progress_at=self.state.now, has_untold_window=False)

    def decide(
        self,
        kind: DecisionKind,
        *,
        routing: RoutingState,
        reason: str,
        line: str,
        release: Sha256 | None,
        evidence: Mapping[str, JsonValue] | None = None,
        above: int = 0,
    ) -> Decision:
        """Turn a wanted routing into the next epoch and log it; `above` lifts the epoch over one seen elsewhere."""
        epoch = max(routing.epoch, above) + 1 if self.state.routing is not None else 1
        decision_id = f"{routing.incarnation[:8]}-{epoch}"
        resident = set(routing.resident)
        state = routing.model_copy(
            update={
                "epoch": epoch,
                "phase": phase_of(self.state),
                "decision_id": decision_id,
                "changed_at": self.state.now,
                "changed_by": CHANGED_BY,
                "rules": {r: self.state.cards[r].rules for r in sorted(resident)},
                "revoked": self.state.revoked[-MAX_REVOKED_IN_ROUTING:],
                "key_id": "unsigned",
                "signature": "",
            }
        )
        state = RoutingState.model_validate(state.model_dump())
        decision = Decision(
            decision_id=decision_id,
            kind=kind,
            epoch=epoch,
            state=state,
            release=release,
            reason=reason,
            line=f"{kind} {release[:8] + ': ' if release else ''}{line}"[:1000],
            evidence=_rounded({**(evidence or {}), **({"command": self.command} if self.command else {})}),
            policy=self.policy.digest,
            input_offset=self.state.offset,
            previous=self.state.last_decision,
            decided_at=self.state.now,
            software=self.state.software,
        )
        self.set(
            routing=state,
            last_decision=decision_digest(decision),
            progress_at=self.state.now,
            has_untold_window=False,
        )
        self._note_share(state)
        self.effects.append(PublishDecision(decision))
        return decision

    def _note_share(self, routing: RoutingState) -> None:
        """Remember the share of every epoch: tallies come later and name only the epoch."""
        share = routing.canary.basis_points if routing.canary is not None else 0
        kept = dict(list(self.state.shares.items())[-MAX_SHARES + 1 :])
        self.set(shares={**kept, routing.epoch: share})


def _rounded(value: Any) -> Any:
    """Nine significant digits: the last bits of a logarithm differ between processors, and a decision must not."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def unsigned(decision: Decision) -> Decision:
    """The decision as the fold made it, whoever signed it since."""
    bare = decision.state.model_copy(update={"key_id": "unsigned", "signature": ""})
    return decision.model_copy(update={"state": bare})


def decision_digest(decision: Decision) -> Sha256:
    """What the next decision names as its `previous`."""
    return digest_of(unsigned(decision))


def phase_of(state: JudgeState) -> Phase:
    """The phase that a routing state shows for the judge's stage."""
    stage = state.stage
    if isinstance(stage, Preparing | Examining | Mirroring):
        return "qa"  # No user has met the candidate yet.
    if isinstance(stage, CanaryRun | AbTest):
        return "canary"
    if isinstance(stage, Returning | Forcing):
        return "promoting"
    return "bake" if isinstance(stage, Bake) else "steady"


def probes_of(state: JudgeState, stage: Examining) -> SendProbes:
    """The examination of this stage as a duty of the edge."""
    if state.routing is None or state.policy is None:
        raise RuntimeError("an examination without a routing state or a policy")
    return SendProbes(
        run=stage.run,
        candidate=stage.candidate.release,
        slot=state.routing.shadow,
        epoch=state.routing.epoch,
        paired=state.policy.examination.paired,
    )


def without_canary(routing: RoutingState) -> RoutingState:
    """The same routing with nobody sent to the shadow."""
    return routing.model_copy(update={"canary": None, "mirror": None})


def with_shadow(routing: RoutingState, release: Sha256) -> RoutingState:
    """The same routing with another release in the shadow slot."""
    return routing.model_copy(update={"releases": {**routing.releases, routing.shadow: release}})


def canary_of(routing: RoutingState, *, basis_points: int, salt: str) -> Canary:
    return Canary(slot=routing.shadow, basis_points=basis_points, salt=salt)


def mirror_of(routing: RoutingState, *, basis_points: int, salt: str) -> Mirror | None:
    return Mirror(slot=routing.shadow, basis_points=basis_points, salt=salt) if basis_points else None
