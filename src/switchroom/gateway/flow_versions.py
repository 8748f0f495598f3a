"""What a flow was at each save, by the hash of what runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from switchroom.gateway.chat_rows import put_row
from switchroom.gateway.services import Services

if TYPE_CHECKING:
    from switchroom.engine import Flow

MAX_VERSIONS = 50
_KEPT_MS = 3_650 * 24 * 3_600_000


class Stored(msgspec.Struct, kw_only=True):
    """What a version keeps: a save under the same hash (boxes moved, nothing else) replaces it."""

    hash: str
    name: str
    kind: Literal["realtime", "text"]
    canvas: dict[str, Any]
    saved_ms: int


async def keep_version(parts: Services, flow: Flow) -> None:
    """Remembers what was saved; the oldest go beyond `MAX_VERSIONS`."""
    saved_ms = time.time_ns() // 1_000_000
    row = Stored(hash=flow.hash, name=flow.name, kind=flow.kind, canvas=flow.canvas, saved_ms=saved_ms)
    await put_row(parts, flow.id, "versions", flow.hash, row, most=MAX_VERSIONS, kept_ms=_KEPT_MS)
