"""The conversation of a served session: items in order, as the client sees them and edits them, and as the flow does.

An agent's words are kept clause by clause with the length of their sound, so that an item that is cut at a millisecond
keeps the words that were heard by then. Audio is kept for the newest minutes only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from switchroom.engine.session import Message
from switchroom.realtime.audio import RATE, Samples
from switchroom.realtime.served.codec import spoken_in
from switchroom.realtime.served.protocol import Event, WireError, new_id

MAX_ITEMS = 2_000
_AUDIO_KEPT = 5 * 60 * 16_000
"""Samples (16 kHz) of all items together that are kept for `conversation.item.retrieve`."""
_ROLES = {
    "system": {"input_text"},
    "user": {"input_text", "input_audio", "input_image"},
    "assistant": {"output_text", "output_audio"},
}


class Item:
    """`wire` is what the client sees. `words` is set once the words of a user's audio are known."""

    def __init__(self, wire: dict[str, Any]) -> None:
        self.wire = wire
        self.words: asyncio.Future[str] | None = None
        self.answered = False
        """A user's: a turn of the flow has taken it."""
        self.audio: Samples | None = None
        """16 kHz."""
        self.clauses: list[tuple[str, int]] = []
        """An agent's spoken words: text and its samples at 48 kHz."""
        self.left = 0
        """Samples of them that were played out, as far as we know."""
        self.heard: int | None = None
        """Samples of them that count as heard, where that is not all."""
        self.made = 0
        self.complete = False
        self.by_operator = False
        """An operator said it, in the agent's place."""

    @property
    def id(self) -> str:
        return str(self.wire["id"])

    @property
    def type(self) -> str:
        return str(self.wire["type"])

    @property
    def role(self) -> str:
        return str(self.wire.get("role", ""))

    @property
    def made_ms(self) -> int:
        return self.made * 1000 // RATE

    def text(self) -> str:
        """The words of a message, as far as they are known; of an agent's sound those that were heard."""
        if self.clauses and self.heard is not None:
            return self.heard_text(self.heard)
        parts = self.wire.get("content") or []
        found = [str(part.get("text") or part.get("transcript") or "").strip() for part in parts]
        if self.words is not None and self.words.done() and not self.words.cancelled():
            found.append(self.words.result())
        return " ".join(text for text in dict.fromkeys(found) if text)

    def heard_text(self, samples: int | None = None) -> str:
        """The spoken words up to `samples` (by default what was played out); a clause is cut by the share of its sound,
        since the voice gives no time for a word."""
        rest = self.left if samples is None else samples
        heard: list[str] = []
        for text, length in self.clauses:
            if rest <= 0:
                break
            words = text.split()
            heard += words if rest >= length else words[: len(words) * rest // length]
            rest -= length
        return " ".join(heard)

    def cut(self, samples: int) -> None:
        """The client says that only so much was heard: words and sound after it are forgotten."""
        self.heard = samples
        if self.audio is not None:
            self.audio = self.audio[: samples // 3]
        for part in self.wire.get("content") or []:
            if part.get("type") == "output_audio":
                part["transcript"] = self.heard_text(samples)


class Items:
    """The items in order. Errors are those of the protocol."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    def find(self, item_id: str, doing: str) -> Item:
        """Raises `WireError` with a code that names what was tried (`item_truncate_invalid_item_id`)."""
        for item in self._items:
            if item.id == item_id:
                return item
        raise WireError(
            f"Item with item_id not found: '{item_id}'.", code=f"item_{doing}_invalid_item_id", param="item_id"
        )

    def append(self, item: Item) -> str | None:
        """The ID of the item before it."""
        before = self.last_id()
        self._items.append(item)
        if len(self._items) > MAX_ITEMS:
            self._items.pop(0)
        return before

    def insert(self, item: Item, previous: str | None) -> str | None:
        """After `previous`: None at the end, `root` at the front. The ID of the item before it."""
        if any(one.id == item.id for one in self._items):
            raise WireError(
                f"An item with the ID '{item.id}' is there already.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        if previous is None:
            return self.append(item)
        if previous == "root":
            self._items.insert(0, item)
            return None
        at = next((at for at, one in enumerate(self._items) if one.id == previous), None)
        if at is None:
            raise WireError(
                f"The item '{previous}' to put it after is not there.",
                code="item_create_invalid_previous_item_id",
                param="previous_item_id",
            )
        self._items.insert(at + 1, item)
        return previous

    def before(self, item: Item) -> str | None:
        """The ID of the item before this one."""
        at = self._items.index(item) if item in self._items else 0
        return self._items[at - 1].id if at else None

    def delete(self, item_id: str) -> Item:
        item = self.find(item_id, "delete")
        self._items.remove(item)
        return item

    def keep_audio(self, item: Item, audio: Samples) -> None:
        """Keep an item's sound; that of the oldest is forgotten."""
        item.audio = audio if item.audio is None else np.concatenate((item.audio, audio))
        kept = sum(one.audio.size for one in self._items if one.audio is not None)
        for one in self._items:
            if kept <= _AUDIO_KEPT:
                break
            if one.audio is not None and one is not item:
                kept -= one.audio.size
                one.audio = None

    # --- for the flow --------------------------------------------------------------------------------------------

    def unanswered(self) -> list[Item]:
        """The user's messages that the flow was not given yet: those after the agent's last words."""
        open_items: list[Item] = []
        for item in self._items:
            if item.type == "message" and item.role == "assistant" and item.text():
                open_items.clear()
            elif item.type == "message" and item.role == "user" and not item.answered:
                open_items.append(item)
        return open_items

    def all_answered(self) -> None:
        """Nothing that was said so far is a question to the flow any more."""
        for item in self.unanswered():
            item.answered = True

    def said(self, but: list[Item]) -> list[Message]:
        """What was said, as the flow keeps it, without the items `but`."""
        told = [
            (item, text)
            for item in self._items
            if item.type == "message"
            and item.role in ("user", "assistant")
            and item not in but
            and (text := item.text())
        ]
        return [Message(role=_speaker(item), text=text) for item, text in told]

    def standing(self) -> list[str]:
        """The texts of system messages."""
        found = (item.text() for item in self._items if item.type == "message" and item.role == "system")
        return [text for text in found if text]


def _speaker(item: Item) -> Literal["caller", "agent", "operator"]:
    if item.role == "user":
        return "caller"
    return "operator" if item.by_operator else "agent"


def from_client(given: Any, param: str = "item") -> Item:
    """A client's item, checked. Its ID is kept, or made. Raises `WireError`."""
    if not isinstance(given, dict):
        raise WireError(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    kind = given.get("type")
    item_id = given.get("id") or new_id("item")
    if not isinstance(item_id, str) or len(item_id) > 64:
        raise _wrong(f"{param}.id", "expected a string of at most 64 characters")
    wire: dict[str, Any] = {"id": item_id, "object": "realtime.item", "type": kind, "status": "completed"}
    match kind:
        case "message":
            wire |= {"role": given.get("role"), "content": _content(given, param)}
        case "function_call":
            wire |= {
                "name": _string(given, "name", param),
                "call_id": given.get("call_id") or new_id("call"),
                "arguments": _string(given, "arguments", param),
            }
        case "function_call_output":
            wire |= {"call_id": _string(given, "call_id", param), "output": _string(given, "output", param)}
        case _:
            raise _wrong(f"{param}.type", "expected message, function_call or function_call_output")
    return Item(wire)


def _content(given: dict[str, Any], param: str) -> list[dict[str, Any]]:
    allowed = _ROLES.get(str(given.get("role")))
    if allowed is None:
        raise _wrong(f"{param}.role", "expected system, user or assistant")
    parts = given.get("content")
    if not isinstance(parts, list):
        raise WireError(
            f"Missing required parameter: '{param}.content'.",
            code="missing_required_parameter",
            param=f"{param}.content",
        )
    checked: list[dict[str, Any]] = []
    for at, part in enumerate(parts):
        place = f"{param}.content[{at}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in allowed:
            raise _wrong(f"{place}.type", f"a {given['role']} message takes {' or '.join(sorted(allowed))}")
        if kind in ("input_text", "output_text"):
            checked.append({"type": kind, "text": _string(part, "text", place)})
        elif kind == "input_image":
            checked.append({"type": kind, "image_url": part.get("image_url"), "detail": part.get("detail") or "auto"})
        else:
            checked.append({"type": kind, "transcript": part.get("transcript"), "audio": part.get("audio")})
    return checked


def seen(item: Item) -> dict[str, Any]:
    """The item as it stands in events: without its sound."""
    wire = dict(item.wire)
    if "content" in wire:
        wire["content"] = [{key: value for key, value in part.items() if key != "audio"} for part in wire["content"]]
    return wire


async def retrieved(item: Item) -> Event:
    """The item with its sound, for `conversation.item.retrieved`."""
    wire = seen(item)
    if item.audio is not None:
        sound = await asyncio.to_thread(spoken_in, item.audio)
        for part in wire.get("content", ()):
            if part["type"] in ("input_audio", "output_audio"):
                part["audio"] = sound
    return {"type": "conversation.item.retrieved", "item": wire}


def _string(given: dict[str, Any], name: str, param: str) -> str:
    value = given.get(name)
    if value is None:
        raise WireError(
            f"Missing required parameter: '{param}.{name}'.", code="missing_required_parameter", param=f"{param}.{name}"
        )
    if not isinstance(value, str):
        raise _wrong(f"{param}.{name}", "expected a string")
    return value


def _wrong(param: str, what: str) -> WireError:
    return WireError(f"Invalid value for '{param}': {what}.", code="invalid_value", param=param)
