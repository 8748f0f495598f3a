"""When a message is tried again: the schedule of Standard Webhooks, with jitter, and what the receiver asks for."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

DELAYS_S = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each try, counted from the one before."""
JITTER = 0.1
"""A delay is spread by so much of itself to either side: receivers that came back are not met by a wall."""
MOST_ASKED_S = 86_400


def next_delay_s(tries: int, asked_s: float = 0.0) -> float | None:
    """Seconds until the next try after `tries` of them, or None where there is none. A receiver's `asked_s`
    (`Retry-After`) makes it longer, never shorter."""
    if tries >= len(DELAYS_S):
        return None
    spread = DELAYS_S[tries] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(spread, min(asked_s, MOST_ASKED_S))


def asked_s(headers: Mapping[str, str]) -> float:
    """What `Retry-After` asks for: seconds or a date (RFC 9110 §10.2.3); 0 without one that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
