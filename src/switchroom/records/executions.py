"""The execution records: one row a turn or a call, with its indexes, changed by one script each.

A flow's rows and indexes share the flow's hash tag, so that a script touches one slot. Two small things stand
outside it, written before a row and only ever hints: which flow an ID belongs to, and which flows have rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from switchroom.records import scripts
from switchroom.records.model import Artefact, Execution, ExecutionState, Recording, is_final, state_of_end
from switchroom.store import Blobs, Store, keys

STATES = tuple(ExecutionState)
"""A row keeps its state as its place here (from 1), which is also the order of the state indexes' keys."""

_FINAL = tuple("1" if is_final(state) else "0" for state in STATES)

_CHUNK = 200
"""Rows asked for at a time while flows are merged, exported or pruned: bounds a script's time in the server."""

_decode = msgspec.json.Decoder(Execution).decode
_decode_artefacts = msgspec.json.Decoder(list[Artefact]).decode
_decode_recording = msgspec.json.Decoder(Recording).decode
_encode = msgspec.json.Encoder().encode


class _End(msgspec.Struct, frozen=True, kw_only=True):
    """How a row was ended by somebody other than its writer."""

    state: ExecutionState
    reason: str
    detail: str
    at_ms: int


_decode_end = msgspec.json.Decoder(_End).decode


class ExecutionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; None is no restriction. The dates bound `created_ms`, both ends included."""

    id: str | None = None
    flow_id: str | None = None
    session_id: str | None = None
    task_id: str | None = None
    state: ExecutionState | None = None
    start_ms: int | None = None
    end_ms: int | None = None


class Executions:
    """Rows of executions in the store, their recordings in the blob store."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def begin(self, execution: Execution) -> bool:
        """Create the row (times are filled in). False if a final row of this ID stands already."""
        now = _now_ms()
        execution.created_ms = execution.created_ms or now
        execution.updated_ms = now
        await asyncio.gather(
            self._store.call("SET", keys.execution_flow(execution.id), execution.flow_id),
            self._store.call("SADD", keys.execution_flows(), execution.flow_id),
        )
        return await self._write(execution, create=True)

    async def save(self, execution: Execution) -> bool:
        """Write the whole row. False, and nothing is written, if the stored row is final (somebody else ended it)
        or was deleted meanwhile."""
        execution.updated_ms = _now_ms()
        return await self._write(execution)

    async def finish(self, execution: Execution, state: ExecutionState) -> bool:
        """Write the row for the last time, with its final `state`. False if it was final already: the first end
        stands."""
        execution.state = state
        execution.updated_ms = _now_ms()
        if is_final(state):
            execution.stopped_ms = execution.stopped_ms or execution.updated_ms
        return await self._write(execution)

    async def attach_artefacts(self, execution: Execution, artefacts: list[Artefact]) -> bool:
        """What the flow made of an ended call; it replaces what was there. False if the row is gone."""
        execution.artefacts = artefacts
        key = keys.execution(execution.flow_id, execution.id)
        return bool(await self._store.run(scripts.ARTEFACTS, keys=[key], args=[_encode(artefacts)]))

    async def get(self, execution_id: str) -> Execution | None:
        flow_id = await self._store.call("GET", keys.execution_flow(execution_id))
        if flow_id is None:
            return None
        return (await self._rows(flow_id.decode(), [execution_id]))[0]

    async def find(self, flow_id: str, task_id: str) -> list[Execution]:
        """All attempts of a call, oldest first."""
        rows = await self._rows(flow_id, await self.attempt_ids(flow_id, task_id))
        return sorted((row for row in rows if row is not None), key=lambda row: (row.attempt, row.created_ms))

    async def attempt_ids(self, flow_id: str, task_id: str) -> list[str]:
        """The IDs of a call's records, oldest first, without reading the rows."""
        ids = await self._store.call("ZRANGE", keys.execution_index(flow_id, "task", task_id), "0", "-1")
        return [one.decode() for one in ids]

    async def search(self, wanted: ExecutionFilter, *, page: int = 1, limit: int = 10) -> tuple[list[Execution], int]:
        """One page (from 1) of rows, newest first, and how many rows match in all."""
        if wanted.id is not None:
            row = await self.get(wanted.id)
            found = [row] if row is not None and _matches(row, wanted) else []
            return (found if page == 1 else []), len(found)
        flows = await self._flows(wanted)
        totals = await asyncio.gather(*(self._count(flow_id, wanted) for flow_id in flows))
        skip = (page - 1) * limit
        if skip >= sum(totals):
            return [], sum(totals)
        picked: list[tuple[str, str]] = []
        async for flow_id, execution_id in self._merge([f for f, n in zip(flows, totals, strict=True) if n], wanted):
            if skip:
                skip -= 1
                continue
            picked.append((flow_id, execution_id))
            if len(picked) == limit:
                break
        return await self._load(picked), sum(totals)

    async def export(self, wanted: ExecutionFilter) -> AsyncIterator[Execution]:
        """Every matching row, newest first, read in bounded pieces."""
        if wanted.id is not None:
            for row in (await self.search(wanted))[0]:
                yield row
            return
        batch: list[tuple[str, str]] = []
        async for place in self._merge(await self._flows(wanted), wanted):
            batch.append(place)
            if len(batch) == _CHUNK:
                for row in await self._load(batch):
                    yield row
                batch = []
        for row in await self._load(batch):
            yield row

    async def delete(self, ids: Iterable[str]) -> int:
        """Delete rows with their recordings; how many there were. A call that still runs loses its row for good:
        its later `save` writes nothing."""
        return sum(await asyncio.gather(*(self._delete(one) for one in dict.fromkeys(ids))))

    async def close_lost(self, flow_id: str, task_id: str, attempt: int, reason: str, detail: str) -> int:
        """End the row of an attempt whose holder died: its state follows from `reason`, `detail` says the truth.

        Returns how many rows were ended: 0 if there was none or it ended by itself meanwhile.
        """
        lost = [row for row in await self.find(flow_id, task_id) if row.attempt == attempt and not is_final(row.state)]
        return await self._close(lost, reason, detail)

    async def close_lost_turns(self, before_ms: int) -> int:
        """End the text turns that began, or went on after a pause, before this Unix time and still run: their process
        died; and those that wait for a person or a time whose session is kept no more. How many there were.

        `before_ms` is longer ago than a turn may take.
        """
        closed = 0
        wanted = ExecutionFilter(state=ExecutionState.INPROGRESS, end_ms=before_ms - 1)
        for flow_id in await self._flows(wanted):
            ids = await self._ids(flow_id, wanted, 0, _CHUNK)
            rows = await self._rows(flow_id, [one for one, _ in ids])
            lost = [row for row in rows if row is not None and row.kind == "turn" and row.updated_ms < before_ms]
            closed += await self._close(lost, "timeout", "The process that ran this turn died.")
        waiting = ExecutionFilter(state=ExecutionState.STOPPED, end_ms=before_ms - 1)
        async for row in self.export(waiting):
            if not await self._store.call("EXISTS", keys.session(row.flow_id, row.session_id)):
                closed += await self._close([row], "timeout", "Nobody answered while the session was kept.")
        return closed

    async def _close(self, rows: Sequence[Execution], reason: str, detail: str) -> int:
        state = state_of_end(reason)
        end = _encode(_End(state=state, reason=reason, detail=detail, at_ms=_now_ms()))
        replies = await asyncio.gather(
            *(
                self._store.run(
                    scripts.CLOSE,
                    keys=[
                        keys.execution(row.flow_id, row.id),
                        *(keys.execution_index(row.flow_id, "state", one) for one in STATES),
                    ],
                    args=[row.id, _number(state), end, *_FINAL],
                )
                for row in rows
            )
        )
        return sum(replies)

    async def prune(self, older_than_ms: int) -> int:
        """Delete the ended rows created before this Unix time, with their recordings; how many there were."""
        pruned = 0
        wanted = ExecutionFilter(end_ms=older_than_ms - 1)
        for flow_id in await self._flows(wanted):
            offset = 0
            while ids := await self._ids(flow_id, wanted, offset, _CHUNK):
                rows = [row for row in await self._rows(flow_id, [one for one, _ in ids]) if row is not None]
                gone = await self.delete(row.id for row in rows if is_final(row.state))
                pruned += gone
                offset += len(ids) - gone
        return pruned

    async def drop_recordings(self, after_ms: int, before_ms: int) -> int:
        """Delete the audio of rows created from `after_ms` to before `before_ms` (Unix); the rows stay. How many had
        some."""
        dropped = 0
        wanted = ExecutionFilter(start_ms=after_ms, end_ms=before_ms - 1)
        async for row in self.export(wanted):
            if row.recording is None or row.state is ExecutionState.INPROGRESS:
                continue
            await asyncio.to_thread(self._blobs.delete, row.recording.blob)
            await self._store.call("HDEL", keys.execution(row.flow_id, row.id), "recording")
            dropped += 1
        return dropped

    async def _write(self, row: Execution, *, create: bool = False) -> bool:
        recording, row.recording = row.recording, None
        try:
            body = _encode(row)
        finally:
            row.recording = recording
        flow_id = row.flow_id
        reply = await self._store.run(
            scripts.WRITE,
            keys=[keys.execution(flow_id, row.id), *self._indexes(flow_id, row.session_id, row.task_id)],
            args=[
                row.id,
                _number(row.state),
                str(row.created_ms),
                body,
                row.session_id,
                row.task_id,
                _encode(recording) if recording is not None else b"",
                "1" if create else "0",
                *_FINAL,
            ],
        )
        return bool(reply)

    async def _delete(self, execution_id: str) -> int:
        row = await self.get(execution_id)
        if row is None:
            return 0
        if row.recording is not None:
            # First the audio: a crash in between leaves a row whose delete can be asked for again, never a file
            # that nothing names.
            await asyncio.to_thread(self._blobs.delete, row.recording.blob)
        row_key = keys.execution(row.flow_id, execution_id)
        indexes = self._indexes(row.flow_id, row.session_id, row.task_id)
        gone = await self._store.run(scripts.DELETE, keys=[row_key, *indexes], args=[execution_id])
        await self._store.call("DEL", keys.execution_flow(execution_id))
        return int(gone)

    async def _rows(self, flow_id: str, ids: Sequence[str]) -> list[Execution | None]:
        replies = await asyncio.gather(
            *(
                self._store.call("HMGET", keys.execution(flow_id, one), "body", "recording", "end", "artefacts")
                for one in ids
            )
        )
        return [_row(*reply) for reply in replies]

    async def _load(self, places: Sequence[tuple[str, str]]) -> list[Execution]:
        found = await asyncio.gather(*(self._rows(flow_id, [one]) for flow_id, one in places))
        return [row for (row,) in found if row is not None]

    async def _flows(self, wanted: ExecutionFilter) -> list[str]:
        if wanted.flow_id is not None:
            return [wanted.flow_id]
        members = await self._store.call("SMEMBERS", keys.execution_flows())
        return sorted(one.decode() for one in members)

    async def _merge(self, flows: Sequence[str], wanted: ExecutionFilter) -> AsyncIterator[tuple[str, str]]:
        """(flow ID, execution ID) over all flows, newest first; each flow is read ahead by one chunk."""
        size = max(10, _CHUNK // max(1, len(flows)))
        offsets = dict.fromkeys(flows, 0)
        heads = dict(
            zip(flows, await asyncio.gather(*(self._ids(f, wanted, 0, size) for f in flows)), strict=True),
        )
        while True:
            heads = {flow_id: ids for flow_id, ids in heads.items() if ids}
            if not heads:
                return
            flow_id = max(heads, key=lambda f: (heads[f][0][1], heads[f][0][0]))
            execution_id, _ = heads[flow_id].pop(0)
            offsets[flow_id] += 1
            if not heads[flow_id]:
                heads[flow_id] = await self._ids(flow_id, wanted, offsets[flow_id], size)
            yield flow_id, execution_id

    async def _ids(self, flow_id: str, wanted: ExecutionFilter, offset: int, limit: int) -> list[tuple[str, int]]:
        _, *pairs = await self._select(flow_id, wanted, offset, limit)
        return [(pairs[i].decode(), int(pairs[i + 1])) for i in range(0, len(pairs), 2)]

    async def _count(self, flow_id: str, wanted: ExecutionFilter) -> int:
        return int((await self._select(flow_id, wanted, 0, 0))[0])

    async def _select(self, flow_id: str, wanted: ExecutionFilter, offset: int, limit: int) -> list[bytes]:
        indexes = [keys.execution_index(flow_id, "all")]
        if wanted.state is not None:
            indexes.append(keys.execution_index(flow_id, "state", wanted.state))
        if wanted.session_id is not None:
            indexes.append(keys.execution_index(flow_id, "session", wanted.session_id))
        if wanted.task_id is not None:
            indexes.append(keys.execution_index(flow_id, "task", wanted.task_id))
        lowest = "-inf" if wanted.start_ms is None else str(wanted.start_ms)
        highest = "+inf" if wanted.end_ms is None else str(wanted.end_ms)
        reply: list[bytes] = await self._store.run(
            scripts.SELECT, keys=indexes, args=[lowest, highest, str(offset), str(limit)]
        )
        return reply

    def _indexes(self, flow_id: str, session_id: str, task_id: str) -> list[str]:
        return [
            keys.execution_index(flow_id, "all"),
            keys.execution_index(flow_id, "session", session_id),
            keys.execution_index(flow_id, "task", task_id),
            *(keys.execution_index(flow_id, "state", state) for state in STATES),
        ]


def _row(body: bytes | None, recording: bytes | None, end: bytes | None, artefacts: bytes | None) -> Execution | None:
    if body is None:
        return None
    row = _decode(body)
    if recording:
        row.recording = _decode_recording(recording)
    if artefacts:
        row.artefacts = _decode_artefacts(artefacts)
    if end:
        how = _decode_end(end)
        row.state, row.end_reason, row.detail = how.state, how.reason, how.detail
        row.updated_ms = row.stopped_ms = how.at_ms
    return row


def _number(state: ExecutionState) -> str:
    return str(STATES.index(state) + 1)


def _matches(row: Execution, wanted: ExecutionFilter) -> bool:
    return (
        wanted.flow_id in (None, row.flow_id)
        and wanted.session_id in (None, row.session_id)
        and wanted.task_id in (None, row.task_id)
        and wanted.state in (None, row.state)
        and (wanted.start_ms is None or row.created_ms >= wanted.start_ms)
        and (wanted.end_ms is None or row.created_ms <= wanted.end_ms)
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
