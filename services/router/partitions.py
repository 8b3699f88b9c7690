"""Tallies are joined by partition number: the topics that follow `queries` must have as many partitions."""

from __future__ import annotations

from collections.abc import Mapping

from twinloop.errors import ConfigError
from twinloop.topics import TopicCatalogue

FOLLOWERS = ("queries.blue", "queries.green", "assignments", "outcomes", "seen-ids")


def refuse_unequal_partitions(counts: Mapping[str, int], topics: TopicCatalogue) -> None:
    """Raises ConfigError where a topic in `counts` (partitions by full name) differs from `queries`."""
    leader = topics.name("queries")
    if leader not in counts:
        return
    for follower in FOLLOWERS:
        name = topics.name(follower)
        if counts.get(name, counts[leader]) != counts[leader]:
            raise ConfigError(
                f"topic {name} has {counts[name]} partitions and {leader} has {counts[leader]}: records keep their "
                "partition number from one to the other; give them equal counts while nothing runs"
            )
