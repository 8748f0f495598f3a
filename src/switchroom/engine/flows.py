"""Flows: a canvas as imported, its compact graph, and its settings."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import OrderedDict
from typing import Any, Literal

import msgspec

from switchroom.compact import CompactGraph, compact_canvas
from switchroom.compact.model import content_hash
from switchroom.engine.chat import ChatSettings
from switchroom.engine.custom_tool import CustomTool
from switchroom.engine.voice_settings import VoiceSettings
from switchroom.errors import BadInput, Fault
from switchroom.hours import OpeningHours, zone
from switchroom.store import Store, keys

__all__ = ["Flow", "FlowSettings", "FlowStore"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CACHED = 256


class FlowSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an owner sets beside the canvas.

    `duplicates` is what an enqueue does when the same caller already waits or talks; `lines` how many calls may be
    live at once; `protected` asks for a key on every request; `variables` is what `{{$vars.x}}` reads; `chat` is what
    chat clients may do; `voice` how live calls are led; `pipeline` names who is told of changes (None: everybody);
    `tools` are the owner's own, by the names that the canvas uses.

    Of the queue: `cap` most calls waiting (0: no bound); a call answered within `service_level_s` is in time; a caller
    who leaves within `short_abandon_s` does not count against that; after a call its line stays busy for `wrapup_s`;
    after a failed attempt a call waits `retry_delay_s`; a refused call is not offered to the same holder for
    `refuse_backoff_s`, doubling; a call that names no `expiresAt` does after waiting for `max_wait_s` (0: never); after
    each of `relax_after_s` a waiting call needs one skill less; nothing is handed out outside `opening_hours` (None:
    always open); a day's figures are kept for `stats_days`.
    """

    duplicates: Literal["join", "reject", "allow"] = "join"
    lines: int = 4
    max_attempts: int = 3
    protected: bool = False
    deployed: bool = True
    variables: dict[str, Any] = {}
    chat: ChatSettings = ChatSettings()
    voice: VoiceSettings = VoiceSettings()
    pipeline: str | None = None
    tools: list[CustomTool] = []
    cap: int = 100_000
    service_level_s: int = 20
    short_abandon_s: int = 5
    wrapup_s: int = 0
    retry_delay_s: int = 0
    refuse_backoff_s: int = 5
    max_wait_s: int = 0
    relax_after_s: list[int] = []
    opening_hours: OpeningHours | None = None
    stats_days: int = 400

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("lines", self.lines, 1, 100_000),
            ("max_attempts", self.max_attempts, 1, 100),
            ("cap", self.cap, 0, 10_000_000),
            ("service_level_s", self.service_level_s, 1, 86_400),
            ("short_abandon_s", self.short_abandon_s, 0, 3_600),
            ("wrapup_s", self.wrapup_s, 0, 3_600),
            ("retry_delay_s", self.retry_delay_s, 0, 86_400),
            ("refuse_backoff_s", self.refuse_backoff_s, 0, 300),
            ("max_wait_s", self.max_wait_s, 0, 7 * 86_400),
            ("relax_after_s", len(self.relax_after_s), 0, 32),
            *(("relax_after_s", after_s, 1, 86_400) for after_s in self.relax_after_s),
            ("stats_days", self.stats_days, 1, 3_660),
        ):
            if not least <= value <= most:
                raise ValueError(f"`{name}` is from {least} to {most}, not {value}")


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow. `canvas` is what was imported, untouched; `graph` is what runs; `hash` is the graph's content hash.
    Times are Unix milliseconds."""

    id: str
    name: str
    kind: Literal["realtime", "text"]
    hash: str
    canvas: dict[str, Any]
    graph: CompactGraph
    settings: FlowSettings
    created_ms: int
    updated_ms: int


# JSON: a canvas may hold a number that MessagePack cannot.
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Flow)


class FlowStore:
    """The stored flows, cached by revision: `get` costs one small read while a flow does not change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[str, tuple[bytes, Flow]] = OrderedDict()

    async def save(
        self,
        canvas: dict[str, Any],
        *,
        flow_id: str | None = None,
        name: str | None = None,
        settings: dict[str, Any] | FlowSettings | None = None,
        kind: Literal["realtime", "text"] | None = None,
    ) -> Flow:
        """Imports a canvas, as a new flow or over the one with this ID. What is not given stays as it was.

        `kind` overrides what the canvas says of itself. Raises BadInput for a bad ID, settings or something that is no
        canvas, Unprocessable for a canvas with errors.
        """
        if flow_id is not None and not _ID.fullmatch(flow_id):
            detail = "A flow's ID is 1 to 64 of the characters A-Z, a-z, 0-9, `_` and `-`."
            raise BadInput(detail, faults=[Fault(detail, "/id")])
        graph = await asyncio.to_thread(compact_canvas, canvas, kind=kind)
        flow_id = flow_id or str(uuid.uuid4())
        old = await self.get(flow_id)
        chosen = await asyncio.to_thread(_settings, settings, old.settings if old else FlowSettings())
        now = time.time_ns() // 1_000_000
        flow = Flow(
            id=flow_id,
            name=name or _name_in(canvas) or (old.name if old else flow_id),
            kind=graph.kind,
            hash=content_hash(graph),
            canvas=canvas,
            graph=graph,
            settings=chosen,
            created_ms=old.created_ms if old else now,
            updated_ms=now,
        )
        return await self._write(flow)

    async def configure(self, flow: Flow, settings: dict[str, Any]) -> Flow:
        """Changes settings only. Raises BadInput."""
        changed = await asyncio.to_thread(_settings, settings, flow.settings)
        now = time.time_ns() // 1_000_000
        return await self._write(msgspec.structs.replace(flow, settings=changed, updated_ms=now))

    async def _write(self, flow: Flow) -> Flow:
        rev = uuid.uuid4().hex.encode()
        await self._store.call("HSET", keys.flow_document(flow.id), "doc", _encoder.encode(flow), "rev", rev)
        # Another hash slot: written second, so that the list never names a flow that is not there.
        await self._store.call("ZADD", keys.flow_index(), flow.created_ms, flow.id)
        self._remember(rev, flow)
        return flow

    async def get(self, flow_id: str) -> Flow | None:
        """The flow as it is now, also when another process saved it; None if there is none."""
        if not _ID.fullmatch(flow_id):
            return None
        key = keys.flow_document(flow_id)
        cached = self._cache.get(flow_id)
        if cached is not None:
            rev = await self._store.call("HGET", key, "rev")
            if rev == cached[0]:
                self._cache.move_to_end(flow_id)
                return cached[1]
        rev, doc = await self._store.call("HMGET", key, "rev", "doc")
        if doc is None:
            self._cache.pop(flow_id, None)
            return None
        flow = _decoder.decode(doc)
        self._remember(rev, flow)
        return flow

    def cached(self, flow_id: str) -> tuple[bytes, Flow] | None:
        """The flow as it was when it was last read or saved here, with its revision: whoever uses it has the store
        compare the revision where it matters."""
        return self._cache.get(flow_id)

    async def list(self, offset: int = 0, limit: int = 50) -> tuple[list[Flow], int]:
        """A page of flows, oldest first, and how many there are in all."""
        total = int(await self._store.call("ZCARD", keys.flow_index()))
        if limit < 1:
            return [], total
        names = await self._store.call("ZRANGE", keys.flow_index(), offset, offset + limit - 1)
        found = [await self.get(name.decode()) for name in names]
        return [flow for flow in found if flow is not None], total

    async def delete(self, flow_id: str) -> bool:
        """Whether there was one."""
        if not _ID.fullmatch(flow_id):
            return False
        await self._store.call("ZREM", keys.flow_index(), flow_id)
        self._cache.pop(flow_id, None)
        return bool(await self._store.call("DEL", keys.flow_document(flow_id)))

    def _remember(self, rev: bytes, flow: Flow) -> None:
        self._cache[flow.id] = (rev, flow)
        self._cache.move_to_end(flow.id)
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


def _name_in(canvas: dict[str, Any]) -> str | None:
    name = canvas.get("name")
    return name[:200] if isinstance(name, str) and name.strip() else None


def _settings(given: dict[str, Any] | FlowSettings | None, before: FlowSettings) -> FlowSettings:
    """Looks a new time zone up in a file: not for the event loop."""
    if given is None:
        return before
    try:
        if not isinstance(given, FlowSettings):
            given = msgspec.convert({**msgspec.to_builtins(before), **given}, FlowSettings)
        if given.opening_hours is not None:
            zone(given.opening_hours.timezone)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise BadInput(f"These settings are not right: {error}.", faults=[Fault(str(error), "/settings")]) from error
    return given
