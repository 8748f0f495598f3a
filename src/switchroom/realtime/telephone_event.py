"""Keys that a caller's client sends in its stream of audio (RFC 4733, `telephone-event`).

aiortc knows nothing of them: here they are put into its answer, and read where our own media path takes packets.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_KEYS = "0123456789*#ABCD"
"""By their event codes (RFC 4733 §3.2)."""
_OFFERED = re.compile(r"^a=rtpmap:(\d{1,3}) telephone-event/(8000|48000)\r?$", re.MULTILINE)
_SECTION = re.compile(r"^m=.*?(?=^m=|\Z)", re.MULTILINE | re.DOTALL)
_SEGMENT = 0xFFFF
"""The longest duration that one packet can tell; a key that is held for longer goes on under another timestamp
(§2.5.1.3)."""


def answered(answer: str, offer: str) -> tuple[str, frozenset[int]]:
    """An answer that also takes the keys that the offer offers, at either clock rate, and their payload types."""
    audio = next((one[0] for one in _SECTION.finditer(offer) if one[0].startswith("m=audio ")), "")
    found = [(int(one[1]), one[2]) for one in _OFFERED.finditer(audio) if int(one[1]) < 128]
    ours = next((one for one in _SECTION.finditer(answer) if one[0].startswith("m=audio ")), None)
    if not found or ours is None:
        return answer, frozenset()
    first, rest = ours[0].split("\r\n", 1)
    types = "".join(f" {payload_type}" for payload_type, _ in found)
    lines = "".join(
        f"a=rtpmap:{payload_type} telephone-event/{rate}\r\na=fmtp:{payload_type} 0-15\r\n"
        for payload_type, rate in found
    )
    section = f"{first}{types}\r\n{rest}{lines}"
    return answer[: ours.start()] + section + answer[ours.end() :], frozenset(one for one, _ in found)


class _Event(NamedTuple):
    timestamp: int
    code: int
    ended: bool


class KeyReader:
    """One stream's. A key comes in many packets, its end three times; each press is told once, with its first."""

    def __init__(self) -> None:
        self._last: _Event | None = None

    def take(self, timestamp: int, marker: bool, payload: bytes) -> str | None:
        """A packet's 32-bit timestamp, marker bit and payload; the key, where a press begins with it."""
        if len(payload) < 4:
            return None
        code, ended = payload[0], bool(payload[1] & 0x80)
        last = self._last
        if last is not None:
            since = (timestamp - last.timestamp) & 0xFFFFFFFF
            if since == 0:
                self._last = last._replace(ended=last.ended or ended)
                return None
            if since >= 1 << 31:
                return None  # late, of a press before
            if not (last.ended or marker) and code == last.code and since <= _SEGMENT:
                self._last = _Event(timestamp, code, ended)
                return None
        self._last = _Event(timestamp, code, ended)
        return _KEYS[code] if code < len(_KEYS) else None
