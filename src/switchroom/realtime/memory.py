"""A live call's conversation, kept in the store: the next attempt goes on where a crash or a stop cut this one off."""

from __future__ import annotations

import asyncio
import logging
import uuid

import msgspec
from redis.exceptions import ResponseError

from switchroom.engine.events import TurnInput
from switchroom.engine.journal import Journal
from switchroom.engine.session import Session
from switchroom.errors import Conflict, SwitchroomError
from switchroom.realtime.call_journal import KEPT_S, CallJournal
from switchroom.store import Script, Store, keys

log = logging.getLogger(__name__)


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """`session` is the conversation as it stood before the turn of `given` began; None: no turn was on its way.
    `run_id` names the turn, whatever attempt goes on with it."""

    session: Session
    given: TurnInput | None = None
    run_id: str = ""

    @property
    def last_words(self) -> str:
        """What the agent says again where the caller's turn had not begun; empty where somebody else spoke last."""
        messages = self.session.messages
        return messages[-1].text if self.given is None and messages and messages[-1].role == "agent" else ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Remembered).decode


_CONNECTIONS = 1 << 20
"""Holders are told apart by a number: the fencing token times this, and a kiosk's connections counted on from there."""

_SAVE = Script("""
-- KEYS: memory. ARGV: holder, value, seconds to keep it. Who lost the call to a later one changes nothing.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'v', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
""")

_TAKE = Script("""
-- KEYS: memory. ARGV: holder, the next hold's first, seconds to keep it. The number of this hold's next holder.
local of = tonumber(redis.call('HGET', KEYS[1], 't') or 0)
if of >= tonumber(ARGV[2]) then return 0 end
local next = math.max(of, tonumber(ARGV[1])) + 1
redis.call('HSET', KEYS[1], 't', string.format('%.0f', next))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return next
""")

_FORGET = Script("""
-- KEYS: memory, turn. ARGV: holder.
local of = redis.call('HGET', KEYS[1], 't')
if of and tonumber(of) > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
""")


class CallMemory:
    """One holder's, by its fencing token. `keep` is cheap; `save` writes the newest, unless that is written already."""

    def __init__(self, store: Store, flow_id: str, task_id: str, token: int) -> None:
        self._store = store
        self._places = [keys.call_memory(flow_id, task_id), keys.call_turn(flow_id, task_id)]
        self._holder = token * _CONNECTIONS
        self._newest: bytes | None = None
        self._before = b""
        """What was kept last."""
        self._turn: tuple[TurnInput, str] | None = None
        """The turn under way, and its ID."""
        self._did: dict[str, bytes] = {}
        """What an earlier attempt did of it."""

    def keep(self, session: Session, given: TurnInput | None) -> None:
        if given is None:
            self._turn = None
        elif self._turn is None or self._turn[0] is not given:
            self._turn, self._did = (given, str(uuid.uuid4())), {}
        run_id = self._turn[1] if self._turn is not None else ""
        self._newest = self._before = _encode(Remembered(session=session, given=given, run_id=run_id))

    def journal(self, session: Session, given: TurnInput) -> Journal:
        """For the turn of `given`, which was kept just now. Where an earlier attempt began it, `session` becomes as it
        left it, and the turn goes on."""
        if self._turn is None or self._turn[0] is not given:
            return Journal(str(uuid.uuid4()))
        journal = CallJournal(self._store, self._places, self._holder, self._turn[1], lambda: self._before)
        did, self._did = self._did, {}
        if did:
            try:
                journal.go_on(did, session)
            except (msgspec.DecodeError, KeyError) as error:
                log.warning("what an earlier attempt did cannot be read", extra={"error": str(error)})
        return journal

    async def save(self) -> bool:
        """False where somebody later has the call: its conversation stays. Raises `Unavailable`; then the next `save`
        tries again."""
        newest = self._newest
        if newest is None:
            return True
        ours = await self._store.run(_SAVE, keys=self._places[:1], args=[self._holder, newest, KEPT_S])
        if not ours:
            log.info("a later hold has the call: its conversation stays")
        if self._newest is newest:
            self._newest = None
        return bool(ours)

    async def take_over(self) -> Remembered | None:
        """Goes on with a hold that began at another connection, which changes nothing from now on: what it left.
        Raises `Conflict` where a later hold has the call, and `Unavailable`."""
        ends = (self._holder // _CONNECTIONS + 1) * _CONNECTIONS
        holder = await self._store.run(_TAKE, keys=self._places[:1], args=[self._holder, ends, KEPT_S])
        if not holder:
            raise Conflict("A later hold has the call.", code="run_lost")
        self._holder = holder
        return await self.recall()

    async def recall(self) -> Remembered | None:
        """What an earlier attempt left. A store that is away, or a form that this version cannot read: nothing."""
        try:
            stored, did = await asyncio.gather(
                self._store.call("HGET", self._places[0], "v"), self._store.call("HGETALL", self._places[1])
            )
            left = _decode(stored) if stored is not None else None
        except (SwitchroomError, ResponseError, msgspec.DecodeError) as error:
            log.warning("an earlier attempt could not be recalled", extra={"error": str(error)})
            return None
        if left is not None and left.given is not None:
            fields = {name.decode(): value for name, value in zip(did[::2], did[1::2], strict=True)}
            self._turn = (left.given, left.run_id or str(uuid.uuid4()))
            self._did = fields if fields.get("id") == left.run_id.encode() else {}
        return left

    async def forget(self) -> None:
        self._newest = None
        await self._store.run(_FORGET, keys=self._places, args=[self._holder])
