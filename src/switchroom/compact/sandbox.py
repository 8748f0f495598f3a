"""Runs a flow's JavaScript in QuickJS: no file, no network, no clock but `Date`, under limits of time and memory.

Each evaluation has its own context in a thread of its own. The engine's own limit counts CPU time; a wall-clock
limit above it holds also where a native function of the engine does not look at its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import quickjs

from switchroom.errors import SwitchroomError

__all__ = ["Limits", "Sandbox", "ScriptError", "modules_of"]

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")
_MAX_RESULT = 1 << 20
_REQUIRE = re.compile(r"""\brequire\(\s*["'`]([^"'`\s]{1,100})["'`]\s*\)""")


class ScriptError(SwitchroomError):
    """A flow's JavaScript did not parse, threw, or hit a limit: 422."""

    code = "script_error"
    status = 422
    title = "Script failed"


class Limits(NamedTuple):
    """`cpu_s` seconds of CPU, `wall_s` seconds of waiting (a queued script waits too), `memory` bytes."""

    cpu_s: float = 0.2
    wall_s: float = 0.24
    memory: int = 16 << 20
    stack: int = 256 << 10


class Sandbox:
    """Runs scripts, `threads` of them at a time, each in a thread of its own.

    A native function of the engine can run on past every limit without looking at its clock (joining a sparse array of
    a hundred million items). Such a thread is left behind, daemonic, and counted: beyond `MAX_STUCK` new scripts are
    refused until one ends.
    """

    MAX_STUCK = 16

    def __init__(self, limits: Limits | None = None, *, threads: int = 4) -> None:
        self.limits = limits or Limits()
        self.stuck = 0
        self._slots = asyncio.Semaphore(threads)

    async def call(self, body: str, bound: Mapping[str, Any]) -> Any:
        """Runs `body` as the body of a function whose parameters are `bound` (JSON values). Gives what it returns.

        Raises ScriptError."""
        if self.stuck >= self.MAX_STUCK:
            raise ScriptError(f"{self.stuck} earlier scripts have not ended yet.", code="scripts_stuck")
        try:
            async with asyncio.timeout(self.limits.wall_s), self._slots:
                return await self._in_thread(body, dict(bound))
        except TimeoutError:
            raise ScriptError(f"The script ran longer than {self.limits.wall_s * 1000:.0f} ms.") from None

    async def _in_thread(self, body: str, bound: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if done.cancelled():
                self.stuck -= 1
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(value)

        def work() -> None:
            value, error = None, None
            try:
                value = run(body, bound, self.limits)
            except BaseException as raised:  # all of it belongs to who waits
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, value, error)

        threading.Thread(target=work, name="flow-js", daemon=True).start()
        try:
            return await done
        finally:
            if done.cancelled():
                self.stuck += 1


def run(body: str, bound: Mapping[str, Any], limits: Limits) -> Any:
    """`Sandbox.call` in this thread. Raises ScriptError."""
    names = [name for name in bound if name and set(name) <= _NAME_CHARS and not name[0].isdigit()]
    context = quickjs.Context()
    context.set_memory_limit(limits.memory)
    context.set_max_stack_size(limits.stack)
    context.set_time_limit(limits.cpu_s)
    try:
        for name in names:
            # As JSON text, parsed inside: a value can never become code.
            context.set("__json", msgspec.json.encode(bound[name]).decode())
            context.eval(f"globalThis[{_quoted('__in_' + name)}] = JSON.parse(__json); 0")
        arguments = ", ".join(f"globalThis[{_quoted('__in_' + name)}]" for name in names)
        context.set("__body", body)
        context.eval(
            "globalThis.__out = undefined; globalThis.__failed = undefined;"
            f"(new (async function(){{}}).constructor({', '.join(map(_quoted, names))}{', ' if names else ''}__body))"
            f"({arguments}).then(v => {{ __out = JSON.stringify(v === undefined ? null : v) ?? 'null' }},"
            " e => { __failed = String(e && e.message || e) }); 0"
        )
        while context.execute_pending_job():
            pass
        failed, out = context.get("__failed"), context.get("__out")
    except quickjs.JSException as error:
        raise ScriptError(_sentence(str(error))) from None
    if isinstance(failed, str):
        raise ScriptError(_sentence(failed))
    if not isinstance(out, str):
        raise ScriptError("The script waits for something that never comes.")
    if len(out) > _MAX_RESULT:
        raise ScriptError(f"The script's result is longer than {_MAX_RESULT} characters.")
    return msgspec.json.decode(out)


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
    if "out of memory" in first or first in ("", "null"):
        return "The script used more memory than its limit."
    return first[:300]
