"""Pictures and sounds of a conversation's earlier turns, kept beside its session for the later ones.

Beside it and not in it: a session is written whole after each node.
"""

from __future__ import annotations

import asyncio
import uuid

import msgspec

from switchroom.engine.events import Media
from switchroom.engine.session import Session
from switchroom.store import Store, keys

__all__ = ["Album"]

_MOST = 8
"""The newest so many of a conversation."""
_MOST_CHARS = 4 << 20
"""Of one, as base64: a larger one is there for its own turn only."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Media).decode


class Album:
    """Of the text conversations of one flow; what is in it lives `kept_s` after it was last kept or recalled."""

    def __init__(self, store: Store, flow_id: str, kept_s: int) -> None:
        self._store = store
        self._flow_id = flow_id
        self._kept_s = kept_s

    async def keep(self, session: Session, media: list[Media]) -> None:
        """What came with the session's last message."""
        kept = {uuid.uuid4().hex: one for one in media if len(one.data) <= _MOST_CHARS}
        if not kept:
            return
        session.messages[-1].media = list(kept)
        known = [(message, name) for message in session.messages for name in message.media]
        dropped = known[:-_MOST]
        for message, name in dropped:
            message.media.remove(name)
        place = keys.session_media(self._flow_id, session.session_id)
        rows = [part for name, one in kept.items() for part in (name, _encode(one))]
        wanted = [self._store.call("HSET", place, *rows), self._store.call("EXPIRE", place, self._kept_s)]
        if dropped:
            wanted.append(self._store.call("HDEL", place, *(name for _, name in dropped)))
        await asyncio.gather(*wanted)

    async def recall(self, session_id: str, names: list[str]) -> list[Media]:
        """Those of the names that are still there, in order."""
        place = keys.session_media(self._flow_id, session_id)
        found, _ = await asyncio.gather(
            self._store.call("HMGET", place, *names), self._store.call("EXPIRE", place, self._kept_s)
        )
        return [_decode(one) for one in found if one is not None]
