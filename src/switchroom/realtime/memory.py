"""A live call's conversation, kept in the store: the next attempt goes on where a crash or a stop cut this one off."""

from __future__ import annotations

import logging

import msgspec

from switchroom.engine.events import TurnInput
from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

KEPT_S = 900
"""A caller who comes back later than this begins anew."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """`session` is the conversation as it stood before the turn of `given` began; None: no turn was on its way."""

    session: Session
    given: TurnInput | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Remembered).decode


class CallMemory:
    """One call's. `keep` is cheap; `save` writes the newest, if there is one that was not written yet."""

    def __init__(self, store: Store, flow_id: str, task_id: str) -> None:
        self._store = store
        self._key = keys.call_memory(flow_id, task_id)
        self._newest: bytes | None = None

    def keep(self, session: Session, given: TurnInput | None) -> None:
        self._newest = _encode(Remembered(session=session, given=given))

    async def save(self) -> None:
        """Raises `Unavailable`; then the next `save` tries again."""
        newest = self._newest
        if newest is None:
            return
        await self._store.call("SET", self._key, newest, "EX", KEPT_S)
        if self._newest is newest:
            self._newest = None

    async def recall(self) -> Remembered | None:
        """What an earlier attempt left. A store that is away, or a form that this version cannot read: nothing."""
        try:
            stored = await self._store.call("GET", self._key)
            return _decode(stored) if stored is not None else None
        except (SwitchroomError, msgspec.DecodeError) as error:
            log.warning("an earlier attempt could not be recalled", extra={"error": str(error)})
            return None

    async def forget(self) -> None:
        self._newest = None
        await self._store.call("DEL", self._key)
