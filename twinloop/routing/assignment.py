"""Which twin answers a subject: one pure function of the routing state, for routers and fencing workers.

Deterministic assignment by a salted hash is what Unleash and GrowthBook do; blake2b (RFC 7693) because a
producer cannot aim for a bucket while the salt is unknown to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from schemas.event import Arm, Slot
from schemas.routing import RoutingState

BUCKETS: Final = 10_000


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """One query's place under one epoch; `bucket` is 0..9999, `unit` 16 hexadecimal digits."""

    slot: Slot
    arm: Arm
    release: str
    epoch: int
    bucket: int
    unit: str


def bucket_of(salt: str, subject: str) -> int:
    """The subject's bucket in 0..9999 under this salt; uniform, and independent between salts."""
    digest = blake2b(f"{salt}:{subject}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def unit_of(subject: str, *, key: str) -> str:
    """The sticky unit the statistics count: 16 hexadecimal digits that do not name the subject.

    `key` is the incarnation, so that one subject is one unit for the life of the decision log.
    """
    return blake2b(subject.encode(), digest_size=8, key=key.encode()).hexdigest()


def assign(state: RoutingState, subject: str, *, opt_out: bool = False) -> Assignment:
    """Where `state` sends a user's query of this subject; `opt_out` keeps it on the active slot.

    A larger share only ever adds subjects. Without a canary the bucket is computed under the incarnation, so
    that a row always has one.
    """
    canary = state.canary
    incarnation = state.incarnation
    bucket = bucket_of(incarnation if canary is None else canary.salt, subject)
    unit = unit_of(subject, key=incarnation)
    if canary is not None and bucket < canary.basis_points and not opt_out:
        return Assignment(canary.slot, "shadow", state.releases[canary.slot], state.epoch, bucket, unit)
    return Assignment(state.active, "active", state.releases[state.active], state.epoch, bucket, unit)


class Assigner:
    """`assign` for the subjects of a batch, in half its time: what their hashes share is computed once."""

    def __init__(self, state: RoutingState) -> None:
        canary, incarnation = state.canary, state.incarnation
        salt = incarnation if canary is None else canary.salt
        self._bucket_hash = blake2b(f"{salt}:".encode(), digest_size=8)
        self._unit_hash = blake2b(digest_size=8, key=incarnation.encode())
        self._below = 0 if canary is None else canary.basis_points

    def arm(self, bucket: int, *, opt_out: bool) -> Arm:
        """Who answers a subject of this bucket."""
        return "shadow" if bucket < self._below and not opt_out else "active"

    def places(self, subjects: Iterable[str]) -> list[tuple[int, str]]:
        """Bucket and unit of each subject."""
        bucket_hash, unit_hash = self._bucket_hash.copy, self._unit_hash.copy
        found = []
        for subject in subjects:
            spelled = subject.encode()
            bucket, unit = bucket_hash(), unit_hash()
            bucket.update(spelled)
            unit.update(spelled)
            found.append((int.from_bytes(bucket.digest(), "big") % BUCKETS, unit.hexdigest()))
        return found


def mirrored(state: RoutingState, subject: str) -> Slot | None:
    """The slot that gets an unseen copy of this subject's queries, or None; never with a revoked release."""
    mirror = state.mirror
    if mirror is None or bucket_of(mirror.salt, subject) >= mirror.basis_points:
        return None
    return None if state.releases[mirror.slot] in state.revoked else mirror.slot


def mirror_assignment(state: RoutingState, subject: str) -> Assignment | None:
    """The place of the mirrored copy, where there is one; its bucket is that under the mirror's own salt."""
    slot = mirrored(state, subject)
    if slot is None or state.mirror is None:
        return None
    return Assignment(
        slot,
        "shadow",
        state.releases[slot],
        state.epoch,
        bucket_of(state.mirror.salt, subject),
        unit_of(subject, key=state.incarnation),
    )
