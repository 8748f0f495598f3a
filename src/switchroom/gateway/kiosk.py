"""Dialect: an operator kiosk on a WebSocket at `/api/v1/openai-realtime/{flowId}/kiosk`.

JSON text frames with a `type`. The kiosk begins with `hello`; then it is offered calls, says what becomes of them, and
gets each turn as `token` frames whose `data` assembles to `{"text", "tool_calls", "error"}`.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from switchroom.access import Scope
from switchroom.engine.events import TurnEnded, TurnFailed
from switchroom.errors import BadInput, Conflict, SwitchroomError
from switchroom.gateway.enqueue import require_realtime
from switchroom.gateway.kiosk_frames import (
    Accept,
    Complete,
    FromKiosk,
    Hello,
    Lost,
    Offer,
    Pause,
    Paused,
    Ping,
    Pong,
    Problem,
    Question,
    Ready,
    Refuse,
    Resume,
    Resumed,
    SessionContext,
    State,
    Token,
    ToKiosk,
    TurnEnd,
)
from switchroom.gateway.kiosk_stream import KioskStream
from switchroom.gateway.lingering import lingering
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import rfc3339
from switchroom.gateway.services import Services, known_flow, services
from switchroom.queue import LeaseLost
from switchroom.realtime.handover import PING_EVERY_S
from switchroom.realtime.kiosk import Kiosk
from switchroom.realtime.kiosk_call import Changed, KioskTools, Offered, Piece, Told
from switchroom.realtime.kiosk_call import Lost as Gone
from switchroom.realtime.kiosk_call import Paused as OnBreak
from switchroom.realtime.kiosk_call import Resumed as Back

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 256 << 10
HELLO_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
"""A kiosk that takes nothing for so long is cut off: it comes back with the calls that it holds."""
DEAD_AFTER_S = 20.0
MAX_CAPACITY = 16
MAX_SKILLS = 32
MAX_PAUSE_AFTER = 100
REPLACED = 4001
"""Close code: the same `clientId` connected again."""
NO_HELLO = 4000

_KIOSKS = web.AppKey("kiosks", dict[tuple[str, str], web.WebSocketResponse])


_frame = msgspec.json.Decoder(FromKiosk)
_encode = msgspec.json.Encoder().encode


def routes() -> list[web.RouteDef]:
    return [web.get("/api/v1/openai-realtime/{flow_id}/kiosk", kiosk)]


def install_kiosks(app: web.Application) -> None:
    """Where `app` remembers which kiosks are connected to it."""
    app[_KIOSKS] = {}


@operation(
    Scope.CALLS,
    "An operator kiosk's WebSocket: takes calls, holds them by its pings, gets each turn as it is made",
    tag="calls",
    replies={101: None},
    errors=(400, 404, 409),
)
async def kiosk(request: web.Request) -> web.WebSocketResponse:
    parts = services(request)
    flow = await known_flow(request, request.match_info["flow_id"])
    require_realtime(flow)
    socket = web.WebSocketResponse(heartbeat=DEAD_AFTER_S, max_msg_size=MAX_FRAME_BYTES)
    if not socket.can_prepare(request):
        raise BadInput("connect by WebSocket", code="not_a_websocket")
    await socket.prepare(request)
    line = _Line(socket)
    with lingering(request):
        try:
            hello = await _hello(line)
            if hello is None:
                return socket
            desk = Kiosk(
                _tools(parts),
                flow,
                hello.client_id,
                line.tell,
                skills=hello.skills,
                capacity=hello.capacity,
                paused=hello.paused,
                pause_after=hello.pause_after,
            )
            others, name = request.app[_KIOSKS], (flow.id, hello.client_id)
            if (before := others.get(name)) is not None:
                await before.close(code=REPLACED, message=b"connected again")
            others[name] = socket
            await line.send(
                Ready(
                    client_id=hello.client_id,
                    capacity=hello.capacity,
                    ping_every_seconds=PING_EVERY_S,
                    lease_seconds=parts.kiosk_lease_ms // 1000,
                )
            )
            work = asyncio.create_task(desk.run({held.task_id: (held.token, held.turn) for held in hello.held}))
            work.add_done_callback(line.close_after)
            try:
                await desk.settled.wait()
                await _listen(line, desk)
            finally:
                if others.get(name) is socket:
                    del others[name]
                work.cancel()
                done = await asyncio.gather(work, return_exceptions=True)
                if isinstance(done[0], Exception):
                    log.warning("a kiosk was cut off", extra={"flow_id": flow.id}, exc_info=done[0])
        except asyncio.CancelledError:
            await socket.close(code=WSCloseCode.GOING_AWAY)
            raise
    return socket


class _Line:
    """What goes out on a kiosk's socket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self._streams: dict[str, tuple[int, KioskStream]] = {}
        self._closing: asyncio.Task[bool] | None = None

    async def send(self, frame: ToKiosk) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self.socket.send_str(_encode(frame).decode())

    def close_after(self, work: asyncio.Task[None]) -> None:
        """Without its work a kiosk's connection is of no use: it may come back to another process."""
        if not work.cancelled():
            self._closing = asyncio.create_task(self.socket.close(code=WSCloseCode.INTERNAL_ERROR))

    async def tell(self, told: Told) -> None:
        match told:
            case Offered():
                await self.send(_offer(told))
            case Changed():
                await self.send(
                    State(task_id=told.task_id, state=told.state, end_reason=told.reason, detail=told.detail)
                )
            case Gone():
                self._streams.pop(told.task_id, None)
                await self.send(Lost(task_id=told.task_id, state=told.state, reason=told.reason))
            case OnBreak():
                await self.send(Paused(told.reason))
            case Back():
                await self.send(Resumed())
            case Piece():
                await self._piece(told)

    async def _piece(self, piece: Piece) -> None:
        turn, stream = self._streams.get(piece.task_id, (0, None))
        if turn != piece.turn or stream is None:
            stream = KioskStream()
            self._streams[piece.task_id] = (piece.turn, stream)
        task_id = piece.task_id
        if piece.event is None:
            await self.send(TurnEnd(task_id=task_id, turn=piece.turn, outcome="interrupted"))
            return
        if text := stream.feed(piece.event):
            await self.send(Token(task_id=task_id, turn=piece.turn, data=text))
        if isinstance(piece.event, TurnEnded | TurnFailed):
            if text := stream.end():
                await self.send(Token(task_id=task_id, turn=piece.turn, data=text))
            outcome = piece.event.outcome if isinstance(piece.event, TurnEnded) else "failed"
            active = piece.active_agent_id
            await self.send(TurnEnd(task_id=task_id, turn=piece.turn, outcome=outcome, active_agent_id=active))


async def _hello(line: _Line) -> Hello | None:
    """The first frame; None after a refusal, with the socket closed."""
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message = await line.socket.receive()
        if message.type is not WSMsgType.TEXT:
            raise BadInput("begin with a hello frame")
        hello = _frame.decode(message.data)
        if not isinstance(hello, Hello):
            raise BadInput("begin with a hello frame")
        if not (0 < len(hello.client_id) <= 128 and hello.client_id.isprintable()):
            raise BadInput("clientId must be 1 to 128 printable characters")
        if not 1 <= hello.capacity <= MAX_CAPACITY:
            raise BadInput(f"capacity must be from 1 to {MAX_CAPACITY}")
        if not 0 <= hello.pause_after <= MAX_PAUSE_AFTER:
            raise BadInput(f"pauseAfter must be from 0 to {MAX_PAUSE_AFTER}")
        if len(hello.skills) > MAX_SKILLS or not all(_is_skill(skill) for skill in hello.skills):
            raise BadInput(f"skills must be at most {MAX_SKILLS} words that do not begin with @")
    except TimeoutError:
        await line.socket.close(code=NO_HELLO, message=b"no hello")
        return None
    except (msgspec.DecodeError, BadInput) as error:
        await line.send(Problem(code="bad_hello", detail=str(error)))
        await line.socket.close(code=NO_HELLO, message=b"no hello")
        return None
    return hello


async def _listen(line: _Line, desk: Kiosk) -> None:
    """Takes the kiosk's frames until it leaves. A frame that is wrong is answered, and the next one is read."""
    async for message in line.socket:
        if message.type is not WSMsgType.TEXT:
            continue
        about: str | None = None
        try:
            frame = _frame.decode(message.data)
            about = getattr(frame, "task_id", None)
            await _do(line, desk, frame)
        except msgspec.DecodeError as error:
            await line.send(Problem(code="bad_frame", detail=str(error)))
        except LeaseLost as error:
            await line.tell(Gone(task_id=about or "", state=error.state or "", reason=error.end_reason or ""))
        except SwitchroomError as error:
            await line.send(Problem(code=error.code, detail=error.detail, task_id=about))


async def _do(line: _Line, desk: Kiosk, frame: FromKiosk) -> None:
    match frame:
        case Accept():
            await desk.accept(frame.task_id)
        case Refuse():
            await desk.refuse(frame.task_id, frame.reason[:200])
        case Pause():
            await desk.pause(frame.reason[:200])
        case Resume():
            await desk.resume()
        case Ping():
            await desk.ping()
            await line.send(Pong(rfc3339(time.time_ns() // 1_000_000)))
        case Question():
            if not frame.text.strip():
                raise BadInput("text must not be blank")
            await desk.ask(frame.task_id, frame.text, frame.heard)
        case Complete():
            await desk.complete(frame.task_id, frame.outcome[:64], frame.result)
        case Hello():
            raise Conflict("this connection said hello already", code="wrong_state")


def _offer(told: Offered) -> Offer:
    held, call = told.held, told.held.call
    return Offer(
        task_id=call.task_id,
        flow_id=call.flow_id,
        caller_id=call.caller_id,
        token=held.token,
        attempt=held.attempt,
        form=call.form,
        state=told.state,
        session_context=SessionContext(told.session_id),
        priority=call.priority,
        deadline=rfc3339(call.answer_by_ms),
    )


def _tools(parts: Services) -> KioskTools:
    return KioskTools(
        store=parts.store,
        queue=parts.queue,
        feed=parts.feed,
        engine=parts.engine,
        executions=parts.executions,
        lease_ms=parts.kiosk_lease_ms,
        offer_ms=parts.kiosk_offer_ms,
    )


def _is_skill(skill: str) -> bool:
    return 0 < len(skill.strip()) <= 64 and not skill.strip().startswith("@") and skill.isprintable()
