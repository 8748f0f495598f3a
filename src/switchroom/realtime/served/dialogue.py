"""Responses of a served session: each is a turn of the flow, or a part of one, spoken or written to the client.

One response of the conversation at a time; responses aside from it (`conversation: none`) may run beside. What was
played out is counted frame by frame, so that context and record hold what was heard.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec

from switchroom.engine.events import NodeFinished, TurnInput
from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import FRAME, RATE, Framer, Samples, resample
from switchroom.realtime.clauses import ClauseSplitter
from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.playout import Playout
from switchroom.realtime.served.aside import Aside
from switchroom.realtime.served.codec import outgoing
from switchroom.realtime.served.config import Config
from switchroom.realtime.served.hearing import Utterance
from switchroom.realtime.served.items import Item, Items, from_client
from switchroom.realtime.served.preface import Preface
from switchroom.realtime.served.protocol import Tell, WireError, new_id
from switchroom.realtime.served.response import Response
from switchroom.realtime.served.tools import Called, Desk, arguments, forced
from switchroom.realtime.served.transcript import Transcript
from switchroom.realtime.served.turns import FlowTurn, Over
from switchroom.realtime.speaker import RunTurn
from switchroom.realtime.voice import NodeDone

log = logging.getLogger(__name__)

_GUIDANCE = 20
_CALLS_TOGETHER_S = 0.02
"""Calls that a model makes at once come within this time: they end one response."""


class Dialogue:
    """One session's. `by_events`: the client gets the sound in events and plays it itself."""

    def __init__(
        self,
        tell: Tell,
        parts: SpeechParts,
        session: Session,
        transcript: Transcript,
        *,
        by_events: bool,
        conversation: str,
    ) -> None:
        self.items = Items()
        self.desk = Desk(self._called)
        self.finished = asyncio.Event()
        """The flow reached its end and its last words were played out."""
        self.playout = Playout()
        self.run_turn: RunTurn | None = None
        self.aside: Aside | None = None
        self._tell = tell
        self._parts = parts
        self._session = session
        self._transcript = transcript
        self._by_events = by_events
        self.conversation = conversation
        """Its ID."""
        self.free = asyncio.Event()
        """No response of the conversation is active."""
        self.free.set()
        self._active: Response | None = None
        self._asked: Config | None = None
        self._turn: FlowTurn | None = None
        self._standing: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._playing: list[tuple[Response, Item]] = []
        self._sounding: Response | None = None
        self.preface = Preface()
        self.guided: deque[str] = deque(maxlen=_GUIDANCE)
        """What operators told the agent; the caller does not hear it."""
        self.spoke = False
        """The agent's voice was made in this session."""
        self.idle_since = time.monotonic()

    # --- what the session asks -----------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Nothing is made and nothing plays."""
        return self._active is None and not self.playout.speaking

    def asked_now(self) -> tuple[Config, Sequence[str]]:
        """For the flow's responder: the configuration of the running response, or of the last one where a turn goes on
        before the client asks for the next, and the client's own instructions."""
        assert self._asked is not None
        return self._asked, self._standing

    def respond(self, config: Config, asked: dict[str, Any], since: Utterance | None = None, say: str = "") -> Response:
        """Begin a response. `since`: the utterance that it answers; `say`: these words and no turn of the flow. Raises
        `WireError` while another one of the conversation is active."""
        aside = asked.get("conversation") == "none"
        if not aside and self._active is not None:
            raise WireError(
                f"Conversation already has an active response in progress: {self._active.id}. Wait until it is "
                "finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        given = asked.get("input")
        own = [self._item_of(one, at) for at, one in enumerate(given)] if isinstance(given, list) else None
        items = None if aside else self.items
        response = Response(self._tell, items, config, asked, self.conversation, audio=self._by_events)
        if not aside:
            self._active = response
            self._asked = config
            self.free.clear()
        response.begin()
        task = self._spawn(self._run(response, own, since, say), "response")
        response.task = task
        return response

    def cancel(self, reason: str, response_id: str | None = None) -> None:
        """Stop making the active response. Raises `WireError` when there is none (or not this one)."""
        response = self._active
        if response is None or (response_id is not None and response.id != response_id):
            raise WireError("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._end(response, "cancelled", reason=reason)

    def interrupt(self, reason: str) -> None:
        """The caller speaks: fall silent. What was not played out was not heard."""
        if self._active is not None:
            self._end(self._active, "cancelled", reason=reason)
        self.silence()

    def give_way(self) -> None:
        """An operator takes the agent's place: what it was about to say is not said, and the turn is forgotten."""
        self.interrupt("client_cancelled")
        turn, self._turn = self._turn, None
        if turn is not None:  # it waits for a function of the client's
            self._spawn(turn.close(), "turn-close")

    def open_for_operator(self, config: Config) -> Response:
        """A response that an operator speaks; it holds the place of the agent's."""
        asked = {"metadata": {"operator": "true"}}
        response = Response(self._tell, self.items, config, asked, self.conversation, audio=self._by_events)
        response.by_operator = True
        self._active = response
        self.free.clear()
        response.begin()
        return response

    def end_of_operator(self, response: Response) -> None:
        self._end(response, "completed")

    def silence(self) -> None:
        """Drop what waits to be played."""
        sounding, playing = self._sounding, [item for _, item in self._playing]
        for response, _ in self._playing:
            self._transcript.turn_done(response.timing, interrupted=True)
        self.playout.clear()
        self._transcript.silent()
        self._playing.clear()
        for item in playing:
            item.heard = item.left
            self.preface.cut(item, item.left)
            if not self._by_events:
                # The server played it, so it knows: the client is told what the conversation keeps.
                item.cut(item.left)
                heard_ms = item.left // 48
                cut = {"item_id": item.id, "content_index": 0, "audio_end_ms": heard_ms}
                self._tell({"type": "conversation.item.truncated", **cut})
            self._transcript.cut(item, wait=self._by_events)
        self._sounding = None
        if sounding is not None and not self._by_events:
            self._tell({"type": "output_audio_buffer.cleared", "response_id": sounding.id})

    def truncate(self, item: Item, audio_end_ms: int) -> None:
        """The client heard only so much of an item. Raises `WireError` for more than there is."""
        if item.role != "assistant" or not any(part["type"] == "output_audio" for part in item.wire.get("content", ())):
            raise WireError(
                "Only an assistant message with audio can be truncated.", code="invalid_value", param="item_id"
            )
        if audio_end_ms > item.made_ms:
            raise WireError(
                f"Audio content of {item.made_ms}ms is already shorter than {audio_end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        if any(one is item for _, one in self._playing):
            self.playout.clear()
            self._playing = [(response, one) for response, one in self._playing if one is not item]
        self.preface.cut(item, audio_end_ms * 48)
        item.cut(audio_end_ms * 48)
        self._transcript.cut(item, wait=False)

    async def close(self) -> None:
        turn, self._turn = self._turn, None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if turn is not None:
            await turn.close()

    def settle(self) -> None:
        """The call ends now: what was played of the running words goes on record."""
        playing = [item for _, item in self._playing]
        self.playout.clear()
        self._playing.clear()
        for item in playing:
            item.heard = item.left
            self._transcript.cut(item, wait=False)
        self._transcript.flush()

    # --- one response --------------------------------------------------------------------------------------------

    async def _run(self, response: Response, own: list[Item] | None, since: Utterance | None, say: str) -> None:
        try:
            if self.preface.due and response.config.speaks and response.asked.get("conversation") != "none":
                await self._speak(response, self.preface.text)
                if response.alive:
                    self.preface.said(response.message(), response.message().made)
            if say:
                await self._speak(response, say)
                self._end(response, "completed")
            elif response.asked.get("conversation") == "none":
                await self._beside(response, own or [])
            else:
                await self._in_turn(response, own, since)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            told = error.detail if isinstance(error, SwitchroomError) else f"{type(error).__name__}"
            log.warning("a served response failed", exc_info=error)
            code = error.code if isinstance(error, SwitchroomError) else "internal"
            self._end(response, "failed", error={"type": "server_error", "code": code, "message": told})

    async def _beside(self, response: Response, own: list[Item]) -> None:
        """Aside from the conversation: the flow's graph has no part in it, its responder answers."""
        assert self.aside is not None
        question = " ".join(item.text() for item in own if item.role == "user")
        if (function := forced(response.config)) is not None:
            said = question or next((item.text() for item in reversed(list(self.items)) if item.role == "user"), "")
            given = msgspec.json.encode(arguments(function, said)).decode()
            response.call(Called(new_id("call"), function.name, given))
            self._end(response, "completed")
            return
        context = own if response.asked.get("input") is not None else list(self.items)
        texts = [response.config.instructions, *(item.text() for item in own if item.role == "system")]
        await self._say_all(response, self.aside.answer(question, [text for text in texts if text], context, response))
        self._end(response, "completed")

    async def _in_turn(self, response: Response, own: list[Item] | None, since: Utterance | None) -> None:
        taken = own if own is not None else self.items.unanswered()
        for item in taken:
            if item.words is not None:
                await asyncio.shield(item.words)
        question = " ".join(text for item in taken if item.role == "user" and (text := item.text()))
        standing = [response.config.instructions, *self.items.standing(), *self.guided]
        self._standing = [text for text in standing if text]
        turn = self._turn
        if turn is not None and (question or turn.over):
            self._turn = None
            await turn.close()
            turn = None
        assert self.aside is not None
        own_words = str(response.asked.get("instructions") or "")
        if not question and (text := self.aside.verbatim(own_words)):
            if turn is not None:  # the client wants these words after its function's output, and not the flow's
                self._turn = None
                await turn.close()
            await self._speak(response, text)
            self._end(response, "completed")
            return
        if turn is not None:
            self.desk.go_on()  # the response after a function's output: the turn goes on
        elif not question and self._session.started:
            await self._say_all(response, self.aside.answer("", self._standing, list(self.items), response))
            self._end(response, "completed")
            return
        else:
            turn = self._begin_turn(question, taken)
        response.timing = self._transcript.timing(since, time.monotonic() if since is not None else None)
        await self._take(response, turn)

    def _begin_turn(self, question: str, taken: list[Item]) -> FlowTurn:
        assert self.run_turn is not None
        session = self._session
        before = copy.deepcopy(session)
        session.messages = self.items.said(taken)
        session.summarised = min(session.summarised, len(session.messages))
        for item in taken:
            item.answered = True
            self._transcript.typed(item)
        self.desk.begin()
        given = TurnInput(kind="utterance" if session.started else "start", text=question)
        self._turn = turn = FlowTurn(self.run_turn(session, given), before, taken)
        return turn

    async def _say_all(self, response: Response, texts: AsyncIterator[str]) -> None:
        splitter = ClauseSplitter()
        async for text in texts:
            for clause in splitter.feed(text) if response.config.speaks else [text]:
                await self._speak(response, clause)
        if rest := splitter.flush():
            await self._speak(response, rest)

    async def _take(self, response: Response, turn: FlowTurn) -> None:
        """What the turn says goes into the response, until the turn is over or calls functions."""
        splitter = ClauseSplitter()
        while True:
            piece = await turn.next()
            if isinstance(piece, str):
                if response.timing is not None:
                    response.timing.token()
                if not response.config.speaks:
                    response.words(piece)
                else:
                    for clause in splitter.feed(piece):
                        await self._speak(response, clause)
                if response.too_long():
                    await turn.close()
                    self._turn = None
                    self._end(response, "incomplete", reason="max_output_tokens")
                    return
                continue
            if isinstance(piece, NodeFinished):
                response.count(piece.usage)
                self._transcript.emit(NodeDone(node=piece))
                continue
            if rest := splitter.flush():
                await self._speak(response, rest)
            if isinstance(piece, Called):
                response.call(piece)
                await asyncio.sleep(_CALLS_TOGETHER_S)
                if not turn.more_now():
                    self._end(response, "completed")
                    return
                continue
            self._turn = None
            self._over(response, piece)
            return

    def _over(self, response: Response, over: Over) -> None:
        if over.outcome == "failed":
            error = {"type": "server_error", "code": over.code, "message": over.detail}
            self._end(response, "failed", error=error)
            return
        self._end(response, "completed")
        if over.outcome == "finished":
            self._spawn(self._finish(), "finish")

    async def _finish(self) -> None:
        await self.playout.drained()
        self.finished.set()

    def _called(self, called: Called) -> None:
        if self._turn is not None:
            self._turn.called(called)

    # --- speaking ------------------------------------------------------------------------------------------------

    async def _speak(self, response: Response, text: str) -> None:
        """A clause, or in a text response any words."""
        if not response.alive:
            return
        if not response.config.speaks:
            response.words(text)
            return
        item = response.message()
        generation = self.playout.generation
        samples = await self._parts.voice.say(text)
        if not response.alive:
            return
        response.words(text if not item.clauses else f" {text}")
        item.clauses.append((text, samples.size))
        if not samples.size:
            return
        self.spoke = True
        item.made += samples.size
        sound, lower = await asyncio.to_thread(_rendered, samples, response.config, self._by_events)
        if not response.alive:
            return
        for delta in sound:
            response.sound(delta)
        self.items.keep_audio(item, lower)
        self._play(response, item, samples, generation)

    def _play(self, response: Response, item: Item, samples: Samples, generation: int) -> None:
        if not any(one is item for _, one in self._playing):
            self._playing.append((response, item))
        framer = Framer()
        pieces = framer.feed(samples)
        if rest := samples.size % FRAME:
            pieces = [*pieces, samples[-rest:]]
        for piece in pieces:
            left = partial(self._left, response, item, piece.size)
            self.playout.say(piece, "", generation=generation, on_first=left)

    def _left(self, response: Response, item: Item, size: int) -> None:
        """A frame of the agent leaves."""
        if not item.left:
            self._transcript.sounds(item)
        if response.timing is not None and response.timing.first_audio is None:
            response.timing.first_audio = time.monotonic()
        if self._sounding is not response:
            if self._sounding is not None:
                self._stopped(self._sounding)
            self._sounding = response
            if not self._by_events:
                self._tell({"type": "output_audio_buffer.started", "response_id": response.id})
        item.left += size
        self.preface.left(item)
        self._settle_played(response, item)

    def _settle_played(self, response: Response, item: Item) -> None:
        if item.complete and item.left >= item.made:
            self._playing = [(one, other) for one, other in self._playing if other is not item]
            self._transcript.whole(item)
        if not response.alive and not any(one is response for one, _ in self._playing):
            self._stopped(response)

    def _stopped(self, response: Response) -> None:
        self.idle_since = time.monotonic()
        self._transcript.turn_done(response.timing, interrupted=False)
        if self._sounding is response:
            self._sounding = None
            self._transcript.silent()
            if not self._by_events:
                self._tell({"type": "output_audio_buffer.stopped", "response_id": response.id})

    def _end(
        self, response: Response, status: str, *, reason: str | None = None, error: dict[str, Any] | None = None
    ) -> None:
        """The response is over; its sound may still play."""
        if not response.alive:
            return
        response.finish(status, reason=reason, error=error)
        if self._active is response:
            self._active = None
            self.free.set()
        self.idle_since = time.monotonic()
        if status == "cancelled":
            self._undo(response)
            if response.task is not None:
                response.task.cancel()
        if response.by_operator:
            return  # who was heard in real time
        for item in response.output:
            if item.made:
                self._settle_played(response, item)
            elif item.role == "assistant":
                self._transcript.wrote(item)
        if not any(item.made for item in response.output):
            self._transcript.turn_done(response.timing, interrupted=status == "cancelled")

    def _undo(self, response: Response) -> None:
        """A turn of which nothing was heard did not happen: its words are joined to what comes next."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        self._spawn(turn.close(), "turn-close")
        if response.config.speaks and not any(item.left for item in response.output):
            for name in turn.before.__struct_fields__:
                setattr(self._session, name, getattr(turn.before, name))
            for item in turn.took:
                item.answered = False

    # --- small things --------------------------------------------------------------------------------------------

    def _item_of(self, given: Any, at: int) -> Item:
        if isinstance(given, dict) and given.get("type") == "item_reference":
            return self.items.find(str(given.get("id", "")), "reference")
        return from_client(given, f"response.input[{at}]")

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=f"served-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _rendered(samples: Samples, config: Config, by_events: bool) -> tuple[list[str], Samples]:
    """The wire's pieces, and 16 kHz for an item that is retrieved."""
    sound = list(outgoing(samples, config.audio.output.format)) if by_events else []
    return sound, resample(samples, RATE, 16_000)
