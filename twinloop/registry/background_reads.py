"""Blobs for a loop that must not wait for a store: read in a thread, handed out once they are here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from twinloop.errors import Transient


class BackgroundReads:
    """`read` with a bounded wait: `patience_s` for the first call about a digest, none for those after it.

    What failed is read again by the call after the one that was told, without a wait where the store was slow
    before. One calling thread only.
    """

    def __init__(self, read: Callable[[str], bytes], *, patience_s: float = 0.25) -> None:
        self._read, self._patience_s = read, patience_s
        self._begun: dict[str, Future[bytes]] = {}
        self._slow: set[str] = set()
        """Digests somebody has waited for in vain: nobody does again."""

    def __call__(self, digest: str) -> bytes:
        """The blob's bytes; raises what `read` raised, and Transient while it is still being read."""
        begun = self._begun.get(digest)
        done = begun or self._begin(digest)
        try:
            blob = done.result(timeout=0 if begun or digest in self._slow else self._patience_s)
        except FutureTimeout as error:
            self._slow.add(digest)
            raise Transient(f"blob {digest} is still being read from the store") from error
        except Exception:
            del self._begun[digest]
            raise
        del self._begun[digest]
        self._slow.discard(digest)
        return blob

    def _begin(self, digest: str) -> Future[bytes]:
        done: Future[bytes] = Future()
        self._begun[digest] = done

        def read() -> None:
            try:
                done.set_result(self._read(digest))
            except Exception as error:  # told to whoever asks next
                done.set_exception(error)

        # A daemon: a store that does not answer must not keep a process from ending.
        threading.Thread(target=read, name=f"blob-{digest[:8]}", daemon=True).start()
        return done
