"""A live call's conversation, kept in the store: the next attempt goes on where a crash or a stop cut this one off."""

from __future__ import annotations

import logging

import msgspec
from redis.exceptions import ResponseError

from switchroom.engine.events import TurnInput
from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError
from switchroom.store import Script, Store, keys

log = logging.getLogger(__name__)

KEPT_S = 900
"""A caller who comes back later than this begins anew."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """`session` is the conversation as it stood before the turn of `given` began; None: no turn was on its way."""

    session: Session
    given: TurnInput | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Remembered).decode


_SAVE = Script("""
-- KEYS: memory. ARGV: fencing token, value, seconds to keep it. Who lost the call to a later hold changes nothing.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'v', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
""")

_FORGET = Script("""
-- KEYS: memory. ARGV: fencing token.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
""")


class CallMemory:
    """One hold's, by its fencing token. `keep` is cheap; `save` writes the newest, unless that was written already."""

    def __init__(self, store: Store, flow_id: str, task_id: str, token: int) -> None:
        self._store = store
        self._key = keys.call_memory(flow_id, task_id)
        self._token = token
        self._newest: bytes | None = None

    def keep(self, session: Session, given: TurnInput | None) -> None:
        self._newest = _encode(Remembered(session=session, given=given))

    async def save(self) -> None:
        """Raises `Unavailable`; then the next `save` tries again."""
        newest = self._newest
        if newest is None:
            return
        if not await self._store.run(_SAVE, keys=[self._key], args=[self._token, newest, KEPT_S]):
            log.info("a later hold has the call: its conversation stays")
        if self._newest is newest:
            self._newest = None

    async def recall(self) -> Remembered | None:
        """What an earlier attempt left. A store that is away, or a form that this version cannot read: nothing."""
        try:
            stored = await self._store.call("HGET", self._key, "v")
            return _decode(stored) if stored is not None else None
        except (SwitchroomError, ResponseError, msgspec.DecodeError) as error:
            log.warning("an earlier attempt could not be recalled", extra={"error": str(error)})
            return None

    async def forget(self) -> None:
        self._newest = None
        await self._store.run(_FORGET, keys=[self._key], args=[self._token])
