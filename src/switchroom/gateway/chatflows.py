"""Dialect: stored flows at `/api/v1/chatflows`, in Flowise's shape with the graph's hash and our settings beside it."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.compact import validate
from switchroom.engine.chat import ChatSettings
from switchroom.engine.flows import FlowSettings
from switchroom.errors import BadInput, Conflict, Fault, NotFound
from switchroom.gateway.chat_rows import delete_rows
from switchroom.gateway.compact import canvas_of
from switchroom.gateway.enqueue import rules_of
from switchroom.gateway.flow_columns import chat_from, columns_of
from switchroom.gateway.flow_versions import keep_version
from switchroom.gateway.notify import HUB
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import as_shape, json_reply, query_int, rfc3339
from switchroom.gateway.services import services
from switchroom.hours import OpeningHours
from switchroom.http_problems import read_json

if TYPE_CHECKING:
    from switchroom.engine import Flow

MAX_LIMIT = 500
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPES: dict[str, Literal["realtime", "text"]] = {"REALTIME": "realtime", "AGENTFLOW": "text"}


class SettingsBody(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A flow's settings; what is left out stays as it is."""

    duplicates: Literal["join", "reject", "allow"] | msgspec.UnsetType = msgspec.UNSET
    lines: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | msgspec.UnsetType = msgspec.UNSET
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] | msgspec.UnsetType = msgspec.UNSET
    protected: bool | msgspec.UnsetType = msgspec.UNSET
    variables: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    chat: ChatSettings | msgspec.UnsetType = msgspec.UNSET
    pipeline: str | msgspec.UnsetType | None = msgspec.UNSET
    cap: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] | msgspec.UnsetType = msgspec.UNSET
    service_level_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | msgspec.UnsetType = msgspec.UNSET
    short_abandon_s: Annotated[int, msgspec.Meta(ge=0, le=3_600)] | msgspec.UnsetType = msgspec.UNSET
    wrapup_s: Annotated[int, msgspec.Meta(ge=0, le=3_600)] | msgspec.UnsetType = msgspec.UNSET
    retry_delay_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] | msgspec.UnsetType = msgspec.UNSET
    refuse_backoff_s: Annotated[int, msgspec.Meta(ge=0, le=300)] | msgspec.UnsetType = msgspec.UNSET
    max_wait_s: Annotated[int, msgspec.Meta(ge=0, le=604_800)] | msgspec.UnsetType = msgspec.UNSET
    relax_after_s: (
        Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=86_400)]], msgspec.Meta(max_length=32)] | msgspec.UnsetType
    ) = msgspec.UNSET
    opening_hours: OpeningHours | msgspec.UnsetType | None = msgspec.UNSET
    stats_days: Annotated[int, msgspec.Meta(ge=1, le=3_660)] | msgspec.UnsetType = msgspec.UNSET


class FlowBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """A flow to save. A bare canvas (`{"nodes": […], "edges": […]}`) is taken as well, and a row of Flowise: its
    `chatbotConfig`, `apiConfig` (objects or JSON strings) and `isPublic` become chat settings, where `settings.chat`
    does not give others."""

    flow_data: dict[str, Any] | str | None = None
    id: str | None = None
    name: str | None = None
    type: str | None = None
    deployed: bool | None = None
    is_public: bool | None = None
    chatbot_config: dict[str, Any] | str | None = None
    api_config: dict[str, Any] | str | None = None
    settings: SettingsBody | None = None


class SettingsView(msgspec.Struct, rename="camel"):
    duplicates: str
    lines: int
    max_attempts: int
    protected: bool
    variables: dict[str, Any]
    chat: ChatSettings
    pipeline: str | None
    cap: int
    service_level_s: int
    short_abandon_s: int
    wrapup_s: int
    retry_delay_s: int
    refuse_backoff_s: int
    max_wait_s: int
    relax_after_s: list[int]
    opening_hours: OpeningHours | None
    stats_days: int


class FlowView(msgspec.Struct, rename="camel"):
    """A flow. `flowData` is the canvas as it was imported, as a JSON string, as Flowise's clients read it; so are
    `chatbotConfig` and `apiConfig`, written from the chat settings."""

    id: str
    name: str
    flow_data: str
    type: str
    deployed: bool
    is_public: bool
    chatbot_config: str | None
    api_config: str | None
    created_date: str | None
    updated_date: str | None
    hash: str
    settings: SettingsView


class CanvasWarning(msgspec.Struct, rename="camel"):
    """What a canvas may run with, but its author may not have meant; `pointer` leads into `flowData`."""

    pointer: str
    detail: str
    node_id: str | None


class SavedFlow(FlowView, rename="camel"):
    warnings: list[CanvasWarning] | msgspec.UnsetType = msgspec.UNSET


class FlowPage(msgspec.Struct):
    data: list[FlowView]
    total: int


class FlowDeleted(msgspec.Struct):
    """As Flowise answers: how many rows were affected."""

    affected: int
    raw: list[str]


def routes() -> list[web.RouteDef]:
    base = "/api/v1/chatflows"
    return [
        web.post(base, create_flow),
        web.get(base, list_flows),
        web.get(base + "/{flow_id}", get_flow),
        web.put(base + "/{flow_id}", update_flow),
        web.delete(base + "/{flow_id}", delete_flow),
    ]


@operation(
    Scope.FLOWS_WRITE,
    "Import a flow; under an ID that stands already it is replaced",
    tag="flows",
    body=FlowBody,
    replies={200: SavedFlow},
    query={"id": (str, "The ID to save it under; else a new UUID")},
    errors=(400, 413, 422),
)
async def create_flow(request: web.Request) -> web.Response:
    body = await _body(request)
    flow_id = request.query.get("id") or body.id
    if flow_id is not None and not _ID.fullmatch(flow_id):
        what = "must be 1 to 64 letters, digits, `_` or `-`"
        raise BadInput(f"`id` {what}.", faults=[Fault(what, "/id")])
    if body.flow_data is None:
        raise BadInput("`flowData` is missing.", faults=[Fault("is required", "/flowData")])
    parts = services(request)
    stored = await parts.flows.get(flow_id) if flow_id else None
    return json_reply(await _saved(request, body, flow_id or str(uuid.uuid4()), stored))


@operation(
    Scope.FLOWS_READ,
    "List flows; with `page` or `limit` as `{data, total}`",
    tag="flows",
    replies={200: list[FlowView] | FlowPage},
    query={
        "page": (Annotated[int, msgspec.Meta(ge=1, le=1_000_000)], "From 1"),
        "limit": (Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)], "Flows a page"),
    },
    errors=(400,),
)
async def list_flows(request: web.Request) -> web.Response:
    page = query_int(request, "page", 1, lowest=1, highest=1_000_000)
    limit = query_int(request, "limit", MAX_LIMIT, lowest=1, highest=MAX_LIMIT)
    flows, total = await services(request).flows.list((page - 1) * limit, limit)
    views = [view_of(flow) for flow in flows]
    if "page" in request.query or "limit" in request.query:
        return json_reply(FlowPage(views, total))
    return json_reply(views)


@operation(Scope.FLOWS_READ, "One flow with its canvas", tag="flows", replies={200: FlowView}, errors=(404,))
async def get_flow(request: web.Request) -> web.Response:
    return json_reply(view_of(await stored_flow(request)))


@operation(
    Scope.FLOWS_WRITE,
    "Change a flow; what is left out stays",
    tag="flows",
    body=FlowBody,
    replies={200: SavedFlow},
    errors=(400, 404, 413, 422),
)
async def update_flow(request: web.Request) -> web.Response:
    body = await _body(request)
    stored = await stored_flow(request)
    if body.id not in (None, stored.id):
        what = "is not the ID of the path"
        raise BadInput(f"`id` {what}.", faults=[Fault(what, "/id")])
    return json_reply(await _saved(request, body, stored.id, stored))


@operation(
    Scope.FLOWS_WRITE,
    "Delete a flow; its records stay",
    tag="flows",
    replies={200: FlowDeleted},
    errors=(404, 409),
)
async def delete_flow(request: web.Request) -> web.Response:
    flow = await stored_flow(request)
    parts = services(request)
    status = await parts.queue.status(flow.id, limit=1)
    if status.pending_count or status.active or status.scheduled_count:
        raise Conflict("The flow has calls that have not ended: end or clear them first.", code="flow_in_use")
    await parts.flows.delete(flow.id)
    await delete_rows(parts, flow.id)
    await request.app[HUB].announce(f"chatflows/{flow.id}", flow.settings.pipeline)
    await parts.webhooks.endpoints.forget(flow.id)
    return json_reply(FlowDeleted(affected=1, raw=[]))


def view_of(flow: Flow) -> FlowView:
    settings = flow.settings
    return FlowView(
        id=flow.id,
        name=flow.name,
        flow_data=msgspec.json.encode(flow.canvas).decode(),
        type="REALTIME" if flow.kind == "realtime" else "AGENTFLOW",
        deployed=settings.deployed,
        **columns_of(settings.chat),
        created_date=rfc3339(flow.created_ms),
        updated_date=rfc3339(flow.updated_ms),
        hash=flow.hash,
        settings=SettingsView(**{name: getattr(settings, name) for name in SettingsView.__struct_fields__}),
    )


async def _saved(request: web.Request, body: FlowBody, flow_id: str, stored: Flow | None) -> SavedFlow:
    flow = await _save(request, body, flow_id, stored)
    view = view_of(flow)
    saved = SavedFlow(**{name: getattr(view, name) for name in FlowView.__struct_fields__})
    if body.flow_data is not None:
        found = await asyncio.to_thread(validate, flow.canvas)
        warnings = [CanvasWarning(one.pointer, one.detail, one.node_id) for one in found if one.severity == "warning"]
        saved.warnings = warnings or msgspec.UNSET
    return saved


async def _save(request: web.Request, body: FlowBody, flow_id: str, stored: Flow | None) -> Flow:
    if body.type is not None and body.type not in _TYPES:
        what = f"must be one of {', '.join(_TYPES)}"
        raise BadInput(f"`type` {what}.", faults=[Fault(what, "/type")])
    kind = _TYPES[body.type] if body.type is not None else None
    if body.flow_data is not None:
        canvas = canvas_of(body.flow_data, "/flowData")
    else:
        assert stored is not None  # only an update may leave the canvas out
        canvas, kind = stored.canvas, kind or stored.kind
    settings = stored.settings if stored is not None else FlowSettings()
    chat = chat_from(settings.chat, chatbot=body.chatbot_config, api=body.api_config, public=body.is_public)
    changes: dict[str, Any] = {"chat": chat}
    if body.settings is not None:
        given = {name: getattr(body.settings, name) for name in SettingsBody.__struct_fields__}
        changes |= {name: value for name, value in given.items() if value is not msgspec.UNSET}
    if body.deployed is not None:
        changes["deployed"] = body.deployed
    settings = msgspec.structs.replace(settings, **changes)
    name = body.name or (stored.name if stored is not None else None)
    return await _write(request, canvas, flow_id=flow_id, name=name, settings=settings, kind=kind)


async def deployed(
    request: web.Request, canvas: dict[str, Any], *, flow: Flow, name: str, kind: Literal["realtime", "text"]
) -> Flow:
    """Makes `canvas` what runs under the flow's ID."""
    return await _write(request, canvas, flow_id=flow.id, name=name, settings=flow.settings, kind=kind)


async def _write(request: web.Request, canvas: dict[str, Any], **given: Any) -> Flow:
    parts = services(request)
    flow = await parts.flows.save(canvas, **given)
    await parts.queue.configure(flow.id, rules_of(flow))
    await keep_version(parts, flow)
    await request.app[HUB].announce(f"chatflows/{flow.id}", flow.settings.pipeline)
    return flow


async def stored_flow(request: web.Request) -> Flow:
    """The flow of the path. Raises `NotFound`."""
    flow_id = request.match_info["flow_id"]
    flow = await services(request).flows.get(flow_id)
    if flow is None:
        raise NotFound(f"There is no flow {flow_id!r}.", code="flow_not_found")
    return flow


async def _body(request: web.Request) -> FlowBody:
    value = await read_json(request, services(request).max_canvas_bytes)
    if not isinstance(value, dict):
        raise BadInput("The body must be a JSON object.", faults=[Fault("must be an object", "")])
    if "nodes" in value and "flowData" not in value:  # a bare canvas
        names = {name: value[name] for name in ("id", "name", "type") if isinstance(value.get(name), str)}
        if names.get("type") not in _TYPES:
            names.pop("type", None)  # a canvas's own word, which its reader knows
        return FlowBody(flow_data=value, **names)
    return as_shape(value, FlowBody)
