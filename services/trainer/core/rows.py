"""One correction on its way from feedback to an adapter, and the same row as the replay buffer keeps it."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from schemas.event import Domain, Frozen
from schemas.feedback import Feedback

_PUNCTUATION = re.compile(r"[^\w\[\]%$€.,-]+")
_LOOSE_ENDS = re.compile(r"[.,-]+(?=\s|$)")


class LogOrder(NamedTuple):
    """Where a record stands in its log: a total order that does not depend on who read what first."""

    timestamp_ms: int
    partition: int
    offset: int


class PendingRow(Frozen):
    """An accepted correction with what its receipt says about the answer it corrects."""

    feedback: Feedback
    domain: Domain
    release: str
    """The release whose answer is corrected."""
    is_imported: bool
    """An operator vouched for it with an import receipt."""
    logged: tuple[int, int, int]
    """Timestamp, partition and offset of its record."""

    @property
    def id(self) -> str:
        return self.feedback.id

    @property
    def rater(self) -> str:
        return self.feedback.rater

    @property
    def question(self) -> str:
        return self.feedback.question

    @property
    def answer(self) -> str:
        """The correction; a row without one is never made."""
        return self.feedback.correction or ""

    @property
    def order(self) -> LogOrder:
        return LogOrder(*self.logged)

    @property
    def question_key(self) -> str:
        """Equal for questions that differ in case, blanks or closing punctuation alone."""
        return f"{self.domain} {text_key(self.question)}"

    @property
    def answer_key(self) -> str:
        return f"{self.domain} {text_key(self.answer)}"


class ReplayRow(Frozen):
    """A row that a promoted release was trained on, kept so that later training does not forget it."""

    id: str
    domain: Domain
    question: str
    answer: str
    passage: str | None = None
    rater: str
    weight: float = 1.0
    """How much a prioritised buffer wants to keep it."""
    update: str | None = None
    """The release that taught it; None in buffers written before it was kept."""

    @property
    def size(self) -> int:
        """Bytes of its texts, as the buffer's bound counts them."""
        return len((self.question + self.answer + (self.passage or "")).encode())

    @property
    def question_key(self) -> str:
        return f"{self.domain} {text_key(self.question)}"

    @property
    def answer_key(self) -> str:
        return f"{self.domain} {text_key(self.answer)}"


def text_key(text: str) -> str:
    """NFKC, lower case, single blanks, no loose punctuation: equal keys mean the same text said again."""
    plain = _PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_LOOSE_ENDS.sub(" ", plain).split())


def replay_weight(feedback: Feedback) -> float:
    """What users hit as wrong weighs more than what they merely refined."""
    return 1.0 + (feedback.rating == "down") + (feedback.citation_flag is not None)
