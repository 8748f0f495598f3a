"""What the turn under way of a live call has done: each finished node, and each side effect inside of one, under the
holder's number (`memory.py`). The next attempt walks the turn again from it, so that no tool is called twice.

A node that reaches nothing outside costs the caller no wait: it may be run again, so its write is not waited for. What
changes something outside is kept before the turn goes on. A store that is away costs this, and not the call: the turn
goes on unkept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from switchroom.engine.journal import Entry, WrittenJournal
from switchroom.engine.session import Session
from switchroom.errors import Conflict, SwitchroomError
from switchroom.store import Script, Store

log = logging.getLogger(__name__)

KEPT_S = 900
"""A caller who comes back later than this begins anew."""
_WRITE_S = 1.0
"""The caller waits for a write: a slow store is a store that is away."""
_INSIDE = frozenset(
    "start agent condition conditionAgent loop directReply retriever humanInput loadRealtimeAgent".split()  # noqa: SIM905
)
"""Kinds of nodes whose work stays here, or is kept call by call (an Agent's tools, by `once`)."""

_BEGIN = Script("""
-- KEYS: memory, turn. ARGV: holder, conversation before the turn, seconds to keep it, then the turn's fields.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'v', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
""")

_WRITE = Script("""
-- KEYS: memory, turn. ARGV: holder, turn's ID, seconds to keep it, then fields and values.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
if redis.call('HGET', KEYS[2], 'id') ~= ARGV[2] then return 1 end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
""")

_encode = msgspec.json.Encoder().encode
_session = msgspec.json.Decoder(Session).decode


class CallJournal(WrittenJournal):
    """One turn's. `before` gives the conversation as it stood before it, to be kept in the same write."""

    def __init__(self, store: Store, places: list[str], holder: int, run_id: str, before: Callable[[], bytes]) -> None:
        super().__init__(run_id)
        self._store = store
        self._places = places
        self._holder = holder
        self._before = before
        self._writing: list[asyncio.Task[None]] = []
        """Writes that nobody has waited for."""

    def go_on(self, fields: Mapping[str, bytes], session: Session) -> None:
        """An earlier attempt did this much of the turn; `session` becomes as it left it. Raises `msgspec.DecodeError`
        for what another version wrote."""
        stood = _session(fields["session"])
        stood.loops = msgspec.json.decode(fields["loops"], type=dict[str, int])  # they are counted again on the walk
        for name in stood.__struct_fields__:
            setattr(session, name, getattr(stood, name))
        self._resume(fields)

    async def begin(self, session: Session) -> None:
        fields = ("id", self.run_id, "session", _encode(session), "loops", _encode(session.loops))
        self._later(_BEGIN, self._before(), *fields)

    async def commit(self, key: str, entry: Entry, session: Session) -> None:
        if entry.event.node_kind in _INSIDE:
            self._later(_WRITE, self.run_id, *self._step(key, entry, session))
        else:
            await super().commit(key, entry, session)

    async def _keep(self, *fields: str | bytes) -> None:
        await self._settle()
        await self._write(_WRITE, self.run_id, *fields)

    def _later(self, script: Script, about: str | bytes, *fields: str | bytes) -> None:
        """Writes go out in the order in which they were begun."""
        task = asyncio.get_running_loop().create_task(self._write(script, about, *fields), name="call-journal")
        task.add_done_callback(_seen)
        self._writing.append(task)

    async def _settle(self) -> None:
        """Raises `Conflict` where the call was lost meanwhile."""
        writing, self._writing = self._writing, []
        for task in writing:
            await task

    async def _write(self, script: Script, about: str | bytes, *fields: str | bytes) -> None:
        try:
            async with asyncio.timeout(_WRITE_S):
                ours = await self._store.run(script, keys=self._places, args=[self._holder, about, KEPT_S, *fields])
        except (SwitchroomError, TimeoutError) as error:
            log.warning("what a turn did was not kept", extra={"error": str(error)})
            return
        if not ours:
            raise Conflict("A later hold has the call.", code="run_lost")


def _seen(task: asyncio.Task[None]) -> None:
    """Nobody may ask what became of a turn's last write: it says itself what went wrong."""
    if not task.cancelled():
        task.exception()
