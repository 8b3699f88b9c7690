"""The token file, read again when it changes, so that a withdrawn token is refused at once."""

from __future__ import annotations

from pathlib import Path

from twinloop.api_tokens import TokenBook, TokenEntry, read_tokens
from twinloop.errors import ConfigError
from twinloop.telemetry.logging import get_logger

_log = get_logger(__name__)


class TokenFile:
    """Looks at the file's identity, size and time of change before each use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._book = TokenBook(())

    def holder(self, token: str) -> TokenEntry | None:
        """Whose token this is; raises ConfigError where the file cannot be used."""
        return self.book().holder(token)

    def still_holds(self, entry: TokenEntry) -> bool:
        """Whether this very entry still stands in the file; nobody holds anything where it cannot be used."""
        try:
            return entry in self.book().entries
        except ConfigError as error:
            _log.error("token_file_unusable", reason=str(error))
            return False

    def book(self) -> TokenBook:
        seen = self._look()
        if seen is None or seen != self._seen:
            # A file that cannot be read leaves nobody allowed: the earlier book is forgotten first.
            self._book, self._seen = TokenBook(()), None
            self._book = read_tokens(self.path)
            self._seen = seen
        return self._book

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
