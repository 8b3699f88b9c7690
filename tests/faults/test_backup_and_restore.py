"""The life of an installation: taught, promoted, backed up while it runs, wiped, restored elsewhere, rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.answers import Answer
from schemas.feedback import FeedbackStatus
from schemas.releases import ReleaseProposed
from services.trainer.checkpoint import read_checkpoint
from services.trainer.settings import TrainerSettings
from tests.fixtures.brokers import skip_or_fail
from tests.fixtures.live_system import wait_until
from twinloop.bus.reader import LogReader
from twinloop.client.client import Client
from twinloop.codec import decode
from twinloop.demo.material import Lesson
from twinloop.demo.synthetic import synthetic_material
from twinloop.kafka_jars.jars import OLDEST_JAVA, find_java
from twinloop.registry.blobs import open_store
from twinloop.settings_loader import load_settings
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.alone, pytest.mark.faults]

STARTER = Path("configs/starter/documents.jsonl")
ENVIRONMENT = {
    "gatekeeper": {"TWINLOOP_GATEKEEPER__POLICY__PROMOTE__FORCE_APPROVERS": "1"},
    "trainer": {"TWINLOOP_TRAINER__SCHEDULE__MIN_ROWS": "500"},
}
"""One approver may promote past the gates, and only an order trains: what is proved here is the way back."""


class Life:
    """One running installation and what people do with it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.home = installation.plan.home

    def twinloop(self, *arguments: str) -> str:
        return twinloop(*arguments, "--home", str(self.home.root))

    def decisions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.twinloop("history", "--json").splitlines()]

    def active(self) -> str:
        state = self.decisions()[-1]["state"]
        return str(state["releases"][state["active"]])

    def answers(self, questions: Sequence[str]) -> list[Answer]:
        """One question after the other, so that no batch differs."""
        with Client(self.installation.kafka, self.installation.topics, name="people") as client:
            return [client.ask(question, deadline_ms=60_000) for question in questions]

    def teach(self, lessons: Sequence[Lesson]) -> list[str]:
        """Every question asked and its answer corrected; the ids of the feedback."""
        given = []
        with Client(self.installation.kafka, self.installation.topics, name="people") as client:
            pairs = [(question, lesson.correction) for lesson in lessons for question in lesson.taught]
            for number, (question, correction) in enumerate(pairs):
                answer = client.ask(question, deadline_ms=60_000)
                given.append(
                    client.rate(
                        answer,
                        question=question,
                        rater=f"rater-{number // 4:03d}",
                        rating="down",
                        correction=correction,
                        feedback_id=f"fb-{number:04d}",
                    ).id
                )
            client.flush(30)
        return given

    def statuses(self) -> dict[str, str]:
        return {each.feedback_id: each.status for each in self._read("feedback.status", FeedbackStatus)}

    def proposals(self) -> list[str]:
        return [each.release_id for each in self._read("releases", ReleaseProposed)]

    def wait_for(self, find: Callable[[], bool], *, seconds: float, what: str) -> None:
        try:
            wait_until(find, seconds=seconds, what=what)
        except AssertionError as error:
            logs = self.home.logs
            ends = {path.name: path.read_text()[-1500:] for path in sorted(logs.glob("*.log"))}
            raise AssertionError(f"{error}; {json.dumps(ends, indent=1)}") from error

    def _read(self, topic: str, event: type[Any]) -> list[Any]:
        with LogReader(self.installation.kafka, topics=[self.installation.topics.name(topic)]) as log:
            return [decode(record, event) for record in log.read_to_end(30)]


def twinloop(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "twinloop.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
    return done.stdout


def texts(answers: Sequence[Answer]) -> list[tuple[str | None, str | None, list[str]]]:
    return [(a.release, a.text, [each.document_id for each in a.citations]) for a in answers]


def up(home: Home) -> Installation:
    return Installation(Plan(home=home, profile="kafka", documents=STARTER, environment=ENVIRONMENT), print)


@pytest.mark.timeout(900)
def test_a_restored_installation_serves_remembers_and_rolls_back_as_the_lost_one(
    tmp_path: Path, counted: Callable[..., None]
) -> None:
    if find_java() is None:
        skip_or_fail("kafka", f"no Java {OLDEST_JAVA} or newer: no Kafka for an installation of its own")
    material = synthetic_material(42, at_ms=time.time_ns() // 1_000_000)
    domain = next(lesson.domain for lesson in material.lessons if lesson.by == "feedback")
    lessons = [each for each in material.lessons if each.by == "feedback" and each.domain == domain]
    probes = [lesson.examined[0].text for lesson in lessons[:6]] + [each.text for each in material.old[:6]]
    copy = tmp_path / "copy"
    with up(Home(tmp_path / "lost")) as lost:
        life = Life(lost)
        oldest, as_the_first = life.active(), texts(life.answers(probes))
        given = life.teach(lessons)
        life.wait_for(
            lambda: set(given) <= set(life.statuses()), seconds=60, what="a status of each feedback"
        )
        life.twinloop("train", "--reason", "now")
        life.wait_for(lambda: bool(life.proposals()), seconds=240, what="a candidate")
        life.wait_for(lambda: promoted(life, oldest), seconds=120, what="the promotion")
        life.wait_for(
            lambda: set(life.statuses().values()) <= {"trained", "rejected"},
            seconds=60,
            what="the feedback's end",
        )
        served, answers = life.active(), texts(life.answers(probes))
        begun = time.monotonic()
        said = json.loads(life.twinloop("backup", str(copy), "--with-private-keys", "--json"))
        backup_s = time.monotonic() - begun
        history, statuses, proposals = life.decisions(), life.statuses(), life.proposals()
    assert said["active_release"] == served != oldest
    shutil.rmtree(tmp_path / "lost")
    place = Home(tmp_path / "restored")
    begun = time.monotonic()
    twinloop("restore", str(copy), "--profile", "kafka", "--home", str(place.root))
    restore_s = time.monotonic() - begun
    with up(place) as restored:
        life = Life(restored)
        found = life.decisions()
        assert found[: len(history)] == history
        assert [each["kind"] for each in found[len(history) :]] == ["restore"]
        assert life.active() == served
        assert texts(life.answers(probes)) == answers
        # What was learnt is not learnt again: not by itself, and not by order.
        life.twinloop("train", "--reason", "anything left?")
        trained = {name for name, status in statuses.items() if status == "trained"}
        life.wait_for(lambda: trained <= known_to_the_trainer(place), seconds=60, what="the trainer's memory")
        time.sleep(8)
        assert life.proposals() == proposals
        assert {name: life.statuses()[name] for name in trained} == dict.fromkeys(trained, "trained")
        life.twinloop("rollback", "--reason", "back to the first")
        life.wait_for(lambda: life.active() == oldest, seconds=90, what="the rollback")
        assert texts(life.answers(probes)) == as_the_first
        store = open_store(load_settings(TrainerSettings, Path("configs/trainer.yaml"), place.profile).store)
        for digest in store.list_blobs():
            store.verify(digest)
        life.twinloop("replay", "--from-log")
    counted(
        decisions=len(history), feedback=len(given), trained=len(trained), backup_s=round(backup_s, 1),
        restore_s=round(restore_s, 1), restored_decisions=[each["kind"] for each in found[len(history) :]],
        blobs=len(store.list_blobs()),
    )  # fmt: skip


def promoted(life: Life, oldest: str) -> bool:
    """Whether the candidate serves; while it is examined, an approver sends it past the gates."""
    if life.active() != oldest:
        return True
    if life.decisions()[-1]["state"]["phase"] in ("qa", "canary"):
        subprocess.run(
            [
                *(sys.executable, "-m", "twinloop.cli", "promote", "--reason", "reviewed"),
                *("--key", "approver-1", "--home", str(life.home.root)),
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )
    return life.active() != oldest


def known_to_the_trainer(home: Home) -> set[str]:
    settings = load_settings(TrainerSettings, Path("configs/trainer.yaml"), home.profile)
    checkpoint = read_checkpoint(settings.checkpoint_file)
    if checkpoint is None:
        return set()
    assert not checkpoint.state.pending
    return set(checkpoint.state.seen)
