"""A text turn as Flowise's stream: `data:` lines of `{"event", "data"}`, a comment as heartbeat, `end` last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from switchroom.engine.events import NodeFinished, NodeStarted, Token
from switchroom.errors import SwitchroomError
from switchroom.gateway.reply import begin_events
from switchroom.gateway.speech import SPEECH, read_aloud
from switchroom.gateway.trace import status_of, usage_metadata
from switchroom.gateway.turns import Turn
from switchroom.http_problems import hidden_error, problem_of, request_correlation_id

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0


async def stream(request: web.Request, turn: Turn, answer: Callable[[], msgspec.Struct]) -> web.StreamResponse:
    """Writes the turn's events; `answer` is called at its end, for the members that a whole reply would have."""
    reply = await begin_events(request)
    writing = asyncio.Lock()

    async def send(event: str, data: Any, **beside: Any) -> None:
        frame = msgspec.json.encode({"event": event, "data": data, **beside})
        async with writing:
            await reply.write(b"message:\ndata:" + frame + b"\n\n")

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            async with writing:
                await reply.write(b":heartbeat\n\n")

    heartbeat = asyncio.create_task(beat())
    try:
        await _told(turn, send)
        members = msgspec.to_builtins(answer())
        await send("agentFlowExecutedData", members.pop("agentFlowExecutedData"))
        await send("agentFlowEvent", str(turn.state))
        del members["text"]
        if members["action"] is not None:
            await send("action", members["action"])
        await send("metadata", members)
        if turn.flow.settings.chat.speech == "always":
            await read_aloud(request.app[SPEECH], turn.text, turn.message_id, send)
    except ConnectionError:
        log.info("client left a stream", extra={"execution_id": turn.execution.id})
        raise
    except Exception as error:
        if not isinstance(error, SwitchroomError):
            log.exception("turn failed", extra={"execution_id": turn.execution.id})
            error = hidden_error()
        # The answer has begun, so the problem travels as an event. Flowise's clients take its data for a sentence.
        problem = problem_of(error, request.path, request_correlation_id(request))
        await send("agentFlowEvent", str(turn.state))
        if error.code == "turn_stopped":
            await send("abort", "[DONE]")
        else:
            await send("error", error.detail, problem=problem)
    finally:
        heartbeat.cancel()
        await asyncio.gather(heartbeat, return_exceptions=True)
    await send("end", "[DONE]")
    await reply.write_eof()
    return reply


async def _told(turn: Turn, send: Callable[..., Any]) -> None:
    await send("agentFlowEvent", "INPROGRESS")
    begun = False
    async with contextlib.aclosing(turn.events()) as events:
        async for event in events:
            match event:
                case NodeStarted():
                    await send("nextAgentFlow", _node(event, "INPROGRESS"))
                case Token():
                    if not begun:
                        begun = True
                        await send("start", event.text)
                    await send("token", event.text)
                case NodeFinished():
                    await send("nextAgentFlow", _node(event, status_of(event.error, event.waits)))
                    if event.usage:
                        await send("usageMetadata", usage_metadata(event.usage))
                    given = event.output if isinstance(event.output, dict) else {}
                    for name in ("usedTools", "sourceDocuments"):
                        if given.get(name):
                            await send(name, given[name])
                case _:
                    pass


def _node(event: NodeStarted | NodeFinished, status: str) -> dict[str, str]:
    return {"nodeId": event.node_id, "nodeLabel": event.label, "status": status}
