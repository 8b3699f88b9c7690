"""What a router counts."""

from __future__ import annotations

from collections import Counter as TallyOf
from operator import attrgetter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.router.core.micro_batch import Decisions

_WAY = attrgetter("way")
_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_SIZES = (1, 4, 16, 64, 256, 1000)


class RouterMetrics:
    """Counters of one router in one registry; labels are bounded: slot, purpose, domain, reason."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.routed = Counter(
            "twinloop_routed_queries",
            "Queries sent to a slot.",
            ["slot", "purpose", "domain"],
            registry=registry,
        )
        self.refused = Counter(
            "twinloop_refused_queries",
            "Queries ended by the router with an error answer, by kind.",
            ["kind"],
            registry=registry,
        )
        self.duplicates = Counter(
            "twinloop_duplicate_queries", "Second publications of an id, dropped.", registry=registry
        )
        self.dead_letters = Counter(
            "twinloop_router_dead_letters", "Records of queries that nobody can route.", registry=registry
        )
        self.evicted = Counter(
            "twinloop_router_dedup_evicted_early",
            "Query ids forgotten within their window because there were too many.",
            registry=registry,
        )
        self.epoch = Gauge("twinloop_router_epoch", "Routing epoch this router acts on.", registry=registry)
        self.holding = Gauge(
            "twinloop_router_holding", "1 while nothing is routed because nothing may be.", registry=registry
        )
        self.unconfirmed = Gauge(
            "twinloop_router_unconfirmed", "1 while routing by the last known good state.", registry=registry
        )
        self.unread = Counter(
            "twinloop_router_state_unread",
            "Readings of the routing state that gave none, by reason.",
            ["reason"],
            registry=registry,
        )
        self.undone = Counter(
            "twinloop_router_undone", "Transactions undone and tried again.", registry=registry
        )
        self.batch_size = Histogram(
            "twinloop_router_batch_queries", "Queries in a micro-batch.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "twinloop_router_batch_seconds",
            "From having a micro-batch to having produced its records.",
            buckets=_SECONDS,
            registry=registry,
        )

    def decided(self, decisions: Decisions) -> None:
        """Counts what one batch came to."""
        found: TallyOf[tuple[str, str, str]] = TallyOf()
        for way, count in TallyOf(map(_WAY, decisions.routes)).items():
            found[way.slot, way.purpose, way.domain] += count
        for labels, count in found.items():
            self.routed.labels(*labels).inc(count)
        for refusal in decisions.refusals:
            self.refused.labels(refusal.kind).inc()
        if decisions.duplicates:
            self.duplicates.inc(decisions.duplicates)
