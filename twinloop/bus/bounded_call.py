"""Calls that may hang in C, bounded from outside.

librdkafka's `send_offsets_to_transaction` can ignore its own time-out for ever when the group coordinator went away
(librdkafka issues 5456 and 5511, open as of 2.16.0; seen here after a broker restart).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class BoundedCaller:
    """Runs calls, one at a time, on a daemon thread; a call that does not return is left behind with its thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call] | None = None

    def run(self, function: Callable[[], None], timeout_s: float) -> None:
        """Returns or raises as `function` does; raises TimeoutError where it takes longer than `timeout_s`."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="bounded-calls", daemon=True).start()
        call = _Call(function)
        self._calls.put(call)
        if not call.is_done.wait(timeout_s):
            # Whenever that call returns, its thread ends; the next call gets a new one.
            self.close()
            raise TimeoutError
        if call.error is not None:
            raise call.error

    def close(self) -> None:
        """Ends the thread once it is free."""
        if self._calls is not None:
            self._calls.put(_Call(None))
            self._calls = None


class _Call:
    def __init__(self, function: Callable[[], None] | None) -> None:
        self.function = function
        self.is_done = threading.Event()
        self.error: BaseException | None = None


def _serve(calls: queue.SimpleQueue[_Call]) -> None:
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
