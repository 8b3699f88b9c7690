from __future__ import annotations

import pytest

from services.router.partitions import FOLLOWERS, refuse_unequal_partitions
from twinloop.errors import ConfigError
from twinloop.topics import TopicCatalogue

TOPICS = TopicCatalogue.load(prefix="t.")


def test_equal_counts_and_topics_yet_to_come_are_fine() -> None:
    refuse_unequal_partitions({}, TOPICS)
    refuse_unequal_partitions({"t.queries": 8}, TOPICS)
    refuse_unequal_partitions({"t.queries": 8, **{TOPICS.name(name): 8 for name in FOLLOWERS}}, TOPICS)


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_topic_that_does_not_follow_queries_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=TOPICS.name(name)):
        refuse_unequal_partitions({"t.queries": 8, TOPICS.name(name): 4}, TOPICS)
    assert all(TOPICS.declarations[follower].partitions == "origin" for follower in FOLLOWERS)
