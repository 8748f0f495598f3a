"""What a media process does when an operator asks for something about a call that it carries."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import msgspec

from switchroom.errors import BadInput, Conflict
from switchroom.realtime.call import CallSession
from switchroom.realtime.desk import Desk, Mode, OperatorView
from switchroom.realtime.lifecycle import Phase
from switchroom.realtime.registry import Reply, Request
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.webrtc import WebRtcLeg

LISTEN, LEAVE, SET_MODE, WHISPER, TRANSFER, SHOW = (
    f"operator_{name}" for name in ("listen", "leave", "mode", "whisper", "transfer", "show")
)
KINDS = frozenset({LISTEN, LEAVE, SET_MODE, WHISPER, TRANSFER, SHOW})

_BEGIN_S = 5.0
"""From a call that is live in the queue to one whose parties talk."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes with a request; each kind reads its own members."""

    operator: str = ""
    mode: Mode = Mode.LISTEN
    say: str = ""
    text: str = ""
    to_operator: str = ""
    to_number: str = ""


class LiveCall(msgspec.Struct, frozen=True, kw_only=True):
    """A live call and its operators."""

    phase: str
    operators: list[OperatorView]

    @property
    def talks(self) -> str:
        """Who talks with the caller: an operator's name, or "agent"."""
        return next((one.operator for one in self.operators if one.mode is Mode.TALK), "agent")


encode = msgspec.json.Encoder().encode
decode_live = msgspec.json.Decoder(LiveCall).decode
_decode = msgspec.json.Decoder(Asked).decode


class OperatorHost:
    """Serves the requests of `KINDS` for the process's `sessions` (by flow and task)."""

    def __init__(self, settings: MediaSettings, sessions: Mapping[tuple[str, str], CallSession]) -> None:
        self._settings = settings
        self._sessions = sessions

    async def handle(self, request: Request) -> Reply:
        """Raises `Conflict` for a call that is not live here, and what the desk raises."""
        session = self._sessions.get((request.flow_id, request.task_id))
        if session is None or session.state.phase not in (Phase.LIVE, Phase.LOST):
            raise Conflict("the call is not live", code="call_not_live")
        try:
            async with asyncio.timeout(_BEGIN_S):
                await session.talking.wait()
        except TimeoutError:
            raise Conflict("the call has not begun yet", code="call_not_live", retry_after_s=1) from None
        assert session.desk is not None
        desk, asked = session.desk, _decode(request.data) if request.data else Asked()
        match request.kind:
            case kind if kind == LISTEN:
                return await self._listen(desk, session, request.sdp, asked.operator)
            case kind if kind == LEAVE:
                await desk.leave(request.call_id)
            case kind if kind == SET_MODE:
                await desk.set_mode(request.call_id, asked.mode, asked.say)
            case kind if kind == WHISPER:
                await desk.whisper(asked.operator, asked.text)
            case kind if kind == TRANSFER and asked.to_number:
                await session.transfer(asked.operator, asked.to_number)
            case kind if kind == TRANSFER and asked.to_operator:
                await desk.offer_to(asked.operator, asked.to_operator)
            case kind if kind == SHOW:
                pass
            case _:
                raise BadInput("a transfer needs an operator or a number")
        return Reply(data=encode(LiveCall(phase=session.state.phase.value, operators=desk.operators())))

    async def _listen(self, desk: Desk, session: CallSession, sdp: str, operator: str) -> Reply:
        leg_id = str(uuid.uuid4())
        leg = WebRtcLeg(self._settings)
        try:
            answer = await leg.answer(sdp)
            await desk.listen(leg, leg_id, operator)
        except BaseException:
            await leg.close()
            raise
        leg.send_event({"type": "state", "state": session.state.phase.value})
        return Reply(call_id=leg_id, sdp=answer)
