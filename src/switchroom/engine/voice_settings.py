"""How a flow's live calls are led, where that differs from the media process' own settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = ["VoiceSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Text = Annotated[str, Meta(max_length=1000)]


class VoiceSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """None: as the media process is set. What each one does is said at `realtime.settings.MediaSettings`, which has
    them by the same names (all but `after_call`)."""

    turn_end: Literal["transcript", "silence", "push_to_talk"] | None = None
    hangover_ms: Annotated[int, Meta(ge=96, le=5000)] | None = None
    turn_patience_s: Annotated[float, Meta(ge=0, le=10)] | None = None
    barge_in: bool | None = None
    barge_in_words: Annotated[int, Meta(ge=1, le=20)] | None = None
    backchannels: tuple[_Text, ...] | None = None
    greeting_must_be_heard: bool | None = None
    keypad_end: Annotated[str, Meta(pattern=r"^[0-9*#A-D]?$")] | None = None
    keypad_timeout_s: Annotated[float, Meta(gt=0, le=60)] | None = None
    keypad_digits: Annotated[int, Meta(ge=0, le=64)] | None = None
    voicemail: Literal["off", "hang_up", "message"] | None = None
    voicemail_text: _Text | None = None
    announcement_text: _Text | None = None
    filler_after_s: _Seconds | None = None
    filler_texts: tuple[_Text, ...] | None = None
    silence_s: _Seconds | None = None
    silence_prompts: Annotated[int, Meta(ge=0, le=100)] | None = None
    silence_prompt_text: _Text | None = None
    silence_goodbye_text: _Text | None = None
    failure_text: _Text | None = None
    read_back: bool | None = None
    read_back_text: _Text | None = None
    hold_text: _Text | None = None
    hold_next_text: _Text | None = None
    hold_every_s: _Seconds | None = None
    resume_text: _Text | None = None
    record_consent_text: _Text | None = None
    after_call: Annotated[str, Meta(max_length=200)] = ""
    """Where the flow's work on an ended call begins: a node of it (ID or label), or another flow's ID. Its texts and
    fields are the record's artefacts. No media process has such a thing of its own."""

    def given(self) -> dict[str, Any]:
        """What the flow sets."""
        names = (name for name in self.__struct_fields__ if name != "after_call")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
