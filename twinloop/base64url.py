"""base64url without padding (RFC 7515, appendix C), with exactly one spelling for any bytes."""

from __future__ import annotations

import base64


def to_base64url(data: bytes) -> str:
    """Spell bytes in the URL-safe alphabet, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """Read what `to_base64url` wrote; raises ValueError for anything else.

    The last character of most lengths has bits that decode to nothing. RFC 4648 (section 3.5) lets a decoder refuse
    them when set, and for signed text it must: else one signature has several spellings that all verify.
    """
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if to_base64url(data) != text:
        raise ValueError("not the canonical base64url of any bytes")
    return data
