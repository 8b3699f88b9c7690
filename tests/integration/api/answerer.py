"""Stands in for router and workers: answers what is asked in `queries`, as a committed answer would look."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from schemas.answers import Answer, AnswerError
from schemas.headers import CLIENT
from schemas.queries import Query
from twinloop.bus.producer import IdempotentProducer
from twinloop.bus.reader import LogReader
from twinloop.bus.records import Outgoing
from twinloop.bus.settings import KafkaSettings
from twinloop.codec import decode, encode
from twinloop.topics import TopicCatalogue

EXAMPLE = Path(__file__).parents[3] / "schemas/examples/answers/v1/answered.json"
SHED = "please shed this"


class Answerer:
    """A thread; answers "you asked: ..." until closed, and sheds what asks for it."""

    def __init__(self, kafka: KafkaSettings, topics: TopicCatalogue) -> None:
        self._topics = topics
        self._reader = LogReader(kafka, topics=[topics.name("queries")])
        self._producer = IdempotentProducer(kafka)
        self._stop = threading.Event()
        self.asked: list[Query] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._producer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for record in self._reader.poll(100, 0.05):
                self._answer(decode(record, Query))
        self._reader.close()

    def _answer(self, query: Query) -> None:
        self.asked.append(query)
        value: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))["value"]
        value |= {
            "query_id": query.id,
            "text": f"you asked:  {query.text}\n",
            "domain": query.domain or "law",
        }
        answer = Answer.model_validate(value)
        if query.text == SHED:
            error = AnswerError(kind="shed", detail="too much at once")
            answer = answer.model_copy(update={"text": None, "error": error, "receipt": None})
        body, headers = encode(answer, source="test", event_id=query.id, at_ms=query.asked_at)
        headers = (*headers, (CLIENT, query.client.encode()))
        self._producer.send(
            Outgoing(self._topics.name("answers"), body, key=query.id.encode(), headers=headers)
        )
