"""A served session as a voice engine: takes the clients' events in order, hears, and lets the `Dialogue` answer."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from typing import Any

import numpy as np

from switchroom.engine.session import Session
from switchroom.errors import SwitchroomError
from switchroom.realtime.audio import Samples
from switchroom.realtime.ears import Heard, SpeechParts
from switchroom.realtime.playout import Playout
from switchroom.realtime.served import config as configs
from switchroom.realtime.served.clients import Client, Clients
from switchroom.realtime.served.codec import Incoming
from switchroom.realtime.served.config import Config
from switchroom.realtime.served.dialogue import Dialogue
from switchroom.realtime.served.hearing import MIN_COMMIT_MS, Hearing, Utterance
from switchroom.realtime.served.intake import Intake
from switchroom.realtime.served.items import Item, from_client, retrieved, seen
from switchroom.realtime.served.protocol import Event, WireError, count_of, error_event, new_id, text_of
from switchroom.realtime.served.socket import SocketLeg
from switchroom.realtime.served.stand_in import StandIn
from switchroom.realtime.served.transcript import Transcript
from switchroom.realtime.settings import MediaSettings
from switchroom.realtime.voice import Concluded, Emit

log = logging.getLogger(__name__)

_MIC_FRAMES = 250
_IDLE_LOOK_S = 0.1
_INLINE = 5
"""Audio of up to a fifth of a second is resampled on the loop (a fifth of a millisecond), longer pieces in a thread."""


class ServedEngine:
    """One session. See `voice.VoiceEngine` and `desk.Yielding`.

    `leg` is the WebSocket on which sound comes and goes in events; None: it comes and goes by RTP.
    """

    def __init__(
        self,
        parts: SpeechParts,
        session: Session,
        settings: MediaSettings,
        clients: Clients,
        *,
        model: str,
        given: dict[str, Any] | None = None,
        leg: SocketLeg | None,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._leg = leg
        self._by_events = leg is not None
        self.session = session
        expires = int(time.time() + settings.max_call_s)
        kind = str((given or {}).get("type", "realtime"))
        self._wire = configs.defaults(new_id("sess"), model, expires, kind=kind)
        self._config = configs.values(self._wire)
        if given:
            self._wire, self._config = configs.updated(self._wire, {**given, "type": kind})
        self._transcript = Transcript()
        self.dialogue = Dialogue(
            clients.tell, parts, session, self._transcript, by_events=self._by_events, conversation=new_id("conv")
        )
        if settings.record_calls:
            self.dialogue.preface.text = settings.record_consent_text
        self._hearing = Hearing(parts, self, self._config.audio.input.turn_detection)
        self._intake = Intake(self._hearing, self.dialogue.preface)
        self._incoming = Incoming(self._config.audio.input.format)
        self._operator = StandIn(self.dialogue, self._transcript, lambda: self._config, sounds=self._by_events)
        if leg is not None:
            leg.played = self._operator.frame
        self._mic: asyncio.Queue[Samples] = asyncio.Queue(_MIC_FRAMES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = asyncio.Lock()
        self.frames_dropped = 0

    @property
    def config(self) -> Config:
        """The session's configuration now."""
        return self._config

    # --- VoiceEngine ---------------------------------------------------------------------------------------------

    def hear(self, frame: Samples) -> None:
        if self._by_events:
            return
        try:
            self._mic.put_nowait(frame)
        except asyncio.QueueFull:
            self.frames_dropped += 1

    def dtmf(self, digit: str) -> None:
        received = int(time.time())
        self._clients.tell({"type": "input_audio_buffer.dtmf_event_received", "event": digit, "received_at": received})

    def message(self, message: dict[str, Any]) -> None:
        """Everything of this protocol comes through the clients."""

    def pause(self) -> None:
        self.dialogue.playout.pause("leg is lost")

    def resume(self) -> None:
        self.dialogue.playout.resume("leg is lost")

    def leave(self) -> None:
        self.dialogue.settle()

    async def run(self, playout: Playout, emit: Emit) -> Concluded:
        self.dialogue.playout = playout
        self._transcript.start(emit)
        self._clients.tell({"type": "session.created", "session": self._wire})
        conversation = {"id": self.dialogue.conversation, "object": "realtime.conversation"}
        self._clients.tell({"type": "conversation.created", "conversation": conversation})
        work = [self._serve(), self._until_finished(), self._watch_idle()]
        if not self._by_events:
            work.append(self._hear_line())
        tasks = [asyncio.get_running_loop().create_task(one) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._settings.max_call_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # what broke is to be seen
            if done:
                return Concluded(cause="finished", detail="the flow reached its end")
            minutes = self._settings.max_call_s / 60
            told = f"Your session hit the maximum duration of {minutes:g} minutes."
            self._clients.tell(error_event(told, code="session_expired"))
            return Concluded(cause="too_long", detail=told)
        finally:
            for task in (*tasks, *self._tasks):
                task.cancel()
            await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)
            await self._intake.close()
            await self.dialogue.close()

    async def _until_finished(self) -> None:
        await self.dialogue.finished.wait()

    async def _hear_line(self) -> None:
        while True:
            await self._hear_out(await self._mic.get())

    async def _hear_out(self, samples: Samples) -> None:
        by_voice = self._config.audio.input.turn_detection is not None
        await self._intake.feed(samples, by_voice=by_voice)

    def greet(self, client: Client) -> None:
        """A client that joins in the middle learns what the session is."""
        self._clients.join(client, {"event_id": new_id("event"), "type": "session.created", "session": self._wire})

    # --- desk.Yielding -------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        self._operator.begin()

    def hand_back(self, say: str) -> None:
        self._operator.end()
        if say:
            self.dialogue.respond(self._config, {}, say=say)

    def guide(self, text: str) -> None:
        self.dialogue.guided.append(text)

    def operator_said(self, spoken: Heard) -> None:
        self._operator.said(spoken)

    # --- events of the clients -----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            client, event = await self._clients.next()
            cause = event.get("event_id")
            event_id = cause if isinstance(cause, str) else None
            try:
                await self._take(event)
            except WireError as error:
                self._clients.tell_one(client, error.event(event_id))
            except SwitchroomError as error:
                log.warning("a client's event could not be done", extra={"code": error.code})
                failed = error_event(error.detail, code=error.code, kind="server_error", event_id=event_id)
                self._clients.tell_one(client, failed)

    async def _take(self, event: Event) -> None:
        kind = text_of(event, "type")
        items, dialogue = self.dialogue.items, self.dialogue
        match kind:
            case "session.update":
                self._update(event.get("session"))
            case "input_audio_buffer.append":
                self._needs_events(kind)
                await self._append(text_of(event, "audio"))
            case "input_audio_buffer.commit":
                await self._intake.flush()
                self._commit()
            case "input_audio_buffer.clear":
                self._intake.forget()
                self._hearing.clear()
                self._clients.tell({"type": "input_audio_buffer.cleared"})
            case "output_audio_buffer.clear":
                if self._by_events:
                    raise WireError(
                        "output_audio_buffer.clear is for WebRTC: over a WebSocket the client plays the sound.",
                        code="invalid_event_for_transport",
                        param="type",
                    )
                dialogue.silence()
            case "conversation.item.create":
                self._create(event)
            case "conversation.item.retrieve":
                self._clients.tell(await retrieved(items.find(text_of(event, "item_id"), "retrieve")))
            case "conversation.item.truncate":
                item_id, until = text_of(event, "item_id"), count_of(event, "audio_end_ms")
                index = count_of(event, "content_index")
                if index != 0:
                    raise WireError("An item has one part.", code="invalid_value", param="content_index")
                dialogue.truncate(items.find(item_id, "truncate"), until)
                cut = {"item_id": item_id, "content_index": index, "audio_end_ms": until}
                self._clients.tell({"type": "conversation.item.truncated", **cut})
            case "conversation.item.delete":
                item_id = items.delete(text_of(event, "item_id")).id
                self._clients.tell({"type": "conversation.item.deleted", "item_id": item_id})
            case "response.create":
                self._respond(event.get("response"))
            case "response.cancel":
                dialogue.cancel("client_cancelled", text_of(event, "response_id", needed=False) or None)
            case _:
                raise WireError(f"Invalid value: '{kind}'.", code="invalid_value", param="type")

    async def _append(self, audio: str) -> None:
        for piece in self._incoming.pieces(audio):
            long = piece.size > self._incoming.form.hz // _INLINE
            samples = await asyncio.to_thread(self._incoming.up, piece) if long else self._incoming.up(piece)
            if self._leg is not None:
                self._leg.take_mic(samples)  # for whoever records and listens
            await self._hear_out(samples)

    def _needs_events(self, kind: str) -> None:
        if not self._by_events:
            raise WireError(
                f"{kind} is for WebSockets: over WebRTC the sound comes by RTP.",
                code="invalid_event_for_transport",
                param="type",
            )

    def _update(self, update: Any) -> None:
        self._wire, self._config = configs.updated(self._wire, update, spoken=self.dialogue.spoke)
        listens = self._config.audio.input
        if listens.format != self._incoming.form:
            self._incoming = Incoming(listens.format)
        self._hearing.detect(listens.turn_detection)
        self._clients.tell({"type": "session.updated", "session": copy.deepcopy(self._wire)})

    def _create(self, event: Event) -> None:
        item = from_client(event.get("item"))
        previous = event.get("previous_item_id")
        before = self.dialogue.items.insert(item, previous if isinstance(previous, str) else None)
        if item.type == "function_call_output":
            self.dialogue.desk.answer(item.wire["call_id"], item.wire["output"])
        for sound in [part for part in item.wire.get("content", ()) if part["type"] == "input_audio" and part["audio"]]:
            self._hear_item(item, sound)
        self._added(item, before)

    def _hear_item(self, item: Item, part: dict[str, Any]) -> None:
        """A message that brings sound of its own."""
        incoming = Incoming(self._config.audio.input.format)
        pieces = incoming.pieces(str(part.pop("audio")))
        item.words = self._hearing.words_of(lambda: np.concatenate([incoming.up(piece) for piece in pieces]))

    def _added(self, item: Item, before: str | None) -> None:
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._clients.tell({"type": kind, "previous_item_id": before, "item": seen(item)})

    def _respond(self, asked: Any) -> None:
        if asked is not None and not isinstance(asked, dict):
            raise WireError("Invalid type for 'response': expected an object.", code="invalid_type", param="response")
        asked = asked or {}
        if self._operator.talks and asked.get("conversation") != "none":
            raise WireError("An operator talks in the agent's place.", code="operator_talks", param="type")
        if self._config.type == "transcription":
            raise WireError("A transcription session makes no responses.", code="invalid_value", param="type")
        metadata = asked.get("metadata")
        if metadata is not None and (not isinstance(metadata, dict) or len(metadata) > 16):
            raise WireError(
                "Invalid value for 'response.metadata': at most 16 members.",
                code="invalid_value",
                param="response.metadata",
            )
        self.dialogue.respond(configs.for_response(self._wire, asked), asked)

    # --- what is heard -------------------------------------------------------------------------------------------

    def speech_started(self, item_id: str, audio_start_ms: int) -> None:
        self._transcript.caller_speaks(True)
        self._clients.tell(
            {"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": audio_start_ms}
        )
        detection = self._config.audio.input.turn_detection
        if detection is not None and detection.interrupt_response:
            self.dialogue.interrupt("turn_detected")

    def speech_stopped(self, item_id: str, audio_end_ms: int) -> None:
        self._transcript.caller_speaks(False)
        self._clients.tell(
            {"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": audio_end_ms}
        )

    def uttered(self, utterance: Utterance) -> None:
        """Voice detection ended an utterance: it is committed, and answered where the session says so."""
        detection = self._config.audio.input.turn_detection
        answer = detection is not None and detection.create_response and not self._operator.talks
        self._committed(utterance, answer=answer)

    def _commit(self) -> None:
        utterance = self._hearing.commit()
        if utterance is None:
            raise WireError(
                f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS}ms of audio, "
                f"but buffer only has {self._hearing.buffered_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._committed(utterance, answer=False)

    def _committed(self, utterance: Utterance, *, answer: bool) -> None:
        wire = {"type": "message", "role": "user", "status": "completed"}
        content = [{"type": "input_audio", "transcript": None}]
        item = Item({"id": utterance.item_id, "object": "realtime.item", **wire, "content": content})
        item.words = asyncio.get_running_loop().create_future()
        before = self.dialogue.items.append(item)
        self.dialogue.items.keep_audio(item, utterance.samples())
        self._clients.tell({"type": "input_audio_buffer.committed", "previous_item_id": before, "item_id": item.id})
        self._added(item, before)
        task = asyncio.get_running_loop().create_task(self._understand(item, utterance, answer=answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _understand(self, item: Item, utterance: Utterance, *, answer: bool) -> None:
        """The words of a committed utterance, and its answer."""
        assert item.words is not None
        told = self._config.audio.input.transcription is not None
        place = {"item_id": item.id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        text = ""
        try:
            text = await self._hearing.words(utterance)
        except Exception as error:
            log.exception("an utterance could not be written down")
            if told:
                fault = {"type": "transcription_error", "code": "failed", "message": type(error).__name__}
                self._clients.tell({"type": f"{kind}.failed", **place, "error": fault})
                told = False
        finally:
            item.words.set_result(text)
        self._transcript.heard(utterance, text)
        if told:
            item.wire["content"][0]["transcript"] = text
            if text:
                self._clients.tell({"type": f"{kind}.delta", **place, "delta": text})
            usage = {"type": "duration", "seconds": round(utterance.seconds, 3)}
            self._clients.tell({"type": f"{kind}.completed", **place, "transcript": text, "usage": usage})
        if answer and text and not self._operator.talks and self._config.type == "realtime":
            await self._answer(utterance)

    async def _answer(self, utterance: Utterance) -> None:
        async with self._answering:
            await self.dialogue.free.wait()  # a response that the session lets the caller not interrupt
            # Who speaks on is answered when done: words that came in pieces are one question.
            if not self._hearing.speaking and self.dialogue.items.unanswered():
                self.dialogue.respond(self._config, {}, since=utterance)

    # --- silence -------------------------------------------------------------------------------------------------

    async def _watch_idle(self) -> None:
        """`idle_timeout_ms` after the agent's last sound without a word of the caller: ask for a sign."""
        heard_from = time.monotonic()
        while True:
            await asyncio.sleep(_IDLE_LOOK_S)
            detection = self._config.audio.input.turn_detection
            if (
                detection is None
                or detection.idle_timeout_ms is None
                or not self.dialogue.quiet
                or self._operator.talks
                or not self.dialogue.spoke
            ):
                heard_from = time.monotonic()
                continue
            if self._hearing.speaking:
                heard_from = time.monotonic()
            since = max(heard_from, self.dialogue.idle_since)
            if time.monotonic() - since < detection.idle_timeout_ms / 1000:
                continue
            heard_from = time.monotonic()
            item = Item(
                {
                    "id": new_id("item"),
                    "object": "realtime.item",
                    "type": "message",
                    "role": "user",
                    "status": "completed",
                    "content": [{"type": "input_audio", "transcript": None}],
                }
            )
            now_ms = self._hearing.now_ms
            started_ms = max(0, now_ms - detection.idle_timeout_ms)
            place = {"item_id": item.id, "audio_start_ms": started_ms, "audio_end_ms": now_ms}
            self._clients.tell({"type": "input_audio_buffer.timeout_triggered", **place})
            before = self.dialogue.items.append(item)
            committed = {"previous_item_id": before, "item_id": item.id}
            self._clients.tell({"type": "input_audio_buffer.committed", **committed})
            self._added(item, before)
            if detection.create_response:
                self.dialogue.respond(self._config, {}, say=self._settings.silence_prompt_text)
