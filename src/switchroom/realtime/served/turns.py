"""One turn of the flow behind a served session. It may last longer than a response: where the flow calls a function of
the client's, the response ends with the call, and the turn goes on in the response that the client asks for after it
gave the output."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

from switchroom.engine.events import Event, NodeFinished, Token, TurnEnded, TurnFailed
from switchroom.engine.session import Session
from switchroom.realtime.served.items import Item
from switchroom.realtime.served.tools import Called


class Over(NamedTuple):
    """The turn's end. `finished`: the flow reached its end; `failed`: it cannot go on, `code` and `detail` say why."""

    outcome: str
    code: str = ""
    detail: str = ""


Piece = str | Called | NodeFinished | Over


class FlowTurn:
    """Runs `events` and keeps what comes until a response takes it. `before` is the session as it was, `took` the items
    that the turn answers."""

    def __init__(self, events: AsyncIterator[Event], before: Session, took: list[Item]) -> None:
        self.before = before
        self.took = took
        self.over = False
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run(events), name="served-turn")

    def called(self, call: Called) -> None:
        self._pieces.put_nowait(call)

    async def next(self) -> Piece:
        """The next piece, in order. Nothing comes after `Over`."""
        piece = await self._pieces.get()
        self.over = self.over or isinstance(piece, Over)
        return piece

    def more_now(self) -> bool:
        return not self._pieces.empty()

    async def close(self) -> None:
        """Stop the turn at once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, events: AsyncIterator[Event]) -> None:
        over = Over("failed", "internal", "The turn ended without a word about it.")
        try:
            async with _closing(events):
                async for event in events:
                    match event:
                        case Token():
                            self._pieces.put_nowait(event.text)
                        case NodeFinished():
                            self._pieces.put_nowait(event)
                        case TurnEnded():
                            over = Over(event.outcome)
                        case TurnFailed():
                            over = Over("failed", event.code, event.detail)
                        case _:
                            pass
        except Exception as error:
            over = Over("failed", "internal", f"The turn broke: {type(error).__name__}.")
            raise
        finally:
            self._pieces.put_nowait(over)


def _closing(events: AsyncIterator[Event]) -> contextlib.AbstractAsyncContextManager[Any]:
    return contextlib.aclosing(events) if isinstance(events, AsyncGenerator) else contextlib.nullcontext()
