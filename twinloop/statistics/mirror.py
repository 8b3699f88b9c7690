"""Mirrored traffic: the copies' windows joined with the users' windows of the same time, and what they add up to.

The evidence is the canary's own (`advance`): the arm under suspicion against the one that is known. Copies and users'
queries are different requests of the same seconds, so a hard hour is hard for both. Where a question is in both arms,
its two answers fail together rather than in turn, which makes evidence of harm weaker and never stronger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from .canary_state import CanaryState, advance
from .eprocess import Floats
from .policy import CanaryPolicy
from .tally import Arms, ArmTally, WindowTally

Position = tuple[float, int]
"""(start, epoch) of a window."""
Suspect = Literal["copies", "users"]
"""Whose answers are under suspicion: the copies' while a candidate waits for its canary, the users' while a promoted
release bakes and copies go to the one before it."""


@dataclass(frozen=True)
class MirrorState:
    """What is known of one stretch of mirroring; plain JSON by `to_json`."""

    suspect: Suspect
    memory: CanaryState
    users: tuple[WindowTally, ...] = ()
    """Windows of users' queries that wait for the copies of the same time."""
    copies: tuple[WindowTally, ...] = ()
    """Windows of copies that wait for the users of the same time."""
    classifier: str | None = None
    """What labels the answers; None until the first labelled window."""

    @classmethod
    def begin(
        cls, policy: CanaryPolicy, suspect: Suspect, *, now: float, baseline: Floats | None = None
    ) -> MirrorState:
        """Nothing mirrored yet; `baseline` is a dense histogram of the known release's latencies."""
        return cls(suspect, CanaryState.begin(policy, now=now, baseline=baseline))

    @property
    def sent(self) -> int:
        """Copies that were assigned."""
        totals = self.memory.totals
        return totals.queries_s if self.suspect == "copies" else totals.queries_a

    @property
    def back(self) -> int:
        """Copies that came back with an answer or an error of their own."""
        totals = self.memory.totals
        return self.sent - (totals.missing_s if self.suspect == "copies" else totals.missing_a)

    @property
    def units(self) -> int:
        """Sticky keys among the copies that came back, each once a window."""
        totals = self.memory.totals
        return totals.units_s if self.suspect == "copies" else totals.units_a

    @property
    def coverage(self) -> float | None:
        """Share of the copies that came back; None before the first copy."""
        return self.back / self.sent if self.sent else None

    @property
    def coverage_text(self) -> str:
        """How many copies came back, for people."""
        if self.coverage is None:
            return "no copy yet"
        return f"{self.back} of {self.sent} copies back ({self.coverage:.1%})"

    def with_users(self, window: WindowTally) -> MirrorState:
        """The state with one more whole window of users' queries, in order."""
        return replace(self, users=(*self.users, window))

    def with_copies(self, window: WindowTally) -> MirrorState:
        """The state with one more whole window of copies, in order."""
        return replace(self, copies=(*self.copies, window))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "suspect": self.suspect,
            "memory": self.memory.to_json(),
            "users": [window.to_json() for window in self.users],
            "copies": [window.to_json() for window in self.copies],
            "classifier": self.classifier,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MirrorState:
        """The state that `to_json` described."""
        return cls(
            suspect=data["suspect"],
            memory=CanaryState.from_json(data["memory"]),
            users=tuple(WindowTally.from_json(window) for window in data["users"]),
            copies=tuple(WindowTally.from_json(window) for window in data["copies"]),
            classifier=data["classifier"],
        )


def join(policy: CanaryPolicy, state: MirrorState, until: Position, now: float) -> MirrorState:
    """The state after every window up to `until`, which both sides have passed. Pure.

    Copies never wait for users nor users for copies beyond that: a hung release delays its own evidence only.
    """
    users = {_position(window): window for window in state.users}
    copies = {_position(window): window for window in state.copies}
    ready = sorted(position for position in {*users, *copies} if position <= until)
    memory, classifier = state.memory, state.classifier
    for position in ready:
        window = _pair(users.get(position), copies.get(position), state.suspect)
        if window.classifiers:
            if window.classifiers != (classifier or window.classifiers[0],):
                # Labels of two classifiers do not add up: what was seen so far counts for nothing.
                memory = CanaryState.begin(policy, now=memory.started_at, baseline=memory.baseline)
                classifier = None
                continue
            classifier = window.classifiers[0]
        memory = advance(policy, memory, window, now)
    return replace(
        state,
        memory=memory,
        classifier=classifier,
        users=tuple(users[position] for position in sorted(users) if position > until),
        copies=tuple(copies[position] for position in sorted(copies) if position > until),
    )


def _pair(users: WindowTally | None, copies: WindowTally | None, suspect: Suspect) -> WindowTally:
    """Both arms of one stretch of time, in total and by domain; the one under suspicion is the shadow's."""
    known = [window for window in (users, copies) if window is not None]
    names = sorted({name for window in known for name in window.domains})
    return WindowTally(
        start=known[0].start,
        end=known[0].end,
        epoch=known[0].epoch,
        total=_arms(users.total if users else None, copies.total if copies else None, suspect),
        domains={
            name: _arms(
                users.domains.get(name) if users else None,
                copies.domains.get(name) if copies else None,
                suspect,
            )
            for name in names
        },
        late=sum(window.late for window in known),
        duplicates=sum(window.duplicates for window in known),
        classifiers=tuple(sorted({name for window in known for name in window.classifiers})),
    )


def _arms(users: Arms | None, copies: Arms | None, suspect: Suspect) -> Arms:
    of_users, of_copies = (users or Arms()).active, (copies or Arms()).shadow
    if suspect == "copies":
        return Arms(active=of_users, shadow=of_copies)
    return Arms(active=_untimed(of_copies), shadow=_untimed(of_users))


def _untimed(arm: ArmTally) -> ArmTally:
    """An arm without its latencies: a slot that answers copies alone is nearly idle, and faster for that reason."""
    return replace(arm, latency=(), latency_missing=0.0)


def _position(window: WindowTally) -> Position:
    return window.start, window.epoch
