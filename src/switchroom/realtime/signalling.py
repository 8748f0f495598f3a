"""How an API node reaches the media process that carries a call, and how that process serves such requests.

A request goes to the process's list in the store, its reply to a list of its own. The caller's client reconnects by
offering again for the same task: the newest leg wins (it never has to wait until the old one is seen to be dead), and
the old one is told `replaced` and closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from switchroom.errors import Conflict, NotFound, SwitchroomError, TimedOut, Unavailable
from switchroom.queue import Queue
from switchroom.queue.model import State
from switchroom.realtime import registry
from switchroom.realtime.registry import MediaProcess, Reply, Request
from switchroom.store import Store, keys

log = logging.getLogger(__name__)

REPLY_S = 10.0
_REPLY_LIFE_MS = 30_000
_MAX_SDP = 64 * 1024


class Answer(NamedTuple):
    """The reply to an SDP offer: `call_id` names the leg (for the `Location`), `sdp` is the answer."""

    call_id: str
    sdp: str


class SignalClient:
    """The API node's side."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue = Queue(store)

    async def offer(self, flow_id: str, task_id: str, sdp: str) -> Answer:
        """Bring a caller's SDP offer to a media process.

        Raises `NotFound` for an unknown task, `Conflict` for one that has ended or that somebody else holds, `BadInput`
        for an SDP that cannot be answered, `Unavailable` (with `retry_after_s`) without a media process that has room,
        `TimedOut` when it does not answer within 10 s.
        """
        if len(sdp) > _MAX_SDP:
            raise Conflict("the SDP offer is too long", code="bad_sdp")
        carrier = await self.carrier(flow_id, task_id)
        reply = await self._ask(carrier.id, "offer", flow_id=flow_id, task_id=task_id, sdp=sdp)
        return Answer(reply.call_id, reply.sdp)

    async def carrier(self, flow_id: str, task_id: str) -> MediaProcess:
        """The media process to which a caller of this call goes: the one that holds it, else the emptiest.

        Raises `NotFound` for an unknown task, `Conflict` for one that has ended or that somebody else holds,
        `Unavailable` (with `retry_after_s`) without a media process that has room.
        """
        call = await self._queue.get(flow_id, task_id)
        if call is None:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        if call.state in (State.WRAPUP, State.ENDED):
            reason = call.end_reason.value if call.end_reason else "over"
            raise Conflict(f"the call has ended: {reason}", code="call_ended", extra={"endReason": reason})
        if call.state in (State.OFFERED, State.LIVE):
            holder = registry.process_of(call.owner)
            if holder is None:
                raise Conflict("the call is held by somebody else", code="call_held")
            process = await registry.look_up(self._store, holder)
            if process is not None:
                return process
            # It died. Its lease runs out within seconds: the leg waits for that at another process.
        return await self.emptiest()

    async def hang_up(self, call_id: str) -> None:
        """End a leg by its caller's wish. A leg that has ended already is no error; an unknown one is `NotFound`."""
        process_id = await self._store.call("GET", keys.media_call(call_id))
        if process_id is None:
            raise NotFound("no such call", code="unknown_call")
        if await registry.look_up(self._store, process_id.decode()) is None:
            return  # its process is gone, and so is the leg
        await self._ask(process_id.decode(), "hang_up", call_id=call_id)

    async def trickle(self, call_id: str, fragment: str, tag: str) -> None:
        """Hand addresses of the caller (`trickle.read_fragment`) to its leg. `tag`: the ICE session that they are for,
        "" for whichever. Raises `NotFound` without such a leg, `PreconditionFailed` when it is another session's."""
        process_id = await self._store.call("GET", keys.media_call(call_id))
        if process_id is None or await registry.look_up(self._store, process_id.decode()) is None:
            raise NotFound("no such call", code="unknown_call")
        await self._ask(process_id.decode(), "trickle", call_id=call_id, sdp=fragment, tag=tag)

    async def serve(self, flow_id: str, task_id: str, call_id: str, sdp: str, opening: bytes) -> str:
        """Begin a served session over WebRTC at the emptiest media process: the answer to the offer. `opening` is
        `served.opening.packed`. Raises as `offer` does, and `TooMany` without a free line."""
        process = await self.emptiest()
        about = {"flow_id": flow_id, "task_id": task_id, "call_id": call_id, "sdp": sdp}
        return (await self._ask(process.id, "serve", data=opening, **about)).sdp

    async def direct(self, flow_id: str, task_id: str, service_call: str) -> str:
        """Steer a call whose caller talks with a Realtime service directly, which knows it as `service_call`. Returns
        our name of its leg. Raises as `offer` does, and `TooMany` without a free line."""
        process = await self.emptiest()
        about = {"flow_id": flow_id, "task_id": task_id}
        return (await self._ask(process.id, "direct", data=service_call.encode(), **about)).call_id

    async def refer(self, call_id: str, target: str) -> None:
        """End a call because it goes on elsewhere: `target` is a `tel:` or `sip:` URI. Raises `NotFound`."""
        process_id = await self._store.call("GET", keys.media_call(call_id))
        if process_id is None or await registry.look_up(self._store, process_id.decode()) is None:
            raise NotFound("no such call", code="unknown_call")
        await self._ask(process_id.decode(), "refer", call_id=call_id, data=target.encode())

    async def at_call(
        self, kind: str, flow_id: str, task_id: str, *, call_id: str = "", sdp: str = "", data: bytes = b""
    ) -> Reply:
        """Ask the process that carries a live call for something about it (`operators.OperatorHost`).

        Raises `NotFound` for an unknown task, `Conflict` for one that is not live at a media process.
        """
        call = await self._queue.get(flow_id, task_id)
        if call is None:
            raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
        holder = registry.process_of(call.owner)
        if call.state is not State.LIVE or holder is None or await registry.look_up(self._store, holder) is None:
            raise Conflict("the call is not live here", code="call_not_live", extra={"state": call.state})
        return await self._ask(holder, kind, flow_id=flow_id, task_id=task_id, call_id=call_id, sdp=sdp, data=data)

    async def media(self) -> list[MediaProcess]:
        """The media processes that live now."""
        return await registry.living(self._store)

    async def emptiest(self) -> MediaProcess:
        """The media process that a new call goes to. Raises `Unavailable` where none has room."""
        processes = await registry.living(self._store)
        if not processes:
            raise Unavailable("no media process is running", code="no_media_process", retry_after_s=2)
        free = [process for process in processes if process.has_room]
        if not free:
            raise Unavailable("all media processes are full", code="media_full", retry_after_s=5)
        return min(free, key=lambda process: (process.legs / process.max_legs, process.loop_lag_ms))

    async def _ask(self, process_id: str, kind: str, *, data: bytes = b"", **about: str) -> Reply:
        expires_at_ms = int((time.time() + REPLY_S) * 1000)
        request = Request(id=uuid.uuid4().hex, kind=kind, expires_at_ms=expires_at_ms, data=data, **about)
        await self._store.call("RPUSH", keys.media_inbox(process_id), registry.encode(request))
        answer = await self._store.blocking("BLPOP", keys.media_reply(request.id), str(REPLY_S), timeout_s=REPLY_S + 2)
        if answer is None:
            raise TimedOut("the media process did not answer", code="media_timeout", retry_after_s=2)
        reply = registry.decode_reply(answer[1])
        if reply.refusal is not None:
            raise registry.error_of(reply.refusal)
        return reply


Handler = Callable[[Request], Awaitable[Reply]]


class SignalServer:
    """The media process's side: takes requests off its list and answers each in a task of its own."""

    def __init__(self, store: Store, process_id: str, handle: Handler) -> None:
        self._store = store
        self._inbox = keys.media_inbox(process_id)
        self._handle = handle
        self._tasks: set[asyncio.Task[None]] = set()
        self.expired = 0

    async def run(self) -> None:
        """Serve until cancelled; what is being answered then is answered to its end."""
        try:
            while True:
                try:
                    item = await self._store.blocking("BLPOP", self._inbox, "2", timeout_s=5)
                except Unavailable as error:
                    log.warning("the store does not answer", extra={"error": error.detail})
                    await asyncio.sleep(0.5)
                    continue
                if item is not None:
                    task = asyncio.get_running_loop().create_task(self._serve(item[1]), name="signal")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=REPLY_S)

    async def _serve(self, data: bytes) -> None:
        request = registry.decode_request(data)
        if request.expires_at_ms < time.time() * 1000:
            self.expired += 1
            log.warning("a request waited longer than its asker", extra={"kind": request.kind})
            return
        try:
            reply = await self._handle(request)
        except SwitchroomError as error:
            reply = Reply(refusal=registry.refusal_of(error))
        except Exception:
            log.exception("a request could not be served", extra={"kind": request.kind})
            reply = Reply(refusal=registry.Refusal(status=500, code="internal", detail="the media process failed"))
        key = keys.media_reply(request.id)
        try:
            await self._store.call("RPUSH", key, registry.encode(reply))
            await self._store.call("PEXPIRE", key, _REPLY_LIFE_MS)
        except Unavailable as error:
            log.warning("a reply could not be sent", extra={"error": error.detail})
