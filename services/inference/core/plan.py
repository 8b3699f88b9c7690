"""What to do with each query of a micro-batch under the state just read: answer it, send it on, or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.answers import ErrorKind
from schemas.routing import RoutingState
from services.inference.core.overload import OverloadPolicy, is_shed, most_urgent
from services.inference.core.routed_query import RoutedQuery
from twinloop.routing.assignment import Assignment
from twinloop.routing.fence import Forward, Keep, fence


@dataclass(frozen=True)
class Forwarding:
    """A user's query that belongs to another slot or release now."""

    routed: RoutedQuery
    assignment: Assignment


@dataclass(frozen=True)
class Refusal:
    """A query that ends here without an answer."""

    routed: RoutedQuery
    kind: ErrorKind
    detail: str


@dataclass(frozen=True)
class Plan:
    """A micro-batch, divided; every query is in exactly one part, in the order of the log."""

    keep: tuple[RoutedQuery, ...]
    forward: tuple[Forwarding, ...]
    refuse: tuple[Refusal, ...]


_DETAILS: dict[str, str] = {
    "rerouted": "forwarded between slots too often while the routing state kept changing; ask again",
    "shed": "refused under overload; ask again later or with a higher priority",
    "revoked": "the release this query was meant for has been withdrawn",
}


def plan_batch(
    batch: Sequence[RoutedQuery],
    state: RoutingState,
    *,
    now_ms: int,
    max_hops: int,
    answer_max: int,
    overload: OverloadPolicy | None = None,
) -> Plan:
    """Divide a batch by the fence, the deadlines and, where `overload` is given, who has waited too long.

    At most `answer_max` queries are kept; where there are more, the least urgent are shed, and where there are not,
    none is. The fence comes before the shedding: what belongs elsewhere may find room there.
    """
    is_crowded = len(batch) > answer_max
    keep: list[RoutedQuery] = []
    forward: list[Forwarding] = []
    refuse: list[Refusal] = []
    for routed in batch:
        if now_ms > routed.deadline_at:
            refuse.append(expired(routed, now_ms))
            continue
        verdict = fence(
            routed.stamp,
            state,
            subject=routed.query.sticky_subject,
            opt_out=routed.query.canary_opt_out,
            max_hops=max_hops,
        )
        if isinstance(verdict, Keep):
            if is_crowded and overload is not None and is_shed(overload, routed, now_ms=now_ms):
                refuse.append(Refusal(routed, "shed", _DETAILS["shed"]))
            else:
                keep.append(routed)
        elif isinstance(verdict, Forward):
            forward.append(Forwarding(routed, verdict.assignment))
        else:
            refuse.append(Refusal(routed, verdict.kind, _DETAILS[verdict.kind]))
    keep, crowded_out = most_urgent(keep, answer_max)
    refuse += [Refusal(routed, "shed", _DETAILS["shed"]) for routed in crowded_out]
    return Plan(tuple(keep), tuple(forward), tuple(refuse))


def expired(routed: RoutedQuery, now_ms: int) -> Refusal:
    """The refusal of a query whose deadline has passed."""
    late = now_ms - routed.deadline_at
    return Refusal(routed, "deadline", f"the deadline passed {late} ms before an answer was ready")
