"""What the gateway's handlers work with: built once by the composition, never by a handler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from switchroom.access import Access, Principal
from switchroom.errors import NotFound, Unauthorized
from switchroom.records import Executions
from switchroom.records.audio_files import AudioFiles
from switchroom.store import Store

if TYPE_CHECKING:  # an API node that only answers HTTP loads neither media nor the engine through this file
    from switchroom.engine import Engine, Flow, FlowStore
    from switchroom.knowledge import Knowledge
    from switchroom.net import Guard
    from switchroom.queue import Feed, Queue
    from switchroom.realtime.settings import IceServer
    from switchroom.realtime.signalling import SignalClient
    from switchroom.webhooks import Webhooks


@dataclass(frozen=True, kw_only=True)
class Services:
    """The rooms behind the gateway, and the few settings that its handlers read."""

    store: Store
    queue: Queue
    feed: Feed
    flows: FlowStore
    engine: Engine
    executions: Executions
    access: Access
    audio: AudioFiles
    signals: SignalClient
    knowledge: Knowledge
    guard: Guard
    """Decides about URLs that a request names for later (`ccBaseUrl`, `callbackUrl`)."""
    cc_hosts: Guard | None = None
    """Where given, a `ccBaseUrl` must name one of its hosts."""
    webhooks: Webhooks
    max_body_bytes: int = 1 << 20
    max_canvas_bytes: int = 16 << 20
    """A canvas carries a form schema a node, so it may be larger than other bodies."""
    max_upload_bytes: int = 16 << 20
    """A text turn's form with its files."""
    max_bulk_lines: int = 1_000_000
    """Lines that one bulk enqueue takes."""
    kiosk_lease_ms: int = 60_000
    """A call at a Unity client or a kiosk is taken back after so long without a ping."""
    kiosk_offer_ms: int = 20_000
    """How long a kiosk may take to answer an offer."""
    notify_secret: str | None = None
    """What `X-Notify-Secret` must hold at the notify hub; none: the hub is off."""
    notify_open: bool = False
    """The notify hub asks for no secret: for development only."""
    public_url: str | None = None
    """Where others reach this server, when that is not where a request says that it came to."""
    ice_servers: Sequence[IceServer] = ()
    """STUN and TURN servers that callers are told."""
    twilio_token: str | None = None
    """The auth token that signs what Twilio asks; none: only API keys are taken there."""
    turn_timeout_s: float = 120.0
    session_ttl_s: int = 7 * 24 * 3600
    """How long a text conversation is kept after its last turn."""


SERVICES = web.AppKey("services", Services)
PRINCIPAL = web.RequestKey("principal", Principal)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


async def known_flow(request: web.Request, flow_id: str) -> Flow:
    """The flow of this ID, if the caller may use it; see `usable_flow`."""
    return await usable_flow(services(request), request[PRINCIPAL], flow_id)


async def usable_flow(parts: Services, principal: Principal, flow_id: str) -> Flow:
    """The flow of this ID, if `principal` may use it: `NotFound`, or `Unauthorized` for a protected flow that is
    asked for without a key (on a server that is open otherwise)."""
    flow = await parts.flows.get(flow_id)
    if flow is None:
        raise NotFound(f"There is no flow {flow_id!r}.", code="flow_not_found")
    if flow.settings.protected and principal.key_id == "open":
        raise Unauthorized(
            "This flow is protected and needs an API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
        )
    return flow
