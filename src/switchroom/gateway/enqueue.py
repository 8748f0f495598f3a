"""Taking a call in: one function for every way that a request reaches it (aiohttp's application and the lane)."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from switchroom.access import Principal
from switchroom.engine import Flow
from switchroom.errors import BadInput, Conflict, Fault
from switchroom.gateway import enqueue_body
from switchroom.gateway.services import Services, usable_flow
from switchroom.queue import Rules, StaleRules


class EnqueueReply(msgspec.Struct, rename="camel", omit_defaults=True):
    """`pendingCount` counts the call just queued. `position` (1 is next) and `estimatedWaitSeconds` are left out for a
    call that does not wait in line now. The position told for one call never grows, unless calls of a higher priority
    came before it: then `overtaken` is true."""

    accepted: bool
    task_id: str
    pending_count: int
    position: int | None = None
    estimated_wait_seconds: int | None = None
    overtaken: bool = False
    duplicate: bool = False


async def accept(
    parts: Services, principal: Principal, flow_id: str, body: object, idempotency_key: str | None
) -> EnqueueReply:
    """Checks the decoded body of an enqueue and puts its call in the flow's queue; it is on disk when this returns.

    A flow that was read before is believed first: the script that enqueues knows the flow's revision and refuses an
    old one, so that looking the flow up costs no round trip and is exact all the same.
    """
    known = parts.flows.cached(flow_id)
    if known is None or not _takes_calls(known[1], principal):
        known = await _current(parts, principal, flow_id)
    call = enqueue_body.parse(body, idempotency_key, parts.guard)
    if call.cc_base_url and parts.cc_hosts and not parts.cc_hosts.names(urlsplit(call.cc_base_url).hostname or ""):
        what = "names a host that is not on this server's list"
        raise BadInput(f"ccBaseUrl {what}", faults=[Fault(what, "/ccBaseUrl")])
    while True:
        revision, flow = known
        try:
            accepted = await parts.queue.enqueue(flow.id, call, flow.settings, revision=revision)
        except StaleRules:
            known = await _current(parts, principal, flow_id)
            continue
        waits = accepted.position > 0
        return EnqueueReply(
            accepted=True,
            task_id=accepted.task_id,
            pending_count=accepted.pending,
            position=accepted.position if waits else None,
            estimated_wait_seconds=seconds(accepted.estimate_ms) if waits else None,
            overtaken=accepted.overtaken,
            duplicate=accepted.duplicate,
        )


def require_realtime(flow: Flow) -> None:
    """Raises `Conflict` for a flow that has no queue."""
    if flow.kind != "realtime":
        raise Conflict(f"The flow {flow.id!r} is not a realtime flow: it has no queue.", code="not_realtime")


def rules_of(flow: Flow) -> Rules:
    settings = flow.settings
    return Rules(
        lines=settings.lines,
        duplicates=settings.duplicates,
        max_attempts=settings.max_attempts,
        cap=settings.cap,
        service_level_ms=settings.service_level_s * 1000,
        short_abandon_ms=settings.short_abandon_s * 1000,
        rest_ms=settings.wrapup_s * 1000,
        retry_delay_ms=settings.retry_delay_s * 1000,
        refuse_backoff_ms=settings.refuse_backoff_s * 1000,
        max_wait_ms=settings.max_wait_s * 1000,
        relax_after_s=tuple(settings.relax_after_s),
        stats_days=settings.stats_days,
        hours=settings.opening_hours,
    )


def seconds(ms: int) -> int:
    """Milliseconds as whole seconds, rounded up."""
    return -(-ms // 1000)


def _takes_calls(flow: Flow, principal: Principal) -> bool:
    return flow.kind == "realtime" and not (flow.settings.protected and principal.key_id == "open")


async def _current(parts: Services, principal: Principal, flow_id: str) -> tuple[bytes, Flow]:
    flow = await usable_flow(parts, principal, flow_id)
    require_realtime(flow)
    known = parts.flows.cached(flow_id)
    # Dropped from the cache between the two lines: unchecked, but read just now.
    return known if known is not None else (b"", flow)
