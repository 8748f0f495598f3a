"""Runs a flow's JavaScript in QuickJS: no file, no network, no clock but `Date`, under limits of time and memory.

Each evaluation has its own context, in a worker process (`script_pool`) that is killed where a script does not end. The
engine's own limit counts CPU time; the wall-clock limit above it holds also where a native function of the engine does
not look at its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import quickjs

from switchroom.compact.script_pool import Job, pool
from switchroom.errors import SwitchroomError

__all__ = ["Limits", "Sandbox", "ScriptError", "modules_of"]

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")
_MAX_RESULT = 1 << 20
_QUEUE_S = 5.0
"""How long a script waits for a worker before it is refused."""
_REQUIRE = re.compile(r"""\brequire\(\s*["'`]([^"'`\s]{1,100})["'`]\s*\)""")


_NOT_THERE = re.compile(
    r"'?(?:fetch|axios|XMLHttpRequest|require|process|Buffer|setTimeout|setInterval|WebSocket|fs)'? is not defined"
)


class ScriptError(SwitchroomError):
    """A flow's JavaScript did not parse, threw, or hit a limit: 422."""

    code = "script_error"
    status = 422
    title = "Script failed"


class Limits(NamedTuple):
    """`cpu_s` seconds of CPU and `wall_s` seconds in all, once it runs; `memory` and `stack` in bytes. The wall
    clock is only for what does not look at the engine's: on a busy machine 30 ms of CPU take a while."""

    cpu_s: float = 0.2
    wall_s: float = 1.0
    memory: int = 16 << 20
    stack: int = 256 << 10


class Sandbox:
    """Runs scripts. The workers are this process's, whatever sandbox they work for."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    def warm(self) -> None:
        """Has a worker come up, so that the first script does not wait for it."""
        pool.warm()

    async def call(self, body: str, bound: Mapping[str, Any]) -> Any:
        """Runs `body` as the body of an async function whose parameters are `bound` (JSON values). Gives what it
        returns.

        Raises ScriptError."""
        names = [name for name in bound if name and set(name) <= _NAME_CHARS and not name[0].isdigit()]
        request = {
            "body": body,
            "bound": {name: msgspec.json.encode(bound[name]).decode() for name in names},
            "cpu_s": self.limits.cpu_s,
            "memory": self.limits.memory,
            "stack": self.limits.stack,
            "longest": _MAX_RESULT,
        }
        answer = await self._answer(request)
        if answer is None:
            raise ScriptError(f"The script ran longer than {self.limits.wall_s * 1000:.0f} ms.")
        if "died" in answer:
            raise ScriptError("The script used more memory than its limit.")
        if "failed" in answer:
            raise ScriptError(_sentence(answer["failed"]))
        try:
            return msgspec.json.decode(answer["out"])
        except msgspec.DecodeError as error:  # half of a surrogate pair, a number that is none here
            raise ScriptError(f"The script's result cannot be read: {error}.") from error

    async def _answer(self, request: dict[str, Any]) -> dict[str, str] | None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[str, str] | None] = loop.create_future()

        def settle(answer: dict[str, str] | None) -> None:
            if not done.done():
                done.set_result(answer)

        def hear(answer: dict[str, str] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, answer)

        job = Job(request, self.limits.wall_s, hear)
        try:
            async with asyncio.timeout(_QUEUE_S):
                pool.put(job)
                return await done
        except TimeoutError:
            raise ScriptError("Too many scripts run at once: this one found no place.", code="scripts_busy") from None
        finally:
            job.dropped = True


def modules_of(body: str) -> list[str]:
    """The names of the Node modules that a script asks for: it cannot have any."""
    return list(dict.fromkeys(found[1] for found in _REQUIRE.finditer(body)))


def syntax_fault(body: str, names: tuple[str, ...]) -> str | None:
    """The engine's sentence on why `body` does not parse as a function's body; None if it does."""
    context = quickjs.Context()
    context.set_memory_limit(16 << 20)
    context.set_time_limit(0.2)
    context.set("__body", body)
    try:
        context.eval(
            f"new (async function(){{}}).constructor({', '.join(map(_quoted, names))}{', ' if names else ''}__body); 0"
        )
    except quickjs.JSException as error:
        return _sentence(str(error))
    return None


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _sentence(text: str) -> str:
    first = text.strip().split("\n", 1)[0]
    if "interrupted" in first:
        return "The script ran longer than its time limit."
    if "out of memory" in first or first in ("", "null", "MemoryError"):
        return "The script used more memory than its limit."
    if missing := _NOT_THERE.match(first):
        return f"{missing[0]}: scripts run without modules, network, files or timers (use an HTTP node or a tool)."
    return first[:300]
