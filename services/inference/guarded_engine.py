"""The answer engine behind circuit breakers, one a release: a failing model costs its own release's users an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from schemas.event import Sha256
from services.inference.answering import AnswerEngine, Asked, failed_batch
from services.inference.core.answers import Produced, failure
from services.inference.core.circuit_breaker import (
    BreakerPolicy,
    Circuit,
    admitted,
    after_call,
    before_call,
    retry_after_s,
)
from services.inference.metrics import InferenceMetrics
from twinloop.errors import TwinLoopError
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)


class GuardedEngine:
    """Answers batches that may mix releases, and stops asking for a release with which the model keeps failing."""

    def __init__(
        self,
        engine: AnswerEngine,
        policy: BreakerPolicy,
        *,
        metrics: InferenceMetrics,
        slot: str,
        monotonic: Callable[[], float],
    ) -> None:
        self._engine, self._policy, self._metrics, self._slot = engine, policy, metrics, slot
        self._monotonic = monotonic
        self._circuits: dict[Sha256, Circuit] = {}
        self._show()

    @property
    def circuits(self) -> Mapping[Sha256, Circuit]:
        """Circuits that are not untroubled, by release."""
        return dict(self._circuits)

    def answer(self, batch: Sequence[Asked]) -> list[Produced]:
        """One result a question, in order; raises NotReady where an adapter is not resident."""
        rows_of: dict[Sha256, list[int]] = {}
        for row, asked in enumerate(batch):
            rows_of.setdefault(asked.release.release_id, []).append(row)
        produced: dict[int, Produced] = {}
        sound: list[int] = []
        for release, rows in rows_of.items():
            circuit = self._put(release, before_call(self._policy, self._circuit(release), self._monotonic()))
            let_in = admitted(self._policy, circuit, len(rows))
            produced |= dict.fromkeys(rows[let_in:], self._refused(release, circuit))
            if circuit.is_untroubled:
                sound += rows
            else:
                # Not among the others: what fails again must not take their answers with it.
                produced |= self._called(batch, rows[:let_in])
        produced |= self._called(batch, sorted(sound))
        return [produced[row] for row in range(len(batch))]

    def keep_only(self, releases: Collection[Sha256]) -> None:
        """Forget the circuits of every other release: nobody asks with it any more, so that no probe could close it."""
        self._circuits = {name: circuit for name, circuit in self._circuits.items() if name in releases}
        self._show()

    def _called(self, batch: Sequence[Asked], rows: Sequence[int]) -> dict[int, Produced]:
        """Results of these rows by one call; where it fails for several releases, by one call for each of them."""
        if not rows:
            return {}
        releases = list(dict.fromkeys(batch[row].release.release_id for row in rows))
        try:
            answers = self._engine.answer([batch[row] for row in rows])
        except TwinLoopError:
            raise
        except Exception as error:
            # Whatever torch and faiss raise for a batch they cannot run; every query is told, the stream goes on.
            if len(releases) > 1:
                parts = [[row for row in rows if batch[row].release.release_id == each] for each in releases]
                return {row: made for part in parts for row, made in self._called(batch, part).items()}
            _log.error(
                "model failed",
                release=releases[0],
                batch=len(rows),
                error=type(error).__name__,
                detail=str(error)[:300],
            )
            answers = failed_batch(len(rows), error)
            self._ended(releases[0], succeeded=False)
        else:
            for release in releases:
                self._ended(release, succeeded=True)
        return dict(zip(rows, answers, strict=True))

    def _refused(self, release: Sha256, circuit: Circuit) -> Produced:
        wait_s = retry_after_s(self._policy, circuit, self._monotonic())
        return failure(
            "unavailable",
            f"the model keeps failing with release {release}; it is tried again in {wait_s:.0f} s, ask again then",
        )

    def _ended(self, release: Sha256, *, succeeded: bool) -> None:
        before = self._circuit(release)
        self._put(release, after_call(self._policy, before, self._monotonic(), succeeded=succeeded))

    def _circuit(self, release: Sha256) -> Circuit:
        return self._circuits.get(release, Circuit())

    def _put(self, release: Sha256, circuit: Circuit) -> Circuit:
        before = self._circuit(release)
        if circuit == before:
            return circuit
        self._circuits[release] = circuit
        if circuit.is_untroubled:
            del self._circuits[release]
        if circuit.state != before.state:
            self._metrics.circuit_transitions.labels(self._slot, circuit.state).inc()
            _log.warning("circuit", release=release, state=circuit.state, failures=circuit.failures)
        self._show()
        return circuit

    def _show(self) -> None:
        self._metrics.show_circuits(self._slot, Counter(each.state for each in self._circuits.values()))
