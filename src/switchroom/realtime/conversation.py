"""Turn taking, common to the voice engines: who speaks, who is interrupted, what was heard, and how silence ends.

A turn: utterance → flow engine → pieces of text → voice → playout. When the caller begins to speak while the agent
talks, the agent falls silent at once but keeps what it had to say; the strategies in `turns` judge the words: a cough
or "mm-hm" does not interrupt. Else the generation counter of the playout grows, what waits is dropped, and transcript
and context keep what was heard. If nothing of an answer was heard yet, the caller had not finished: the turn is undone
and its words are joined.
"""

from __future__ import annotations

import asyncio
import copy
import time
from abc import abstractmethod
from typing import Any, NamedTuple

from switchroom.engine.events import TurnInput
from switchroom.engine.session import Message, Session
from switchroom.errors import SwitchroomError
from switchroom.realtime.answering_machine import Answered
from switchroom.realtime.audio import Samples
from switchroom.realtime.ears import Heard
from switchroom.realtime.memory import Remembered
from switchroom.realtime.playout import Playout
from switchroom.realtime.running_turn import Turn, Words
from switchroom.realtime.screening import Screening
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.speaker import RunTurn, Speaker
from switchroom.realtime.turns import AgentTalk, Verdict, end_of_turn, interruptions, judge
from switchroom.realtime.turns.keypad import Keypad
from switchroom.realtime.turns.push_to_talk import PushToTalk
from switchroom.realtime.voice import CallerSpeaking, Concluded, Emit, Kept, TurnDone

_CALLER = "caller speaks"
_LEG = "leg is lost"
_LOOK_S = 1.0
"""How often to look at the clock while somebody is busy."""


class HandOver(NamedTuple):
    """An operator takes the call over, or gives it back."""

    to_operator: bool
    say: str = ""


class Conversation(Speaker):
    """One conversation. See `voice.VoiceEngine`; an engine adds how it hears and how it speaks."""

    def __init__(self, run_turn: RunTurn, session: Session, settings: MediaSettings) -> None:
        super().__init__(run_turn, session, settings)
        self._inbox: asyncio.Queue[Heard | Turn | str | Message | HandOver] = asyncio.Queue()
        """What the caller said, a turn that ended, a key that was pressed, what an operator says or does."""
        self._interruptions = interruptions(settings)
        self._end_of_turn = end_of_turn(settings)
        self._keypad = Keypad(end=settings.keypad_end, timeout_s=settings.keypad_timeout_s, most=settings.keypad_digits)
        self._button = PushToTalk(self._pressed, self._released) if settings.turn_end == "push_to_talk" else None
        consent = settings.record_consent_text if settings.record_calls else ""
        self.opening = [text for text in (consent, settings.announcement_text) if text]
        """Said before the flow speaks, and not to be interrupted."""
        self.resumes: Remembered | None = None
        """What an earlier attempt of this call left; `session` is its session then."""
        self._screening: Screening | None = None
        """While it is not known who answered."""
        self._turn: Turn | None = None
        self._turns = 0
        self._words: Words | None = None
        """The caller's turn that may go on."""
        self._kept = Words()
        """What was said into words that must be heard."""
        self._prompts = 0
        self._quiet_since = time.monotonic()
        self._caller_speaking = False
        self._hearing = False
        """An utterance has begun and its words are not here yet."""
        self._paused = False
        self._left = False
        self._must_hear = False
        self._yielded = False
        """An operator talks in the agent's place."""

    # --- what an engine adds -------------------------------------------------------------------------------------

    @abstractmethod
    def _hear(self, frame: Samples) -> None:
        """One 20 ms frame of the caller."""

    @abstractmethod
    async def _listen(self) -> None:
        """Hears the caller and calls `speech_started`, `speech_ended`, `partial` and `heard`; ends only by an error."""

    @abstractmethod
    def _pressed(self) -> None:
        """The push-to-talk button is down: an utterance begins."""

    @abstractmethod
    def _released(self) -> None:
        """It is up: the utterance ends."""

    # --- VoiceEngine ---------------------------------------------------------------------------------------------

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        self._playout = playout
        self._minutes.begin(emit)
        self._quiet_since = time.monotonic()
        listening = asyncio.get_running_loop().create_task(self._listen(), name="listen")
        conversation = asyncio.get_running_loop().create_task(self._converse(), name="conversation")
        try:
            await asyncio.wait({listening, conversation}, return_when=asyncio.FIRST_COMPLETED)
            if not conversation.done():
                listening.result()  # it only ends by an error, which is to be seen
            return conversation.result()
        except SwitchroomError as error:
            return Concluded(cause="failed", detail=error.detail)
        finally:
            await self._cancel_turn()
            for task in (listening, conversation):
                task.cancel()
            await asyncio.gather(listening, conversation, return_exceptions=True)

    def hear(self, frame: Samples) -> None:
        if self._paused:
            return
        if self._screening is not None:
            self._screening.frame(frame)
        self._hear(frame)

    def dtmf(self, digit: str) -> None:
        """A key of a phone: one of `0-9*#A-D`."""
        self._inbox.put_nowait(digit)

    def message(self, event: dict[str, Any]) -> None:
        """What a client sent beside its audio."""
        if self._button is not None:
            self._button.message(event)

    def pause(self) -> None:
        self._paused = True
        if self._playout is not None:
            self._playout.pause(_LEG)

    def resume(self) -> None:
        self._paused = False
        self._quiet_since = time.monotonic()
        if self._playout is not None:
            self._playout.resume(_LEG)

    def leave(self) -> None:
        if self._left:
            return
        self._left = True
        if self._playout is not None:
            cut = self._playout.speaking
            self._playout.clear()
            self._settle(interrupted=cut)

    # --- desk.Yielding -------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """An operator talks from now on: the agent is silent, what is said goes on record and into the context."""
        self._yielded = True
        self._inbox.put_nowait(HandOver(to_operator=True))

    def hand_back(self, say: str) -> None:
        """The agent has the call again; it says `say` first, if that is anything."""
        self._inbox.put_nowait(HandOver(to_operator=False, say=say))

    def guide(self, text: str) -> None:
        """What the agent is to know in its next turns, and the caller does not hear."""
        self._inbox.put_nowait(Message(role="guide", text=text))

    def operator_said(self, spoken: Heard) -> None:
        """An operator's words to the caller."""
        self._minutes.operator(spoken)
        self._inbox.put_nowait(Message(role="operator", text=spoken.text))

    def _overheard(self, message: Message) -> None:
        """Words that are neither the caller's turn nor the agent's answer become context."""
        message.at_ms = time.time_ns() // 1_000_000
        before = self._messages_before
        if self._turn is None or before is None:
            self.session.messages.append(message)
            return
        # A turn runs: what it adds stays last, and it is not undone with the turn.
        self.session.messages.insert(before, message)
        self._turn.before.messages.append(message)
        self._messages_before = before + 1

    async def _handed(self, order: HandOver) -> None:
        assert self._playout is not None
        self._quiet_since, self._prompts = time.monotonic(), 0
        self._yielded = order.to_operator
        if order.to_operator:
            await self._interrupt()
            words, self._words = self._words, None
            if words is not None and words.text:
                self._overheard(Message(role="caller", text=words.text))
            self._go_on()
        elif order.say:
            await self.announce(order.say)
            self._overheard(Message(role="agent", text=order.say))

    # --- what is heard -------------------------------------------------------------------------------------------

    def speech_started(self) -> None:
        self._caller_speaking = self._hearing = True
        self._emit(CallerSpeaking(active=True))
        if self._screening is not None:
            self._screening.started()
        if self._playout is not None and not (self._yielded or self._deaf() or (self._turn and self._turn.ending)):
            self._playout.pause(_CALLER)
            self._hushed_at = time.monotonic()

    def speech_ended(self) -> None:
        self._caller_speaking = False
        self._emit(CallerSpeaking(active=False))
        if self._screening is not None:
            self._screening.ended()

    def partial(self, text: str, started: float) -> None:
        self._minutes.guess(text, started)

    def heard(self, utterance: Heard) -> None:
        self._hearing = False
        if self._screening is not None:
            if utterance.text:
                self._on_record(utterance)
            self._screening.heard(utterance)
            self._go_on()
            return  # who answers a call greets; the flow has its own first words
        self._inbox.put_nowait(utterance)

    def _deaf(self) -> bool:
        """What is being said now must be heard."""
        opening = self._settings.greeting_must_be_heard and self._turn is not None and self._turn.number == 1
        return self._must_hear or opening or not self._settings.barge_in

    # --- the conversation ----------------------------------------------------------------------------------------

    async def _converse(self) -> Concluded:
        if (
            self._settings.voicemail != "off"
            and self.resumes is None
            and (concluded := await self._screen()) is not None
        ):
            return concluded
        for text in self.opening:
            await self.announce(text, must_hear=True)
        if self.resumes is not None:
            await self._go_on_from(self.resumes)
        else:
            question = self.session.form.get("question")
            self._begin(TurnInput(kind="start", text=str(question) if question else ""), None)
        while True:
            try:
                async with asyncio.timeout(self._patience_s()):
                    item = await self._inbox.get()
            except TimeoutError:
                if not self._ripen() and (concluded := await self._quiet()) is not None:
                    return concluded
                continue
            if isinstance(item, Heard):
                await self._utterance(item)
            elif isinstance(item, str):
                await self._key(item)
            elif isinstance(item, Message):
                self._overheard(item)
            elif isinstance(item, HandOver):
                await self._handed(item)
            elif item is self._turn:  # not an older one, interrupted meanwhile
                self._turn = None
                self._quiet_since = time.monotonic()
                if item.outcome == "finished":
                    return Concluded(cause="finished", detail="the flow reached its end")
                if item.outcome == "failed":
                    return Concluded(cause="failed", detail=item.detail)
                self._emit(Kept(session=self.session, given=None))
                self._answer_kept()

    async def _screen(self) -> Concluded | None:
        """Who answered? A machine gets its message, and the call is over."""
        self._screening = Screening()
        try:
            if await self._screening.answered_by() is Answered.PERSON:
                return None
            if self._settings.voicemail == "hang_up":
                return Concluded(cause="voicemail", detail="an answering machine took the call")
            await self._screening.greeting_over()
        finally:
            self._screening = None
        await self.announce(self._settings.voicemail_text, must_hear=True)
        return Concluded(cause="voicemail", detail="a message was left on an answering machine")

    async def _go_on_from(self, left: Remembered) -> None:
        """After a crash: the turn that was cut off is run again; without one the agent says its last words again."""
        await self.announce(f"{self._settings.resume_text} {left.last_words}".strip())
        if left.given is not None:
            self._begin(left.given, None)

    async def _utterance(self, spoken: Heard) -> None:
        self._quiet_since = time.monotonic()
        if not spoken.text:
            self._go_on()  # a noise: the agent goes on where it was
            return
        self._on_record(spoken)
        if self._yielded:
            self._overheard(Message(role="caller", text=spoken.text))
            return
        if self._turn is not None and self._turn.ending:
            self._go_on()  # the last words are spoken to their end
            return
        if self._button is None:
            verdict = judge(self._interruptions, spoken.text, self._talk())
            if verdict is not Verdict.STOP and self._agent_talks:
                if verdict is Verdict.KEEP:
                    self._kept.add(spoken)
                self._go_on()
                return
        await self._hear_out(spoken, 0.0 if self._button else None)

    async def _key(self, digit: str) -> None:
        """A key stops the agent like words do; the turn is what was typed until it ends."""
        now = time.monotonic()
        self._quiet_since, self._prompts = now, 0
        if self._yielded or (self._turn is not None and self._turn.ending) or (self._agent_talks and self._deaf()):
            return  # a phone's menu cannot be typed ahead of what must be heard
        await self._interrupt()
        typed = self._keypad.press(digit, now)
        if typed:
            self._typed(typed)

    def _typed(self, digits: str) -> None:
        now = time.monotonic()
        spoken = Heard(text=digits, started=now, ended=now, endpoint=now, decoded=now)
        self._on_record(spoken)
        self._words = self._words or Words()
        self._words.add(spoken)
        self._answer()

    def _on_record(self, spoken: Heard) -> None:
        self._prompts = 0
        self._minutes.caller(spoken)

    async def _hear_out(self, spoken: Heard, patience_s: float | None) -> None:
        """These words are the caller's turn, or a part of it; None: the strategy says how long to wait for more."""
        await self._interrupt()
        self._words = self._words or Words()
        self._words.add(spoken)
        wait_s = self._end_of_turn.patience_s(self._words.text) if patience_s is None else patience_s
        if wait_s:
            self._words.due = spoken.endpoint + wait_s
        else:
            self._answer()

    async def _interrupt(self) -> None:
        """The agent stops for good. A turn of which nothing was heard is undone: its words are heard again."""
        assert self._playout is not None
        turn = self._turn
        if turn is not None:
            heard_any = turn.first_audio_at is not None
            await self._cancel_turn()
            self._playout.clear()
            if heard_any:
                self._settle(interrupted=True)
                self._emit(TurnDone(timing=turn.timing(interrupted=True, zero_at=self._minutes.zero)))
            else:
                self._settle_aside(interrupted=True)
                self._restore(turn.before)
                self._words = Words(turn.given.kind, turn.given.text)
        elif self._playout.speaking:
            self._playout.clear()
            self._settle_aside(interrupted=True)

    def _answer(self) -> None:
        """The caller's turn is whole."""
        assert self._words is not None
        words, self._words = self._words, None
        self._go_on()
        self._begin(TurnInput(kind=words.kind, text=words.text), words.last)

    def _answer_kept(self) -> None:
        kept, self._kept = self._kept, Words()
        if kept.text:
            self._begin(TurnInput(text=kept.text), kept.last)

    def _go_on(self) -> None:
        assert self._playout is not None
        self._playout.resume(_CALLER)
        self._hushed_at = None

    @property
    def _agent_talks(self) -> bool:
        return self._turn is not None or (self._playout is not None and self._playout.speaking)

    def _talk(self) -> AgentTalk:
        assert self._playout is not None
        turn = self._turn
        more = turn is not None and (not turn.outcome or not turn.pieces.empty() or turn.voice.locked())
        return AgentTalk(self._minutes.sounding, self._playout.left_s, more, self._deaf())

    def _begin(self, given: TurnInput, since: Heard | None) -> None:
        assert self._playout is not None
        self._turns += 1
        turn = Turn(self._turns, given, copy.deepcopy(self.session), self._playout.generation, since)
        self._messages_before = len(self.session.messages)
        self._turn = turn
        self._emit(Kept(session=turn.before, given=given))
        turn.task = asyncio.get_running_loop().create_task(self._run(turn), name=f"turn-{turn.number}")

    def _turn_over(self, turn: Turn) -> None:
        self._inbox.put_nowait(turn)

    async def _cancel_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and turn.task is not None:
            turn.task.cancel()
            await asyncio.gather(turn.task, return_exceptions=True)

    def _restore(self, before: Session) -> None:
        for name in before.__struct_fields__:
            setattr(self.session, name, getattr(before, name))

    # --- silence and failure -------------------------------------------------------------------------------------

    def _patience_s(self) -> float:
        """How long to wait for the next thing before somebody has to do something."""
        due = [moment for moment in (self._keypad.due, self._words.due if self._words else None) if moment is not None]
        if due and not self._hearing:
            return max(0.0, min(due) - time.monotonic())
        if self._turn is not None or self._paused or self._hearing or self._yielded:
            return _LOOK_S
        return max(0.05, self._quiet_since + self._settings.silence_s - time.monotonic())

    def _ripen(self) -> bool:
        """The caller's turn is whole because no more came."""
        now = time.monotonic()
        if not self._inbox.empty():
            return True  # more has come in this very moment
        if self._keypad.due is not None and now >= self._keypad.due:
            self._typed(self._keypad.take())
        elif self._words is not None and self._keypad.due is None and not self._hearing and now >= self._words.due:
            self._answer()
        else:
            return False
        return True

    async def _quiet(self) -> Concluded | None:
        if self._minutes.seconds > self._settings.max_call_s:
            return Concluded(cause="too_long", detail=f"longer than {self._settings.max_call_s:g} s")
        if self._turn is not None or self._paused or self._words is not None or self._yielded:
            return None
        if self._caller_speaking:
            self._quiet_since = time.monotonic()
            return None
        if time.monotonic() - self._quiet_since < self._settings.silence_s:
            return None
        self._prompts += 1
        last = self._prompts > self._settings.silence_prompts
        text = self._settings.silence_goodbye_text if last else self._settings.silence_prompt_text
        if not await self.announce(text):
            return None
        self._quiet_since = time.monotonic()
        return Concluded(cause="silence", detail="the caller said nothing any more") if last else None

    async def announce(self, text: str, *, must_hear: bool = False) -> bool:
        """Say a sentence of our own between turns. False: the caller spoke into it. `must_hear`: it cannot be
        interrupted; what is said into it is answered afterwards."""
        assert self._playout is not None
        if not text:  # a flow may want nothing said
            return True
        self._must_hear = must_hear
        try:
            await self._say(text, None)
            drained = asyncio.ensure_future(self._playout.drained())
            while not drained.done():
                await asyncio.wait({drained}, timeout=0.1)
                if not must_hear and not self._inbox.empty():
                    drained.cancel()
                    return False
        finally:
            self._must_hear = False
        self._settle_aside(interrupted=False)
        return True
