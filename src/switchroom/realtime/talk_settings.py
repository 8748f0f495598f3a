"""How a conversation is led. Set for a media process; a flow may set its own (`FlowSettings.voice`)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from switchroom.engine.voice_settings import VoiceSettings

BACKCHANNELS = (
    "mm-hm", "mhm", "mm", "mmm", "hmm", "hm", "uh-huh", "aha", "ah", "oh", "huh", "uh", "um", "er", "you", "ha",
    "yeah", "yes", "yep", "yup", "okay", "ok", "right", "sure", "alright", "fine", "good", "great", "cool", "i see",
    "got it", "thank you", "thanks",
)  # fmt: skip
"""Signs of listening, and what a recogniser makes of a cough."""


class TalkSettings(BaseModel):
    """Durations carry their unit in their name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    turn_end: Literal["transcript", "silence", "push_to_talk"] = "transcript"
    """What ends the caller's turn: silence, and after words that hang in the air (`my number is`) a longer one
    (English); silence alone; or a button in the client."""
    hangover_ms: int = Field(default=320, ge=96, le=5000)
    """Silence that ends the caller's utterance."""
    turn_patience_s: float = Field(default=0.7, ge=0, le=10)
    """So much more silence after words that hang."""
    speculative_ms: int = Field(default=96, ge=32, le=5000)
    """Silence after which the final decode already starts; thrown away if the caller goes on."""
    barge_in: bool = True
    """Callers may interrupt the agent. If not, what they say meanwhile is answered afterwards."""
    barge_in_words: int = Field(default=1, ge=1, le=20)
    """Fewer words than this do not interrupt, except after a question."""
    backchannels: tuple[str, ...] = BACKCHANNELS
    """Words that do not interrupt, except after a question."""
    greeting_must_be_heard: bool = False
    """The agent's first words cannot be interrupted."""

    keypad_end: str = Field(default="#", pattern=r"^[0-9*#A-D]?$")
    """The key that finishes what is typed on a phone; empty: none."""
    keypad_timeout_s: float = Field(default=3.0, gt=0, le=60)
    """So long after the last key what was typed is the caller's turn."""
    keypad_digits: int = Field(default=0, ge=0, le=64)
    """So many digits are the caller's turn at once; 0: any number."""

    voicemail: Literal["off", "hang_up", "message"] = "off"
    """For flows that call out. Not `off`: the agent waits for who answers (4 s at most); at an answering machine it
    hangs up, or leaves `voicemail_text` after the beep. The call's end is `no_answer` then."""
    voicemail_text: str = "Hello, this is an automatic call. We will try again later. Goodbye."
    announcement_text: str = ""
    """Said before the flow speaks, and not to be interrupted: `This call is recorded.`"""
    filler_after_s: float = Field(default=2.5, gt=0)
    """The flow (a tool, a model) gives nothing to say for so long: the agent says that it takes a moment."""
    filler_texts: tuple[str, ...] = ("One moment, please.", "I am still looking into it.", "Thank you for waiting.")
    """What it says then, in turns; none: nothing."""

    silence_s: float = Field(default=8.0, gt=0)
    """Nobody says anything for so long: the agent asks whether the caller is still there."""
    silence_prompts: int = Field(default=2, ge=0)
    """So many questions without an answer, then the call ends."""
    silence_prompt_text: str = "Are you still there?"
    silence_goodbye_text: str = "I cannot hear you, so I will hang up now. Goodbye."
    failure_text: str = "I am sorry, something went wrong on our side. Goodbye."

    read_back: bool = True
    """Digits, names and addresses that the flow keeps are read back, where its answer does not say them."""
    read_back_text: str = "I noted: {values}."

    hold_text: str = "You are number {place} in line."
    """Said to a caller who waits for a line; empty: nothing."""
    hold_next_text: str = "You are next in line."
    hold_every_s: float = Field(default=45.0, gt=0)
    """How often, while the place stays the same; a better place is told sooner."""
    resume_text: str = "Sorry, we were cut off."
    """Said first where a call goes on after a crash or a stop of its process."""

    def led_by(self, voice: VoiceSettings) -> Self:
        """These, with what a flow sets for its own calls."""
        given = voice.given()
        return self.model_copy(update={name: given[name] for name in given if name in type(self).model_fields})

    @property
    def prompts(self) -> tuple[str, ...]:
        """Texts of ours that many calls hear."""
        texts = (
            *self.filler_texts,
            self.silence_prompt_text,
            self.silence_goodbye_text,
            self.resume_text,
            self.hold_next_text,
            *(self.hold_text.replace("{place}", str(place)) for place in (2, 3)),
        )
        return tuple(text for text in texts if text)
