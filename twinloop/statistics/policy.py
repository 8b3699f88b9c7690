"""Thresholds of the canary: one frozen value, checked once, compared with by every judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinloop.errors import ConfigError


@dataclass(frozen=True)
class CanaryPolicy:
    """All limits of one canary. Times are seconds, latencies milliseconds, rates shares of 1."""

    error_margin: float = 0.05
    """How much higher the shadow's error rate may be than the active one's."""
    error_mode: Literal["absolute", "relative"] = "absolute"
    """`absolute`: active + margin; `relative`: active x (1 + margin), which needs far more traffic to prove.
    """
    p95_margin_ms: float = 50.0
    """How much higher the shadow's p95 latency may be than the active one's."""
    toxicity_max: float = 0.05
    """Highest share of the shadow's answers that may be flagged."""
    early_stop_ratio: float = 2.0
    """The canary ends early when the shadow's error rate is beyond this multiple of the active one's ..."""
    early_stop_floor: float = 0.01
    """... and at least this many points above it."""
    min_shadow: int = 1000
    """Shadow units before a promotion, unless the interval below is narrow enough."""
    ci_width: float = 0.05
    """Width of the time-uniform 95 % interval of the shadow's error rate that also opens the traffic rule; 0
    is off.
    """
    ci_floor: int = 300
    """Shadow units that the interval can never replace."""
    alpha_abort: float = 0.05
    """Bound on the chance of ever aborting a canary all of whose gates are truly fine."""
    alpha_promote: float = 0.05
    """Bound on the chance of ever promoting a canary one of whose gates is truly breached."""
    alpha_domain: float = 0.01
    """Additional bound on aborting because of a single domain, shared by all domains (Bonferroni)."""
    domains: tuple[str, ...] = ("law", "med", "fin", "gen")
    """Domains judged on their own; they may abort or hold, never promote."""
    max_shadow: int = 20_000
    """Shadow units after which an undecided canary is inconclusive."""
    max_duration_s: float = 86_400.0
    """Time after which an undecided canary is inconclusive."""
    warmup_units: int = 50
    """Shadow units whose latency, and whose evidence for a promotion, is discarded as cold start ..."""
    warmup_s: float = 60.0
    """... or the time after which that ends, whichever comes first. Harm counts from the first unit."""
    invalid_ttl_s: float = 600.0
    """How long invalid data (ratio mismatch, stale feed, missing labels) may hold a canary before it is
    aborted.
    """
    stale_ttl_s: float = 120.0
    """How long the judge may go without a window in which both arms had traffic."""
    silent_shadow: Literal["error", "hold"] = "error"
    """What a shadow is that answers nothing at all: `error` lets its unanswered queries end the canary as errors at
    once; `hold` waits for an answer for `stale_ttl_s` and then ends it as `silent_shadow`, which speaks against nobody.
    """
    srm_threshold: float = 1000.0
    """Evidence at which the split of keys is called wrong (false alarms at most 1 in 1000 canaries)."""
    label_coverage: float = 0.99
    """Share of answers that must carry a safety label and a latency, and of active requests with an outcome.
    """
    coverage_min_units: int = 100
    """Units of an arm before its coverage is judged."""
    window_units: int = 100
    """Windows are pooled until they hold this many units of both arms together and at least one of each."""
    baseline_min_units: int = 500
    """Active answers needed before their p95 is used as the yardstick."""
    baseline_units: int = 20_000
    """The yardstick's memory: beyond so many active answers the older ones count half, again and again.

    A short one lets the p95 of an overload before the canary fade; any length is valid, as the yardstick of a window
    depends on earlier windows only.
    """

    def __post_init__(self) -> None:
        _require(
            self.baseline_units >= 2 * self.baseline_min_units,
            "baseline_units",
            "be at least twice baseline_min_units",
        )
        for name in ("alpha_abort", "alpha_promote", "alpha_domain", "toxicity_max", "label_coverage"):
            _require(0.0 < getattr(self, name) < 1.0, name, "lie between 0 and 1")
        for name in ("error_margin", "early_stop_floor"):
            _require(0.0 <= getattr(self, name) < 0.9, name, "be at least 0 and below 0.9")
        for name in (
            "p95_margin_ms",
            "ci_width",
            "ci_floor",
            "warmup_units",
            "warmup_s",
            "coverage_min_units",
            "baseline_min_units",
        ):
            _require(getattr(self, name) >= 0, name, "not be negative")
        for name in (
            "min_shadow",
            "max_shadow",
            "max_duration_s",
            "window_units",
            "invalid_ttl_s",
            "stale_ttl_s",
        ):
            _require(getattr(self, name) > 0, name, "be positive")
        _require(self.error_mode in ("absolute", "relative"), "error_mode", "be absolute or relative")
        _require(self.silent_shadow in ("error", "hold"), "silent_shadow", "be error or hold")
        _require(self.early_stop_ratio >= 1.0, "early_stop_ratio", "be at least 1")
        _require(self.srm_threshold > 1.0, "srm_threshold", "be above 1")
        _require(self.max_shadow >= self.min_shadow, "max_shadow", "be at least min_shadow")
        _require(len(set(self.domains)) == len(self.domains), "domains", "name each domain once")


def _require(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(
            f"canary policy: {name} must {rule}; correct that key in the gatekeeper's configuration"
        )
