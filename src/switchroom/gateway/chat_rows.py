"""Rows kept beside a flow (ratings, contact details, its versions): bounded in number and in time."""

from __future__ import annotations

import time
from typing import Literal, TypeVar, get_args

import msgspec

from switchroom.gateway.services import Services
from switchroom.store import Script, keys

MAX_ROWS = 100_000
KEPT_MS = 90 * 24 * 3_600_000
_TRIMMED_AT_ONCE = 100

T = TypeVar("T", bound=msgspec.Struct)
Kind = Literal["feedback", "leads", "versions"]

_PUT = Script("""
-- KEYS: rows, their times. ARGV: ID, row, now in ms, oldest time to keep, most rows, most rows to remove in this call.
if redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1 then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1]) end
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[4], 'LIMIT', 0, ARGV[6])
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if #old == 0 and over > 0 then old = redis.call('ZRANGE', KEYS[2], 0, math.min(over, tonumber(ARGV[6])) - 1) end
for _, id in ipairs(old) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
return #old
""")


async def put_row(
    parts: Services,
    flow_id: str,
    kind: Kind,
    row_id: str,
    row: msgspec.Struct,
    *,
    most: int | None = None,
    kept_ms: int | None = None,
) -> None:
    """Writes a row; the oldest go where there are more than `most` or they are older than `kept_ms`."""
    now = time.time_ns() // 1_000_000
    rows = keys.chat_rows(flow_id, kind)
    oldest = now - (KEPT_MS if kept_ms is None else kept_ms)
    args: list[str | bytes | int | float] = [
        row_id, msgspec.json.encode(row), now, oldest, MAX_ROWS if most is None else most, _TRIMMED_AT_ONCE
    ]  # fmt: skip
    await parts.store.run(_PUT, keys=[rows, rows + ":at"], args=args)


async def delete_rows(parts: Services, flow_id: str) -> None:
    """Everything that is kept beside a flow."""
    rows = [keys.chat_rows(flow_id, kind) for kind in get_args(Kind)]
    await parts.store.call("DEL", *rows, *(name + ":at" for name in rows))


async def one_row(parts: Services, flow_id: str, kind: Kind, row_id: str, shape: type[T]) -> T | None:
    stored = await parts.store.call("HGET", keys.chat_rows(flow_id, kind), row_id)
    return None if stored is None else msgspec.json.decode(stored, type=shape)


async def newest_rows(parts: Services, flow_id: str, kind: Kind, shape: type[T], limit: int) -> list[T]:
    rows = keys.chat_rows(flow_id, kind)
    ids = await parts.store.call("ZRANGE", rows + ":at", 0, limit - 1, "REV")
    stored = await parts.store.call("HMGET", rows, *ids) if ids else []
    return [msgspec.json.decode(row, type=shape) for row in stored if row is not None]
