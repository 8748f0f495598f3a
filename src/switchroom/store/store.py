"""The one store: Valkey or Redis >= 7, embedded or yours. Everything durable goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from switchroom.errors import Unavailable
from switchroom.store.address import Address, Target
from switchroom.store.nodes import Line, nodes_of, word_of
from switchroom.store.script import Library, Script
from switchroom.store.wire import Wire

Word = str | bytes | int | float

CONNECT_PATIENCE_S = 5.0
"""How long a call waits for a lost server, a slot on its way or a new primary before it fails."""
REPLICA_PATIENCE_MS = 2_000
"""How long a call waits for the replicas that `replicas_ack` asks for."""
_PAUSE_FIRST_S = 0.02
_PAUSE_MOST_S = 0.5

_NOT_RUN_YET = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "BUSY", "READONLY", "MASTERDOWN"})
"""Errors of a server that did not run the command and may, or another may, a little later."""
_NOT_RUN = {
    "OOM": "the store's memory is full",
    "MISCONF": "the store cannot write its file",
    "NOREPLICAS": "the store has not enough replicas",
}
_WAIT_ELSEWHERE = frozenset(
    {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED", "LOADING"}
)
"""Errors of a server that took nothing and is not the one to wait on (any more)."""
_LOADS = 3
"""How often a library is loaded for one call: each time its key may have moved to a server that lacks it."""
_NEVER_S = 7 * 24 * 3600.0
"""A wire's own watch is of no use where the server is asked to wait: each wait has a deadline of its own."""


class Store:
    """Calls on one batching connection a server; blocking waits on connections of their own.

    Replies are RESP2 as they come: `bytes`, `int`, `None`, `list`. A server's error raises
    `redis.exceptions.ResponseError`; a server that is not there raises `Unavailable`. A command that a server refused
    to run (it moved, it loads, it became a replica) is sent again; one whose connection broke before its reply may or
    may not have run: it is never repeated here.

    `replicas_ack` servers more must have a write before it counts: else `Unavailable` (`not_replicated`), and then the
    write may stand all the same.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, replicas_ack: int = 0) -> None:
        self.url = url
        self._nodes = nodes_of(Target.from_url(url), timeout_s)
        self._replicas = replicas_ack
        self._closed = False
        self._blocking: dict[Address, list[Wire]] = {}
        self._waiting: set[Wire] = set()

    @classmethod
    async def connect(cls, url: str, *, timeout_s: float = 10.0, replicas_ack: int = 0) -> Store:
        """Opens the store at `url` (see `Target`) and warns where its settings may lose what it accepted."""
        store = cls(url, timeout_s=timeout_s, replicas_ack=replicas_ack)
        await store.call("PING")
        return store

    async def call(self, *command: Word) -> Any:
        """Runs one command; it shares its write with the others of this event-loop tick."""
        line = self._nodes.line(command)
        if line is None or (wire := line.wire) is None or not wire.alive:
            line, wire = await self._reach(command, _deadline())
        try:
            if self._replicas:
                return await self._replicated(line, wire, command)
            return await wire.send(*command)
        except ResponseError as error:
            if (word := word_of(error)) not in _NOT_RUN_YET and word not in _NOT_RUN:
                raise
            refusal = error
        return await self._again(command, line, refusal)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Runs a script, loading it where the server does not know it."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except ResponseError as error:
            if not (isinstance(error, NoScriptError) or word_of(error) == "NOSCRIPT"):
                raise
            return await self.call("EVAL", script.source, len(keys), *keys, *args)

    async def run_function(self, library: Library, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Runs a library's function, loading it where the server does not know it. It needs at least one key."""
        command = ("FCALL", library.function, len(keys), *keys, *args)
        for _ in range(_LOADS):
            try:
                return await self.call(*command)
            except ResponseError as error:
                if "Function not found" not in str(error):
                    raise
            try:
                await self._at(keys[0], "FUNCTION", "LOAD", library.code)
            except ResponseError as error:
                if "already exists" not in str(error):
                    raise
        return await self.call(*command)

    async def _at(self, key: str, *command: Word) -> Any:
        """Runs a command that has no key on the server that has `key`."""
        _, wire = await self._reach(("EXISTS", key), _deadline())
        return await wire.send(*command)

    async def blocking(self, *command: Word, timeout_s: float) -> Any:
        """Runs a command that waits on the server (`BLPOP`, `XREAD BLOCK`) on a connection of its own.

        `timeout_s` is our deadline and must be longer than the command's own.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    line, _ = await self._reach(command, _deadline(timeout_s))
                    try:
                        return await self._alone(line.address, command)
                    except ResponseError as error:
                        if word_of(error) not in _WAIT_ELSEWHERE:
                            raise
                        # Nothing was taken: the server is not the one to wait on (any more).
                        self._nodes.wrong(line, None)
                        await asyncio.sleep(_PAUSE_FIRST_S)
        except TimeoutError as error:
            raise _gone(error) from error

    async def _alone(self, address: Address, command: Sequence[Word]) -> Any:
        """One command on a connection that nobody else uses meanwhile; it is kept for the next one."""
        resting = self._blocking.setdefault(address, [])
        while resting and not resting[-1].alive:
            resting.pop()
        wire = resting.pop() if resting else await Wire.open(address, timeout_s=_NEVER_S, connect_s=CONNECT_PATIENCE_S)
        self._waiting.add(wire)
        try:
            reply = await wire.send(*command)
        except ResponseError:
            resting.append(wire)
            raise
        except BaseException:
            wire.close()  # the server still waits on it
            raise
        finally:
            self._waiting.discard(wire)
        resting.append(wire)
        return reply

    async def close(self) -> None:
        self._closed = True
        self._nodes.close()
        for wire in (*self._waiting, *(wire for resting in self._blocking.values() for wire in resting)):
            wire.close()

    async def _reach(self, command: Sequence[Word], deadline: float) -> tuple[Line, Wire]:
        """A live wire to the command's server, waiting for one until `deadline` (loop time)."""
        loop = asyncio.get_running_loop()
        pause_s = _PAUSE_FIRST_S
        while True:
            if self._closed:
                raise Unavailable("the store is closed", code="store_unavailable")
            line: Line | None = None
            try:
                line = await self._nodes.find(command)
                return line, await line.open()
            except (Unavailable, ResponseError) as error:
                # A server that loads its append-only file refuses commands: that passes.
                if line is not None:
                    self._nodes.wrong(line, None)
                if loop.time() + pause_s > deadline:
                    raise _gone(error) from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MOST_S)

    async def _again(self, command: Sequence[Word], line: Line, error: ResponseError) -> Any:
        """Sends a command again that a server refused to run, where it belongs now."""
        loop = asyncio.get_running_loop()
        deadline = _deadline()
        pause_s = _PAUSE_FIRST_S
        while True:
            word = word_of(error)
            if word in _NOT_RUN:
                raise Unavailable(f"{_NOT_RUN[word]}: {error}", code="store_unavailable", retry_after_s=5) from error
            if word not in _NOT_RUN_YET:
                raise error
            self._nodes.wrong(line, error)
            if loop.time() + pause_s > deadline:
                raise _gone(error) from error
            if word != "MOVED":
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_MOST_S)
            line, wire = await self._reach(command, deadline)
            try:
                if self._replicas:
                    return await self._replicated(line, wire, command)
                return await wire.send(*command)
            except ResponseError as refusal:
                error = refusal

    async def _replicated(self, line: Line, wire: Wire, command: Sequence[Word]) -> Any:
        """The reply, once as many replicas as asked for have all that this connection wrote (`WAIT`)."""
        sent = wire.send(*command)
        confirmed = wire.confirm(self._replicas, REPLICA_PATIENCE_MS)
        try:
            reply = await sent
        finally:
            # Also where the command failed: the future is shared, and its error must be heard by somebody.
            confirmed.add_done_callback(_heard)
        copies = await asyncio.shield(confirmed)
        if copies < self._replicas:
            self._nodes.wrong(line, None)  # perhaps another is the primary by now
            raise Unavailable(
                f"{copies} of {self._replicas} replicas have this write: it may be lost, or stand",
                code="not_replicated",
                retry_after_s=1,
            )
        return reply


def _deadline(most_s: float = CONNECT_PATIENCE_S) -> float:
    return asyncio.get_running_loop().time() + min(CONNECT_PATIENCE_S, most_s)


def _heard(future: asyncio.Future[int]) -> None:
    if not future.cancelled():
        future.exception()


def _gone(error: BaseException) -> Unavailable:
    words = error.detail if isinstance(error, Unavailable) else f"the store does not answer: {error}"
    return Unavailable(words, code="store_unavailable", retry_after_s=1)
