"""What an operator can set about live calls. The composition root fills it from environment and TOML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from switchroom.realtime.openai_cost import PRICES
from switchroom.realtime.talk_settings import TalkSettings
from switchroom.settings_types import Secret

OPENAI_URL = "wss://api.openai.com/v1/realtime"


class IceServer(BaseModel):
    """A STUN or TURN server, as in the W3C's `RTCIceServer`: `stun:host:port` or `turn:host:port?transport=udp`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: list[str] = Field(min_length=1)
    username: str | None = None
    credential: str | None = None
    secret: SecretStr | None = None
    """Shared with the TURN server (coturn's `static-auth-secret`): each call gets credentials of its own, in place of
    `username` and `credential`."""
    credential_s: int = Field(default=3600, ge=60)
    """How long those hold: a call that lasts longer needs longer ones."""

    @field_validator("urls")
    @classmethod
    def _schemes(cls, value: list[str]) -> list[str]:
        for url in value:
            if not re.match(r"(stun|stuns|turn|turns):[^/]", url):
                raise ValueError(f"{url!r} must begin with stun:, stuns:, turn: or turns: and name a host")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.secret is not None and (self.username is not None or self.credential is not None):
            raise ValueError("either secret, or username and credential")
        return self


class MediaSettings(TalkSettings):
    """Settings of one media process; how calls are led: `TalkSettings`. Durations carry their unit in their name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_legs: int = Field(default=8, ge=1, le=200)
    """Live legs that this process takes; measured: a local-engine call costs about a fifth of a core."""
    max_loop_lag_ms: float = Field(default=100.0, gt=0)
    """Above this lag of the event loop the process takes no new leg."""

    ice_servers: list[IceServer] = Field(default_factory=list)
    """None by default: nobody outside is asked for our address."""
    media_loopback: bool = False
    """Offer 127.0.0.1 besides the host's addresses. Without any other interface it is offered anyway."""
    connect_timeout_s: float = Field(default=15.0, gt=0)
    """From the SDP answer to flowing media."""
    dead_peer_s: float = Field(default=3.0, gt=0)
    """Neither audio nor a message from the caller for so long: the leg is lost."""
    reconnect_grace_s: float = Field(default=12.0, ge=0)
    """A call whose leg was lost is kept so long for the caller's client to come back."""
    wait_for_line_s: float = Field(default=900.0, gt=0)
    """A connected caller waits at most so long for a free line."""

    door_host: str = "127.0.0.1"
    """Where this process takes WebSockets that API nodes bring: an address that they reach, and nobody else needs."""
    door_port: int = Field(default=0, ge=0, le=65_535)
    """0: any free one."""
    door_url: str = ""
    """What API nodes are told, where that is not `http://door_host:door_port`."""

    lease_ms: int = Field(default=5000, ge=1000)
    heartbeat_s: float = Field(default=1.5, gt=0)
    drain_s: float = Field(default=30.0, ge=0)
    """On a stop, live calls may end by themselves within this time; then they are handed back."""
    max_call_s: float = Field(default=3600.0, gt=0)

    hold_audio: Path | None = None
    """An audio file that callers hear while they wait for a line, again and again; none: a soft tone."""

    record_calls: bool = True
    record_kbps: int = Field(default=64, ge=48, le=256)
    """Ogg Opus, both sides together; 64 are 28 MB an hour. Below 48 each side would be heard on the other's channel."""
    record_encrypted: bool = False
    """Recordings are encrypted on disk, under the server's `secrets_key`."""
    record_consent_text: str = ""
    """Said to the caller before anything else where the call is recorded; it cannot be interrupted. Empty: nothing."""
    clause_timeout_s: float = Field(default=20.0, gt=0)
    """Deadline for one clause of the agent's voice."""
    speech_threads: int = Field(default=2, ge=1, le=16)
    """Threads for voice detection and resampling; recognition has one of its own."""

    ears: Literal["moonshine", "whisper"] = "moonshine"
    """What makes words of the caller's voice in the local engine. `whisper` needs the extra of that name and a model of
    yours: three times the work at its smallest, worth it from `base` on (`bench/voice/word_errors.py` compares)."""
    whisper_model: Path | None = None
    """Folder of a Whisper model in CTranslate2's format."""
    whisper_sha256: str = Field(default="", pattern=r"^([0-9a-fA-F]{64})?$")
    """What the SHA-256 of its `model.bin` must be; empty: not checked."""
    whisper_language: str = "en"
    whisper_word_times: bool = False
    """Each word of callers with its times on the transcript, for about twice the recogniser's work."""

    engine: Literal["local", "openai"] = "local"
    """Who hears and speaks: the models of this machine, or a service that speaks OpenAI's Realtime protocol."""
    openai_url: str = OPENAI_URL
    openai_model: str = "gpt-realtime-2.1"
    openai_api_key: Secret = None
    openai_voice: str = "marin"
    openai_transcriber: str = "gpt-transcribe"
    """The model that writes down what the caller says."""
    openai_session_s: float = Field(default=3300.0, gt=0)
    """A session older than this is left for a new one at the next quiet moment: the service ends them after an hour."""
    openai_prices: dict[str, float] = Field(default_factory=dict)
    """What a million tokens cost, for the cost on the record: `text_in`, `text_cached`, `audio_in`, `audio_cached`,
    `text_out`, `audio_out`, and `minute` for a minute that is written down. Without prices no cost is told."""
    openai_currency: str = "USD"
    openai_tries: int = Field(default=5, ge=1, le=50)
    """Connections lost in a row after which the call ends."""

    @field_validator("openai_prices")
    @classmethod
    def _known_prices(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(PRICES))
        if unknown:
            raise ValueError(f"knows {', '.join(PRICES)}, not {', '.join(unknown)}")
        return value

    @field_validator("openai_url")
    @classmethod
    def _socket(cls, value: str) -> str:
        if not re.match(r"wss?://[^/]", value):
            raise ValueError("must begin with wss:// or ws://")
        return value

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.engine == "openai" and self.openai_url == OPENAI_URL and self.openai_api_key is None:
            raise ValueError("the engine openai needs openai_api_key")
        return self
