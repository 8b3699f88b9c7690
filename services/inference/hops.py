"""What a trace shows of a worker: one hop a query that ended here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.inference.core.answers import Produced
from services.inference.core.routed_query import RoutedQuery
from twinloop.bus.records import Outgoing
from twinloop.telemetry.tracing import Hop, stamp_attributes, traceparent_in


def answered_hops(
    ended: Sequence[tuple[RoutedQuery, Produced]], sent: Sequence[Outgoing], *, start_us: int, end_us: int
) -> Iterator[Hop]:
    """`sent` begins with the answer of each of these queries, in their order."""
    for (routed, produced), outgoing in zip(ended, sent, strict=False):
        own, stamp = traceparent_in(outgoing.headers), routed.stamp
        if own is not None:
            yield Hop(
                "answer",
                "consumer",
                parent=routed.traceparent,
                own=own,
                start_us=start_us,
                end_us=end_us,
                attributes={
                    **stamp_attributes(routed.query.id, stamp),
                    "twinloop.hops": stamp.hops,
                    "twinloop.retrieval_ms": produced.retrieval_ms,
                    "twinloop.generation_ms": produced.generation_ms,
                },
                error=produced.error.kind if produced.error else None,
            )
