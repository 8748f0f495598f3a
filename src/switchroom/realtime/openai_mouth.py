"""The agent's voice from a Realtime service: its audio into the playout, and how much of each item was heard."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from functools import partial

import numpy as np

from switchroom.engine.session import Message
from switchroom.errors import Unavailable
from switchroom.realtime.audio import FRAME, RATE, Framer, Samples
from switchroom.realtime.openai_audio import Doubler
from switchroom.realtime.openai_link import Link, Lost
from switchroom.realtime.openai_wire import FunctionCall, Wanted
from switchroom.realtime.playout import Playout

_TRIES = 2
"""For a response that failed before a word of it was there."""
_AGAIN_S = 0.5


class Item:
    """One item of the agent: its words as far as they are known, its samples (48 kHz) that came and that have left."""

    def __init__(self, item_id: str, session: int) -> None:
        self.id = item_id
        self.session = session
        self.told_to = session
        """The session that knows of its words."""
        self.text = ""
        self.came = 0
        self.left = 0
        self.complete = False
        self.doubler = Doubler()
        self.framer = Framer()

    @property
    def whole(self) -> bool:
        return self.complete and self.left >= self.came

    @property
    def heard_ms(self) -> int:
        return min(self.left, self.came) * 1000 // RATE

    def heard_text(self) -> str:
        """The words whose audio has left, by the share of the samples: the service gives no time for each."""
        if not self.came:
            return ""
        words = self.text.split()
        return " ".join(words[: len(words) * min(self.left, self.came) // self.came])


class Mouth:
    """Speaks responses, one after another. `on_words` gets what is known by now of words that begin to leave."""

    def __init__(self, link: Link, on_words: Callable[[str], None], on_audio: Callable[[], None]) -> None:
        self._link = link
        self._on_words = on_words
        self._on_audio = on_audio
        self._items: list[Item] = []
        self._generation = 0
        self.playout: Playout | None = None

    # --- Sink ----------------------------------------------------------------------------------------------------

    def audio(self, item_id: str, session: int, samples: Samples) -> None:
        self._on_audio()
        item = self._item(item_id, session)
        self._play(item, item.doubler.feed(samples))

    def words(self, item_id: str, session: int, text: str) -> None:
        item = self._item(item_id, session)
        item.text += text
        if item.left:
            self._tell()

    def _item(self, item_id: str, session: int) -> Item:
        for item in reversed(self._items):
            if item.id == item_id:
                return item
        self._items.append(Item(item_id, session))
        return self._items[-1]

    def _play(self, item: Item, samples: Samples) -> None:
        assert self.playout is not None
        item.came += samples.size
        # Frame by frame: each says when it leaves, which is how much of the item was heard.
        for frame in item.framer.feed(samples):
            self.playout.say(frame, "", generation=self._generation, on_first=partial(self._leaves, item))

    def _leaves(self, item: Item) -> None:
        item.left += FRAME
        if item.left == FRAME:
            self._tell()

    def _tell(self) -> None:
        self._on_words(" ".join(item.text.strip() for item in self._items if item.left))

    # --- speaking ------------------------------------------------------------------------------------------------

    async def speak(
        self, make: Callable[[str], Wanted | None], generation: int
    ) -> AsyncGenerator[str | FunctionCall, None]:
        """Speak a response; gives its words and calls as they come.

        `make` is given what of it was said already, "" at first: after a lost connection the rest is asked for when
        what had come is heard, or nothing if it gives None. Raises `Refused` or `Unavailable`.
        """
        assert self.playout is not None
        said: list[Item] = []
        failed = 0
        while (wanted := make(" ".join(item.heard_text() for item in said if item.came))) is not None:
            await self._link.ready()
            self._tell_session()
            known = len(self._items)
            self._generation = generation
            try:
                async with self._link.respond(wanted, self) as reply:
                    async for piece in reply.pieces():
                        yield piece
                self._complete(known)
                return
            except Lost:
                self._complete(known)
                said += self._items[known:]
                await self.playout.drained()
            except Unavailable as error:
                failed += 1
                if error.code != "voice_response_failed" or failed >= _TRIES or len(self._items) > known:
                    raise
                await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1.0))  # noqa: S311

    async def ask(self, wanted: Wanted) -> FunctionCall | None:
        """A response that is not spoken: the call of the one function that it may call."""
        while True:
            try:
                async with self._link.respond(wanted, None) as reply:
                    async for piece in reply.pieces():
                        if isinstance(piece, FunctionCall):
                            return piece
                return None
            except Lost:
                continue  # the link bounds how often it comes back

    def _complete(self, known: int) -> None:
        """All that there will be of the items after the first `known` has come: the last piece of a frame goes out."""
        for item in self._items[known:]:
            if rest := -item.came % FRAME:
                came = item.came
                self._play(item, np.zeros(rest, dtype=np.int16))
                item.came = came
            item.complete = True

    # --- what was heard ------------------------------------------------------------------------------------------

    def take_heard(self, *, interrupted: bool) -> str:
        """The words that were heard since the last call of this; the session forgets those that were not."""
        assert self.playout is not None
        self.playout.take_heard()
        if interrupted:
            for item in self._items:
                if not item.whole:
                    self._link.cut(item.id, item.heard_ms, item.session)
        self._tell_session()
        items, self._items = self._items, []
        return " ".join(text for item in items if (text := item.heard_text()))

    def _tell_session(self) -> None:
        """A session that is younger than an item learns what was heard of it."""
        for item in self._items:
            if item.told_to != self._link.session and (text := item.heard_text()):
                self._link.add(Message(role="agent", text=text))
                item.told_to = self._link.session
