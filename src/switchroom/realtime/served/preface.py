"""Words that a caller has to hear before any others: that the call is recorded."""

from __future__ import annotations

import asyncio

from switchroom.realtime.served.items import Item


class Preface:
    """One session's; `text` "": none. It is due until it was heard to its end: cut short, it is said again."""

    def __init__(self) -> None:
        self.text = ""
        self._item: Item | None = None
        self._samples = 0
        self._over = asyncio.Event()
        self._over.set()

    @property
    def due(self) -> bool:
        """To be said before the agent's next words."""
        return bool(self.text) and self._item is None

    @property
    def sounding(self) -> bool:
        """It is on its way to the caller's ear."""
        return not self._over.is_set()

    def said(self, item: Item, samples: int) -> None:
        """The first `samples` of `item` (48 kHz) are its sound."""
        self._item, self._samples = item, samples
        self._over.clear()
        self.left(item)

    def left(self, item: Item) -> None:
        """More of an item was played out."""
        if item is self._item and item.left >= self._samples:
            self._over.set()

    def cut(self, item: Item, samples: int) -> None:
        """Of an item only `samples` were heard."""
        if item is self._item and samples < self._samples:
            self._item = None
            self._over.set()

    async def over(self) -> None:
        """Wait until it does not sound."""
        await self._over.wait()
