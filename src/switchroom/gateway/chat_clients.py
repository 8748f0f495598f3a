"""Dialect: what Flowise's chat widget asks beside a prediction: its configuration, ratings, contacts, files."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.engine import Flow
from switchroom.errors import BadInput, Fault, NotFound
from switchroom.gateway.chat_rows import newest_rows, one_row, put_row
from switchroom.gateway.operation import operation
from switchroom.gateway.public import chat_flow
from switchroom.gateway.reply import as_shape, json_reply, query_int, read_as, rfc3339
from switchroom.gateway.services import services
from switchroom.gateway.uploads import file_text, form_parts, media_type
from switchroom.http_problems import read_json
from switchroom.ids import new_uuid

T = TypeVar("T", bound=msgspec.Struct)

MAX_LIMIT = 1_000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
_FORM_INPUTS = ("startInputType", "formTitle", "formDescription", "formInputTypes")
_NO_UPLOADS: dict[str, Any] = {
    "isSpeechToTextEnabled": False,
    "isImageUploadAllowed": False,
    "isRAGFileUploadAllowed": False,
    "imgUploadSizeAndTypes": [],
    "fileUploadSizeAndTypes": [],
}
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#4a5568" stroke-width="2">'
    b'<rect x="4" y="6" width="16" height="12" rx="3"/><path d="M8 12h8"/></svg>'
)


class PublicFlow(msgspec.Struct, rename="camel"):
    """A flow as a chat client may see it: of the canvas only what Start's form needs."""

    id: str
    name: str
    flow_data: str
    deployed: bool
    is_public: bool
    chatbot_config: str
    type: str
    updated_date: str | None


class Rating(msgspec.Struct, rename="camel", kw_only=True):
    message_id: str
    rating: Literal["THUMBS_UP", "THUMBS_DOWN"]
    chat_id: str = ""
    chatflowid: str = ""
    content: str = ""
    id: str = ""
    created_date: str | None = None


class RatingChange(msgspec.Struct):
    content: str | None = None
    rating: Literal["THUMBS_UP", "THUMBS_DOWN"] | None = None


class Lead(msgspec.Struct, rename="camel", kw_only=True):
    chatflowid: str
    chat_id: str = ""
    name: str = ""
    email: str = ""
    phone: str = ""
    id: str = ""
    created_date: str | None = None


class FileText(msgspec.Struct, rename="camel"):
    name: str
    mime_type: str
    size: int
    content: str


def routes() -> list[web.RouteDef]:
    base = "/api/v1"
    return [
        web.get(base + "/public-chatbotConfig/{flow_id}", chatbot_config),
        web.get(base + "/public-chatflows/{flow_id}", public_flow),
        web.post(base + "/feedback/{subject_id}", rate),
        web.put(base + "/feedback/{subject_id}", change_rating),
        web.get(base + "/feedback/{subject_id}", ratings),
        web.post(base + "/leads", add_lead),
        web.post(base + "/leads/", add_lead),
        web.get(base + "/leads/{flow_id}", leads),
        web.post(base + "/attachments/{flow_id}/{session_id}", attach),
        web.get(base + "/node-icon/{name}", node_icon),
    ]


@operation(
    Scope.RUN,
    "What the chat widget shows: starter prompts, feedback, leads, Start's form",
    tag="chat clients",
    replies={200: dict[str, Any]},
    errors=(404,),
    public_flows=True,
)
async def chatbot_config(request: web.Request) -> web.Response:
    flow = await chat_flow(request, request.match_info["flow_id"])
    shown = {"uploads": _NO_UPLOADS, "isTTSEnabled": flow.settings.chat.speech != "off", "flowData": _start_only(flow)}
    return json_reply({**flow.settings.chat.chatbot, **shown})


@operation(
    Scope.RUN,
    "A flow as a chat client may see it",
    tag="chat clients",
    replies={200: PublicFlow},
    errors=(404,),
    public_flows=True,
)
async def public_flow(request: web.Request) -> web.Response:
    flow = await chat_flow(request, request.match_info["flow_id"])
    chat = flow.settings.chat
    return json_reply(
        PublicFlow(
            id=flow.id,
            name=flow.name,
            flow_data=_start_only(flow),
            deployed=flow.settings.deployed,
            is_public=chat.public,
            chatbot_config=msgspec.json.encode(chat.chatbot).decode(),
            type="REALTIME" if flow.kind == "realtime" else "AGENTFLOW",
            updated_date=rfc3339(flow.updated_ms),
        )
    )


@operation(
    Scope.RUN,
    "Rate a message of a flow's chat (the ID is the flow's)",
    tag="chat clients",
    body=Rating,
    replies={200: Rating},
    errors=(400, 404, 413),
    public_flows=True,
)
async def rate(request: web.Request) -> web.Response:
    flow = await chat_flow(request, request.match_info["subject_id"])
    row = await _body(request, Rating)
    # The flow's ID is in the rating's, so that a change finds it: a flow's ID holds no dot.
    row.id, row.chatflowid, row.created_date = f"{flow.id}.{new_uuid()}", flow.id, _now()
    await put_row(services(request), flow.id, "feedback", row.id, row)
    return json_reply(row)


@operation(
    Scope.RUN,
    "Add words to a rating (the ID is the rating's)",
    tag="chat clients",
    body=RatingChange,
    replies={200: Rating},
    errors=(400, 404, 413),
    public_flows=True,
)
async def change_rating(request: web.Request) -> web.Response:
    rating_id = request.match_info["subject_id"]
    flow = await chat_flow(request, rating_id.partition(".")[0])
    change = await _body(request, RatingChange)
    row = await one_row(services(request), flow.id, "feedback", rating_id, Rating)
    if row is None:
        raise NotFound("There is no rating of this ID.", code="rating_not_found")
    row.content = row.content if change.content is None else change.content
    row.rating = change.rating or row.rating
    await put_row(services(request), flow.id, "feedback", rating_id, row)
    return json_reply(row)


@operation(
    Scope.RECORDS_READ,
    "The newest ratings of a flow (the ID is the flow's)",
    tag="chat clients",
    replies={200: list[Rating]},
    query={"limit": (Limit, "How many; 100 unless told")},
    errors=(400,),
)
async def ratings(request: web.Request) -> web.Response:
    limit = query_int(request, "limit", 100, lowest=1, highest=MAX_LIMIT)
    return json_reply(await newest_rows(services(request), request.match_info["subject_id"], "feedback", Rating, limit))


@operation(
    Scope.RUN,
    "Leave contact details in a chat",
    tag="chat clients",
    body=Lead,
    replies={200: Lead},
    errors=(400, 404, 413),
    public_flows=True,
)
async def add_lead(request: web.Request) -> web.Response:
    body = await read_json(request, services(request).max_body_bytes)
    named = body.get("chatflowid") if isinstance(body, dict) else None
    flow = await chat_flow(request, named if isinstance(named, str) else "")
    row = as_shape(body, Lead)
    row.id, row.created_date = new_uuid(), _now()
    await put_row(services(request), flow.id, "leads", row.id, row)
    return json_reply(row)


@operation(
    Scope.RECORDS_READ,
    "The newest contacts that a flow's chat was given",
    tag="chat clients",
    replies={200: list[Lead]},
    query={"limit": (Limit, "How many; 100 unless told")},
    errors=(400,),
)
async def leads(request: web.Request) -> web.Response:
    limit = query_int(request, "limit", 100, lowest=1, highest=MAX_LIMIT)
    return json_reply(await newest_rows(services(request), request.match_info["flow_id"], "leads", Lead, limit))


@operation(
    Scope.RUN,
    "The text of files, to be sent with the next question (multipart `files`)",
    tag="chat clients",
    files=True,
    replies={200: list[FileText]},
    errors=(400, 404, 413, 415),
    public_flows=True,
)
async def attach(request: web.Request) -> web.Response:
    await chat_flow(request, request.match_info["flow_id"])
    found: list[FileText] = []
    async with contextlib.aclosing(form_parts(request, services(request).max_upload_bytes)) as parts:
        async for part, data in parts:
            if part.filename is not None:
                mime = media_type(part)
                text = await file_text(data, part.filename, mime, f"/files/{len(found)}")
                found.append(FileText(part.filename, mime, len(data), text))
    if not found:
        raise BadInput("The form has no file.", faults=[Fault("is required", "/files")])
    return json_reply(found)


@operation(None, "A picture for a node in a trace", tag="chat clients", replies={200: "image/svg+xml"})
async def node_icon(request: web.Request) -> web.Response:
    """One picture for every kind: which kinds there are is no secret, and an unknown one is no error to a reader."""
    headers = {hdrs.CACHE_CONTROL: "public, max-age=86400", "Content-Security-Policy": "default-src 'none'"}
    return web.Response(body=_ICON, content_type="image/svg+xml", headers=headers)


def _start_only(flow: Flow) -> str:
    """Start's form, where the widget looks for it; nothing else of the canvas leaves the house."""
    shown = []
    nodes = flow.canvas.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        data = node.get("data") if isinstance(node, dict) else None
        if isinstance(data, dict) and data.get("name") == "startAgentflow":
            given = data.get("inputs") or {}
            inputs = {name: given[name] for name in _FORM_INPUTS if name in given}
            shown.append({"id": node.get("id"), "data": {"name": "startAgentflow", "inputs": inputs}})
    return msgspec.json.encode({"nodes": shown, "edges": []}).decode()


async def _body(request: web.Request, shape: type[T]) -> T:
    return await read_as(request, shape, services(request).max_body_bytes)


def _now() -> str | None:
    return rfc3339(time.time_ns() // 1_000_000)
