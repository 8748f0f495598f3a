"""Goes on with the text runs of processes that died: from the last finished node, to a closed record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from switchroom.engine.engine import Engine
from switchroom.engine.events import NodeFinished, TurnEnded, TurnFailed
from switchroom.engine.runs import Given, Kept, RunLost, Runs
from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError
from switchroom.records import Execution, Executions, ExecutionState, is_final
from switchroom.store import Script, Store, keys

__all__ = ["Takeover"]

log = logging.getLogger(__name__)

TICK_S = 2.0
MAX_TAKES = 3
"""A run that outlived so many processes is not given to another one: it may be what ends them."""
_AT_ONCE = 8
_MARGIN_MS = 10_000
_BUSY_MS = 1_000

_HOLD = Script("""
-- KEYS: lock. ARGV: run ID, new token, ms. The session becomes the taker's, if it is still the run's.
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

_SAVE = Script("""
-- KEYS: lock, session. ARGV: token, session, seconds to keep it. Only while the session is still the taker's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
""")


class Takeover:
    """A part of every API process's housekeeping; any number of them may run."""

    def __init__(self, store: Store, engine: Engine, executions: Executions) -> None:
        self._store = store
        self._engine = engine
        self._executions = executions
        self._runs = Runs(store)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.once()
            except SwitchroomError as error:
                log.warning("take-over waits for the store", extra={"detail": error.detail})
            await asyncio.sleep(TICK_S)

    async def once(self) -> int:
        """One round; how many runs were taken to their end."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(flow_id: str, run_id: str) -> bool:
            async with slots:
                return await self._take(flow_id, run_id)

        overdue = await self._runs.overdue()
        ended = await asyncio.gather(*(one(*place) for place in overdue), return_exceptions=True)
        for (flow_id, run_id), outcome in zip(overdue, ended, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, RunLost):
                about = {"flow_id": flow_id, "run_id": run_id}
                log.error("a run could not be taken over", extra=about, exc_info=outcome)
        return sum(outcome is True for outcome in ended)

    async def _take(self, flow_id: str, run_id: str) -> bool:
        async with self._runs.take(flow_id, run_id) as kept:
            if kept is None or kept.session is None or kept.given is None:
                return False
            lock = keys.session_lock(flow_id, kept.session.session_id)
            if kept.parked and not await self._wake(kept, kept.given, lock):
                return False
            hold_ms = max(1_000, kept.given.deadline_ms - _now_ms()) + _MARGIN_MS
            await self._store.run(_HOLD, keys=[lock], args=[run_id, _token(kept), hold_ms])
            record = await self._executions.get(run_id)
            if record is None or is_final(record.state):
                # Its process died between the record and the end of the run: nothing is left to do.
                await self._save(kept)
                return True
            record.state = ExecutionState.INPROGRESS
            record.nodes = [node for node in record.nodes if not node.get("waits")]
            await self._executions.save(record)
            log.info("run taken over", extra={"flow_id": flow_id, "run_id": run_id, "takes": kept.takes})
            await self._end(kept, record)
            return True

    async def _wake(self, kept: Kept, given: Given, lock: str) -> bool:
        """A parked run whose time has come goes on with its session as it is now, unless that is in use or gone on."""
        session_id = kept.session_id
        hold_ms = given.turn_ms + _MARGIN_MS
        if await self._store.call("SET", lock, _token(kept), "NX", "PX", hold_ms) is None:
            await kept.park_again(_now_ms() + _BUSY_MS)
            return False
        stored = await self._store.call("GET", keys.session(kept.flow_id, session_id))
        session = msgspec.json.decode(stored, type=Session) if stored is not None else None
        if session is not None and session.paused is not None and session.paused.run_id == kept.run_id:
            await kept.adopt(session)
            return True
        record = await self._executions.get(kept.run_id)
        if record is not None and not is_final(record.state):
            record.detail = "The conversation went on before the run's time had come."
            await self._executions.finish(record, ExecutionState.TERMINATED)
        await self._store.call("DEL", lock)
        return False

    async def _end(self, kept: Kept, record: Execution) -> None:
        assert kept.given is not None
        left_s = kept.given.deadline_ms / 1000 - time.time()
        state, record.detail = ExecutionState.ERROR, ""
        if kept.takes > MAX_TAKES:
            record.detail = f"The run was lost with its process {kept.takes} times."
        elif left_s <= 0:
            state, record.detail = ExecutionState.TIMEOUT, "The run's time was over when its process was lost."
        else:
            try:
                async with asyncio.timeout(left_s):
                    state = await self._follow(kept, record)
            except TimeoutError:
                state, record.detail = ExecutionState.TIMEOUT, "The run took longer than its time."
        if kept.lost:
            raise RunLost("Another process goes on with this run.")
        assert kept.session is not None
        record.final_state = kept.session.state
        await self._executions.finish(record, state)
        await self._save(kept)

    async def _follow(self, kept: Kept, record: Execution) -> ExecutionState:
        assert kept.session is not None
        assert kept.given is not None
        given = kept.given
        running = self._engine.run(
            given.graph,
            kept.session,
            given.turn,
            variables=given.variables,
            runtime=given.runtime,
            tools=given.tools,
            journal=kept,
            flow_id=kept.flow_id,
        )
        state = ExecutionState.ERROR
        async with contextlib.aclosing(running) as events:
            async for event in events:
                match event:
                    case NodeFinished():
                        record.nodes.append(msgspec.to_builtins(event))
                    case TurnEnded():
                        state = ExecutionState.STOPPED if event.outcome == "stopped" else ExecutionState.FINISHED
                        record.detail = event.detail
                    case TurnFailed():
                        state = ExecutionState.TIMEOUT if event.code == "turn_timeout" else ExecutionState.ERROR
                        record.detail = event.detail
                    case _:
                        pass
        return state

    async def _save(self, kept: Kept) -> None:
        assert kept.session is not None
        assert kept.given is not None
        session = kept.session
        places = [keys.session_lock(kept.flow_id, session.session_id), keys.session(kept.flow_id, session.session_id)]
        await self._store.run(_SAVE, keys=places, args=[_token(kept), msgspec.json.encode(session), kept.given.kept_s])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _token(kept: Kept) -> str:
    return f"{kept.run_id}:{kept.takes}"
