"""The GA Realtime protocol as OpenAI publishes it: the events that we send, and what we read of those that come.

Source: the types of the `openai` package 3.51 (`openai/types/realtime`). Every name of the protocol stands in this file
and in `openai_link.py`; nothing of it goes any further.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from switchroom.engine.session import Message
from switchroom.realtime.audio import Samples

WIRE_RATE = 24_000
"""Hz; the only rate of `audio/pcm`, 16 bit little-endian mono."""
PREFIX_MS = 300
"""Audio before the detected onset that belongs to an utterance; `speech_started` counts it in."""

_PCM = {"type": "audio/pcm", "rate": WIRE_RATE}
_SPOKEN = {
    "caller": ("user", "input_text"),
    "agent": ("assistant", "output_text"),
    "operator": ("assistant", "output_text"),
    "guide": ("system", "input_text"),
}

FATAL_CODES = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_model",
        "model_not_found",
        "organization_deactivated",
        "unsupported_model",
    }
)
"""Another try would be answered in the same way: the call ends with this as its cause."""
EXPIRED = "session_expired"
"""The session's longest time is over (60 min): a new one goes on, with the context rebuilt."""
NOT_ACTIVE = "response_cancel_not_active"


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. `parameters` is its JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    """The model called a function; `arguments` is JSON, as the model wrote it. `session` numbers ours."""

    name: str
    arguments: str
    call_id: str
    session: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A response to ask for. `instructions` "" are those of the session.

    `may_call`: with the session's functions. `only`: this function, and nothing but a call of it; then the response is
    text and no part of the conversation.
    """

    instructions: str = ""
    may_call: bool = False
    only: Tool | None = None


# --- what we send ------------------------------------------------------------------------------------------------


def session_opening(
    *, instructions: str, tools: Sequence[Tool], voice: str, transcriber: str, hangover_ms: int
) -> dict[str, Any]:
    """The whole configuration. The server hears when the caller speaks; when to answer is decided here."""
    listens = {
        "format": _PCM,
        "transcription": {"model": transcriber},
        "turn_detection": {
            "type": "server_vad",
            "prefix_padding_ms": PREFIX_MS,
            "silence_duration_ms": hangover_ms,
            "create_response": False,
            "interrupt_response": False,
        },
    }
    session = _session(instructions, tools)
    session["output_modalities"] = ["audio"]
    session["audio"] = {"input": listens, "output": {"format": _PCM, "voice": voice}}
    return {"type": "session.update", "session": session}


def session_beside(*, instructions: str, tools: Sequence[Tool], transcriber: str, hangover_ms: int) -> dict[str, Any]:
    """The configuration of a session whose sound goes to the caller another way. The service interrupts it by itself:
    nobody else could do so in time."""
    session = _session(instructions, tools)
    session["output_modalities"] = ["audio"]
    detection = {
        "type": "server_vad",
        "prefix_padding_ms": PREFIX_MS,
        "silence_duration_ms": hangover_ms,
        "create_response": False,
        "interrupt_response": True,
    }
    session["audio"] = {"input": {"transcription": {"model": transcriber}, "turn_detection": detection}}
    return {"type": "session.update", "session": session}


def clear_output() -> dict[str, Any]:
    """What the caller would still hear is dropped."""
    return {"type": "output_audio_buffer.clear"}


def session_node(*, instructions: str, tools: Sequence[Tool]) -> dict[str, Any]:
    """Another node of the flow talks. An empty list of tools is sent too: what is left out stays as it was."""
    return {"type": "session.update", "session": _session(instructions, tools)}


def _session(instructions: str, tools: Sequence[Tool]) -> dict[str, Any]:
    return {
        "type": "realtime",
        "instructions": instructions,
        "tools": [_tool(tool) for tool in tools],
        "tool_choice": "auto",
    }


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def caller_audio(samples: Samples) -> dict[str, Any]:
    """A piece of the caller at `WIRE_RATE`."""
    data = base64.b64encode(samples.astype("<i2").tobytes()).decode("ascii")
    return {"type": "input_audio_buffer.append", "audio": data}


def response(wanted: Wanted) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if wanted.instructions:
        body["instructions"] = wanted.instructions
    if wanted.only is not None:
        body.update(conversation="none", output_modalities=["text"], tools=[_tool(wanted.only)])
        body["tool_choice"] = {"type": "function", "name": wanted.only.name}
    elif not wanted.may_call:
        body["tool_choice"] = "none"
    return {"type": "response.create", "response": body}


def cancel(response_id: str) -> dict[str, Any]:
    return {"type": "response.cancel", "response_id": response_id} if response_id else {"type": "response.cancel"}


def message(said: Message) -> dict[str, Any]:
    """Words that were said before, as an item of the conversation."""
    role, part = _SPOKEN[said.role]
    item = {"type": "message", "role": role, "content": [{"type": part, "text": said.text}]}
    return {"type": "conversation.item.create", "item": item}


def function_output(call_id: str, output: Mapping[str, Any] | str) -> dict[str, Any]:
    text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    item = {"type": "function_call_output", "call_id": call_id, "output": text}
    return {"type": "conversation.item.create", "item": item}


def truncate(item_id: str, audio_end_ms: int) -> dict[str, Any]:
    """The caller heard the item up to here; the server forgets the rest of its audio and all of its text after it."""
    return {
        "type": "conversation.item.truncate",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def delete(item_id: str) -> dict[str, Any]:
    return {"type": "conversation.item.delete", "item_id": item_id}


# --- what comes --------------------------------------------------------------------------------------------------


class Fault(msgspec.Struct, frozen=True):
    """An error as the server words it."""

    type: str | None = None
    code: str | None = None
    message: str | None = None
    event_id: str | None = None

    @property
    def cause(self) -> str:
        return self.code or self.type or "unknown"


class StatusDetails(msgspec.Struct, frozen=True):
    reason: str | None = None
    error: Fault | None = None


class Item(msgspec.Struct, frozen=True):
    type: str | None = None
    name: str | None = None
    arguments: str | None = None
    call_id: str | None = None


class Response(msgspec.Struct, frozen=True):
    id: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None
    usage: dict[str, Any] | None = None


class ServerEvent(msgspec.Struct, frozen=True):
    """Any event of the server; the fields that we use, empty where its type has none."""

    type: str
    item_id: str = ""
    response_id: str = ""
    delta: str | None = None
    transcript: str | None = None
    audio_start_ms: int = 0
    audio_end_ms: int = 0
    item: Item | None = None
    response: Response | None = None
    session: dict[str, Any] | None = None
    error: Fault | None = None
    usage: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(ServerEvent)


def server_event(data: str | bytes) -> ServerEvent:
    """Raises `msgspec.DecodeError` for what is no event."""
    return _decoder.decode(data)


def agent_audio(delta: str) -> Samples:
    """A piece of the agent at `WIRE_RATE`. Raises `ValueError` for what is no PCM."""
    samples: Samples = np.frombuffer(base64.b64decode(delta, validate=True), dtype="<i2").astype(np.int16)
    return samples


def add_usage(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds counts up, level by level."""
    for key, value in more.items():
        if isinstance(value, dict):
            inner = total.setdefault(key, {})
            if isinstance(inner, dict):
                add_usage(inner, value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            total[key] = total.get(key, 0) + value
