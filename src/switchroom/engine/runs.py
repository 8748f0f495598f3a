"""Runs under way, kept in the store: each finished node with the session as it left it, under a lease. A run whose
process died is taken by another one, which walks it again from its journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from switchroom.compact.model import CompactGraph
from switchroom.engine.album import Album
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.events import Media, TurnInput
from switchroom.engine.journal import WrittenJournal
from switchroom.engine.session import Session
from switchroom.errors import Conflict, SwitchroomError
from switchroom.store import Script, Store, keys

__all__ = ["Given", "Kept", "RunLost", "Runs"]

log = logging.getLogger(__name__)

LEASE_MS = 6_000
_RENEW_S = 2.0

_BEGIN = Script("""
-- KEYS: run, runs. ARGV: run ID, owner, lease ms, given, session.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'takes', 0, 'given', ARGV[4], 'session', ARGV[5])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return 1
""")

_WRITE = Script("""
-- KEYS: run, runs. ARGV: run ID, owner, lease ms, then fields and values. Nothing is written by who lost the lease.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[2] then return 0 end
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
local t = redis.call('TIME')
redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3], ARGV[1])
return 1
""")

_END = Script("""
-- KEYS: run, runs. ARGV: run ID, owner.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
""")

_PARK = Script("""
-- KEYS: run, runs, session. ARGV: run ID, owner, Unix ms, ms that the session is kept.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'parked', 1, 'owner', '', 'takes', 0)
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return 1
""")

_TAKE = Script("""
-- KEYS: run, runs. ARGV: run ID, owner, lease ms. The run's fields, or nothing while somebody holds it.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not ends or tonumber(ends) > now then return {} end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[1]) return {} end
redis.call('HSET', KEYS[1], 'owner', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'takes', 1)
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return redis.call('HGETALL', KEYS[1])
""")


class RunLost(Conflict):
    """Another process has taken this run: whatever is done here now counts no more."""

    code = "run_lost"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a run began with: enough to run it anywhere. `deadline_ms` is when it ends in any case; `kept_s` how long
    the session is kept after it."""

    graph: CompactGraph
    turn: TurnInput
    variables: dict[str, Any] = {}
    runtime: dict[str, Any] = {}
    tools: list[CustomTool] = []
    deadline_ms: int
    kept_s: int
    loops: dict[str, int] = {}
    turn_ms: int = 0
    """How long the turn may take: a run that waited for a time has as long again."""


_encode = msgspec.json.Encoder().encode
_given = msgspec.json.Decoder(Given).decode
_session = msgspec.json.Decoder(Session).decode


class Kept(WrittenJournal):
    """A run's journal in the store. Who begins a run sets `given` first. `takes` counts how often it was taken over;
    `lost` says that somebody else goes on with it, `parked` that it waited for a time which has come."""

    can_park = True

    def __init__(self, store: Store, flow_id: str, run_id: str, owner: str, given: Given | None = None) -> None:
        super().__init__(run_id)
        self.flow_id = flow_id
        self.given = given
        self.session: Session | None = None
        self.takes = 0
        self.lost = False
        self.begun = False
        self.parked = False
        self.session_id = ""
        self._until_ms = 0
        self._store = store
        self._owner = owner
        self._places = [keys.run(flow_id, run_id), keys.runs(flow_id)]

    async def begin(self, session: Session) -> None:
        # Loops are counted while a run is walked, and so again when it is walked again.
        assert self.given is not None
        turn_ms = max(0, self.given.deadline_ms - _now_ms())
        self.given = given = msgspec.structs.replace(self.given, loops=dict(session.loops), turn_ms=turn_ms)
        await self._store.call("SADD", keys.run_flows(), self.flow_id)
        await self._store.run(
            _BEGIN,
            keys=self._places,
            args=[self.run_id, self._owner, LEASE_MS, _encode(given), _encode(session)],
        )
        self.begun = True
        self.session_id = session.session_id

    async def keep_media(self, session: Session, media: list[Media]) -> None:
        await self._album.keep(session, media)

    async def recall(self, session_id: str, names: list[str]) -> list[Media]:
        return await self._album.recall(session_id, names)

    @property
    def _album(self) -> Album:
        assert self.given is not None
        return Album(self._store, self.flow_id, self.given.kept_s)

    async def renew(self) -> None:
        await self._keep()

    def park(self, until_ms: int) -> None:
        self._until_ms = until_ms

    async def park_again(self, until_ms: int) -> None:
        """The run that was taken at its time cannot go on yet."""
        self._until_ms = until_ms
        await self.end()
        self.begun = False

    async def adopt(self, session: Session) -> None:
        """A parked run goes on with the session as it is now, and with time for another turn."""
        assert self.given is not None
        self.session, self.parked = session, False
        session.loops = dict(session.paused.loops) if session.paused else session.loops
        self.given = msgspec.structs.replace(
            self.given, deadline_ms=_now_ms() + self.given.turn_ms, loops=dict(session.loops)
        )
        await self._keep("session", _encode(session), "given", _encode(self.given), "parked", b"")

    async def end(self) -> None:
        """The run is over, or parked."""
        if self._until_ms and self.given is not None and self.session_id:
            places = [*self._places, keys.session(self.flow_id, self.session_id)]
            kept_ms = max(0, self._until_ms - _now_ms()) + self.given.kept_s * 1000
            await self._store.run(_PARK, keys=places, args=[self.run_id, self._owner, self._until_ms, kept_ms])
            return
        await self._store.run(_END, keys=self._places, args=[self.run_id, self._owner])

    def load(self, fields: dict[str, bytes]) -> None:
        """Of a run that was taken."""
        self._resume(fields)
        self.begun = True
        self.takes = int(fields["takes"])
        self.session = _session(fields["session"])
        assert self.given is not None
        self.session_id = self.session.session_id
        self.session.loops = dict(self.given.loops)
        self.parked = fields.get("parked") == b"1"

    async def _keep(self, *fields: str | bytes) -> None:
        args: list[str | bytes | int] = [self.run_id, self._owner, LEASE_MS, *fields]
        if not await self._store.run(_WRITE, keys=self._places, args=args):
            self.lost = True
            raise RunLost("Another process goes on with this run.")


class Runs:
    """The runs of all flows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextlib.asynccontextmanager
    async def keep(self, flow_id: str, run_id: str) -> AsyncIterator[Kept]:
        """The journal for a run of this process: leased while the body runs, forgotten when it ends. Open it around
        whatever saves the session, so that a run is only forgotten when all of it is saved."""
        kept = Kept(self._store, flow_id, run_id, uuid.uuid4().hex)
        async with self._held(kept):
            yield kept

    @contextlib.asynccontextmanager
    async def take(self, flow_id: str, run_id: str) -> AsyncIterator[Kept | None]:
        """The journal of a run that nobody holds; None if somebody does."""
        owner = uuid.uuid4().hex
        places = [keys.run(flow_id, run_id), keys.runs(flow_id)]
        flat = await self._store.run(_TAKE, keys=places, args=[run_id, owner, LEASE_MS])
        if not flat:
            yield None
            return
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        kept = Kept(self._store, flow_id, run_id, owner, _given(fields["given"]))
        kept.load(fields)
        async with self._held(kept):
            yield kept

    @contextlib.asynccontextmanager
    async def _held(self, kept: Kept) -> AsyncIterator[None]:
        task = asyncio.create_task(_renewing(kept), name=f"run lease {kept.run_id}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if kept.begun:
                await asyncio.shield(kept.end())

    async def overdue(self) -> list[tuple[str, str]]:
        """Flow and run of those whose lease has ended."""
        now_ms = _now_ms()
        found: list[tuple[str, str]] = []
        for flow in await self._store.call("SMEMBERS", keys.run_flows()):
            flow_id = flow.decode()
            names = await self._store.call("ZRANGEBYSCORE", keys.runs(flow_id), "-inf", now_ms, "LIMIT", 0, 50)
            found += [(flow_id, name.decode()) for name in names]
        return found


async def _renewing(kept: Kept) -> None:
    while not kept.lost:
        await asyncio.sleep(_RENEW_S)
        try:
            if kept.begun:
                await kept.renew()
        except RunLost:
            return
        except SwitchroomError as error:
            # The store is away: the lease may end, and then the next write of this run says so.
            log.warning("run lease not renewed", extra={"run_id": kept.run_id, "detail": error.detail})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
