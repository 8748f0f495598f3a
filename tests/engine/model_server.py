"""A server that speaks OpenAI's chat completions, streamed and whole, from a script. It stands for a paid service only;
tests/engine/test_model_server.py holds it to the vendor's own SDK, which validates each answer strictly.

It refuses what the real one refuses: tool results without their call, schemas that strict mode does not take.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class Say:
    """One answer: a text in pieces, or tool calls as (name, arguments); or an error status; or silence."""

    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    status: int = 200
    retry_after: str = ""
    delay_s: float = 0.0
    piece_s: float = 0.0
    breaks_after: int = 0
    """The connection is cut after so many pieces."""


Script = Callable[[dict[str, Any]], Say]


class ModelServer:
    """`async with ModelServer(script) as server`: `server.url` is the base URL, `server.requests` what it was sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gone = 0
        """Clients that left in the middle of an answer."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/openai/deployments/{deployment}/chat/completions", self._complete)
        self._server = TestServer(app)

    async def __aenter__(self) -> ModelServer:
        await self._server.start_server()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/v1"))

    @property
    def root(self) -> str:
        return str(self._server.make_url("/"))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if wrong := _fault(body):
            return _error(400, wrong)
        say = self.script(body)
        try:
            if say.delay_s:
                await asyncio.sleep(say.delay_s)
            if say.status != 200:
                reply = _error(say.status, "scripted")
                if say.retry_after:
                    reply.headers["Retry-After"] = say.retry_after
                return reply
            if body.get("stream"):
                return await self._stream(request, body, say)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        message: dict[str, Any] = {"role": "assistant", "content": say.text or None, "refusal": None}
        if say.calls:
            message["tool_calls"] = [_call(at, name, given) for at, (name, given) in enumerate(say.calls)]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "tool_calls" if say.calls else "stop",
        }
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1_760_000_000,
                "model": body["model"],
                "choices": [choice],
                "usage": _usage(body, say),
            }
        )

    async def _stream(self, request: web.Request, body: dict[str, Any], say: Say) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await reply.prepare(request)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        async def send(delta: dict[str, Any] | None, finish: str | None = None) -> None:
            choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
            chunk: dict[str, Any] = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1_760_000_000,
                "model": body["model"],
                "choices": choices,
            }
            if wants_usage:
                chunk["usage"] = _usage(body, say) if delta is None else None
            await reply.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        await send({"role": "assistant", "content": None if say.calls else "", "refusal": None})
        for at, piece in enumerate(_pieces(say.text)):
            if say.breaks_after and at >= say.breaks_after:
                assert request.transport is not None
                request.transport.abort()
                return reply
            await send({"content": piece})
            if say.piece_s:
                await asyncio.sleep(say.piece_s)
        for at, (name, given) in enumerate(say.calls):
            call = _call(at, name, given)
            text = call["function"]["arguments"]
            await send({"tool_calls": [{**call, "index": at, "function": {"name": name, "arguments": ""}}]})
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                await send({"tool_calls": [{"index": at, "function": {"arguments": part}}]})
        await send({}, "tool_calls" if say.calls else "stop")
        if wants_usage:
            await send(None)
        await reply.write(b"data: [DONE]\n\n")
        await reply.write_eof()
        return reply


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word + (" " if at < len(words) - 1 else "") for at, word in enumerate(words)] if text else []


def _call(at: int, name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}


def _usage(body: dict[str, Any], say: Say) -> dict[str, Any]:
    asked = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    given = len(say.text.split()) + len(say.calls)
    return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": asked + given}


def _error(status: int, message: str) -> web.Response:
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return web.json_response({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


def _fault(body: dict[str, Any]) -> str:
    """What the real service would say no to."""
    open_calls: set[str] = set()
    if not body.get("messages"):
        return "messages is empty"
    for message in body["messages"]:
        role = message.get("role")
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                return "a tool message must follow the assistant message with its call"
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            return "an assistant message with tool_calls must be followed by all their results"
        if role not in ("system", "developer", "user", "assistant"):
            return f"unknown role {role}"
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
        content = message.get("content")
        if role == "user" and isinstance(content, list):
            if wrong := next((wrong for part in content if (wrong := _part_fault(part))), ""):
                return wrong
        elif not open_calls and not isinstance(content, str):
            return "content is missing"
    for tool in body.get("tools") or ():
        if not tool["function"]["name"].replace("_", "").replace("-", "").isalnum():
            return "a tool's name"
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_schema" and shape["json_schema"].get("strict"):
        return _strict(shape["json_schema"]["schema"])
    return ""


def _part_fault(part: dict[str, Any]) -> str:
    match part.get("type"):
        case "text":
            return "" if isinstance(part["text"], str) else "a text part without a text"
        case "image_url":
            url = part["image_url"]["url"]
            return "" if url.startswith(("data:image/", "https://", "http://")) else "not a picture's URL"
        case "input_audio":
            base64.b64decode(part["input_audio"]["data"], validate=True)
            return "" if part["input_audio"]["format"] in ("wav", "mp3") else "a sound that is not taken"
    return f"unknown part {part.get('type')}"


def _strict(schema: dict[str, Any]) -> str:
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "additionalProperties must be false"
        if sorted(schema.get("required", [])) != sorted(schema.get("properties", {})):
            return "required must name every property"
        return next((wrong for each in schema["properties"].values() if (wrong := _strict(each))), "")
    if schema.get("type") == "array":
        return _strict(schema["items"])
    return ""
