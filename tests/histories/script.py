"""Writes histories by hand: each call is one record of `gate-inputs`, folded as it is written.

Used by the unit tests of the fold and by `generate.py`, which keeps whole histories as golden files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.commands import Action, Command
from schemas.decisions import Decision, Progress
from schemas.event import DOMAINS, SLOTS, Domain, Slot
from schemas.gate_inputs import (
    Applied,
    ArmCounts,
    ArmsCounts,
    BlobsChecked,
    Body,
    CommandSeen,
    FeedbackCounts,
    GateInput,
    Genesis,
    ProbeAnswer,
    ProbeMeasurement,
    ProbesSent,
    ProposalSeen,
    QaResults,
    RatingCounts,
    RatingWindow,
    ReadinessSeen,
    RedisSeen,
    Tally,
    Tick,
    WindowCounts,
)
from schemas.routing import RoutingState
from services.gatekeeper.core.effects import Audit, Effect, PublishDecision, PublishProgress
from services.gatekeeper.core.fold import fold
from services.gatekeeper.core.policy import GatePolicy, policy_change
from services.gatekeeper.core.state import JudgeState
from twinloop.canonical import sha256_hex
from twinloop.statistics.latency import bins_of

START_MS = 1_700_000_000_000
INCARNATION = "0123456789abcdef" * 2
SOFTWARE = "0.1.0"
PROBES = tuple((f"p{number:03}", number % 2 == 0) for number in range(200))


def digest(name: str) -> str:
    """A SHA-256 that a reader of a failed test can trace back to a name."""
    return sha256_hex(name.encode())


BOOT = digest("bootstrap")
GOOD = digest("candidate")
NEWER = digest("newer candidate")


class History:
    """A judge and the records it has read so far."""

    def __init__(
        self, policy: Mapping[str, Any] | None = None, *, partitions: int = 1, probes: int = len(PROBES)
    ) -> None:
        self.policy = GatePolicy.model_validate(policy or {})
        self.partitions = partitions
        self.probes = PROBES[:probes]
        self.now = START_MS
        self.state = JudgeState()
        self.records: list[GateInput] = []
        self.effects: list[Effect] = []
        self._commands = 0
        self._window_start = 0.0

    def write(self, body: Body) -> tuple[Effect, ...]:
        record = GateInput(by="gatekeeper-0", body=body)
        self.state, effects = fold(self.state, record, len(self.records))
        self.records.append(record)
        self.effects.extend(effects)
        return effects

    @property
    def decisions(self) -> list[Decision]:
        return [effect.decision for effect in self.effects if isinstance(effect, PublishDecision)]

    @property
    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decisions]

    @property
    def last(self) -> Decision:
        return self.decisions[-1]

    @property
    def progress(self) -> list[Progress]:
        return [effect.progress for effect in self.effects if isinstance(effect, PublishProgress)]

    @property
    def audits(self) -> list[tuple[str, str, str]]:
        return [
            (effect.entry.action, effect.entry.result, effect.entry.detail)
            for effect in self.effects
            if isinstance(effect, Audit)
        ]

    @property
    def routing(self) -> RoutingState:
        assert self.state.routing is not None
        return self.state.routing

    def begin(self) -> History:
        """Policy, clock, genesis, its installation, and two ready workers."""
        self.write(policy_change(self.policy, software=SOFTWARE, origin_partitions=self.partitions))
        self.write(Tick(now=self.now))
        self.write(Genesis(incarnation=INCARNATION, release=BOOT, rules=digest("rules of bootstrap")))
        self.applied()
        for slot in SLOTS:
            self.ready(slot, BOOT)
        return self

    def tick(self, seconds: float = 0.5) -> tuple[Effect, ...]:
        self.now += round(seconds * 1000)
        return self.write(Tick(now=self.now))

    def applied(self) -> None:
        self.write(Applied(epoch=self.routing.epoch, result="installed", took_us=900))

    def propose(
        self,
        release: str = GOOD,
        *,
        parent: str | None = BOOT,
        verdict: str = "valid",
        detail: str = "",
        source_offset: int = -1,
    ) -> tuple[Effect, ...]:
        seen = ProposalSeen.model_validate(
            {
                "release": release,
                "parent": parent,
                "rules": digest(f"rules of {release}"),
                "proposed_by": "trainer-1",
                "verdict": verdict,
                "detail": detail,
                "source_offset": source_offset,
            }
        )
        return self.write(seen)

    def ready(self, slot: Slot, *releases: str, worker: str | None = None, stopping: bool = False) -> None:
        self.write(
            ReadinessSeen(
                worker=worker or f"inference-{slot}",
                service="inference",
                slot=slot,
                epoch=0 if self.state.routing is None else self.routing.epoch,
                releases=releases,
                seen_at=self.now,
                stopping=stopping,
            )
        )

    def prepare(self, release: str = GOOD) -> None:
        """Both slots' workers report the candidate ready, and the next tick sees it."""
        for slot in SLOTS:
            self.ready(slot, BOOT, release)
        self.tick()

    def examine(
        self,
        release: str = GOOD,
        *,
        wrong: Iterable[str] = (),
        failed: Iterable[str] = (),
        toxic: Iterable[str] = (),
        silent: Iterable[str] = (),
        latency_ms: float = 120.0,
    ) -> None:
        """The probes are sent and answered; the named ones go wrong in the named way."""
        run = f"qa-{INCARNATION[:8]}-{self.routing.epoch}"
        self.write(ProbesSent(run=run, digest=digest("probes"), probes=self.probes))
        wrong, failed, toxic, silent = set(wrong), set(failed), set(toxic), set(silent)
        answered = [(probe, cites) for probe, cites in self.probes if probe not in silent]
        self.write(
            QaResults(
                answers=tuple(
                    ProbeAnswer(
                        run=run,
                        side="candidate",
                        probe=probe,
                        release=release,
                        error="model" if probe in failed else None,
                        cites=cites,
                        as_expected=probe not in wrong,
                    )
                    for probe, cites in answered
                ),
                measurements=tuple(
                    ProbeMeasurement(
                        run=run,
                        side="candidate",
                        probe=probe,
                        release=release,
                        error="model" if probe in failed else None,
                        latency_ms=latency_ms,
                        toxic=probe in toxic,
                        citation="valid" if cites else "not_required",
                    )
                    for probe, cites in answered
                ),
            )
        )

    def to_canary(self, release: str = GOOD, *, parent: str = BOOT) -> None:
        self.propose(release, parent=parent)
        self.applied()
        self.prepare(release)
        self.examine(release)
        self.applied()

    def window(
        self,
        *,
        shadow: int = 0,
        active: int = 1000,
        shadow_errors: float = 0.0,
        active_errors: float = 0.0,
        shadow_ms: float = 100.0,
        active_ms: float = 100.0,
        shadow_toxic: float = 0.0,
        active_toxic: float = 0.0,
        shadow_unlabelled: float = 0.0,
        shadow_untimed: float = 0.0,
        shadow_missing: int = 0,
        active_missing: int = 0,
        harmed: Domain | None = None,
        classifier: str | None = None,
        epoch: int | None = None,
        partition: int = 0,
        seconds: float = 1.0,
    ) -> tuple[Effect, ...]:
        """One second of traffic of one partition under the routing epoch in force, then its tally and a tick."""
        self.tick(seconds)
        start = self.now / 1000 - seconds
        share = 0 if self.routing.canary is None else self.routing.canary.basis_points
        untold = {"toxic_missing": shadow_unlabelled, "latency_missing": shadow_untimed}
        total = ArmsCounts(
            active=_arm(
                active, errors=active_errors, latency_ms=active_ms, toxic=active_toxic, new=share > 0
            ).model_copy(update={"missing": active_missing}),
            shadow=_arm(
                shadow, errors=shadow_errors, latency_ms=shadow_ms, toxic=shadow_toxic, new=share > 0
            ).model_copy(update={**untold, "missing": shadow_missing}),
        )
        return self.write(
            Tally(
                partition=partition,
                window=WindowCounts(
                    start=start,
                    end=start + seconds,
                    epoch=self.routing.epoch if epoch is None else epoch,
                    canary_bp=share,
                    total=total,
                    domains={harmed or DOMAINS[int(start) % len(DOMAINS)]: total},
                    classifiers=() if classifier is None else (classifier,),
                ),
            )
        )

    def copies(
        self,
        sent: int = 100,
        *,
        errors: float = 0.0,
        missing: int = 0,
        ms: float = 100.0,
        toxic: float = 0.0,
        unlabelled: float = 0.0,
        partition: int = 0,
        classifier: str | None = None,
        epoch: int | None = None,
        harmed: Domain | None = None,
    ) -> tuple[Effect, ...]:
        """The mirrored copies of the last window's second, as their tally; call it after `window`."""
        back = _arm(sent - missing, errors=errors, latency_ms=ms, toxic=toxic, new=False)
        shadow = back.model_copy(update={"queries": sent, "missing": missing, "toxic_missing": unlabelled})
        start, total = self.now / 1000 - 1.0, ArmsCounts(shadow=shadow)
        return self.write(
            Tally(
                purpose="mirror",
                partition=partition,
                window=WindowCounts(
                    start=start,
                    end=start + 1.0,
                    epoch=self.routing.epoch if epoch is None else epoch,
                    canary_bp=0,
                    total=total,
                    domains={harmed or DOMAINS[int(start) % len(DOMAINS)]: total},
                    classifiers=() if classifier is None else (classifier,),
                ),
            )
        )

    def ratings(
        self,
        *,
        shadow: int = 0,
        shadow_down: float = 0.0,
        active: int = 0,
        active_down: float = 0.0,
        partition: int = 0,
        epoch: int | None = None,
        release: str = GOOD,
    ) -> tuple[Effect, ...]:
        """One matured window of thumbs for answers of the last second."""
        return self.write(
            FeedbackCounts(
                counts={},
                ratings=RatingWindow(
                    partition=partition,
                    start=self.now / 1000 - 1.0,
                    end=self.now / 1000,
                    epoch=self.routing.epoch if epoch is None else epoch,
                    counts=(
                        RatingCounts(release=release, rated=shadow, down=shadow_down),
                        RatingCounts(release=self.routing.active_release, rated=active, down=active_down),
                    ),
                ),
            )
        )

    def mirrored(self, windows: int, *, active_errors: float = 0.0, **copies: Any) -> None:
        """Seconds of users' queries with copies beside them, until no copy is sent any more."""
        for _ in range(windows):
            if self.routing.mirror is None:
                return
            epoch = self.routing.epoch
            self.window(active=900, active_errors=active_errors, epoch=epoch)
            self.copies(epoch=epoch, **copies)

    def traffic(self, windows: int, **rates: Any) -> None:
        """Windows of canary traffic split as the share in force says, until a decision ends the canary."""
        for _ in range(windows):
            canary = self.routing.canary
            if canary is None:
                return
            shadow = canary.basis_points * 1000 // 10_000
            counts = {name: value for name, value in rates.items() if not name.endswith("_rate")}
            self.window(
                shadow=shadow,
                active=1000 - shadow,
                shadow_errors=shadow * rates.get("shadow_rate", 0.0),
                active_errors=(1000 - shadow) * rates.get("active_rate", 0.0),
                **counts,
            )

    def until_cleared(self, windows: int, **rates: Any) -> None:
        """Traffic until the outgoing release's blobs are asked for, or a decision ends the canary."""
        for _ in range(windows):
            if getattr(self.state.stage, "checking_since", None) is not None:
                return
            self.traffic(1, **rates)

    def warm(self, windows: int = 5) -> None:
        """Steady traffic that gives the canary its latency yardstick."""
        for _ in range(windows):
            self.window()

    def blobs(self, *, ok: bool = True, detail: str = "") -> tuple[Effect, ...]:
        routing = self.routing
        return self.write(
            BlobsChecked(release=routing.active_release, epoch=routing.epoch, ok=ok, detail=detail)
        )

    def to_promoted(self, release: str = GOOD, *, parent: str = BOOT) -> None:
        self.to_canary(release, parent=parent)
        for _ in range(400):
            self.traffic(1)
            if getattr(self.state.stage, "checking_since", None) is not None:
                break
        self.blobs()
        self.applied()

    def order(
        self,
        action: Action,
        *,
        release: str | None = None,
        verdict: str = "allowed",
        nonce: str | None = None,
        life_s: int = 60,
        parameters: Mapping[str, Any] | None = None,
        actor: str = "ada",
        key_id: str = "operator-1",
    ) -> tuple[Effect, ...]:
        self._commands += 1
        command = Command(
            nonce=nonce or f"nonce-{self._commands}",
            actor=actor,
            action=action,
            release=release,
            reason="a test",
            parameters=dict(parameters or {}),
            issued_at=self.now,
            expires_at=self.now + life_s * 1000,
            key_id=key_id,
        )
        seen = {
            "command": command,
            "verdict": verdict,
            "detail": "" if verdict == "allowed" else "no such key",
        }
        return self.write(CommandSeen.model_validate(seen))

    def redis(self, status: str, **fields: Any) -> tuple[Effect, ...]:
        return self.write(RedisSeen.model_validate({"status": status, **fields}))


def _arm(units: int, *, errors: float, latency_ms: float, toxic: float, new: bool) -> ArmCounts:
    answered = max(0, round(units - errors))
    # Twenty equally likely latencies around the given one: exactly one in twenty is beyond the p95.
    spread = sorted(int(index) for index in bins_of([latency_ms * (0.5 + step / 20) for step in range(20)]))
    return ArmCounts(
        queries=units,
        units=units,
        errors=errors,
        answered=answered,
        latency=tuple((index, answered / 20) for index in spread) if answered else (),
        toxic=toxic,
        new_keys=units if new else 0,
    )
