"""The project's error tree: each class says what the stream that meets it does next.

TwinLoopError
├── InvalidEvent      the record can never be processed: dead-letter it and go on
├── Transient         the same attempt may succeed later: retry, commit nothing
├── NotReady          something needed is still being prepared: pause and come back
├── StaleEpoch        the routing state moved meanwhile: read it again and decide again
├── CommandRefused    an order is unsigned, replayed, expired or not allowed: log it and do nothing
├── SignatureError    bytes do not carry a valid signature of a known key: refuse them
├── ArtifactError     a stored blob or manifest is missing or is not what its digest says: refuse it
├── Fenced            another process took over this identity: stop, commit nothing
└── ConfigError       settings are unreadable, unknown or contradictory: do not start
"""

from __future__ import annotations


class TwinLoopError(Exception):
    """Base of every error this project raises on purpose."""


class InvalidEvent(TwinLoopError):
    """The record cannot be processed by any retry; it goes to the dead letters with this reason."""


class Transient(TwinLoopError):
    """An edge did not answer this time; nothing was committed and the same attempt may be made again."""


class Fenced(TwinLoopError):
    """Another process took over this transactional identity: stop at once, commit nothing."""


class NotReady(TwinLoopError):
    """A release, an index or a peer is still being prepared; pause the partition and come back."""


class StaleEpoch(TwinLoopError):
    """The routing state changed under a decision; read it again and decide again."""


class CommandRefused(TwinLoopError):
    """A command is unsigned, replayed, expired or beyond its actor's role."""


class SignatureError(TwinLoopError):
    """Bytes carry no valid signature of a key in the configured key file."""


class ArtifactError(TwinLoopError):
    """A blob or manifest is missing, or its bytes are not what its digest promises."""


class ConfigError(TwinLoopError):
    """Settings cannot be used; the message names the file, the key and the mend."""
