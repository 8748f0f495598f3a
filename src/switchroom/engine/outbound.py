"""HTTP requests of a flow: through the guarded client, tried again where that is safe, with an idempotency key that
stays the same when the run goes on in another process."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping

from switchroom.engine.nodes.base import NodeFault, Step
from switchroom.net import OutboundError
from switchroom.net.client import Fetched

__all__ = ["idempotency_key", "send"]

_TRIES = 3
_AGAIN = frozenset({429, 502, 503, 504})
_PAUSE_S = 0.25
_PAUSE_MOST_S = 5.0
_TIMEOUT_S = 30.0
_MAX_BYTES = 4_000_000
_SAFE = frozenset({"GET", "HEAD"})
_KEYS = uuid.UUID("b5a4c1de-6f0f-4f6e-8a52-0e4d1f1c9a37")


def idempotency_key(step: Step, place: str) -> str:
    """A UUID of the run, the step and the place within it."""
    return str(uuid.uuid5(_KEYS, f"{step.key}/{place}"))


async def send(
    step: Step, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, place: str = ""
) -> Fetched:
    """The answer, whatever its status. Every request but a reading one carries `Idempotency-Key`
    (draft-ietf-httpapi-idempotency-key-header), so that each may be tried again.

    Raises NodeFault where this server may not reach out at all, OutboundError."""
    client = step.kit.client
    if client is None:
        raise NodeFault(f"`{step.label}` sends a request, and this process has no way out.", code="no_outbound")
    sent = dict(headers)
    if method not in _SAFE and not any(name.lower() == "idempotency-key" for name in sent):
        sent["Idempotency-Key"] = idempotency_key(step, place)
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        left_s = step.deadline - asyncio.get_running_loop().time()
        pause_s = min(_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5), _PAUSE_MOST_S)  # noqa: S311 - jitter
        try:
            answer = await client.fetch(
                url,
                method=method,
                headers=sent,
                body=body,
                max_bytes=_MAX_BYTES,
                timeout_s=max(0.1, min(_TIMEOUT_S, left_s)),
            )
        except OutboundError as error:
            if last or error.cause not in ("connect", "timeout", "dns"):
                raise
        else:
            if last or answer.status not in _AGAIN:
                return answer
            asked = answer.headers.get("Retry-After", "")
            if asked.isdigit():
                pause_s = min(max(pause_s, float(asked)), _PAUSE_MOST_S)
        await asyncio.sleep(pause_s)
    raise AssertionError("the last try returns or raises")
