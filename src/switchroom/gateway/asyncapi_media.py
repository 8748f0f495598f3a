"""The sockets that carry a call's audio, for the AsyncAPI document: OpenAI's Realtime protocol, and Media Streams."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["REALTIME", "TELEPHONE", "Protocol"]


class Protocol(NamedTuple):
    """The messages of one socket by name, each with its payload's JSON Schema. `received` by us, and `sent`."""

    received: dict[str, dict[str, Any]]
    sent: dict[str, dict[str, Any]]


_PLACE = "item_id output_index:integer content_index:integer"
_FROM_CLIENT = {
    "session.update": "session:object",
    "input_audio_buffer.append": "audio",
    "input_audio_buffer.commit": "",
    "input_audio_buffer.clear": "",
    "output_audio_buffer.clear": "",
    "conversation.item.create": "item:object previous_item_id?",
    "conversation.item.retrieve": "item_id",
    "conversation.item.truncate": "item_id content_index:integer audio_end_ms:integer",
    "conversation.item.delete": "item_id",
    "response.create": "response?:object",
    "response.cancel": "response_id?",
}
"""The members of each event, with their JSON type where it is not a string, and `?` where they may be missing."""
_TO_CLIENT = {
    "error": "error:object",
    "session.created": "session:object",
    "session.updated": "session:object",
    "conversation.created": "conversation:object",
    "conversation.item.added": "item:object previous_item_id?",
    "conversation.item.done": "item:object previous_item_id?",
    "conversation.item.retrieved": "item:object",
    "conversation.item.truncated": "item_id content_index:integer audio_end_ms:integer",
    "conversation.item.deleted": "item_id",
    "conversation.item.input_audio_transcription.delta": "item_id content_index:integer delta",
    "conversation.item.input_audio_transcription.completed": "item_id content_index:integer transcript usage:object",
    "conversation.item.input_audio_transcription.failed": "item_id content_index:integer error:object",
    "input_audio_buffer.committed": "item_id previous_item_id?",
    "input_audio_buffer.cleared": "",
    "input_audio_buffer.speech_started": "item_id audio_start_ms:integer",
    "input_audio_buffer.speech_stopped": "item_id audio_end_ms:integer",
    "input_audio_buffer.timeout_triggered": "item_id audio_start_ms:integer audio_end_ms:integer",
    "input_audio_buffer.dtmf_event_received": "event received_at:integer",
    "output_audio_buffer.started": "response_id",
    "output_audio_buffer.stopped": "response_id",
    "output_audio_buffer.cleared": "response_id",
    "response.created": "response:object",
    "response.done": "response:object",
    "response.output_item.added": "response_id output_index:integer item:object",
    "response.output_item.done": "response_id output_index:integer item:object",
    "response.content_part.added": f"response_id {_PLACE} part:object",
    "response.content_part.done": f"response_id {_PLACE} part:object",
    "response.output_text.delta": f"response_id {_PLACE} delta",
    "response.output_text.done": f"response_id {_PLACE} text",
    "response.output_audio.delta": f"response_id {_PLACE} delta",
    "response.output_audio.done": f"response_id {_PLACE}",
    "response.output_audio_transcript.delta": f"response_id {_PLACE} delta",
    "response.output_audio_transcript.done": f"response_id {_PLACE} transcript",
    "response.function_call_arguments.delta": "response_id item_id output_index:integer call_id delta",
    "response.function_call_arguments.done": "response_id item_id output_index:integer call_id arguments",
    "rate_limits.updated": "rate_limits:array",
}


def _event(name: str, members: str, *, ours: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"const": name}, "event_id": {"type": "string"}}
    required = ["type", *(["event_id"] if ours else [])]
    for member in members.split():
        spelled, _, kind = member.partition(":")
        key = spelled.removesuffix("?")
        properties[key] = {"type": kind or "string"}
        if key == "previous_item_id":
            properties[key] = {"type": ["string", "null"]}
        elif spelled == key:
            required.append(key)
    return {"type": "object", "required": required, "properties": properties}


def _frame(name: str, **members: Any) -> dict[str, Any]:
    properties = {"event": {"const": name}, "streamSid": {"type": "string"}}
    properties |= {key: {"type": "object", "properties": inner} for key, inner in members.items()}
    return {"type": "object", "required": ["event", *members], "properties": properties}


_TEXT = {"type": "string"}
_AUDIO = {"payload": {"type": "string", "contentEncoding": "base64", "description": "G.711 µ-law, 8 kHz, 20 ms"}}
_START = {
    "streamSid": _TEXT,
    "callSid": _TEXT,
    "accountSid": _TEXT,
    "mediaFormat": {
        "type": "object",
        "properties": {
            "encoding": {"const": "audio/x-mulaw"},
            "sampleRate": {"const": 8000},
            "channels": {"const": 1},
        },
    },
    "customParameters": {"type": "object", "additionalProperties": _TEXT},
}

REALTIME = Protocol(
    received={name: _event(name, members, ours=False) for name, members in _FROM_CLIENT.items()},
    sent={name: _event(name, members, ours=True) for name, members in _TO_CLIENT.items()},
)
"""Source: OpenAI, "Realtime API reference", client and server events; what a member holds is told there."""

TELEPHONE = Protocol(
    received={
        "connected": _frame("connected"),
        "start": _frame("start", start=_START),
        "media": _frame("media", media=_AUDIO),
        "dtmf": _frame("dtmf", dtmf={"digit": _TEXT}),
        "mark": _frame("mark", mark={"name": _TEXT}),
        "stop": _frame("stop"),
    },
    sent={
        "media": _frame("media", media=_AUDIO),
        "mark": _frame("mark", mark={"name": _TEXT}),
        "clear": _frame("clear"),
    },
)
"""Source: Twilio, "Media Streams: WebSocket messages", bidirectional streams."""
