"""IDs that the hot paths make: UUIDs of version 4, without the object in between (a third of the time)."""

from __future__ import annotations

import os

_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def new_uuid() -> str:
    """A random UUID (RFC 9562 §5.4) in its usual spelling."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
