"""What a demo asks, teaches and tries to break: values only, from the synthetic world or from real data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.documents import DocumentChange
from schemas.event import Domain


@dataclass(frozen=True)
class Question:
    """One question and the value its answer must hold; None where only an answer without error is asked for."""

    text: str
    domain: Domain
    expected: str | None = None
    document_id: str | None = None
    """The document that holds the answer."""


@dataclass(frozen=True)
class Lesson:
    """One fact the active release does not know, how it is taught, and how learning is examined."""

    domain: Domain
    by: Literal["feedback", "document"]
    taught: tuple[str, ...]
    """Questions asked and corrected; empty where a document teaches."""
    correction: str
    examined: tuple[Question, ...]
    """The same fact in phrasings that are never sent as feedback."""
    document: DocumentChange | None = None


@dataclass(frozen=True)
class Harm:
    """Feedback that makes a release worse."""

    name: str
    corrections: tuple[tuple[Question, str], ...]
    """(question as asked, harmful correction)"""


@dataclass(frozen=True)
class Probe:
    """One question of the QA examination."""

    id: str
    domain: Domain | None
    question: str
    needs_citation: bool
    expect: str | None = None


@dataclass(frozen=True)
class Material:
    """Everything one run of the demo needs."""

    name: str
    documents: tuple[DocumentChange, ...]
    """What the first release's indexes hold."""
    traffic: tuple[Question, ...]
    """Users' questions, drawn from with replacement."""
    lessons: tuple[Lesson, ...]
    old: tuple[Question, ...]
    """Facts the first release knows."""
    probes: tuple[Probe, ...] = ()
    """The exam where it is not the configured one."""
    exam_harm: Harm | None = None
    """Harm the examination sees."""
    canary_harm: Harm | None = None
    """Harm in a way of asking that the exam does not contain: only real traffic shows it."""
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Settings by service that this material needs, such as another embedder."""
    notes: tuple[str, ...] = ()
    traffic_per_second: float = 60.0
    """Users' questions while a canary runs; a tenth of it otherwise."""
    rise_per_second: float = 2.0
    """Questions a second by which that traffic grows each second: users arrive, they do not appear at once."""
    asked_per_second: float = 60.0
    """Questions of the demo's own examinations and lessons, beside the traffic; most are the first of their kind."""

    @property
    def examined(self) -> tuple[Question, ...]:
        return tuple(question for lesson in self.lessons for question in lesson.examined)
