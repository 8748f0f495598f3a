"""Telephone calls at a media process: a provider's stream comes through the door and joins its call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, web

from switchroom.errors import BadInput, SwitchroomError
from switchroom.realtime.door import Ticket, opened
from switchroom.realtime.media_stream import MediaStreamLeg, started
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Transport
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

KIND = "media_stream"
"""Of the tickets that are served here."""
TASK_PARAMETER = "taskId"
"""The custom parameter of a `<Stream>` that names the call, where its URL does not."""

TRANSFER_S = 60
"""How long after the stream the provider may ask where its caller goes on."""

Join = Callable[[str, str, Callable[[], Awaitable[Transport]]], Awaitable[str]]


class PhoneLines:
    """The door's handler of `KIND`."""

    def __init__(self, store: Store, settings: MediaSettings, join: Join) -> None:
        self._store = store
        self._settings = settings
        self._join = join

    async def serve(self, ticket: Ticket, request: web.Request) -> web.StreamResponse:
        """One stream, to its end. What cannot be served closes it with a reason: the provider logs that."""
        socket = await opened(request)
        try:
            stream = await started(socket)
            task_id = ticket.task_id or stream.custom_parameters.get(TASK_PARAMETER, "")
            if not task_id:
                raise BadInput(f"the stream has no parameter {TASK_PARAMETER}: the call that it belongs to")

            async def transfer(number: str) -> None:
                await self._store.call("SET", keys.phone_transfer(task_id), number, "EX", TRANSFER_S)

            leg = MediaStreamLeg(self._settings, socket, stream, transfer)

            async def the_leg() -> Transport:
                return leg

            await self._join(ticket.flow_id, task_id, the_leg)
        except SwitchroomError as error:
            log.info("a telephone stream was refused", extra={"code": error.code, "detail": error.detail})
            late = WSCloseCode.TRY_AGAIN_LATER if error.retry_after_s is not None else WSCloseCode.POLICY_VIOLATION
            await socket.close(code=late, message=error.detail.encode()[:120])
            return socket
        await leg.run()
        return socket
