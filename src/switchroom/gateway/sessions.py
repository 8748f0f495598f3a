"""Text conversations between their turns: one turn at a time, kept in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from switchroom.engine.session import Session
from switchroom.errors import Conflict
from switchroom.gateway.services import Services
from switchroom.store import Script, keys

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(Session).decode
MAX_MESSAGES = 1_000
"""The newest so many messages of a conversation are kept."""

_MARGIN_S = 10.0
"""The lock outlives the turn's own deadline by this, so that it ends by itself only where its process died."""

_SAVE = Script("""
-- KEYS: lock, session. ARGV: token, session or '', seconds to keep it. The lock ends; nothing is saved without it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3]) end
return 1
""")


@asynccontextmanager
async def held_session(parts: Services, flow_id: str, session_id: str, *, token: str) -> AsyncIterator[Session]:
    """The conversation, for one turn; `token` names the turn. It is saved if the body ends without an error; `Conflict`
    while another turn of it runs."""
    lock, key = keys.session_lock(flow_id, session_id), keys.session(flow_id, session_id)
    lease_ms = int((parts.turn_timeout_s + _MARGIN_S) * 1000)
    if await parts.store.call("SET", lock, token, "NX", "PX", lease_ms) is None:
        raise Conflict("Another turn of this session is running.", code="session_busy", retry_after_s=1)
    saved = b""
    try:
        stored = await parts.store.call("GET", key)
        session = _decode(stored) if stored is not None else Session(session_id=session_id)
        yield session
        if dropped := max(0, len(session.messages) - MAX_MESSAGES):
            del session.messages[:dropped]
            log.info("oldest messages of a session dropped", extra={"flow_id": flow_id, "count": dropped})
        saved = msgspec.json.encode(session)
    finally:
        run = parts.store.run(_SAVE, keys=[lock, key], args=[token, saved, parts.session_ttl_s])
        if not await asyncio.shield(run):
            log.warning("session not saved: its turn outlived its lock", extra={"flow_id": flow_id})
