"""A run in a thread of its own, so that the stream is polled while a child trains."""

from __future__ import annotations

import threading

from schemas.releases import ReleaseProposed
from services.trainer.core.ledger_state import Run
from services.trainer.training_run import Tools, TrainingRun


class BackgroundRun:
    """Starts at once; `result` is there when `is_done`."""

    def __init__(self, tools: Tools, run: Run) -> None:
        self.run = run
        self._training = TrainingRun(tools, run)
        self._cancel = threading.Event()
        self._proposal: ReleaseProposed | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._execute, name=f"run-{run.run_id[:8]}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> ReleaseProposed:
        """The proposal, or the error the run ended with is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._proposal is not None
        return self._proposal

    def stop(self, timeout_s: float) -> None:
        """Cancel and wait; the child is killed."""
        self._cancel.set()
        self._thread.join(timeout_s)

    def _execute(self) -> None:
        try:
            self._proposal = self._training.execute(self._cancel)
        except BaseException as error:
            self._error = error
