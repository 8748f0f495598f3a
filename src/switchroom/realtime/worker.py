"""One media process: registers itself, takes callers' offers, carries their calls, drains when told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import msgspec

from switchroom.engine import Engine, FlowStore
from switchroom.engine.events import Event as EngineEvent
from switchroom.engine.events import TurnInput
from switchroom.engine.responder import Responder
from switchroom.engine.session import Session
from switchroom.errors import Conflict, NotFound, SwitchroomError, TooMany, Unavailable
from switchroom.queue import Call, EndReason, Feed, Held, Queue
from switchroom.queue import State as QueueState
from switchroom.realtime import operators, registry
from switchroom.realtime.after_call import AfterCall
from switchroom.realtime.audio import Samples
from switchroom.realtime.call import CallSession, CallTools
from switchroom.realtime.call_log import CallLog
from switchroom.realtime.client import load_audio
from switchroom.realtime.conversation import Conversation
from switchroom.realtime.door import Door
from switchroom.realtime.ears import Ears, SpeechParts
from switchroom.realtime.ears import Listener as EarsListener
from switchroom.realtime.hold import HoldLine
from switchroom.realtime.lifecycle import Event, Happened, Phase
from switchroom.realtime.local import LocalEngine
from switchroom.realtime.memory import CallMemory
from switchroom.realtime.openai import OpenAiEngine
from switchroom.realtime.openai_beside import BesideEngine, BesideLeg
from switchroom.realtime.phone import KIND as PHONE
from switchroom.realtime.phone import PhoneLines
from switchroom.realtime.playout import Playout
from switchroom.realtime.registry import MediaProcess, Reply, Request
from switchroom.realtime.served.host import MakeEngine, ServedHost
from switchroom.realtime.served.opening import SESSION, SIDEBAND
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.signalling import SignalServer
from switchroom.realtime.speaker import RunTurn
from switchroom.realtime.voice import Transport, VoiceEngine
from switchroom.realtime.webrtc import WebRtcLeg
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Blobs, Store, keys

log = logging.getLogger(__name__)

_LAG_EVERY_S = 0.1
_LAG_KEPT = 20
_AFTER_CALL_S = 600
_LAST_STEPS_S = 10.0


async def run_media(
    store: Store,
    *,
    blobs: Blobs,
    settings: MediaSettings,
    stop: asyncio.Event,
    on_ready: Callable[[], None] | None = None,
    engine: Engine | None = None,
    recordings_key: str | None = None,
) -> None:
    """One media process until `stop` is set and its calls have ended or were handed back. `engine` runs the flows; by
    default one whose only responder is the embedded one. `recordings_key` is for `settings.record_encrypted`.

    `on_ready` is called once API nodes can find it. Raises `Unavailable` when a speech model of the local engine is not
    installed; the others need none.
    """
    parts = await SpeechParts.load(settings) if settings.engine == "local" else None
    feed = Feed(store)
    process = MediaWorker(
        store, blobs=blobs, settings=settings, parts=parts, feed=feed, engine=engine, recordings_key=recordings_key
    )
    try:
        await process.run(stop, on_ready)
    finally:
        await feed.close()
        if parts is not None:
            await parts.close()


class _Leg(NamedTuple):
    """A leg that joined, and the call that it joined."""

    session: CallSession
    leg: Transport


class MediaWorker:
    """The process's calls, its place in the registry, and what it answers to requests. Without `parts` each call is
    carried by the openai engine."""

    def __init__(
        self,
        store: Store,
        *,
        blobs: Blobs,
        settings: MediaSettings,
        parts: SpeechParts | None,
        feed: Feed,
        engine: Engine | None = None,
        recordings_key: str | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self._store = store
        self._settings = settings
        self._parts = parts
        self._queue = Queue(store)
        self._flows = FlowStore(store)
        self._engine = engine or Engine(self._flows)
        self._server = SignalServer(store, self.id, self._handle)
        self.door = Door(store, settings.door_host, settings.door_port, settings.door_url)
        self.door.on[PHONE] = PhoneLines(store, settings, self.join).serve
        self._tools = CallTools(
            queue=self._queue,
            feed=feed,
            executions=Executions(store, blobs),
            audio=AudioFiles(blobs, key=recordings_key, seal=settings.record_encrypted),
            settings=settings,
            owner=registry.owner_name(self.id),
            make_engine=self._make_engine,
            make_ears=self._make_ears if parts is not None else None,
            make_hold=self._make_hold,
            remember=lambda held: CallMemory(store, held.flow_id, held.task_id, held.token),
        )
        self._served = ServedHost(store, parts, self._flows, self._engine, settings, self.join)
        self.door.on[SESSION] = self._served.serve
        self.door.on[SIDEBAND] = self._served.sideband
        self._sessions: dict[tuple[str, str], CallSession] = {}
        self._operators = operators.OperatorHost(settings, self._sessions)
        self._legs: dict[str, _Leg] = {}
        self._joining: dict[tuple[str, str], asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lags: deque[float] = deque(maxlen=_LAG_KEPT)
        self._after_call = AfterCall(self._engine, self._flows, self._tools.executions)
        self._draining = False
        self._hold_audio: Samples | None = None

    @property
    def loop_lag_ms(self) -> float:
        """The worst lag of the event loop in the last two seconds."""
        return max(self._lags, default=0.0)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None] | None = None) -> None:
        await self.door.open()
        if self._settings.hold_audio is not None:
            self._hold_audio = await asyncio.to_thread(load_audio, self._settings.hold_audio)
        await registry.announce(self._store, self._sign())
        if on_ready is not None:
            on_ready()
        helpers = [
            asyncio.create_task(self._server.run(), name="signal-server"),
            asyncio.create_task(self._measure_lag(), name="loop-lag"),
            asyncio.create_task(self._announce(), name="media-registry"),
        ]
        log.info("media process ready", extra={"process_id": self.id, "max_legs": self._settings.max_legs})
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*helpers, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for helper in helpers:
                if helper.done():
                    helper.result()  # helpers end by an error only: it ends the process, the supervisor starts another
            await self._drain()
        finally:
            stopping.cancel()
            for task in (*helpers, *self._tasks):
                task.cancel()
            await asyncio.gather(*helpers, *self._tasks, return_exceptions=True)
            await self.door.close()
            try:
                await registry.withdraw(self._store, self.id)
            except Unavailable as error:
                log.warning("could not withdraw from the registry", extra={"error": error.detail})

    # --- requests ------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Reply:
        if request.kind == "hang_up":
            known = self._legs.get(request.call_id)
            if known is not None and known.session.call_id == request.call_id:
                known.session.post(Event(Happened.CALLER_HUNG_UP))
            return Reply(call_id=request.call_id)
        if request.kind == "trickle":
            known = self._legs.get(request.call_id)
            if known is None or not isinstance(known.leg, WebRtcLeg):
                raise NotFound("no such call", code="unknown_call")
            known.leg.trickle(request.sdp, request.tag)
            return Reply(call_id=request.call_id)
        if request.kind == "serve":
            sdp = await self._served.offer(request.flow_id, request.task_id, request.call_id, request.sdp, request.data)
            await self._remember(request.call_id)
            return Reply(call_id=request.call_id, sdp=sdp)
        if request.kind == "direct":
            return await self._direct(request)
        if request.kind == "refer":
            self._refer(request.call_id, request.data.decode())
            return Reply(call_id=request.call_id)
        if request.kind in operators.KINDS:
            return await self._operators.handle(request)
        if request.kind != "offer":
            raise Conflict(f"unknown request {request.kind}")
        return await self._offer(request)

    async def _offer(self, request: Request) -> Reply:
        sdp = ""

        async def answered() -> Transport:
            nonlocal sdp
            leg = WebRtcLeg(self._settings)
            try:
                sdp = await leg.answer(request.sdp)
            except BaseException:
                await leg.close()
                raise
            return leg

        call_id = await self.join(request.flow_id, request.task_id, answered)
        await self._remember(call_id)
        return Reply(call_id=call_id, sdp=sdp)

    async def _direct(self, request: Request) -> Reply:
        """A call whose caller talks with a Realtime service directly: `data` names it there."""
        service_call = request.data.decode()

        async def made() -> Transport:
            return BesideLeg(self._settings, service_call)

        make = partial(self._make_engine, service_call=service_call)
        call_id = await self.join(request.flow_id, request.task_id, made, make_engine=make)
        await self._remember(call_id)
        return Reply(call_id=call_id)

    async def _remember(self, call_id: str) -> None:
        """API nodes find the leg here."""
        life = int(self._settings.max_call_s + self._settings.wait_for_line_s + _AFTER_CALL_S)
        await self._store.call("SET", keys.media_call(call_id), self.id, "EX", life)

    def _refer(self, call_id: str, target: str) -> None:
        """The call goes on elsewhere: a leg that can carry it there is told, and it ends here."""
        known = self._legs.get(call_id)
        if known is None:
            raise NotFound("no such call", code="unknown_call")
        known.leg.send_event({"type": "transfer", "number": target})
        known.session.post(Event(Happened.CONCLUDED, EndReason.TRANSFERRED, f"referred to {target}"))

    async def join(
        self,
        flow_id: str,
        task_id: str,
        make_leg: Callable[[], Awaitable[Transport]],
        *,
        make_engine: MakeEngine | None = None,
        call_id: str = "",
    ) -> str:
        """Bring a caller's leg to its call: a new one that begins or waits for a line here, or the one that runs here
        already, whose leg it then replaces. Returns the leg's ID, `call_id` where that is given. With `make_engine` the
        call is carried by another engine than this process's, and must have a line at once.

        Raises `Unavailable` when this process is full or stops, `TooMany` without a line, `NotFound` and `Conflict` for
        a call that cannot begin, and what `make_leg` raises; a leg that was made is closed then.
        """
        name = (flow_id, task_id)
        lock = self._joining.setdefault(name, asyncio.Lock())
        try:
            async with lock:  # two legs for one task at once must not make two calls of it
                return await self._join(name, make_leg, make_engine, call_id or str(uuid.uuid4()))
        finally:
            if not lock.locked():
                self._joining.pop(name, None)

    async def _join(
        self,
        name: tuple[str, str],
        make_leg: Callable[[], Awaitable[Transport]],
        make_engine: MakeEngine | None,
        call_id: str,
    ) -> str:
        if self._draining:
            raise Unavailable("this media process stops", code="media_draining", retry_after_s=1)
        running = self._sessions.get(name)
        if running is not None and running.state.phase in (Phase.ENDING, Phase.ENDED):
            raise Conflict("the call is ending", code="call_ended")
        if running is None:
            if len(self._sessions) >= self._settings.max_legs:
                raise Unavailable("this media process is full", code="media_full", retry_after_s=5)
            call = await self._waiting_call(*name)
        elif make_engine is not None:
            raise Conflict("the call runs already", code="call_held")
        at_once = make_engine is not None
        if running is None and make_engine is None and (make_engine := await self._served.accepted(*name)) is not None:
            await self._remember(name[1])
        leg = await make_leg()
        try:
            if running is None:
                held = await self._claim(call)
                if held is None and at_once:
                    raise TooMany("all lines of this flow are busy", code="lines_busy", retry_after_s=5)
                running = self._start(call if held is None else held.call, leg, call_id, held, make_engine)
            else:
                await running.replace_leg(leg, call_id)
        except BaseException:
            await leg.close()
            raise
        self._legs[call_id] = _Leg(running, leg)
        return call_id

    async def _waiting_call(self, flow_id: str, task_id: str) -> Call:
        """The call of a leg, if it can still begin here."""
        call = await self._queue.get(flow_id, task_id)
        if call is None:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        if call.state is QueueState.SCHEDULED:
            raise Conflict("the call is scheduled for later", code="call_scheduled")
        if call.state in (QueueState.WRAPUP, QueueState.ENDED):
            raise Conflict("the call has ended", code="call_ended")
        if await self._flows.get(flow_id) is None:
            raise NotFound("no such flow", code="unknown_flow")
        return call

    async def _claim(self, call: Call) -> Held | None:
        """A line for the call right now, if one is free."""
        try:
            answer = await self._queue.claim_call(
                call.flow_id, call.task_id, self._tools.owner, lease_ms=self._settings.lease_ms
            )
        except Conflict as error:
            if error.code == "call_held":
                return None  # by a process that died: its lease runs out while the caller waits
            raise
        return answer if isinstance(answer, Held) else None

    def _start(
        self, call: Call, leg: Transport, call_id: str, held: Held | None, make_engine: MakeEngine | None
    ) -> CallSession:
        tools = self._tools
        if make_engine is not None:
            tools = msgspec.structs.replace(tools, make_engine=make_engine)
        if isinstance(leg, BesideLeg):  # there is nothing to record
            without = tools.settings.model_copy(update={"record_calls": False})
            tools = msgspec.structs.replace(tools, settings=without)
        session = CallSession(tools, call, leg, call_id, held)
        name = (call.flow_id, call.task_id)
        self._sessions[name] = session
        task = asyncio.get_running_loop().create_task(session.run(), name=f"call-{call.task_id}")
        self._tasks.add(task)

        def over(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._sessions.pop(name, None)
            self._served.over(call.task_id)
            for leg_id in [key for key, one in self._legs.items() if one.session is session]:
                del self._legs[leg_id]
                self._served.over(leg_id)
            if (record := session.record) is not None:
                self._keep(self._after_call.run(record), f"after-{call.task_id}")
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("a call broke", exc_info=error, extra={"task_id": call.task_id})

        task.add_done_callback(over)
        return session

    def _make_ears(self, listener: EarsListener) -> Ears:
        """Ears for an operator: nobody presses a button there."""
        assert self._parts is not None
        return Ears(self._parts, self._settings.model_copy(update={"turn_end": "silence"}), listener)

    async def _make_engine(self, call: Call, call_log: CallLog, service_call: str = "") -> VoiceEngine:
        """The voice engine of a call. The flow is taken as it is now and stays the same to the call's end.
        `service_call`: the caller talks with a Realtime service directly, which knows the call by this name."""
        flow = await self._flows.get(call.flow_id)
        if flow is None:
            raise NotFound("the flow was deleted", code="unknown_flow")
        call_log.execution.graph_hash = flow.hash
        settings = self._settings.led_by(flow.settings.voice)
        left = await call_log.memory.recall()
        session = (
            left.session
            if left is not None
            else Session(
                session_id=call_log.execution.session_id, realtime=True, form=dict(call.form), state=dict(call.memory)
            )
        )

        def bound_to(engine: Engine) -> RunTurn:
            def run_turn(session: Session, given: TurnInput) -> AsyncIterator[EngineEvent]:
                settings = flow.settings
                journal = call_log.memory.journal(session, given)
                return engine.run(
                    flow.graph, session, given, variables=settings.variables, tools=settings.tools, journal=journal
                )

            return run_turn

        def asking(responder: Responder) -> RunTurn:
            return bound_to(self._engine.answered_by(responder))

        engine: Conversation
        if service_call:
            engine = BesideEngine(asking, session, settings, service_call)
        elif self._parts is None:
            engine = OpenAiEngine(asking, session, settings)
        else:
            engine = LocalEngine(self._parts, bound_to(self._engine), session, settings)
        engine.resumes = left
        return engine

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Work of this process that a stop waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)

        def over(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("background work broke", exc_info=error, extra={"work": name})

        task.add_done_callback(over)

    async def _make_hold(self, flow_id: str, playout: Playout) -> HoldLine:
        flow = await self._flows.get(flow_id)
        settings = self._settings.led_by(flow.settings.voice) if flow is not None else self._settings
        voice = self._parts.voice if self._parts is not None else None
        return HoldLine(playout, voice, settings, self._hold_audio)

    # --- housekeeping --------------------------------------------------------------------------------------------

    async def _measure_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            self._lags.append(max(0.0, (time.monotonic() - before - _LAG_EVERY_S) * 1000))

    async def _announce(self) -> None:
        while True:
            try:
                await registry.announce(self._store, self._sign())
            except Unavailable as error:
                log.warning("the store does not answer", extra={"error": error.detail})
            await asyncio.sleep(registry.HEARTBEAT_S)

    def _sign(self) -> MediaProcess:
        lag = self.loop_lag_ms
        return MediaProcess(
            id=self.id,
            legs=len(self._sessions),
            max_legs=self._settings.max_legs,
            loop_lag_ms=round(lag, 1),
            draining=self._draining,
            overloaded=lag > self._settings.max_loop_lag_ms,
            door=self.door.url,
        )

    async def _drain(self) -> None:
        """No new calls; live ones may end by themselves for a while, then they go back to the queue."""
        self._draining = True
        try:
            await registry.announce(self._store, self._sign())
        except SwitchroomError as error:
            log.warning("could not tell that this process drains", extra={"error": error.detail})
        if self._tasks:
            log.info("draining", extra={"calls": len(self._tasks), "seconds": self._settings.drain_s})
            for session in tuple(self._sessions.values()):
                if session.state.phase is not Phase.LIVE:
                    session.post(Event(Happened.DRAINED))
            await asyncio.wait(self._tasks, timeout=self._settings.drain_s)
        for session in tuple(self._sessions.values()):
            session.post(Event(Happened.DRAINED))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_STEPS_S)
