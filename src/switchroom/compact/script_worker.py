"""The process in which flows' JavaScript runs. Run by its path, so that it imports nothing of ours and starts fast.

On its standard input and output: 4 bytes of length (big-endian), then JSON. A request is `{body, bound: {name: JSON
text}, cpu_s, memory, stack}`, an answer `{out: JSON text}` or `{failed: sentence}`. It ends with its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
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
        context.eval(
            "globalThis.__out = undefined; globalThis.__failed = undefined;"
            f"(new (async function(){{}}).constructor({declared}))"
            f"({arguments}).then(v => {{ __out = JSON.stringify(v === undefined ? null : v) ?? 'null' }},"
            " e => { __failed = String(e && e.message || e) }); 0"
        )
        while context.execute_pending_job():
            pass
        failed, out = context.get("__failed"), context.get("__out")
    except quickjs.JSException as error:
        return {"failed": str(error)}
    if isinstance(failed, str):
        return {"failed": failed}
    return {"out": out} if isinstance(out, str) else {"failed": "The script waits for something that never comes."}


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
