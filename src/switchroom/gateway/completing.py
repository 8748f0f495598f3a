"""Calls that somebody outside holds (a Unity client, a kiosk): their holds by token, and how they are completed."""

from __future__ import annotations

from typing import Any

from switchroom.errors import NotFound
from switchroom.gateway.services import Services
from switchroom.queue import EndReason, Held, LeaseLost, State
from switchroom.realtime.handover import KIOSK_PREFIX, UNITY_OWNER, hold_by_token


async def outside_hold(parts: Services, flow_id: str, task_id: str, token: int) -> Held:
    """The hold as the client claims it. Holds of our own media processes are not spoken of from outside."""
    call = await parts.queue.get(flow_id, task_id)
    if call is None:
        raise NotFound(f"no call {task_id} in this flow", code="unknown_task")
    outside = call.owner == UNITY_OWNER or call.owner.startswith(KIOSK_PREFIX)
    owner = call.owner if outside else UNITY_OWNER
    return hold_by_token(call, owner, token, parts.kiosk_lease_ms)


async def complete_held(
    parts: Services, flow_id: str, task_id: str, token: int, outcome: str, result: Any
) -> tuple[str, State, str]:
    """The holder itself completes its call, which ends at once. Repeated, it answers the same again; raises `LeaseLost`
    where the hold is somebody else's by now."""
    held = await outside_hold(parts, flow_id, task_id, token)
    call = held.call
    if call.state is State.ENDED and call.token == token:
        return task_id, State.ENDED, call.end_reason or ""
    state = await parts.queue.finish(held, EndReason.COMPLETED, outcome=outcome, result=result)
    return task_id, state, EndReason.COMPLETED


async def close_unity(parts: Services, flow_id: str, ended: tuple[str, State, str]) -> tuple[str, State, str]:
    """A call that a verb took from its holder ends at once where nobody else has a record to close: at a Unity client,
    which learns of it by its next ping."""
    task_id, state, reason = ended
    call = await parts.queue.get(flow_id, task_id) if state is State.WRAPUP else None
    if call is None or call.owner != UNITY_OWNER:
        return ended
    try:
        state = await parts.queue.finish(hold_by_token(call, call.owner, call.token), EndReason(reason))
    except LeaseLost:  # somebody was quicker
        return ended
    return task_id, state, reason
