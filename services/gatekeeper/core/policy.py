"""The thresholds and durations every decision is measured against; its digest stands in each decision."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from schemas.event import Frozen
from schemas.gate_inputs import PolicyChange
from twinloop.canonical import digest_of
from twinloop.errors import ConfigError
from twinloop.statistics.policy import CanaryPolicy
from twinloop.statistics.qa import QaPolicy
from twinloop.statistics.triggers import TriggerPolicy

Seconds = Annotated[float, Field(gt=0)]
BasisPoints = Annotated[int, Field(ge=1, le=1000)]


class Section(Frozen):
    """Part of a policy: frozen, unknown keys refused, described field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ReadinessPolicy(Section):
    """When a candidate counts as prepared."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the live inference workers of both slots that must have the candidate ready."""
    min_workers: Annotated[int, Field(ge=1)] = 1
    """Ready workers each slot needs at least."""
    live_s: Seconds = 15.0
    """A worker silent for this long is not live and not waited for."""
    timeout_s: Seconds = 300.0
    """A candidate that is not ready by then is rejected as `not_ready`."""
    hopeless_s: Seconds = 30.0
    """The same, where so many workers name a problem with it that the share cannot be reached."""


class ExaminationPolicy(Section):
    """The QA dry run around the thresholds that statistics judges."""

    timeout_s: Seconds = 600.0
    """Probes without a result by then count as failed."""
    paired: bool = False
    """Whether the active release answers the same probes too, for the paired report."""


class RampPolicy(Section):
    """How a canary's share of traffic grows."""

    basis_points: Annotated[tuple[BasisPoints, ...], Field(min_length=1)] = (100, 500, 1000)
    """Shares of the buckets in rising order; at most 1000 (10 %)."""
    min_step_s: Seconds = 60.0
    """Least time at each share before the next."""
    min_step_units: Annotated[int, Field(ge=0)] = 30
    """Least shadow units seen at each share before the next."""
    mirror_basis_points: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Share of users' queries of which the shadow gets an unseen copy during the canary; 0 is none."""

    @field_validator("basis_points")
    @classmethod
    def rises(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if list(steps) != sorted(set(steps)):
            raise ValueError(f"must rise from step to step, got {list(steps)}")
        return steps


class FixedNPolicy(Section):
    """Fisher, chi-square and a bootstrap of p95 as one more gate, which may only block."""

    units: Annotated[int, Field(ge=100)] = 1000
    """Shadow units at which the tests are made, once: their p-values hold for a size that was fixed in advance."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """A shadow that one of them calls worse at this level is not promoted. Each of the three has this level for
    itself, so identical twins are blocked somewhat more often.
    """


class MirrorPolicy(Section):
    """Unseen copies of users' queries: to the candidate before its canary, to the old slot during the bake."""

    basis_points: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Share of subjects whose queries the examined candidate gets copies of; 0 leaves the stage out."""
    min_units: Annotated[int, Field(ge=1)] = 50
    """Least copies, counted as sticky keys, that must have come back before the canary."""
    min_s: Annotated[float, Field(ge=0)] = 60.0
    """Least time before the canary."""
    max_s: Seconds = 3600.0
    """Too few copies by then end the candidate as `mirror:traffic`, or as `mirror:no_copies`."""
    coverage_min: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Least share of the copies that must come back; below it the stage holds."""
    hold_s: Seconds = 120.0
    """How long silence, poor coverage or missing labels may hold the stage before the candidate ends."""
    alpha_abort: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Bound on ever stopping a fine candidate here, and on ever rolling a fine release back by the comparison."""
    bake_basis_points: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Share of subjects whose queries the old slot gets copies of during the bake; 0 is none."""

    @model_validator(mode="after")
    def is_not_contradictory(self) -> MirrorPolicy:
        if self.max_s <= self.min_s:
            raise ValueError(f"max_s {self.max_s:g} must be above min_s {self.min_s:g}")
        return self


class PromotePolicy(Section):
    """What happens once every gate is cleared."""

    mode: Literal["automatic", "approval", "dry_run"] = "automatic"
    """`approval` waits for an approver; `dry_run` says what it would do and aborts."""
    blob_check_timeout_s: Seconds = 300.0
    """The outgoing release's blobs must be read back by then, or the canary is aborted."""
    bake_s: Seconds = 600.0
    """How long the old slot stays warm and no candidate is staged after a promote."""
    force_approvers: Annotated[int, Field(ge=1, le=2, exclude_if=lambda value: value == 1)] = 1
    """Different approvers, each with a key of their own, that a promotion past the gates needs."""
    partial: Annotated[bool, Field(exclude_if=lambda value: value is False)] = False
    """Whether a candidate that harms some domains ends for those alone: the trainer is told to compose the active
    release with the other domains, and proposes that anew.
    """
    fixed_n: Annotated[FixedNPolicy | None, Field(exclude_if=lambda value: value is None)] = None
    """Classical tests that a canary has to pass as well; none where absent."""
    freezes_training: Annotated[bool, Field(exclude_if=lambda value: value is False)] = False
    """Whether a rollback during the bake also sets the feedback about the release that was left aside: what it was
    trained on, and what was said about its answers.
    """


class RatingsPolicy(Section):
    """Dissatisfaction as a guardrail of the canary: thumbs down by arm, judged with a delay of their own."""

    margin: Annotated[float, Field(ge=0, lt=0.9)] = 0.15
    """How much higher the share of sticky keys that rate the shadow down may be, in points of 1."""
    alpha_abort: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Bound on ever stopping a canary whose users are no less content."""
    min_rated: Annotated[int, Field(ge=0)] = 0
    """Rated keys of the shadow that a promote needs; 0: ratings may stop or hold, and are never waited for."""
    window_s: Seconds = 60.0
    """Width of a window of answers."""
    maturity_s: Annotated[float, Field(ge=0)] = 300.0
    """How long after a window's end ratings of its answers are waited for."""


class WatchPolicy(Section):
    """The judge's own supervision."""

    max_gap_s: Seconds = 30.0
    """A longer gap between ticks during a canary aborts it as `unwatched`."""
    progress_s: Seconds = 5.0
    """A progress line at least this often while a stage runs."""
    window_progress_s: Annotated[float, Field(ge=0, exclude_if=lambda value: value == 0)] = 0.0
    """A progress line also after each closed window, and not more often than this; 0: only those of `progress_s`."""
    interval_alpha: Annotated[float, Field(ge=0, lt=1, exclude_if=lambda value: value == 0)] = 0.0
    """Level of each gate's time-uniform intervals in evidence and progress lines, one for each arm: 0.05 is 95 %;
    0: none. No gate is judged by them.
    """
    rollback_cooldown_s: Seconds = 600.0
    """After an automatic rollback no other one follows for this long."""
    baseline_units: Annotated[int, Field(ge=1)] = 4000
    """Active answers kept as the latency yardstick of the next canary."""


class GatePolicy(Section):
    """Every threshold in force.

    A key that came later has the default by which logs without it were decided, and is left out of the digest while
    it has that value; `configs/gatekeeper.yaml` sets what a fresh installation gets.
    """

    qa: QaPolicy = QaPolicy()
    """Limits of the QA dry run."""
    examination: ExaminationPolicy = ExaminationPolicy()
    """Time and form of the QA dry run."""
    readiness: ReadinessPolicy = ReadinessPolicy()
    """When a candidate counts as prepared."""
    canary: CanaryPolicy = CanaryPolicy(domains=("law", "med", "fin", "gen"))
    """Limits of the canary."""
    ramp: RampPolicy = RampPolicy()
    """How a canary's share grows."""
    promote: PromotePolicy = PromotePolicy()
    """What follows when every gate is cleared."""
    mirror: Annotated[MirrorPolicy | None, Field(exclude_if=lambda value: value is None)] = None
    """Mirrored traffic; absent is none."""
    ratings: Annotated[RatingsPolicy | None, Field(exclude_if=lambda value: value is None)] = None
    """The guardrail of users' ratings; absent is none."""
    rollback: TriggerPolicy = TriggerPolicy()
    """Limits whose breach restores the previous release."""
    watch: WatchPolicy = WatchPolicy()
    """The judge's own supervision."""

    @field_validator("qa", "canary", "rollback", mode="before")
    @classmethod
    def knows_every_key(cls, value: Any, info: Any) -> Any:
        # Plain dataclasses ignore unknown keys; a mistyped threshold must not silently keep its default.
        known = {
            "qa": QaPolicy,
            "canary": CanaryPolicy,
            "rollback": TriggerPolicy,
        }[info.field_name]
        if isinstance(value, dict):
            unknown = sorted(set(value) - {field.name for field in fields(known)})
            if unknown:
                raise ValueError(f"unknown key {', '.join(map(str, unknown))}")
            if info.field_name == "canary":
                if isinstance(value.get("domains"), str):
                    # As an environment variable spells it; pydantic-settings looks into no plain dataclass.
                    value = {**value, "domains": json.loads(value["domains"])}
                value = {"domains": ("law", "med", "fin", "gen"), **value}
        return value

    @field_serializer("canary")
    def without_later_keys(self, canary: CanaryPolicy) -> dict[str, Any]:
        """A key that came later is left out while it has the value by which logs without it were decided."""
        document = asdict(canary)
        for key in ("baseline_units", "silent_shadow"):
            if getattr(canary, key) == getattr(CanaryPolicy, key):
                del document[key]
        return document

    @field_serializer("rollback")
    def rollback_without_later_keys(self, rollback: TriggerPolicy) -> dict[str, Any]:
        """As for `canary`."""
        document = asdict(rollback)
        if rollback.min_windows == TriggerPolicy.min_windows:
            del document["min_windows"]
        return document

    @model_validator(mode="after")
    def is_not_contradictory(self) -> GatePolicy:
        whole_ramp_s = self.ramp.min_step_s * (len(self.ramp.basis_points) - 1)
        if whole_ramp_s >= self.canary.max_duration_s:
            raise ValueError(
                f"ramp.min_step_s x {len(self.ramp.basis_points) - 1} steps take {whole_ramp_s:g} s, but "
                f"canary.max_duration_s is {self.canary.max_duration_s:g} s: raise it or shorten the steps"
            )
        fixed_n = self.promote.fixed_n
        if fixed_n is not None and fixed_n.units > self.canary.max_shadow:
            raise ValueError(
                f"promote.fixed_n.units {fixed_n.units} is above canary.max_shadow {self.canary.max_shadow}: "
                "no canary could reach it"
            )
        return self

    @property
    def mirror_harm(self) -> CanaryPolicy:
        """The canary's limits as mirrored traffic is judged by them, with a bound of its own."""
        alpha = self.mirror.alpha_abort if self.mirror is not None else self.canary.alpha_abort
        return replace(self.canary, alpha_abort=alpha)

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def policy_change(policy: GatePolicy, *, software: str, origin_partitions: int) -> PolicyChange:
    """What to log where a gatekeeper is started with this policy."""
    return PolicyChange(
        digest=policy.digest,
        policy=policy.model_dump(mode="json"),
        software=software,
        origin_partitions=origin_partitions,
    )


def read_policy(change: PolicyChange) -> GatePolicy:
    """The logged policy; raises ConfigError where this software does not know it or its digest differs."""
    try:
        policy = GatePolicy.model_validate(change.policy)
    except ValidationError as error:
        raise ConfigError(
            f"gate-inputs: the logged policy {change.digest[:12]} is not readable: {error}"
        ) from error
    if policy.digest != change.digest:
        raise ConfigError(f"gate-inputs: the logged policy's digest is {policy.digest}, not {change.digest}")
    return policy
