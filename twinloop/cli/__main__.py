"""Entry point of `twinloop` and `python -m twinloop.cli`."""

from __future__ import annotations

import sys

from twinloop.cli.app import build_app
from twinloop.cli.exit_status import CONFIG, FAILED, REFUSED, UNREACHABLE
from twinloop.errors import CommandRefused, ConfigError, Transient, TwinLoopError


def main() -> None:
    """Run the command line and map the project's errors to exit statuses, one clear line each."""
    try:
        build_app()()
    except ConfigError as error:
        _end(error, CONFIG)
    except Transient as error:
        _end(error, UNREACHABLE)
    except CommandRefused as error:
        _end(error, REFUSED)
    except TwinLoopError as error:
        _end(error, FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _end(error: TwinLoopError, status: int) -> None:
    print(f"twinloop: {error}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
