"""The configuration of a session: its defaults, partial updates merged in depth, and the fields checked by name.

What is kept is the JSON as the client knows it, since it is echoed whole; `Config` is the same as values.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

import msgspec

from switchroom.realtime.g711 import G711_RATE
from switchroom.realtime.served.protocol import WireError

PCM_RATE = 24_000
_MERGED = {"audio", "audio.input", "audio.output", "audio.input.turn_detection", "audio.input.transcription"}
"""Objects of which an update may name a part. Every other value is replaced whole."""


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None

    @property
    def hz(self) -> int:
        return PCM_RATE if self.type == "audio/pcm" else G711_RATE


class TurnDetection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both kinds; a field that the kind does not have is left at its default."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the input is to be written down. One recogniser is here, whatever `model` says."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    prompt: str | None = None
    keywords: list[str] | None = None
    delay: str | None = None


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Format = Format()
    noise_reduction: dict[str, Any] | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Format = Format()
    voice: str | dict[str, Any] | None = None
    speed: float = 1.0


class Audio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input: Input = Input()
    output: Output = Output()


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function of the client's. `parameters` is the JSON Schema of its arguments."""

    type: str = "function"
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session's, or what a response was asked for with."""

    type: Literal["realtime", "transcription"] = "realtime"
    object: str = "realtime.session"
    id: str = ""
    model: str = ""
    expires_at: int = 0
    instructions: str = ""
    output_modalities: list[Literal["text", "audio"]] = msgspec.field(default_factory=lambda: ["audio"])
    audio: Audio = Audio()
    tools: list[Function] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | Literal["inf"] = "inf"
    truncation: str | dict[str, Any] = "auto"
    tracing: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None

    @property
    def speaks(self) -> bool:
        return "audio" in self.output_modalities


_SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
_OWN = ("id", "object", "expires_at", "model")
"""What the server decides."""


def defaults(session_id: str, model: str, expires_at: int, *, kind: str = "realtime") -> dict[str, Any]:
    """A new session's configuration, as it is echoed. `expires_at` is Unix seconds."""
    listens: dict[str, Any] = {
        "format": {"type": "audio/pcm", "rate": PCM_RATE},
        "noise_reduction": None,
        "transcription": None,
        "turn_detection": dict(_SERVER_VAD),
    }
    begun: dict[str, Any] = {
        "type": kind,
        "object": "realtime.session" if kind == "realtime" else "realtime.transcription_session",
        "id": session_id,
        "expires_at": expires_at,
        "include": None,
    }
    if kind == "transcription":
        listens["transcription"] = {"model": None, "language": None, "prompt": None}
        return {**begun, "audio": {"input": listens}}
    return {
        **begun,
        "model": model,
        "instructions": "",
        "output_modalities": ["audio"],
        "audio": {
            "input": listens,
            "output": {"format": {"type": "audio/pcm", "rate": PCM_RATE}, "voice": "marin", "speed": 1.0},
        },
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "reasoning": None,
    }


def updated(current: dict[str, Any], update: Any, *, spoken: bool = False) -> tuple[dict[str, Any], Config]:
    """`current` with the fields that `update` has, and the same as values. Raises `WireError`, which names the field;
    nothing is changed then. `spoken`: the agent was heard already, so its voice stays."""
    if not isinstance(update, dict):
        raise WireError("Missing required parameter: 'session'.", code="missing_required_parameter", param="session")
    kind = update.get("type")
    if kind is None:
        raise WireError(
            "Missing required parameter: 'session.type'.", code="missing_required_parameter", param="session.type"
        )
    if kind != current["type"]:
        raise WireError(
            f"Invalid value: '{kind}'. This is a {current['type']} session.", code="invalid_value", param="session.type"
        )
    given = {key: value for key, value in update.items() if key not in _OWN}
    merged = _merge(current, given, "")
    config = values(merged)
    _check(config)
    if spoken and config.audio.output.voice != values(current).audio.output.voice:
        raise WireError(
            "Cannot update a conversation's voice if assistant audio is present.",
            code="cannot_update_voice",
            param="session.audio.output.voice",
        )
    return merged, config


def values(session: dict[str, Any]) -> Config:
    """Raises `WireError` with the field's name."""
    try:
        return msgspec.convert(session, Config)
    except msgspec.ValidationError as error:
        raise _refused(str(error), "session") from None


def for_response(session: dict[str, Any], asked: dict[str, Any]) -> Config:
    """The configuration of one response: the session's as it is now, with what `response.create` overrides."""
    known = ("instructions", "output_modalities", "tools", "tool_choice", "parallel_tool_calls", "max_output_tokens")
    given: dict[str, Any] = {key: asked[key] for key in known if asked.get(key) is not None}
    if isinstance(out := asked.get("audio"), dict) and isinstance(out.get("output"), dict):
        given["audio"] = {"output": {key: out["output"][key] for key in ("format", "voice") if out["output"].get(key)}}
    merged = _merge(session, given, "")
    try:
        config = msgspec.convert(merged, Config)
    except msgspec.ValidationError as error:
        raise _refused(str(error), "response") from None
    _check(config, "response")
    return config


def _merge(current: dict[str, Any], update: dict[str, Any], path: str) -> dict[str, Any]:
    merged = copy.deepcopy(current)
    for key, value in update.items():
        place = f"{path}.{key}" if path else key
        if place in _MERGED and isinstance(value, dict):
            before = merged.get(key)
            if place == "audio.input.turn_detection":
                before = _detection(before, value)
            merged[key] = _merge(before if isinstance(before, dict) else {}, value, place)
        else:
            merged[key] = copy.deepcopy(value)
            if place.endswith(".format") and value == {"type": "audio/pcm"}:
                merged[key]["rate"] = PCM_RATE
    return merged


def _detection(before: Any, update: dict[str, Any]) -> dict[str, Any]:
    """What an update of turn detection is put upon: what was there, or the defaults of another kind."""
    kind = update.get("type", before.get("type") if isinstance(before, dict) else "server_vad")
    if isinstance(before, dict) and before.get("type") == kind:
        return before
    return dict(_SEMANTIC_VAD if kind == "semantic_vad" else _SERVER_VAD)


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<at>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"contains unknown field `([^`]+)`")


def _refused(words: str, root: str) -> WireError:
    """The decoder's sentence as the protocol's error: `Object contains unknown field `x` - at `$.audio``."""
    found = _AT.match(words)
    at = root + (found["at"] or "" if found else "")
    what = found["what"] if found else words
    if unknown := _UNKNOWN.search(what):
        param = f"{at}.{unknown[1]}"
        return WireError(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)
    code = "invalid_type" if what.startswith("Expected") else "invalid_value"
    return WireError(f"Invalid value for '{at}': {what}.", code=code, param=at)


def _check(config: Config, root: str = "session") -> None:
    """What types alone do not say."""

    def must(right: bool, place: str, what: str) -> None:
        if not right:
            param = f"{root}.{place}"
            raise WireError(f"Invalid value for '{param}': {what}.", code="invalid_value", param=param)

    must(len(config.output_modalities) == 1, "output_modalities", "expected ['audio'] or ['text'], never both")
    for place, form in (("input", config.audio.input.format), ("output", config.audio.output.format)):
        right = form.rate in (None, form.hz)
        must(right, f"audio.{place}.format.rate", f"{form.type} has {form.hz} Hz")
    detection = config.audio.input.turn_detection
    if detection is not None:
        where = "audio.input.turn_detection"
        must(0 <= detection.threshold <= 1, f"{where}.threshold", "expected 0 to 1")
        must(0 <= detection.prefix_padding_ms <= 5_000, f"{where}.prefix_padding_ms", "expected 0 to 5000")
        must(32 <= detection.silence_duration_ms <= 10_000, f"{where}.silence_duration_ms", "expected 32 to 10000")
        idle = detection.idle_timeout_ms
        must(idle is None or 1_000 <= idle <= 120_000, f"{where}.idle_timeout_ms", "expected 1000 to 120000 or null")
    must(0.25 <= config.audio.output.speed <= 1.5, "audio.output.speed", "expected 0.25 to 1.5")
    most = config.max_output_tokens
    must(
        most == "inf" or (isinstance(most, int) and 1 <= most <= 4096),
        "max_output_tokens",
        "expected 1 to 4096 or 'inf'",
    )
    names = [tool.name for tool in config.tools if tool.type == "function"]
    for at, tool in enumerate(config.tools):
        if tool.type == "function":
            must(
                bool(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name)), f"tools[{at}].name", "1 to 64 of A-Z a-z 0-9 _ -"
            )
        else:
            must(False, f"tools[{at}].type", f"'{tool.type}' tools are not served here, functions are")
    must(len(set(names)) == len(names), "tools", "two functions have the same name")
    choice = config.tool_choice
    if isinstance(choice, str):
        must(choice in ("none", "auto", "required"), "tool_choice", "expected none, auto, required or a function")
    else:
        must(choice.get("type") == "function" and choice.get("name") in names, "tool_choice", "names no function here")
