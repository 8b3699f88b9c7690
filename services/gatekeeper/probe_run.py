"""Sends the QA probes, paced, straight to the slot of the release examined, with their assignment rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from schemas.assignments import AssignmentBatch, AssignmentRow
from schemas.event import Arm, Domain, Slot
from schemas.gate_inputs import ProbesSent
from schemas.queries import Query
from schemas.routing import RoutingState
from services.gatekeeper.core.effects import SendProbes
from services.gatekeeper.core.probes import Probe, ProbeSet, Side, query_id
from services.gatekeeper.core.state import Examining
from services.gatekeeper.gate_log import Producer
from services.gatekeeper.settings import ProbeSettings
from twinloop.bus.records import Outgoing
from twinloop.clock import Clock
from twinloop.codec import encode
from twinloop.routing.assignment import Assignment, bucket_of, unit_of
from twinloop.routing.stamp import Stamp, stamp_of
from twinloop.topics import TopicCatalogue

_PATIENCE_MS = 2000
"""How long after its deadline a probe still counts as in flight."""


class Chooser(Protocol):
    """Chooses domains by one release's router rules."""

    def choose(self, text: str) -> Domain: ...


ChooserOf = Callable[[str], Chooser]
"""The chooser of a rules digest; raises Transient or ArtifactError."""


class ProbeRun:
    """One examination under way in this process; a successor begins its own and sends what has no answer yet."""

    def __init__(
        self,
        duty: SendProbes,
        *,
        probes: ProbeSet,
        settings: ProbeSettings,
        producer: Producer,
        topics: TopicCatalogue,
        chooser_of: ChooserOf,
        name: str,
        clock: Clock,
    ) -> None:
        self.duty = duty
        self._probes, self._settings, self._producer, self._topics = probes, settings, producer, topics
        self._chooser_of, self._name, self._clock = chooser_of, name, clock
        self._sent: dict[str, int] = {}
        """`side/probe` to the time in milliseconds at which it was sent."""

    def announcement(self) -> ProbesSent:
        """The list of probes, to be logged before the first is sent."""
        listed = tuple((probe.id, probe.needs_citation) for probe in self._probes.probes.values())
        return ProbesSent(run=self.duty.run, digest=self._probes.digest, probes=listed)

    def step(self, stage: Examining, routing: RoutingState) -> int:
        """Send as many probes as may be in flight now; returns how many."""
        now = self._clock.now_ms()
        limit_ms = self._settings.deadline_ms + _PATIENCE_MS
        waiting = sum(
            1 for key, at in self._sent.items() if key not in stage.measurements and now - at < limit_ms
        )
        number = 0
        for side, probe in self._unsent(stage):
            if waiting + number >= self._settings.max_in_flight:
                break
            self._send(side, probe, routing)
            self._sent[f"{side}/{probe.id}"] = now
            number += 1
        return number

    def _unsent(self, stage: Examining) -> Iterator[tuple[Side, Probe]]:
        sides: tuple[Side, ...] = ("candidate", "active") if self.duty.paired else ("candidate",)
        for probe_id in sorted(stage.probes):
            probe = self._probes.probes.get(probe_id)
            for side in sides:
                key = f"{side}/{probe_id}"
                if probe is not None and key not in self._sent and key not in stage.measurements:
                    yield side, probe

    def _send(self, side: Side, probe: Probe, routing: RoutingState) -> None:
        slot: Slot = routing.shadow if side == "candidate" else routing.active
        release = routing.releases[slot]
        name = query_id(self.duty.run, side, probe.id)
        arm: Arm = "shadow" if side == "candidate" else "active"
        now = self._clock.now_ms()
        partitions = self._topics.partitions("queries")
        stamp = stamp_of(
            Assignment(
                slot=slot,
                arm=arm,
                release=release,
                epoch=routing.epoch,
                bucket=bucket_of(routing.incarnation, name),
                unit=unit_of(name, key=routing.incarnation),
            ),
            domain=probe.domain or self._chooser_of(routing.rules[release]).choose(probe.question),
            purpose="qa",
            # Not hash(): which partition a probe goes to must be the same in every process.
            origin=zlib.crc32(name.encode()) % partitions,
            assigned_at=now,
        )
        query = Query(
            id=name,
            text=probe.question,
            asked_at=now,
            domain=probe.domain,
            deadline_ms=self._settings.deadline_ms,
        )
        # The row first: a probe that was never delivered must show as one without an answer.
        self._producer.send(self._row(query, stamp))
        self._producer.send(self._routed(query, stamp))

    def _row(self, query: Query, stamp: Stamp) -> Outgoing:
        batch = AssignmentBatch(
            origin=stamp.origin,
            router=self._name,
            rows=(
                AssignmentRow(
                    id=query.id,
                    unit=stamp.unit,
                    bucket=stamp.bucket,
                    slot=stamp.slot,
                    arm=stamp.arm,
                    release=stamp.release,
                    epoch=stamp.epoch,
                    purpose="qa",
                    domain=stamp.domain,
                    assigned_at=stamp.assigned_at,
                    deadline_at=query.deadline_at,
                ),
            ),
        )
        value, headers = encode(
            batch, source=f"gatekeeper/{self._name}", event_id=f"row-{query.id}", at_ms=stamp.assigned_at
        )
        topic = self._topics.name("assignments")
        return Outgoing(topic, value, key=str(stamp.origin).encode(), headers=headers, partition=stamp.origin)

    def _routed(self, query: Query, stamp: Stamp) -> Outgoing:
        value, headers = encode(
            query,
            source=f"gatekeeper/{self._name}",
            event_id=query.id,
            at_ms=stamp.assigned_at,
            extra=stamp.headers(),
        )
        topic = self._topics.name(f"queries.{stamp.slot}")
        return Outgoing(topic, value, key=query.id.encode(), headers=headers, partition=stamp.origin)
