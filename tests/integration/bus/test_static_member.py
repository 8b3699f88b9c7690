"""A static member comes back to its partitions at once, and with a further topic it gets that too."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tests.fixtures.brokers import KafkaUnderTest, Names
from twinloop.bus.settings import KafkaSettings
from twinloop.bus.static_member import static_member_id
from twinloop.bus.stream import TransactionalStream
from twinloop.bus.topic_spec import TopicSpec


@pytest.fixture
def topics(kafka: KafkaUnderTest, names: Names) -> list[str]:
    found = [names("first"), names("second")]
    kafka.create_topics(*(TopicSpec(name, 1) for name in found))
    return found


def assigned(
    settings: KafkaSettings, names: Names, topics: Sequence[str], *, wanted: int
) -> tuple[set[str], float]:
    """The topics that one life of the member was given, and the seconds that took; 20 at most."""
    began = time.monotonic()
    with TransactionalStream(
        settings, group=names("group"), topics=topics, instance_id=names("w0")
    ) as stream:
        while len(stream.assignment()) < wanted and time.monotonic() - began < 20:
            stream.poll(1, 0.1)
        return {source.topic for source in stream.assignment()}, time.monotonic() - began


@pytest.mark.kafka
def test_a_member_that_comes_back_with_a_further_topic_is_given_it(
    kafka: KafkaUnderTest, names: Names, topics: list[str]
) -> None:
    assert assigned(kafka.settings, names, topics[:1], wanted=1)[0] == {topics[0]}
    assert assigned(kafka.settings, names, topics, wanted=2)[0] == set(topics)
    again, seconds = assigned(kafka.settings, names, topics, wanted=2)
    assert again == set(topics)
    assert seconds < kafka.settings.session_timeout_ms / 1000


def test_the_id_is_plain_for_one_topic_and_names_the_set_of_several() -> None:
    assert static_member_id("router-0", ["queries"]) == "router-0"
    of_two = static_member_id("trainer-0", ["a", "b"])
    assert of_two == static_member_id("trainer-0", ["b", "a"])
    assert (
        len({of_two, static_member_id("trainer-0", ["a", "c"]), static_member_id("trainer-0", ["a b"])}) == 3
    )
