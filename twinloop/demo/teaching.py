"""Corrections given by made-up raters, each followed until the trainer has said what became of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from schemas.answers import Answer
from schemas.feedback import FeedbackStatus
from twinloop.bus.reader import LogReader
from twinloop.cli.connection import Connection
from twinloop.cli.orders import make_order, publish_order
from twinloop.codec import decode
from twinloop.demo.material import Question
from twinloop.demo.traffic import Traffic
from twinloop.errors import Transient

Say = Callable[[str], None]

RATERS_SHARE = 4
"""Corrections one made-up rater gives; the trainer takes at most five of one rater and domain."""


class Teacher:
    """Gives feedback on answers of `traffic` and orders trainings."""

    def __init__(self, connection: Connection, traffic: Traffic, say: Say) -> None:
        self._connection, self._traffic, self._say = connection, traffic, say
        self._raters = 0

    def correct(
        self, answers: Mapping[str, Answer], questions: Sequence[Question], corrections: Sequence[str]
    ) -> list[str]:
        """Give each correction as one of many raters, wait until each has a status, then ask for a training.

        Returns the ids of the feedback given; answers without a receipt cannot be corrected.
        """
        given = []
        for (query_id, answer), question, correction in zip(
            answers.items(), questions, corrections, strict=True
        ):
            if answer.receipt is None:
                continue
            rater = f"rater-{self._raters // RATERS_SHARE:04d}"
            self._raters += 1
            feedback = self._traffic.client.rate(
                answer,
                question=question.text,
                rater=rater,
                rating="down",
                correction=correction,
                feedback_id=f"fb-{query_id}",
            )
            given.append(feedback.id)
        self._traffic.client.flush()
        tally = Counter(status.status for status in self.statuses(given).values())
        self._say(f"    feedback: {', '.join(f'{count} {name}' for name, count in sorted(tally.items()))}")
        self.train()
        return given

    def train(self) -> None:
        """Order a training on what waits."""
        publish_order(
            self._connection,
            make_order(
                self._connection, "train", actor="operator", key_id="operator-1", reason="demo: train now"
            ),
        )

    def statuses(
        self,
        ids: Sequence[str],
        *,
        wanted: Callable[[FeedbackStatus], bool] = lambda _status: True,
        timeout_s: float = 60.0,
    ) -> dict[str, FeedbackStatus]:
        """The first wanted status of each feedback; raises Transient naming one without."""
        asked = set(ids)
        found: dict[str, FeedbackStatus] = {}
        deadline = time.monotonic() + timeout_s
        name = self._connection.topics.name("feedback.status")
        with LogReader(self._connection.settings.kafka, topics=[name]) as reader:
            while asked - found.keys():
                for record in reader.poll(500, 0.2):
                    status = decode(record, FeedbackStatus)
                    if status.feedback_id in asked and wanted(status):
                        found.setdefault(status.feedback_id, status)
                if time.monotonic() > deadline:
                    missing = sorted(asked - found.keys())
                    raise Transient(
                        f"{len(missing)} feedbacks have no such status after {timeout_s:g} s, such as {missing[0]}"
                    )
        return found
