"""The process in which flows' JavaScript runs. Run by its path, so that it imports nothing of ours and starts fast.

On its standard input and output: 4 bytes of length (big-endian), then JSON. A request is `{body, bound: {name: JSON
text}, cpu_s, memory, stack, longest}`, an answer `{out: JSON text}` of at most `longest` characters, or `{failed:
sentence}`. It ends with its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any

import quickjs

_MEMORY = 1 << 30
_AT_HAND = """
    const quiet = () => undefined;
    globalThis.console = { log: quiet, info: quiet, warn: quiet, error: quiet, debug: quiet };
    globalThis.structuredClone = value => JSON.parse(JSON.stringify(value));
    0
"""
"""What functions written for Node use without reaching for anything; nobody reads what they log."""
_RUN = """
    (() => {
        const { stringify } = JSON, { apply, defineProperty } = Reflect, { then } = Promise.prototype, text = String;
        let out, failed;
        defineProperty(globalThis, "__out", { get: () => out });
        defineProperty(globalThis, "__failed", { get: () => failed });
        const tell = error => {
            try { failed = text((error && error.message) || error) }
            catch { failed = "The script threw what has no text." }
        };
        const keep = value => {
            try { out = stringify(value === undefined ? null : value) ?? "null" }
            catch (error) { tell(error) }
        };
        globalThis.__run = (made, given) => apply(then, apply(made, undefined, given), [keep, tell]);
    })(); 0
"""
"""Runs a function and keeps what it gives as JSON, by what the engine had before the script could replace any of it."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def run(request: dict[str, Any]) -> dict[str, str]:
    """Evaluates `body` as the body of an async function whose parameters are `bound`."""
    names = list(request["bound"])
    context = quickjs.Context()
    context.set_memory_limit(request["memory"])
    context.set_max_stack_size(request["stack"])
    context.set_time_limit(request["cpu_s"])
    try:
        context.eval(_AT_HAND)
        for name, text in request["bound"].items():
            # As JSON text, parsed inside: a value can never become code.
            context.set("__json", text)
            context.eval(f"globalThis[{json.dumps('__in_' + name)}] = JSON.parse(__json); 0")
        arguments = ", ".join(f"globalThis[{json.dumps('__in_' + name)}]" for name in names)
        declared = ", ".join([*map(json.dumps, names), "__body"])
        context.set("__body", request["body"])
        context.eval(_RUN)
        context.eval(f"__run((new (async function(){{}}).constructor({declared})), [{arguments}]); 0")
        until = time.process_time() + request["cpu_s"]
        while context.execute_pending_job():
            # Each job has the engine's limit for itself.
            if time.process_time() > until:
                return {"failed": "interrupted"}
        failed, out = context.get("__failed"), context.get("__out")
    except quickjs.JSException as error:
        return {"failed": str(error)}
    if isinstance(failed, str):
        return {"failed": failed}
    if not isinstance(out, str):
        return {"failed": "The script waits for something that never comes."}
    if len(out) > request["longest"]:
        return {"failed": f"The script's result is longer than {request['longest']} characters."}
    return {"out": out}


def _read(size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        piece = os.read(0, size - len(parts))
        if not piece:
            sys.exit(0)
        parts += piece
    return parts


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    while True:
        request = json.loads(_read(int.from_bytes(_read(4), "big")))
        answer = json.dumps(run(request)).encode()
        frame = len(answer).to_bytes(4, "big") + answer
        while frame:
            frame = frame[os.write(1, frame) :]


if __name__ == "__main__":
    main()
