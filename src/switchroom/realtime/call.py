"""One live call: runs the effects of `lifecycle` between a leg, a voice engine, the queue and the record.

One writer: only `run` changes the call's state; everybody else posts what happened. Each step of the way out has its
own deadline and its own error: none keeps the next from being done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from switchroom import metrics
from switchroom.errors import Conflict, NotFound, SwitchroomError, Unavailable
from switchroom.queue import Call, EndReason, Feed, Held, LeaseLost, Queue
from switchroom.queue import State as QueueState
from switchroom.realtime.audio import Samples
from switchroom.realtime.call_log import CallLog
from switchroom.realtime.desk import Desk
from switchroom.realtime.ears import Ears
from switchroom.realtime.ears import Listener as EarsListener
from switchroom.realtime.hold import HoldLine
from switchroom.realtime.lifecycle import Do, Event, Happened, Phase, State, advance
from switchroom.realtime.memory import CallMemory
from switchroom.realtime.playout import Playout
from switchroom.realtime.recorder import Recorder
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Concluded, Transport, VoiceEngine
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.records.model import Execution, OperatorAction

log = logging.getLogger(__name__)

_STEP_S = 5.0
_LAST_FRAMES_S = 0.2
_CLAIM_AT_LEAST_S = 1.0
_CLAIM_AT_MOST_S = 5.0
_REASONS = {
    "finished": EndReason.COMPLETED,
    "silence": EndReason.TIMEOUT,
    "too_long": EndReason.TIMEOUT,
    "voicemail": EndReason.NO_ANSWER,
    "failed": EndReason.FAILED,
}


class CallTools(msgspec.Struct, frozen=True, kw_only=True):
    """What a call needs of its process."""

    queue: Queue
    feed: Feed
    executions: Executions
    audio: AudioFiles
    settings: MediaSettings
    owner: str
    make_engine: Callable[[Call, CallLog], Awaitable[VoiceEngine]]
    make_ears: Callable[[EarsListener], Ears] | None = None
    """Ears for an operator; None where no recogniser is loaded."""
    make_hold: Callable[[str, Playout], Awaitable[HoldLine]]
    """What a caller of this flow hears who waits for a line."""
    remember: Callable[[Held], CallMemory]


class CallSession:
    """One call from its first offer to its end. `run` is the whole life."""

    def __init__(self, tools: CallTools, call: Call, leg: Transport, call_id: str, held: Held | None) -> None:
        self._tools = tools
        self._call = call
        self._leg = leg
        self.call_id = call_id
        self._held = held
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leg_watch: asyncio.Task[None] | None = None
        self._coming = 0
        """Newer legs whose media does not flow yet."""
        self._grace: asyncio.TimerHandle | None = None
        self._playout = Playout()
        self._engine: VoiceEngine | None = None
        self._engine_task: asyncio.Task[None] | None = None
        self._recorder: Recorder | None = None
        self._log: CallLog | None = None
        self._hold: HoldLine | None = None
        self.desk: Desk | None = None
        """Its operators, once they talk."""
        self.talking = asyncio.Event()
        """They talk: a moment after the queue calls it live."""
        self.state = State()
        if held is not None:
            self.post(Event(Happened.CLAIMED))

    @property
    def record(self) -> Execution | None:
        """The finished record of a call that is over; None where it never began or goes on elsewhere."""
        over = self.state.phase is Phase.ENDED and self.state.reason is not None
        return self._log.execution if over and self._log is not None else None

    def post(self, event: Event) -> None:
        self._events.put_nowait(event)

    async def run(self) -> None:
        self._adopt(self._leg)
        if self._held is not None:
            self._spawn(self._keep_hold(self._held), "hold")
        try:
            while self.state.phase is not Phase.ENDED:
                event = await self._events.get()
                before = self.state.phase
                self.state, effects = advance(self.state, event)
                if self.state.phase is not before:
                    log.info(
                        "call changed",
                        extra={"task_id": self._call.task_id, "phase": self.state.phase, "cause": event.what},
                    )
                    self._tell_phase()
                for effect in effects:
                    await self._do(effect)
                if self.state.phase is Phase.ENDING:
                    self.post(Event(Happened.TORN_DOWN))
        finally:
            await self._sweep()

    async def replace_leg(self, leg: Transport, call_id: str) -> None:
        """A newer leg of the same caller. It takes over once its media flows; until then the old one stays."""

        async def take_over() -> None:
            connected = asyncio.ensure_future(leg.connected.wait())
            gone = asyncio.ensure_future(leg.gone.wait())
            self._coming += 1
            try:
                await asyncio.wait({connected, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not connected.done() or self.state.phase in (Phase.ENDING, Phase.ENDED):
                    await leg.close()
                    if self._leg.gone.is_set() and not self.state.began:
                        self.post(Event(Happened.LEG_FAILED))
                    return
            finally:
                self._coming -= 1
                connected.cancel()
                gone.cancel()
            old, self._leg, self.call_id = self._leg, leg, call_id
            old.detach()
            self._adopt(leg)
            self.post(Event(Happened.LEG_REPLACED))
            # `resumed`: there was an opening already, nobody is to wait for another.
            leg.send_event({**self._phase_event(), "resumed": self.state.began})
            old.send_event({"type": "ended", "reason": "replaced"})
            await asyncio.sleep(_LAST_FRAMES_S)
            await old.close()

        self._spawn(take_over(), "take-over")

    # --- watching ------------------------------------------------------------------------------------------------

    def _adopt(self, leg: Transport) -> None:
        if self._leg_watch is not None:
            self._leg_watch.cancel()
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        leg.start(self._playout, self)
        self._leg_watch = self._spawn(self._watch_leg(leg), "leg")

    async def _watch_leg(self, leg: Transport) -> None:
        connected = asyncio.ensure_future(leg.connected.wait())
        gone = asyncio.ensure_future(leg.gone.wait())
        try:
            await asyncio.wait({connected, gone}, return_when=asyncio.FIRST_COMPLETED)
            if connected.done() and not gone.done():
                self.post(Event(Happened.MEDIA_UP))
                await gone
        finally:
            connected.cancel()
            gone.cancel()
        match leg.gone_cause:
            case "hung_up" if self._coming:
                # A client that calls again closes the leg it had: only the newest one can hang up.
                if self.state.began:
                    self.post(Event(Happened.LEG_DEAD))
            case "hung_up":
                self.post(Event(Happened.CALLER_HUNG_UP))
            case "dead":
                if self.state.phase is Phase.LIVE:
                    metrics.LEGS_LOST.inc()
                self.post(Event(Happened.LEG_DEAD))
            case _:
                self.post(Event(Happened.LEG_FAILED))

    # --- Listener ------------------------------------------------------------------------------------------------

    def on_frame(self, frame: Samples) -> None:
        if self._recorder is not None:
            self._recorder.caller(frame)
        if self.desk is not None:
            self.desk.caller(frame)
        if self._engine is not None:
            self._engine.hear(frame)

    def on_dtmf(self, digit: str) -> None:
        if self._engine is not None:
            self._engine.dtmf(digit)

    def on_message(self, message: dict[str, Any]) -> None:
        if self._engine is not None:
            self._engine.message(message)

    # --- the hold ------------------------------------------------------------------------------------------------

    async def _keep_hold(self, held: Held) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._tools.settings.heartbeat_s)
            try:
                async with asyncio.timeout(held.lease_ms / 1000):
                    await self._tools.queue.heartbeat(held)
                renewed = time.monotonic()
            except LeaseLost as lost:
                if lost.state is QueueState.WRAPUP:
                    self.post(Event(Happened.ENDED_BY_VERB, lost.end_reason, "ended in the queue"))
                else:
                    self.post(Event(Happened.HOLD_LOST, lost.end_reason, lost.detail))
                return
            except (Unavailable, TimeoutError) as error:
                log.warning("a hold could not be renewed", extra={"task_id": held.task_id, "error": str(error)})
                if time.monotonic() - renewed > held.lease_ms / 1000:
                    self.post(Event(Happened.HOLD_LOST, None, "the store was away for longer than the lease"))
                    return

    async def _wait_for_line(self) -> None:
        tools, call = self._tools, self._call
        deadline = time.monotonic() + tools.settings.wait_for_line_s
        seen = "0-0"
        while time.monotonic() < deadline:
            asked = time.monotonic()
            try:
                answer = await tools.queue.claim_call(
                    call.flow_id, call.task_id, tools.owner, lease_ms=tools.settings.lease_ms
                )
            except NotFound as error:
                self.post(Event(Happened.WAIT_OVER, EndReason.REMOVED, error.detail))
                return
            except Conflict as error:
                if error.code == "call_ended":
                    self.post(Event(Happened.WAIT_OVER, EndReason.CANCELLED, error.detail))
                    return
                place = 0  # its last holder died; its lease runs out
            except Unavailable as error:
                log.warning("the store does not answer", extra={"error": error.detail})
                place = 0
            else:
                if isinstance(answer, Held):
                    self._held = answer
                    self._call = answer.call
                    self._spawn(self._keep_hold(answer), "hold")
                    self.post(Event(Happened.CLAIMED))
                    return
                place = answer.place
            self._leg.send_event({"type": "state", "state": "waiting", "place": place})
            if self._hold is not None:
                self._hold.place(place)
            seen = await tools.feed.wait(call.flow_id, seen, _CLAIM_AT_MOST_S)
            await asyncio.sleep(max(0.0, _CLAIM_AT_LEAST_S - (time.monotonic() - asked)))
        self.post(Event(Happened.WAIT_OVER, EndReason.TIMEOUT, "no line became free"))

    # --- effects -------------------------------------------------------------------------------------------------

    async def _do(self, effect: Do) -> None:
        """One effect, under its own deadline. A broken step is logged and does not keep the next from being done."""
        try:
            async with asyncio.timeout(_STEP_S):
                await self._effect(effect)
        except LeaseLost as lost:
            log.info("the hold is gone", extra={"task_id": self._call.task_id, "step": effect, "state": lost.state})
            if effect is Do.ANSWER:
                self.post(Event(Happened.HOLD_LOST, lost.end_reason, lost.detail))
        except TimeoutError:
            log.error("a step took too long", extra={"task_id": self._call.task_id, "step": effect})
            self._broke(effect, "took too long")
        except Exception as error:
            log.exception("a step broke", extra={"task_id": self._call.task_id, "step": effect})
            self._broke(effect, error.detail if isinstance(error, SwitchroomError) else type(error).__name__)

    def _broke(self, effect: Do, why: str) -> None:
        """A call that cannot begin ends, with the true cause."""
        if effect in (Do.ANSWER, Do.CONVERSE):
            self.post(Event(Happened.CONCLUDED, EndReason.FAILED, f"{effect.value}: {why}"))

    async def _effect(self, effect: Do) -> None:
        queue, held, state = self._tools.queue, self._held, self.state
        match effect:
            case Do.CLAIM:
                self._spawn(self._wait_for_line(), "wait-for-line")
            case Do.HOLD_TONE:
                self._hold = await self._tools.make_hold(self._call.flow_id, self._playout)
            case Do.ANSWER:
                assert held is not None
                await queue.answer(held)
            case Do.CONVERSE:
                await self._converse()
            case Do.PAUSE:
                if self._engine is not None:
                    self._engine.pause()
                self._grace = asyncio.get_running_loop().call_later(
                    self._tools.settings.reconnect_grace_s, self.post, Event(Happened.GRACE_OVER)
                )
            case Do.RESUME:
                if self._engine is not None:
                    self._engine.resume()
            case Do.STOP_ENGINE:
                if self._engine is not None:
                    self._engine.leave()
                if self._engine_task is not None:
                    self._engine_task.cancel()
                    await asyncio.gather(self._engine_task, return_exceptions=True)
            case Do.FINALISE_RECORD:
                await self._finalise()
            case Do.HANG_UP:
                assert held is not None and state.reason is not None
                await queue.hang_up(held, state.reason, state.detail)
            case Do.SAY_ENDED:
                reason = state.reason.value if state.reason else "handed_back"
                self._tell({"type": "ended", "reason": reason, "detail": state.detail})
                await asyncio.sleep(_LAST_FRAMES_S)
            case Do.CLOSE_LEG:
                await self._leg.close()
            case Do.FINISH:
                assert held is not None and state.reason is not None
                await queue.finish(held, state.reason, state.detail)
            case Do.RELEASE:
                assert held is not None
                await queue.release(held, "handed_back", state.detail)
            case Do.ABANDON:
                await queue.abandon(self._call.flow_id, self._call.task_id)

    async def _converse(self) -> None:
        held = self._held
        assert held is not None
        if self._hold is not None:
            await self._hold.stop()
        call_log = CallLog(self._tools.executions, held, self._tools.remember(held), self._tell)
        self._log = call_log
        if self._tools.settings.record_calls:
            self._recorder = await Recorder.open(self._tools.audio, self._tools.settings.record_kbps)
            self._log.recording = self._recorder.so_far
        await self._log.begin()
        self._engine = await self._tools.make_engine(held.call, self._log)
        make_ears = self._tools.make_ears
        self.desk = Desk(self._playout, self._engine, self._note, call_log.operator, self._leg_event, make_ears)
        self.talking.set()
        self._playout.tap = self._sounded
        self._engine_task = self._spawn(self._run_engine(self._engine, self._log), "engine")

    async def _run_engine(self, engine: VoiceEngine, call_log: CallLog) -> None:
        call_log.talks()
        try:
            concluded = await engine.run(self._playout, call_log.on_event)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("the voice engine broke", extra={"task_id": self._call.task_id})
            concluded = Concluded(cause="failed", detail=f"the voice engine broke: {type(error).__name__}")
        self.post(Event(Happened.CONCLUDED, _REASONS[concluded.cause], concluded.detail))

    async def _note(self, action: str, operator: str, detail: str) -> int:
        """What an operator does, as a change of the call in the queue: its stream orders it with all others."""
        if self._held is None or self.state.phase not in (Phase.LIVE, Phase.LOST):
            raise Conflict("the call is not live", code="call_not_live")
        await self._tools.queue.note(self._held, action, f"{operator}: {detail}" if detail else operator)
        return time.time_ns() // 1_000_000

    async def transfer(self, operator: str, number: str) -> None:
        """The caller goes on at another number: its client is told where, and the call ends `transferred`."""
        await self._note("transfer_started", operator, f"to {number}")
        if self._log is not None:
            at_ms = time.time_ns() // 1_000_000
            self._log.operator(OperatorAction(at_ms=at_ms, action="transfer_started", operator=operator, detail=number))
        self._tell({"type": "transfer", "number": number})
        self.post(Event(Happened.CONCLUDED, EndReason.TRANSFERRED, f"{operator} transferred it to {number}"))

    async def _finalise(self) -> None:
        if self._log is None:
            return
        recording = await self._recorder.close() if self._recorder is not None else None
        await self._log.finish(self.state.reason, self.state.detail, recording)

    # --- small things --------------------------------------------------------------------------------------------

    def _sounded(self, frame: Samples) -> None:
        if self._recorder is not None:
            self._recorder.agent(frame)
        if self.desk is not None:
            self.desk.sounded(frame)

    def _leg_event(self, event: dict[str, Any]) -> None:
        self._leg.send_event(event)

    def _tell(self, event: dict[str, Any]) -> None:
        """The caller's client and the operators'."""
        self._leg.send_event(event)
        if self.desk is not None:
            self.desk.tell(event)

    def _phase_event(self) -> dict[str, Any]:
        return {"type": "state", "state": self.state.phase.value}

    def _tell_phase(self) -> None:
        if self.state.phase not in (Phase.ENDING, Phase.ENDED):
            self._tell(self._phase_event())

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine, name=f"call-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of a call broke", exc_info=error, extra={"task_id": self._call.task_id})
            self.post(Event(Happened.CONCLUDED, EndReason.FAILED, f"{task.get_name()}: {type(error).__name__}"))

    async def _sweep(self) -> None:
        """Nothing of a call outlives it."""
        if self._grace is not None:
            self._grace.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._hold is not None:
            await self._hold.stop()
        if self._log is not None:
            await self._log.close()
        if self.desk is not None:
            await self.desk.close()
        await self._leg.close()
