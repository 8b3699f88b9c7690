"""Calls that may hang in C, bounded from outside.

librdkafka's `send_offsets_to_transaction` can ignore its own time-out for ever when the group coordinator went away
(librdkafka issues 5456 and 5511, open as of 2.16.0; seen here after a broker restart).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class StartedCall:
    """A call on its way."""

    def __init__(self, function: Callable[[], None] | None) -> None:
        self.function = function
        self.is_done = threading.Event()
        self.error: BaseException | None = None

    def finish(self, timeout_s: float | None = None) -> None:
        """Waits for it; returns or raises as the function does, TimeoutError where it takes longer."""
        if not self.is_done.wait(timeout_s):
            raise TimeoutError
        if self.error is not None:
            raise self.error


class BoundedCaller:
    """Runs calls, one at a time, on a daemon thread; a call that does not return is left behind with its thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[StartedCall] | None = None

    def start(self, function: Callable[[], None]) -> StartedCall:
        """Hands the function to the thread."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="bounded-calls", daemon=True).start()
        call = StartedCall(function)
        self._calls.put(call)
        return call

    def run(self, function: Callable[[], None], timeout_s: float) -> None:
        """Returns or raises as `function` does; raises TimeoutError where it takes longer than `timeout_s`."""
        call = self.start(function)
        try:
            call.finish(timeout_s)
        except TimeoutError:
            # Whenever that call returns, its thread ends; the next call gets a new one.
            if not call.is_done.is_set():
                self.close()
            raise

    def close(self) -> None:
        """Ends the thread once it is free."""
        if self._calls is not None:
            self._calls.put(StartedCall(None))
            self._calls = None


def _serve(calls: queue.SimpleQueue[StartedCall]) -> None:
    while True:
        call = calls.get()
        if call.function is None:
            return
        try:
            call.function()
        except BaseException as error:  # handed to the caller, whatever it is
            call.error = error
        finally:
            call.is_done.set()
