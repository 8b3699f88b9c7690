"""The `group.instance.id` under which a process comes back as the member it was (KIP-345)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

_DIGITS = 8


def static_member_id(instance_id: str, topics: Collection[str]) -> str:
    """The id of a static member that reads these topics; with others it is another member.

    A broker gives a static member that comes back its old assignment and does not look at what it subscribes to now:
    a version that reads a further topic would never get it. A member of one topic cannot miss any: its id is plain.
    """
    if len(topics) == 1:
        return instance_id
    return f"{instance_id}.{hashlib.sha256(' '.join(sorted(topics)).encode()).hexdigest()[:_DIGITS]}"
