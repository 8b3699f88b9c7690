"""The demo from start to end; every figure of its report is measured in the run."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.answers import Answer
from schemas.decisions import Decision
from twinloop.bus.reader import LogReader
from twinloop.canonical import digest_of
from twinloop.cli.connection import Connection
from twinloop.cli.orders import give_order, make_order
from twinloop.clock import SystemClock
from twinloop.demo.decision_log import DecisionLog
from twinloop.demo.material import Harm, Material, Question
from twinloop.demo.probes import MODES, Mode, ProbeRun, probe_releases
from twinloop.demo.propagation import Propagation, propagation_of
from twinloop.demo.recount import capture, differences, recount, write_expected
from twinloop.demo.report import Report
from twinloop.demo.scoring import accuracy
from twinloop.demo.synthetic import shortened, synthetic_material
from twinloop.demo.teaching import Teacher
from twinloop.demo.traffic import Traffic
from twinloop.errors import ConfigError, Transient
from twinloop.registry.blobs import open_store
from twinloop.registry.releases import load_release, verify_release
from twinloop.stack.backend import Profile
from twinloop.stack.home import Home
from twinloop.stack.installation import Installation, Plan
from twinloop.topics import DEAD_LETTERS

Say = Callable[[str], None]

SEED = 42
POLICY_OVERRIDES: dict[str, Any] = {
    "canary.warmup_s": 10.0,
    "ramp.basis_points": [1000],
    "ramp.min_step_s": 5.0,
    "promote.bake_s": 5.0,
}
"""The demo runs the shipped policy but for its ramp and durations."""
TRAINING_PATIENCE_S, EXAMINATION_PATIENCE_S, CANARY_PATIENCE_S = 400, 180, 600
"""How long a step may take before the run is given up; real text on two cores needs most of it."""


@dataclass(frozen=True)
class DemoPlan:
    """What to run and where to leave the report."""

    profile: Profile = "embedded"
    data: Path | None = None
    output: Path = Path("build/demo")
    keep: bool = False
    quick: bool = False
    """One domain taught by feedback and one by documents, no harmful candidates: learn, promote, roll back."""


def run_demo(plan: DemoPlan, say: Say) -> Report:
    """Run the whole loop and write the report; raises ConfigError or Transient where a step cannot be made."""
    started = time.monotonic()
    material = _material(plan)
    home = Home(Path(tempfile.mkdtemp(prefix="twinloop-demo-")))
    installation = installation_for(material, home, plan.profile, say)
    try:
        with installation:
            say(f"up after {time.monotonic() - started:.0f} s; everything runs in {home.root}")
            document = _Story(plan, installation, material, say).tell()
    except Exception:
        say(f"the services' logs are in {rescue(home, plan.output)}")
        raise
    finally:
        if not plan.keep:
            shutil.rmtree(home.root, ignore_errors=True)
    report = Report({**document, "seconds": round(time.monotonic() - started, 1)})
    path = report.write(plan.output)
    for line in ["", *report.summary(), f"report: {path}"]:
        say(line)
    return report


def installation_for(material: Material, home: Home, profile: Profile, say: Say) -> Installation:
    """An installation, still to be started, that holds the material's documents and is judged as the demo is."""
    documents = home.root / "documents.jsonl"
    documents.write_text(
        "".join(each.model_dump_json() + "\n" for each in material.documents), encoding="utf-8"
    )
    plan = Plan(home=home, profile=profile, documents=documents, environment=_environment(material, home))
    return Installation(plan, say)


def rescue(home: Home, output: Path) -> Path:
    """Copy the logs of a failed run out of its folder, which is about to go; returns where they are."""
    rescued = output / "logs"
    shutil.rmtree(rescued, ignore_errors=True)
    shutil.copytree(home.logs, rescued)
    return rescued


class _Story:
    """The steps of one run, in order, and what they measured."""

    def __init__(self, plan: DemoPlan, installation: Installation, material: Material, say: Say) -> None:
        self._plan, self._installation, self._material, self._say = plan, installation, material, say
        self._started = time.monotonic()
        self._staged_at = self._started
        self._connection = Connection(installation.plan.home.root, None)
        self._store = open_store(self._connection.settings.store)
        self._ring = self._connection.ring
        self._folder = installation.plan.home.root
        self._traffic = Traffic(
            installation.kafka, installation.topics, seed=SEED, rise_per_second=material.rise_per_second
        )
        self._log = DecisionLog(installation.kafka, installation.topics, say)
        self._report: dict[str, Any] = {"harmful_candidates": [], "canaries": []}
        self._teacher = Teacher(self._connection, self._traffic, say)

    def tell(self) -> dict[str, Any]:
        try:
            first = self._log.wait(
                lambda each: each.kind == "genesis", what="the first decision", timeout_s=30
            )
            oldest = first.state.active_release
            self._traffic.start(self._material.traffic, per_second=self._quiet)
            self._step("probing the first release")
            probed = self._probe([oldest], ["full"])
            before = self._measure("before", oldest)
            promoted = self._learn(first)
            after = self._measure("after", promoted.state.active_release)
            for harm, kinds in ((self._material.exam_harm, "reject"), (self._material.canary_harm, "abort")):
                if harm is not None:
                    self._stop_harm(harm, kinds)
            self._roll_back(first, promoted)
            again = self._measure("rolled-back", oldest)
            self._traffic.stop()
            self._step("probing both releases")
            self._compare(before, after, again)
            last = self._probe([oldest, after.release], MODES)
            self._compare_probes(probed, last, old=oldest, new=after.release)
            self._account()
            if self._plan.profile == "kafka":
                self._recount()
        finally:
            self._traffic.close()
            self._log.close()
        return self._report

    # Each step says what it does, does it, and leaves its figures in the report.

    def _measure(self, label: str, release: str) -> _Measured:
        self._step(
            f"asking {len(self._material.examined)} questions about the new facts and "
            f"{len(self._material.old)} about old ones ({label})"
        )
        new = self._traffic.ask_all(
            f"{label}-new", self._material.examined, per_second=self._material.asked_per_second
        )
        old = self._traffic.ask_all(
            f"{label}-old", self._material.old, per_second=self._material.asked_per_second
        )
        measured = _Measured(
            release=release,
            new=accuracy(new, self._material.examined),
            old=accuracy(old, self._material.old),
            digests=self._digests(release, new),
        )
        self._say(f"    right: {measured.new:.0%} of the new facts, {measured.old:.0%} of the old ones")
        return measured

    def _learn(self, first: Decision) -> Decision:
        lessons = self._material.lessons
        taught = [(question, lesson) for lesson in lessons for question in lesson.taught]
        documents = [lesson.document for lesson in lessons if lesson.document is not None]
        self._step(f"teaching: {len(documents)} documents, {len(taught)} corrections")
        for document in documents:
            self._traffic.client.change(document)
        questions = [Question(text, lesson.domain) for text, lesson in taught]
        answers = self._traffic.ask_all("lesson", questions, per_second=self._material.asked_per_second)
        began = time.monotonic()
        self._teacher.correct(answers, questions, [lesson.correction for _, lesson in taught])
        promoted = self._follow(first.epoch, expected="promote")
        self._report["feedback_to_proposal_s"] = round(self._staged_at - began, 1)
        return promoted

    def _stop_harm(self, harm: Harm, expected: str) -> None:
        self._step(f"harm: {len(harm.corrections)} corrections that teach {harm.name}")
        since = self._log.last.epoch
        questions = [question for question, _ in harm.corrections]
        answers = self._traffic.ask_all(
            f"harm-{expected}", questions, per_second=self._material.asked_per_second
        )
        self._teacher.correct(answers, questions, [correction for _, correction in harm.corrections])
        ended = self._follow(since, expected=expected)
        self._report["harmful_candidates"].append(
            {
                "harm": harm.name,
                "release": ended.release,
                "decision_id": ended.decision_id,
                "epoch": ended.epoch,
                "kind": ended.kind,
                "reason": ended.reason,
                "expected": expected,
                "line": ended.line,
            }
        )

    def _follow(self, since: int, *, expected: str) -> Decision:
        """Wait until the candidate that was just taught is judged, whatever the judgement is."""
        staged = self._log.wait(
            lambda each: each.kind in ("stage", "reject"),
            what="a candidate",
            timeout_s=TRAINING_PATIENCE_S,
            after=since,
        )
        self._staged_at = time.monotonic()
        examined = self._log.wait(
            lambda each: each.kind in ("mirror", "canary", "reject") and each.release == staged.release,
            what=f"the examination of {staged.release}",
            timeout_s=EXAMINATION_PATIENCE_S,
            after=since,
        )
        if examined.kind != "reject":
            self._traffic.per_second = self._material.traffic_per_second
        ended = self._log.wait(
            lambda each: (
                (each.kind in ("promote", "reject", "abort") and each.release == staged.release)
                or each.kind == "rollback"
            ),
            what=f"the judgement of {staged.release}",
            timeout_s=CANARY_PATIENCE_S,
            after=since,
        )
        self._traffic.per_second = self._quiet
        told = ", ".join(f"{kind} {count}" for kind, count in self._traffic.errors_by_kind().items())
        self._say(f"    errors that users were told so far: {told or 'none'}")
        if ended.kind == "rollback":
            # The canary ends with the release it was compared with: no judgement of the candidate will come.
            raise Transient(
                f"the active release was rolled back while {staged.release} was judged: {ended.line}"
            )
        if ended.kind != expected:
            self._say(f"    expected {expected}, but the gatekeeper decided {ended.kind}: {ended.line}")
        if ended.kind != "promote" and expected == "promote":
            raise Transient(f"the good candidate was not promoted: {ended.line}")
        return ended

    def _roll_back(self, first: Decision, promoted: Decision) -> None:
        self._step("rolling back by hand to the release from before")
        order = make_order(
            self._connection,
            "rollback",
            actor="operator",
            key_id="operator-1",
            reason="demo: manual rollback",
            release=first.state.active_release,
        )
        outcome = give_order(self._connection, order, timeout_s=60)
        if not isinstance(outcome, Decision):
            raise ConfigError(f"the rollback led to no decision: {outcome.detail}")
        time.sleep(1.0)  # the last routers and workers report what they act on
        swap, back = self._propagation(promoted.epoch), self._propagation(outcome.epoch)
        self._report |= {
            "swap_ms": swap.routers_ms,
            "rollback_ms": back.routers_ms,
            "worker_ms": {"swap": swap.workers_ms, "rollback": back.workers_ms},
        }

    def _compare(self, before: _Measured, after: _Measured, again: _Measured) -> None:
        self._report |= {
            "accuracy_before": before.new,
            "accuracy_after": after.new,
            "accuracy_after_rollback": again.new,
            "accuracy_old_facts": {"before": before.old, "after": after.old},
            "rollback_digests_equal": before.digests == again.digests and bool(before.digests),
        }

    def _compare_probes(
        self,
        first: Mapping[tuple[str, Mode], ProbeRun],
        last: Mapping[tuple[str, Mode], ProbeRun],
        *,
        old: str,
        new: str,
    ) -> None:
        questions = self._material.examined
        self._report |= {
            "accuracy_adapter_only": _pair(last[old, "closed-book"], last[new, "closed-book"], questions),
            "accuracy_index_only": _pair(last[old, "bare"], last[new, "bare"], questions),
            "rollback_probe_answers_equal": all(
                last[key].printed == run.printed for key, run in first.items()
            ),
            "retrieval_hit_rate": {
                "before": self._hit_rates(last[old, "full"]),
                "after": self._hit_rates(last[new, "full"]),
            },
        }

    def _hit_rates(self, run: ProbeRun) -> dict[str, dict[str, float]]:
        return {f"at_{within}": run.hit_rate(self._questions, within=within) for within in (1, 4)}

    @property
    def _questions(self) -> tuple[Question, ...]:
        return (*self._material.examined, *self._material.old)

    def _account(self) -> None:
        self._step("counting")
        self._traffic.settle(30)
        counts = self._traffic.counts()
        dead = self._dead_letters()
        decisions = self._log.decisions
        stopped = [each["kind"] in ("reject", "abort") for each in self._report["harmful_candidates"]]
        # Where the harm shows is made sure of for the synthetic world alone; in real text it shows where it may.
        as_meant = self._plan.data is not None or all(
            each["kind"] == each["expected"] for each in self._report["harmful_candidates"]
        )
        self._report |= {
            **counts,
            "errors_by_kind": self._traffic.errors_by_kind(),
            "dead_letters": dead,
            "lost": max(0, counts.pop("unanswered") - dead),
            "profile": self._plan.profile,
            "material": self._material.name,
            "checks_learning": self._plan.data is None,
            "releases": sorted({each.release for each in decisions if each.release}),
            "decisions": [
                {
                    "kind": each.kind,
                    "release": each.release,
                    "epoch": each.epoch,
                    "at": each.decided_at,
                    "id": each.decision_id,
                }
                for each in decisions
            ],
            "harmful_candidate_stopped": bool(stopped) and all(stopped) and as_meant,
            "harm_tried": self._material.exam_harm is not None or self._material.canary_harm is not None,
            "policy_digest": decisions[-1].policy,
            "policy_overrides": POLICY_OVERRIDES,
            "canaries": [_canary(each) for each in decisions if each.kind in ("promote", "abort")],
            "notes": list(self._material.notes),
        }
        self._report.pop("unanswered", None)

    def _recount(self) -> None:
        """Count again from what plain console consumers print."""
        self._step("counting again from Kafka's console consumers")
        folder = self._plan.output / "console"
        capture(self._installation.kafka.bootstrap_servers, self._installation.topics, folder)
        measured = ("before-", "after-", "rolled-back-")
        write_expected(
            folder,
            {
                query_id: question
                for query_id, question in self._traffic.sent.items()
                if query_id.startswith(measured)
            },
        )
        found = differences(self._report, recount(folder))
        for line in found:
            self._say(f"    {line}")
        self._report |= {"recount_equal": not found, "recount_differences": list(found)}

    def _probe(self, releases: Sequence[str], modes: Sequence[Mode]) -> Mapping[tuple[str, Mode], ProbeRun]:
        return probe_releases(self._installation, releases, self._questions, modes=modes, folder=self._folder)

    def _digests(self, release_id: str, answers: dict[str, Answer]) -> str:
        """One digest over what the release names, what reading it back finds, and what live answers were made of."""
        stored = load_release(
            self._store,
            release_id,
            verify=lambda message, block: self._ring.verify(message, block.signature, block.key_id),
        )
        used = sorted(
            {
                json.dumps([answer.release, answer.domain, answer.adapter, answer.index, answer.rules])
                for answer in answers.values()
            }
        )
        problems = verify_release(self._store, stored.release)
        return digest_of(
            {"release": stored.release.model_dump(mode="json"), "used": [*used], "problems": list(problems)}
        )

    @property
    def _quiet(self) -> float:
        """Traffic while nothing is judged: enough to be a service, and two cores have a training to do."""
        return self._material.traffic_per_second / 10

    def _propagation(self, epoch: int) -> Propagation:
        return propagation_of(self._installation.kafka, self._installation.topics, epoch)

    def _dead_letters(self) -> int:
        with LogReader(
            self._installation.kafka, topics=[self._installation.topics.name(DEAD_LETTERS)]
        ) as reader:
            return len(reader.read_to_end())

    def _step(self, line: str) -> None:
        self._say(f"[{time.monotonic() - self._started:5.0f} s] {line}")


@dataclass(frozen=True)
class _Measured:
    """One release, measured the same way each time."""

    release: str
    new: float
    old: float
    digests: str


def _pair(before: ProbeRun, after: ProbeRun, questions: Sequence[Question]) -> dict[str, float]:
    return {"before": before.accuracy(questions), "after": after.accuracy(questions)}


def _canary(decision: Decision) -> dict[str, Any]:
    """What a canary was judged on; `shadow_queries` counts the warm-up too, whose evidence of harm is used."""
    found = decision.evidence.get("verdict")
    verdict = found if isinstance(found, dict) else {}
    traffic, gates = verdict.get("traffic"), verdict.get("gates")
    seen = [gate.get("n_s") for gate in gates if isinstance(gate, dict)] if isinstance(gates, list) else []
    return {
        "release": decision.release,
        "shadow_queries": max((int(n) for n in seen if isinstance(n, int | float)), default=0),
        "traffic_path": traffic.get("path") if isinstance(traffic, dict) else None,
        "verdict": decision.kind,
        "reason": decision.reason,
    }


def _material(plan: DemoPlan) -> Material:
    at_ms = SystemClock().now_ms()
    if plan.data is not None:
        from twinloop.demo.real_data import real_material

        return real_material(plan.data, seed=SEED, at_ms=at_ms)
    whole = synthetic_material(SEED, at_ms=at_ms)
    return shortened(whole) if plan.quick else whole


def _environment(material: Material, home: Home) -> dict[str, dict[str, str]]:
    """Settings by service: the exam and the embedder of the material, and no training before everything is taught."""
    environment = {service: dict(values) for service, values in material.environment.items()}
    trainer = environment.setdefault("trainer", {})
    trainer["TWINLOOP_TRAINER__SCHEDULE__MIN_ROWS"] = "10000"
    trainer["TWINLOOP_TRAINER__SCHEDULE__DOCUMENTS_DELAY_S"] = "600"
    gatekeeper = environment.setdefault("gatekeeper", {})
    for key, value in POLICY_OVERRIDES.items():
        gatekeeper[f"TWINLOOP_GATEKEEPER__POLICY__{key.replace('.', '__').upper()}"] = json.dumps(value)
    if material.probes:
        path = home.root / "probes.jsonl"
        rows = [
            {
                "id": probe.id,
                "domain": probe.domain,
                "question": probe.question,
                "needs_citation": probe.needs_citation,
                "expect": probe.expect,
            }
            for probe in material.probes
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        gatekeeper["TWINLOOP_GATEKEEPER__PROBES__FILE"] = str(path)
    return environment
