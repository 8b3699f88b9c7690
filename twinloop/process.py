"""What every long-running process does around its work: stop on a signal, exit with a meaning."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinloop.errors import ConfigError, Fenced
from twinloop.telemetry.logging import get_logger

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_FENCED = 3


class StopSignal:
    """Set by SIGTERM or SIGINT; the loop that owns it drains and returns."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @classmethod
    def installed(cls) -> StopSignal:
        """Handle this process's signals from now on; main thread only."""
        stop = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        return stop

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep until stopped or `seconds` passed; True where stopped."""
        return self._event.wait(seconds)


@contextmanager
def unwound_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block as Ctrl-C does, so that what it opened is closed; main thread only.

    Raises SystemExit with 128 + 15, the status a shell gives a process that this signal ended.
    """

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main_guard(service: str, run: Callable[[], None]) -> int:
    """Run a service to its end and map how it ended to an exit status; a supervisor restarts 1 and 3, never 2."""
    log = get_logger(service)
    try:
        run()
    except ConfigError as error:
        print(f"{service}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except Fenced as error:
        log.error("fenced", reason=str(error))
        return EXIT_FENCED
    except Exception:
        log.exception("failed")
        return EXIT_FAILED
    return EXIT_OK


def config_arguments(arguments: list[str], default: Path) -> list[Path]:
    """The files named by `--config FILE` (repeatable), or the default; raises ConfigError on anything else."""
    paths: list[Path] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--config="):
            paths.append(Path(argument.removeprefix("--config=")))
        elif argument == "--config" and (value := next(rest, None)) is not None:
            paths.append(Path(value))
        else:
            raise ConfigError(f"unexpected argument {argument!r}; usage: [--config FILE]...")
    return paths or [default]
