"""Trickle ICE: the caller's addresses, sent as they are found (RFC 8840; carried by HTTP PATCH as in RFC 9725)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from switchroom.errors import BadInput, Fault

if TYPE_CHECKING:  # the API reads a tag here: only a media process has the media stack in memory
    from aiortc import RTCIceCandidate

MAX_CANDIDATES = 64
_UFRAG = re.compile(r"^a=ice-ufrag:(\S+)\s*$", re.MULTILINE)


class Fragment(NamedTuple):
    """What an `application/trickle-ice-sdpfrag` says."""

    ufrag: str
    """Of the ICE session that it belongs to; "" where it does not say."""
    candidates: tuple[RTCIceCandidate, ...]
    complete: bool
    """No more candidates follow."""


def ice_tag(sdp: str) -> str:
    """What identifies the ICE session of a description: the first user fragment in it, "" without one."""
    found = _UFRAG.search(sdp)
    return found[1] if found else ""


def read_fragment(text: str) -> Fragment:
    """Reads a fragment. Raises `BadInput` naming the line that is no candidate, or when there are too many."""
    from aiortc.sdp import candidate_from_sdp

    ufrag, mid, complete = "", "", False
    index = -1
    candidates: list[RTCIceCandidate] = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, _, value = line.strip().partition(":")
        if name == "a=ice-ufrag":
            ufrag = ufrag or value.strip()
        elif line.startswith("m="):
            index, mid = index + 1, ""
        elif name == "a=mid":
            mid = value.strip()
        elif name == "a=end-of-candidates":
            complete = True
        elif name in ("a=candidate", "candidate"):
            if len(candidates) >= MAX_CANDIDATES:
                raise BadInput(f"more than {MAX_CANDIDATES} candidates", code="bad_sdpfrag")
            try:
                candidate = candidate_from_sdp(value.strip())
            except (ValueError, AssertionError, IndexError):
                fault = Fault("is no ICE candidate", f"/line/{number}")
                raise BadInput(f"line {number} is no ICE candidate", code="bad_sdpfrag", faults=[fault]) from None
            candidate.sdpMid, candidate.sdpMLineIndex = mid or None, max(index, 0)
            if (candidate.protocol or "").lower() == "udp":  # TCP candidates are not spoken here
                candidates.append(candidate)
    return Fragment(ufrag, tuple(candidates), complete)
