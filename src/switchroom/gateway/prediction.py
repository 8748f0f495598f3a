"""Dialect: one text turn at `/api/v1/prediction/{flowId}`, as JSON or as server-sent events."""

from __future__ import annotations

import re
import uuid
from typing import Any, Literal

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.engine.events import HumanAnswer, TurnInput
from switchroom.engine.session import Message
from switchroom.errors import BadInput, Fault
from switchroom.gateway.operation import operation
from switchroom.gateway.overrides import override
from switchroom.gateway.prediction_stream import stream
from switchroom.gateway.public import allow_origin, chat_flow, take_turn
from switchroom.gateway.reply import as_shape, json_reply, rfc3339
from switchroom.gateway.services import services
from switchroom.gateway.trace import executed_data
from switchroom.gateway.turns import TURNS, Turn
from switchroom.gateway.uploads import Upload, multipart_body, read_uploads
from switchroom.http_problems import read_json, too_large
from switchroom.records import Execution, ExecutionState

_ROLES: dict[str, Literal["caller", "agent"]] = {"userMessage": "caller", "apiMessage": "agent"}
_SESSION_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


class Question(msgspec.Struct, rename="camel", omit_defaults=True):
    """A turn. `form` opens a session with form input; `history` is what was said before it, elsewhere. Of
    `overrideConfig`, `sessionId` and `tenantVariables` always take effect, the rest as the flow's owner enabled it;
    what has none is named in the reply's `ignored`."""

    question: str | None = None
    form: dict[str, Any] | None = None
    chat_id: str | None = None
    session_id: str | None = None
    override_config: dict[str, Any] | None = None
    streaming: bool | str | None = None
    uploads: list[Upload] | None = None
    human_input: HumanInput | None = None
    history: list[Said] | None = None


class Said(msgspec.Struct, rename="camel"):
    """A message of a conversation that was held elsewhere."""

    role: Literal["userMessage", "apiMessage"]
    content: str


class HumanInput(msgspec.Struct, rename="camel", omit_defaults=True):
    """What a person decided where a run stopped; `startNodeId` names the stop where there are several."""

    type: Literal["proceed", "reject"]
    start_node_id: str = ""
    feedback: str = ""


class Answer(msgspec.Struct, rename="camel", kw_only=True):
    """`state` is that of the run: `STOPPED` waits for a person (`action`), or goes on by itself at `resumesAt`."""

    text: str
    question: str
    chat_id: str
    chat_message_id: str
    session_id: str
    execution_id: str
    agent_flow_executed_data: list[dict[str, Any]]
    source_documents: list[dict[str, Any]]
    ignored: list[str]
    action: dict[str, Any] | None = None
    state: ExecutionState
    resumes_at: str | None = None


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/v1/prediction/{flow_id}", predict),
        web.get("/api/v1/chatflows-streaming/{flow_id}", can_stream),
        web.put("/api/v1/chatmessage/abort/{flow_id}/{session_id}", abort),
    ]


@operation(
    Scope.RUN,
    "Run one turn of a flow; with `streaming: true` as server-sent events. JSON, or multipart with `files`",
    tag="prediction",
    body=Question,
    files=True,
    replies={200: (Answer, "text/event-stream")},
    errors=(400, 404, 409, 413, 415, 422, 429, 500, 504),
    public_flows=True,
)
async def predict(request: web.Request) -> web.StreamResponse:
    parts = services(request)
    flow = await chat_flow(request, request.match_info["flow_id"])
    await take_turn(request, flow)
    if request.content_type == "multipart/form-data":
        body: Any = await multipart_body(request, parts.max_upload_bytes)
    else:
        # Uploads may come inside of it, as base64.
        body = await read_json(request, max(parts.max_body_bytes, parts.max_upload_bytes * 4 // 3))
    question = _parse(body)
    size = max(request.content_length or 0, len(question.question or ""))
    if not question.uploads and size > parts.max_body_bytes:
        raise too_large(parts.max_body_bytes)
    session_id = _session_id(question)
    over = await override(flow, question.override_config or {})
    text, media = await read_uploads(question.question or "", question.uploads or [])
    human = None
    if (given := question.human_input) is not None:
        human = HumanAnswer(type=given.type, node_id=given.start_node_id, feedback=given.feedback)
    given_turn = TurnInput(text=text, human=human, media=media)
    history = [Message(role=_ROLES[said.role], text=said.content) for said in question.history or ()]
    turn = await request.app[TURNS].start(flow, session_id, given_turn, question.form, over, history)
    try:
        if question.streaming in (True, "true"):
            return await stream(request, turn, lambda: answer_of(turn, question))
        async for _ in turn.events():
            pass
        return json_reply(answer_of(turn, question))
    finally:
        await turn.left()


@operation(None, "Whether a flow can stream: every one can", tag="prediction", replies={200: dict[str, bool]})
async def can_stream(request: web.Request) -> web.Response:
    """Flowise's SDK asks this before each turn, and without its key: so it tells nothing of the flow, not even whether
    it is there."""
    await allow_origin(request, request.match_info["flow_id"])
    return json_reply({"isStreaming": True})


class Aborted(msgspec.Struct):
    status: int
    message: str


@operation(
    Scope.RUN,
    "Stop the turn that runs in a session, on whichever API process",
    tag="prediction",
    replies={200: Aborted},
    errors=(404,),
    public_flows=True,
)
async def abort(request: web.Request) -> web.Response:
    flow = await chat_flow(request, request.match_info["flow_id"])
    await request.app[TURNS].abort(flow.id, request.match_info["session_id"])
    return json_reply(Aborted(200, "The turn is told to stop."))


def answer_of(turn: Turn, question: Question) -> Answer:
    return Answer(
        text=turn.text,
        question=question.question or "",
        chat_id=turn.session_id,
        chat_message_id=turn.message_id,
        session_id=turn.session_id,
        execution_id=turn.execution.id,
        agent_flow_executed_data=executed_data(turn.execution),
        source_documents=_sources(turn.execution),
        ignored=turn.overridden.ignored,
        action=_action(turn),
        state=turn.state,
        resumes_at=rfc3339(turn.ended.resumes_ms) if turn.ended is not None else None,
    )


def _sources(execution: Execution) -> list[dict[str, Any]]:
    """What the turn's answer is from: the sources of the last node that names some."""
    for node in reversed(execution.nodes):
        output = node.get("output")
        if isinstance(output, dict) and isinstance(output.get("sourceDocuments"), list):
            return list(output["sourceDocuments"])
    return []


def _action(turn: Turn) -> dict[str, Any] | None:
    """What the person may decide, as Flowise's clients draw it; None where the run waits for nobody."""
    stop = turn.ended.stop if turn.ended is not None else None
    if stop is None:
        return None
    buttons = {"proceed": "agentflowv2-approve-button", "reject": "agentflowv2-reject-button"}
    named = {"proceed": "approve", "reject": "reject"}
    data = {"nodeId": stop.position, "nodeLabel": stop.label, "input": {"humanInputEnableFeedback": stop.feedback}}
    return {
        "id": turn.message_id,
        "mapping": {named[option]: option.capitalize() for option in stop.options if option in named},
        "elements": [
            {"type": buttons[option], "label": option.capitalize()} for option in stop.options if option in buttons
        ],
        "data": data,
    }


def _parse(body: Any) -> Question:
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.", faults=[Fault("must be an object", "")])
    question = as_shape(body, Question)
    if not (question.question and question.question.strip()) and not (
        question.form or question.uploads or question.human_input
    ):
        what = "must be a non-empty string (or give `form`)"
        raise BadInput(f"`question` {what}.", faults=[Fault(what, "/question")])
    if isinstance(question.streaming, str) and question.streaming not in ("true", "false"):
        raise BadInput("`streaming` must be true or false.", faults=[Fault("must be true or false", "/streaming")])
    return question


def _session_id(question: Question) -> str:
    override_id = (question.override_config or {}).get("sessionId")
    places = {"/chatId": question.chat_id, "/sessionId": question.session_id, "/overrideConfig/sessionId": override_id}
    for pointer, value in places.items():
        if value is None:
            continue
        if not isinstance(value, str) or not _SESSION_ID.fullmatch(value):
            what = "must be a string of 1 to 256 printable characters"
            raise BadInput(f"`{pointer[1:].replace('/', '.')}` {what}.", faults=[Fault(what, pointer)])
        return value
    return str(uuid.uuid4())
