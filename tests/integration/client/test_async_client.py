"""The asynchronous client on the embedded broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from schemas.feedback import Feedback, FeedbackStatus
from schemas.headers import CLIENT
from tests.fixtures.brokers import KafkaUnderTest, Names
from tests.integration.api.answerer import Answerer
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.client import AsyncClient, Client
from twinloop.codec import decode, encode
from twinloop.errors import InvalidEvent, Transient
from twinloop.topics import TopicCatalogue

pytestmark = pytest.mark.asyncio


@pytest.fixture
def topics(mock_kafka: KafkaUnderTest, names: Names) -> TopicCatalogue:
    found = TopicCatalogue.load(prefix=f"{names('c')}.", origin_partitions=2)
    mock_kafka.create_topics(*found.specs())
    return found


@pytest.fixture
def answerer(mock_kafka: KafkaUnderTest, topics: TopicCatalogue) -> Iterator[Answerer]:
    found = Answerer(mock_kafka.settings, topics)
    yield found
    found.close()


async def test_many_questions_are_asked_at_once_and_each_gets_its_own_answer(
    mock_kafka: KafkaUnderTest, topics: TopicCatalogue, answerer: Answerer
) -> None:
    async with await AsyncClient.open(mock_kafka.settings, topics, name="a") as client:
        answers = await asyncio.gather(*(client.ask(f"question {n}") for n in range(50)))
        assert [answer.text for answer in answers] == [f"you asked:  question {n}\n" for n in range(50)]
        given = await client.rate(answers[0], question="question 0", rater="ada", rating="up")
        bare = answers[0].model_copy(update={"receipt": None})
        with pytest.raises(InvalidEvent):
            await client.rate(bare, question="question 0", rater="ada", rating="up")
    with LogReader(mock_kafka.settings, topics=[topics.name("feedback")]) as reader:
        assert [decode(record, Feedback) for record in reader.read_to_end()] == [given]


async def test_answers_are_iterated_as_they_come_and_only_one_s_own(
    mock_kafka: KafkaUnderTest, topics: TopicCatalogue, answerer: Answerer
) -> None:
    async with (
        await AsyncClient.open(mock_kafka.settings, topics, name="a") as mine,
        await AsyncClient.open(mock_kafka.settings, topics, name="b") as other,
    ):
        seen: list[str | None] = []

        async def collect() -> None:
            async for answer in mine.answers(timeout_s=0.5):
                seen.append(answer.text)

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        await asyncio.gather(mine.ask("mine"), other.ask("theirs"))
        await collecting
    assert seen == ["you asked:  mine\n"]


async def test_of_two_who_iterate_neither_silences_the_other(
    mock_kafka: KafkaUnderTest, topics: TopicCatalogue, answerer: Answerer
) -> None:
    with Client(mock_kafka.settings, topics, name="c") as client:
        first, second = client.answers(timeout_s=5.0), client.answers(timeout_s=5.0)
        await asyncio.to_thread(client.publish, "one")
        waiting = [asyncio.create_task(asyncio.to_thread(next, each)) for each in (first, second)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(client.publish, "two")
        for answer in await asyncio.gather(*waiting):
            assert answer.text is not None
        first.close()
        await asyncio.to_thread(client.publish, "three")
        assert "you asked:  three\n" in [(await asyncio.to_thread(next, second)).text for _ in range(2)]


async def test_an_answer_that_cannot_be_read_fails_its_own_asker_and_nobody_else(
    mock_kafka: KafkaUnderTest, topics: TopicCatalogue, answerer: Answerer
) -> None:
    producer = IdempotentProducer(mock_kafka.settings)
    async with await AsyncClient.open(mock_kafka.settings, topics, name="a") as client:
        answerer.close()
        asked = asyncio.create_task(client.ask("of a later version", query_id="q-later"))
        await asyncio.sleep(0.2)
        producer.send(
            Outgoing(topics.name("answers"), b'{"later": 1}', key=b"q-later", headers=((CLIENT, b"a"),))
        )
        producer.close()
        with pytest.raises(Transient, match="cannot be read by this version"):
            await asked
        assert client.is_reading()
        again = Answerer(mock_kafka.settings, topics)
        try:
            assert (await client.ask("of this one")).text == "you asked:  of this one\n"
        finally:
            again.close()


async def test_silence_and_cancelling_end_the_waiting_and_leave_nothing_behind(
    mock_kafka: KafkaUnderTest, topics: TopicCatalogue
) -> None:
    async with await AsyncClient.open(mock_kafka.settings, topics, name="a") as client:
        with pytest.raises(Transient, match="no answer within"):
            await client.ask("anybody?", deadline_ms=50, margin_s=0.1)
        waiting = asyncio.create_task(client.ask("anybody?"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client._client._waiting == {}


async def test_the_status_of_a_feedback_is_found(mock_kafka: KafkaUnderTest, topics: TopicCatalogue) -> None:
    status = FeedbackStatus(feedback_id="f-1", query_id="q-1", status="counted", at=1)
    value, headers = encode(status, source="test", event_id="s", at_ms=1)
    producer = IdempotentProducer(mock_kafka.settings)
    producer.send(Outgoing(topics.name("feedback.status"), value, key=b"f-1", headers=headers))
    producer.close()
    async with await AsyncClient.open(mock_kafka.settings, topics, name="a") as client:
        assert await client.feedback_status("f-1") == status
        assert await client.feedback_status("f-2") is None
