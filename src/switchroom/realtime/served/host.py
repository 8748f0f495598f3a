"""Served sessions of a media process: each is a call of the queue, with a leg and an engine of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

from aiohttp import web

from switchroom.engine import Engine, FlowStore
from switchroom.engine.events import Event as EngineEvent
from switchroom.engine.events import TurnInput
from switchroom.engine.session import Session
from switchroom.errors import NotFound, Unavailable
from switchroom.queue import Call
from switchroom.realtime.call_log import CallLog
from switchroom.realtime.door import Ticket, opened
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.served.aside import Aside
from switchroom.realtime.served.clients import Clients
from switchroom.realtime.served.engine import ServedEngine
from switchroom.realtime.served.opening import Opening, unpacked
from switchroom.realtime.served.socket import SocketClient, SocketLeg
from switchroom.realtime.served.tools import ServedResponder
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Transport, VoiceEngine
from switchroom.realtime.webrtc import WebRtcLeg
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

MakeEngine = Callable[[Call, CallLog], Awaitable[VoiceEngine]]


class Join(Protocol):
    """Brings a leg to its call; see `MediaWorker.join`."""

    async def __call__(
        self,
        flow_id: str,
        task_id: str,
        make_leg: Callable[[], Awaitable[Transport]],
        *,
        make_engine: MakeEngine,
        call_id: str = "",
    ) -> str: ...


class _Live(NamedTuple):
    engine: ServedEngine
    clients: Clients


class _Channel:
    """The data channel of a WebRTC leg as a client."""

    def __init__(self) -> None:
        self.leg: WebRtcLeg | None = None

    def send(self, text: str) -> None:
        if self.leg is not None:
            self.leg.send_text(text)

    def end(self, code: int, reason: str) -> None:
        """The call closes its leg itself."""


class ServedHost:
    """`parts` None: this process has no speech models, and serves none."""

    def __init__(
        self,
        store: Store,
        parts: SpeechParts | None,
        flows: FlowStore,
        engine: Engine,
        settings: MediaSettings,
        join: Join,
    ) -> None:
        self._store = store
        self._parts = parts
        self._flows = flows
        self._engine = engine
        self._settings = settings
        self._join = join
        self._live: dict[str, _Live] = {}

    async def serve(self, ticket: Ticket, request: web.Request) -> web.StreamResponse:
        """A session over a WebSocket, from its handshake to its end."""
        clients = Clients()
        leg = SocketLeg(clients)
        clients.join(leg)
        call_id = ticket.call_id

        async def made() -> Transport:
            return leg

        engine = self._maker(unpacked(ticket.data), clients, call_id, leg=leg)
        await self._join(ticket.flow_id, ticket.task_id, made, make_engine=engine, call_id=call_id)
        try:
            socket = await opened(request)
            await leg.serve(socket)
        finally:
            leg.refuse()
        return socket

    async def offer(self, flow_id: str, task_id: str, call_id: str, sdp: str, opening: bytes) -> str:
        """A session over WebRTC: the answer to the offer. Events go over the data channel `oai-events`."""
        clients, channel = Clients(), _Channel()
        clients.join(channel)
        answer = ""

        async def made() -> Transport:
            nonlocal answer
            leg = WebRtcLeg(self._settings, channel="oai-events", on_text=lambda text: clients.came_now(channel, text))
            channel.leg = leg
            try:
                answer = await leg.answer(sdp)
            except BaseException:
                await leg.close()
                raise
            return leg

        engine = self._maker(unpacked(opening), clients, call_id, leg=None)
        await self._join(flow_id, task_id, made, make_engine=engine, call_id=call_id)
        return answer

    async def sideband(self, ticket: Ticket, request: web.Request) -> web.StreamResponse:
        """A second client of a session: it is told everything and may say everything."""
        live = self._live.get(ticket.call_id)
        if live is None:
            raise NotFound("no such call", code="unknown_call")
        socket = await opened(request)
        client = SocketClient(live.clients)
        live.engine.greet(client)
        await client.serve(socket)
        return socket

    async def accepted(self, flow_id: str, task_id: str) -> MakeEngine | None:
        """For a call that was accepted while it waited: a session steered by whoever joins it by `?call_id=` with the
        task's ID. The caller's own leg speaks no protocol of ours."""
        raw = await self._store.call("GETDEL", keys.realtime_accepted(flow_id, task_id))
        if raw is None:
            return None
        return self._maker(unpacked(raw), Clients(), task_id, leg=None)

    def over(self, call_id: str) -> None:
        """A call has ended."""
        if (live := self._live.pop(call_id, None)) is not None:
            live.clients.end("the call is over")

    def _maker(self, opening: Opening, clients: Clients, call_id: str, *, leg: SocketLeg | None) -> MakeEngine:
        parts = self._parts
        if parts is None:
            raise Unavailable(
                "this media process has no speech models: the Realtime API is served where media.engine is `local`",
                code="not_served",
            )

        async def make(call: Call, call_log: CallLog) -> VoiceEngine:
            flow = await self._flows.get(call.flow_id)
            if flow is None:
                raise NotFound("the flow was deleted", code="unknown_flow")
            call_log.execution.graph_hash = flow.hash
            session = Session(
                session_id=call_log.execution.session_id, realtime=True, form=dict(call.form), state=dict(call.memory)
            )
            served = ServedEngine(
                parts,
                session,
                self._settings.led_by(flow.settings.voice),
                clients,
                model=opening.model,
                given=opening.session,
                leg=leg,
            )
            dialogue = served.dialogue
            inner = self._engine.responder
            has_model = getattr(inner, "asks_model", lambda model: False)
            responder = ServedResponder(inner, dialogue.desk, dialogue.asked_now, has_model)
            engine = self._engine.answered_by(responder)

            def run_turn(session: Session, given: TurnInput) -> AsyncIterator[EngineEvent]:
                tools = [*flow.settings.tools, *dialogue.desk.for_flow(served.config.tools)]
                return engine.run(flow.graph, session, given, variables=flow.settings.variables, tools=tools)

            dialogue.run_turn = run_turn
            dialogue.aside = Aside(inner, flow.graph, has_model)
            self._live[call_id] = _Live(served, clients)
            return served

        return make
