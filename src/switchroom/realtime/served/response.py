"""One response on the wire: its items and their parts, each opened and closed in the documented order, also when the
response is cancelled in the middle."""

from __future__ import annotations

import asyncio
from typing import Any

from switchroom.realtime.served.config import Config
from switchroom.realtime.served.items import Item, Items, seen
from switchroom.realtime.served.protocol import Event, Tell, new_id
from switchroom.realtime.served.tools import Called
from switchroom.realtime.served.transcript import Timing

_CHARS_A_TOKEN = 4
"""A rough measure for `max_output_tokens`: words are counted here, not a model's tokens."""


class Response:
    """`items` is the conversation that it adds to; None: it stands aside. `audio`: the client gets the sound in events.

    `alive` until it is finished; whatever is said after that is ignored.
    """

    def __init__(
        self, tell: Tell, items: Items | None, config: Config, asked: dict[str, Any], conversation: str, *, audio: bool
    ) -> None:
        self.id = new_id("resp")
        self.config = config
        self.asked = asked
        self.alive = True
        self.by_operator = False
        """An operator speaks it, and not the agent."""
        self.task: asyncio.Task[None] | None = None
        """What makes it."""
        self.timing: Timing | None = None
        self.output: list[Item] = []
        self._tell = tell
        self._items = items
        self._conversation = conversation if items is not None else None
        self._audio = audio
        self._message: Item | None = None
        self._text = ""
        self._usage: dict[str, int] = {}

    # --- its life ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._tell({"type": "response.created", "response": self._wire("in_progress", None, None)})
        self._tell({"type": "rate_limits.updated", "rate_limits": []})  # there are none

    def finish(
        self, status: str = "completed", *, reason: str | None = None, error: dict[str, Any] | None = None
    ) -> None:
        """Closes what is open and says `response.done`. `reason` as the protocol names it (`turn_detected`)."""
        if not self.alive:
            return
        self.close_message("completed" if status == "completed" else "incomplete")
        self.alive = False
        details: dict[str, Any] | None = None
        if status != "completed":
            details = {"type": status}
            if reason is not None:
                details["reason"] = reason
            if error is not None:
                details["error"] = error
        self._tell({"type": "response.done", "response": self._wire(status, details, self.usage())})

    def _wire(self, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None) -> dict[str, Any]:
        out = self.config.audio.output
        form: dict[str, Any] = {"type": out.format.type}
        if out.format.type == "audio/pcm":
            form["rate"] = out.format.hz
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [seen(item) for item in self.output],
            "conversation_id": self._conversation,
            "output_modalities": list(self.config.output_modalities),
            "max_output_tokens": self.config.max_output_tokens,
            "audio": {"output": {"format": form, "voice": out.voice}},
            "usage": usage,
            "metadata": self.asked.get("metadata"),
        }

    # --- what it cost --------------------------------------------------------------------------------------------

    def count(self, used: dict[str, Any]) -> None:
        """What a model of the flow counted."""
        for name in ("inputTokens", "outputTokens"):
            value = used.get(name)
            if isinstance(value, int):
                self._usage[name] = self._usage.get(name, 0) + value

    def usage(self) -> dict[str, Any]:
        """In the protocol's shape. Only models count tokens: hearing, speaking and the embedded responder have none."""
        came, went = self._usage.get("inputTokens", 0), self._usage.get("outputTokens", 0)
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": came + went,
            "input_tokens": came,
            "output_tokens": went,
            "input_token_details": {
                "text_tokens": came,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": went, "audio_tokens": 0},
        }

    # --- a message -----------------------------------------------------------------------------------------------

    def message(self) -> Item:
        """The message that words go to; opened where none is open."""
        if self._message is None:
            kind = "output_audio" if self.config.speaks else "output_text"
            wire = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
            item = self._open_item(wire)
            empty: dict[str, Any] = (
                {"type": "audio", "transcript": ""} if self.config.speaks else {"type": "text", "text": ""}
            )
            self._tell({"type": "response.content_part.added", **self._place(item), "content_index": 0, "part": empty})
            item.wire["content"] = [{"type": kind, "transcript" if self.config.speaks else "text": ""}]
            self._message = item
            self._text = ""
        return self._message

    def words(self, delta: str) -> None:
        """More words of the open message; of a spoken one, those whose sound follows."""
        if not self.alive or not delta:
            return
        item = self.message()
        self._text += delta
        name = "transcript" if self.config.speaks else "text"
        item.wire["content"][0][name] = self._text
        kind = "response.output_audio_transcript.delta" if self.config.speaks else "response.output_text.delta"
        self._tell({"type": kind, **self._place(item), "content_index": 0, "delta": delta})

    def sound(self, delta: str) -> None:
        """A piece of the open message's sound, in base64."""
        if self.alive and self._audio:
            item = self.message()
            self._tell({"type": "response.output_audio.delta", **self._place(item), "content_index": 0, "delta": delta})

    def too_long(self) -> bool:
        most = self.config.max_output_tokens
        return isinstance(most, int) and len(self._text) > most * _CHARS_A_TOKEN

    def close_message(self, status: str) -> None:
        item, self._message = self._message, None
        if item is None:
            return
        place = {**self._place(item), "content_index": 0}
        part: dict[str, Any]
        if self.config.speaks:
            if self._audio:
                self._tell({"type": "response.output_audio.done", **place})
            self._tell({"type": "response.output_audio_transcript.done", **place, "transcript": self._text})
            part = {"type": "audio", "transcript": self._text}
        else:
            self._tell({"type": "response.output_text.done", **place, "text": self._text})
            part = {"type": "text", "text": self._text}
        self._tell({"type": "response.content_part.done", **place, "part": part})
        self._close_item(item, status)

    # --- a call of a function ------------------------------------------------------------------------------------

    def call(self, called: Called) -> None:
        """The client is to run a function."""
        if not self.alive:
            return
        self.close_message("completed")
        item = self._open_item(
            {
                "type": "function_call",
                "status": "in_progress",
                "name": called.name,
                "call_id": called.call_id,
                "arguments": "",
            }
        )
        place = {**self._place(item), "call_id": called.call_id}
        self._tell({"type": "response.function_call_arguments.delta", **place, "delta": called.arguments})
        done = {"name": called.name, "arguments": called.arguments}
        self._tell({"type": "response.function_call_arguments.done", **place, **done})
        item.wire["arguments"] = called.arguments
        self._close_item(item, "completed")

    # --- items ---------------------------------------------------------------------------------------------------

    def _open_item(self, wire: dict[str, Any]) -> Item:
        item = Item({"id": new_id("item"), "object": "realtime.item", **wire})
        item.by_operator = self.by_operator
        self.output.append(item)
        self._tell({"type": "response.output_item.added", **self._of_output(item), "item": seen(item)})
        if self._items is not None:
            before = self._items.append(item)
            self._tell({"type": "conversation.item.added", "previous_item_id": before, "item": seen(item)})
        return item

    def _close_item(self, item: Item, status: str) -> None:
        item.wire["status"] = status
        item.complete = True
        if self._items is not None:
            before = self._items.before(item)
            self._tell({"type": "conversation.item.done", "previous_item_id": before, "item": seen(item)})
        self._tell({"type": "response.output_item.done", **self._of_output(item), "item": seen(item)})

    def _of_output(self, item: Item) -> Event:
        return {"response_id": self.id, "output_index": self.output.index(item)}

    def _place(self, item: Item) -> Event:
        return {**self._of_output(item), "item_id": item.id}
