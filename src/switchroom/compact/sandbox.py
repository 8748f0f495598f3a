"""Runs a flow's JavaScript in QuickJS: no file, no network, no clock but `Date`, under limits of time and memory.

Each evaluation has its own context in a thread of a small pool. The engine's own limit counts CPU time; a wall-clock
limit above it holds also where a native function of the engine does not look at its clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import quickjs

from switchroom.errors import SwitchroomError

__all__ = ["Limits", "Sandbox", "ScriptError"]

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")
_MAX_RESULT = 1 << 20


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
    """A pool of threads for scripts. `close` when done."""

    def __init__(self, limits: Limits | None = None, *, threads: int = 4) -> None:
        self.limits = limits or Limits()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flow-js")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(self, body: str, bound: Mapping[str, Any]) -> Any:
        """Runs `body` as the body of a function whose parameters are `bound` (JSON values). Gives what it returns.

        Raises ScriptError."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, run, body, dict(bound), self.limits)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limits.wall_s)
        except TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise ScriptError(f"The script ran longer than {self.limits.wall_s * 1000:.0f} ms.") from None


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
