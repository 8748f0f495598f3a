"""Which server takes a command: the one there is, the primary that the sentinels name, or the owner of a key's slot.

A cluster's slot map is read from its nodes (`CLUSTER SLOTS`) and again whenever a node says that it moved or cannot be
reached. An `ASK` is never followed: a flow's script touches many keys that it does not name, so it may run only where
all of them are. While a slot is moved key by key its flows wait; the atomic move of Valkey 9 has no such time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import ResponseError

from switchroom.errors import Unavailable
from switchroom.store.address import Address, Target
from switchroom.store.wire import Wire

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""A server of several that does not take a connection within this time is passed over."""
REFRESH_GAP_S = 0.05

_KEYLESS = frozenset(
    {
        "PING",
        "INFO",
        "SCRIPT",
        "FUNCTION",
        "TIME",
        "CONFIG",
        "CLIENT",
        "CLUSTER",
        "WAIT",
        "ROLE",
        "DBSIZE",
        "FLUSHALL",
        "ECHO",
    }
)


class Line:
    """The wire to one server, opened again when it is lost."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self.wire: Wire | None = None
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._looked = False

    async def open(self) -> Wire:
        """A live wire. Raises `Unavailable` or (a server that loads its file) `ResponseError`; does not wait."""
        async with self._opening:
            if self.wire is not None and self.wire.alive:
                return self.wire
            wire = await Wire.open(self.address, timeout_s=self._timeout_s, connect_s=min(self._timeout_s, CONNECT_S))
            try:
                await wire.send("PING")
                if not self._looked:
                    self._looked = True
                    await _warn_of_loss(wire, self.address)
            except BaseException:
                wire.close()
                raise
            self.wire = wire
            return wire

    def leave(self) -> None:
        """The next call looks for its server again; answers on their way still come."""
        if self.wire is not None:
            self.wire.retire()
            self.wire = None

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()


class Nodes(Protocol):
    """Finds the server of a command."""

    def line(self, command: Sequence[Any]) -> Line | None:
        """The line to take without waiting, if one is known."""

    async def find(self, command: Sequence[Any]) -> Line:
        """Looks for the server, anew where the last look proved wrong. Raises `Unavailable` or `ResponseError`."""

    def wrong(self, line: Line, error: ResponseError | None) -> None:
        """This line's server did not take the command (`error`), or cannot be reached (None)."""

    def close(self) -> None: ...


def nodes_of(target: Target, timeout_s: float) -> Nodes:
    match target.kind:
        case "cluster":
            return ClusterNodes(target, timeout_s)
        case "sentinel":
            return SentinelNodes(target, timeout_s)
        case _:
            return OneNode(target, timeout_s)


class OneNode:
    """The server that the URL names."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._line = Line(target.primary, timeout_s)

    def line(self, command: Sequence[Any]) -> Line | None:
        return self._line

    async def find(self, command: Sequence[Any]) -> Line:
        return self._line

    def wrong(self, line: Line, error: ResponseError | None) -> None:
        word = word_of(error) if error is not None else ""
        if word == "MOVED":
            raise Unavailable(
                f"{line.address} is a node of a cluster: name it as redis+cluster://", code="store_is_a_cluster"
            )
        if word == "READONLY":
            line.leave()  # a name that may lead to another server by now

    def close(self) -> None:
        self._line.close()


class SentinelNodes:
    """The primary of a service, as the first sentinel that answers names it; it must say itself that it is one."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._sentinels = list(target.seeds)
        self._line: Line | None = None
        self._asking = asyncio.Lock()

    def line(self, command: Sequence[Any]) -> Line | None:
        return self._line

    async def find(self, command: Sequence[Any]) -> Line:
        async with self._asking:
            if self._line is None:
                self._line = await self._ask()
            return self._line

    def wrong(self, line: Line, error: ResponseError | None) -> None:
        if error is not None and word_of(error) not in ("READONLY", "MASTERDOWN"):
            return
        if self._line is line:
            self._line = None
            line.leave()

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    async def _ask(self) -> Line:
        said = "none answered"
        for sentinel in list(self._sentinels):
            try:
                wire = await Wire.open(sentinel, timeout_s=CONNECT_S, connect_s=CONNECT_S)
                try:
                    named = await wire.send("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
                finally:
                    wire.close()
                if named is None:
                    said = f"{sentinel} does not know the service {self._target.service}"
                    continue
                line = Line(self._target.primary.at(named[0].decode(), int(named[1])), self._timeout_s)
                role = await (await line.open()).send("ROLE")
                if role[0] != b"master":
                    said = f"{line.address} is not the primary yet"
                    line.close()
                    continue
            except (Unavailable, ResponseError) as error:
                said = str(error)
                continue
            # The one that answered is asked first the next time (the order that Sentinel's clients keep).
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return line
        raise Unavailable(f"no sentinel names a primary: {said}", code="store_unavailable", retry_after_s=1)


class ClusterNodes:
    """The primaries of a cluster, by slot."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._lines: dict[tuple[str, int], Line] = {}
        self._slots: dict[int, Line] = {}
        self._stale = True
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")

    def line(self, command: Sequence[Any]) -> Line | None:
        key = key_of(command)
        if key is None:
            return next(iter(self._slots.values()), None)
        return self._slots.get(slot_of(key))

    async def find(self, command: Sequence[Any]) -> Line:
        if self._stale:
            async with self._reading:
                if self._stale:
                    await self._read_map()
        line = self.line(command)
        if line is None:
            self._stale = True
            raise Unavailable("no node of the cluster owns this key's slot", code="store_unavailable", retry_after_s=1)
        return line

    def wrong(self, line: Line, error: ResponseError | None) -> None:
        word = word_of(error) if error is not None else ""
        if word == "MOVED":
            _, slot, where = str(error).split()[:3]
            host, _, port = where.rpartition(":")
            # Said by the slot's last owner: newer than any map. An empty host is the one that we asked.
            self._slots[int(slot)] = self._line_to(host or line.address.host, int(port))
        if word == "READONLY":
            line.leave()
        if word not in ("ASK", "TRYAGAIN", "LOADING", "BUSY"):
            self._stale = True

    def close(self) -> None:
        for line in self._lines.values():
            line.close()

    def _line_to(self, host: str, port: int) -> Line:
        line = self._lines.get((host, port))
        if line is None:
            line = self._lines[host, port] = Line(self._target.primary.at(host, port), self._timeout_s)
        return line

    async def _read_map(self) -> None:
        """Reads the slots from the first node that answers: those we talk to, then the others, then the seeds."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._read_at + REFRESH_GAP_S - loop.time()))
        known = sorted(self._lines.values(), key=lambda line: line.wire is None or not line.wire.alive)
        seeds = [self._line_to(seed.host, seed.port) for seed in self._target.seeds]
        said = "none answered"
        for line in dict.fromkeys([*known, *seeds]):
            try:
                wire = await line.open()
                ranges = await wire.send("CLUSTER", "SLOTS")
            except (Unavailable, ResponseError) as error:
                said = f"{line.address}: {error}"
                continue
            slots = {}
            for first, last, primary, *_ in ranges:
                host = primary[0].decode() if primary[0] else line.address.host
                owner = self._line_to(host, int(primary[1]))
                slots.update(dict.fromkeys(range(first, last + 1), owner))
            if not slots:
                said = f"{line.address} knows no slots"
                continue
            self._slots = slots
            self._stale = False
            self._read_at = loop.time()
            return
        raise Unavailable(f"no node of the cluster answers: {said}", code="store_unavailable", retry_after_s=1)


def word_of(error: ResponseError) -> str:
    """A server's error begins with one word that says its kind."""
    return str(error).partition(" ")[0]


def key_of(command: Sequence[Any]) -> Any:
    """The first key of a command, None where it has none. Covers the commands that this program sends."""
    name = command[0]
    if name in ("FCALL", "EVALSHA", "EVAL"):
        return command[3] if int(command[2]) else None
    if name == "BLMPOP":
        return command[3]
    if name in _KEYLESS:
        return None
    if name in ("XREAD", "XREADGROUP"):
        return command[command.index("STREAMS") + 1]
    if name in ("MEMORY", "OBJECT", "XINFO", "XGROUP"):
        return command[2]
    return command[1]


@lru_cache(maxsize=8_192)
def slot_of(key: str | bytes) -> int:
    """The slot of a key: CRC16 of it, or of what its first `{…}` holds, modulo 16384."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


async def _warn_of_loss(wire: Wire, address: Address) -> None:
    """Says what in a server's settings can lose an accepted call."""
    try:
        info = (await wire.send("INFO", "everything")).decode(errors="replace")
    except ResponseError as error:  # managed services allow it, a narrow ACL may not
        log.info("the store does not tell its settings", extra={"server": str(address), "detail": str(error)})
        return
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        log.warning(
            "the store may evict keys when its memory is full, and calls with them: set maxmemory-policy noeviction",
            extra={"server": str(address), "policy": policy, "maxmemory": facts.get("maxmemory", "")},
        )
    if facts.get("aof_enabled") == "0":
        log.warning(
            "the store writes no append-only file: what it accepted is lost when it restarts (set appendonly yes)",
            extra={"server": str(address)},
        )
