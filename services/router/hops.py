"""What a trace shows of the router: one hop a routed query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.router.core.rows import Route
from services.router.parsing import Intake
from twinloop.bus.records import Outgoing
from twinloop.telemetry.tracing import Hop, stamp_attributes, traceparent_in


def routed_hops(
    routes: Sequence[Route], batch: Sequence[Intake], sent: Sequence[Outgoing], *, start_us: int, end_us: int
) -> Iterator[Hop]:
    """`sent` begins with one record a route, in their order."""
    for route, outgoing in zip(routes, sent, strict=False):
        intake = batch[route.position]
        own = traceparent_in(outgoing.headers)
        if own is not None:
            yield Hop(
                "route",
                "consumer",
                parent=intake.record.header("traceparent"),
                own=own,
                start_us=start_us,
                end_us=end_us,
                attributes=stamp_attributes(intake.query.id, route.stamp),
            )
