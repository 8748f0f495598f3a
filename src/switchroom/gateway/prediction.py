"""Dialect: one text turn at `/api/v1/prediction/{flowId}`, as JSON or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.engine.events import Event, NodeFinished, NodeStarted, Token, TurnEnded, TurnFailed, TurnInput
from switchroom.engine.session import Session
from switchroom.errors import BadInput, Fault, SwitchroomError, TimedOut
from switchroom.gateway.executions import executed_data
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import invalid_body, json_reply
from switchroom.gateway.services import Services, known_flow, services
from switchroom.gateway.sessions import held_session
from switchroom.http_problems import read_json, request_correlation_id
from switchroom.records import Execution, ExecutionState

if TYPE_CHECKING:
    from switchroom.engine import Flow

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
_SESSION_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


class Question(msgspec.Struct, rename="camel", omit_defaults=True):
    """A turn. `form` opens a session with form input; only `sessionId` and `tenantVariables` of `overrideConfig` take
    effect, other keys are named in the reply's `ignored`."""

    question: str | None = None
    form: dict[str, Any] | None = None
    chat_id: str | None = None
    session_id: str | None = None
    override_config: dict[str, Any] | None = None
    streaming: bool | str | None = None

    @property
    def variables(self) -> dict[str, Any]:
        given: dict[str, Any] = (self.override_config or {}).get("tenantVariables") or {}
        return given


class Answer(msgspec.Struct, rename="camel", kw_only=True):
    text: str
    question: str
    chat_id: str
    chat_message_id: str
    session_id: str
    execution_id: str
    agent_flow_executed_data: list[dict[str, Any]]
    ignored: list[str]


class FlowFailed(SwitchroomError):
    """The flow itself could not go on."""

    code = "flow_failed"
    title = "The flow failed"


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/v1/prediction/{flow_id}", predict),
        web.get("/api/v1/chatflows-streaming/{flow_id}", can_stream),
    ]


@operation(
    Scope.RUN,
    "Run one turn of a flow; with `streaming: true` as server-sent events",
    tag="prediction",
    body=Question,
    replies={200: Answer},
    errors=(400, 404, 409, 413, 500, 504),
)
async def predict(request: web.Request) -> web.StreamResponse:
    parts = services(request)
    question = _parse(await read_json(request, parts.max_body_bytes))
    flow = await known_flow(request, request.match_info["flow_id"])
    session_id = _session_id(question)
    async with held_session(parts, flow.id, session_id) as session:
        if question.form is not None and not session.started:
            session.form = question.form
        turn = Turn(parts, flow, session, question)
        if question.streaming in (True, "true"):
            return await _stream(request, turn)
        async for _ in turn.run():
            pass
        return json_reply(turn.answer())


@operation(None, "Whether a flow can stream: every one can", tag="prediction", replies={200: dict[str, bool]})
async def can_stream(request: web.Request) -> web.Response:
    """Flowise's SDK asks this before each turn, and without its key: so it tells nothing of the flow, not even whether
    it is there."""
    return json_reply({"isStreaming": True})


@dataclass
class Turn:
    """One turn from its question to its record."""

    parts: Services
    flow: Flow
    session: Session
    question: Question

    def __post_init__(self) -> None:
        self.message_id = str(uuid.uuid4())
        self.text = ""
        self.failure: TurnFailed | None = None
        self.execution = Execution(
            id=str(uuid.uuid4()),
            flow_id=self.flow.id,
            session_id=self.session.session_id,
            kind="turn",
            graph_hash=self.flow.hash,
        )

    async def run(self) -> AsyncGenerator[Event, None]:
        """The engine's events as they come; the record is written whatever happens.

        Raises `FlowFailed` or `TimedOut` when the turn could not go on, after its record says so.
        """
        records, execution = self.parts.executions, self.execution
        await records.begin(execution)
        kind: Any = "utterance" if self.session.started else "start"
        turn = TurnInput(text=self.question.question or "", kind=kind)
        state, detail = ExecutionState.TERMINATED, "The client left before the turn ended."
        try:
            deadline = asyncio.get_running_loop().time() + self.parts.turn_timeout_s
            variables = {**self.flow.settings.variables, **self.question.variables}
            events = self.parts.engine.run(self.flow.graph, self.session, turn, variables=variables)
            async with contextlib.aclosing(events):
                while (event := await _next(events, deadline)) is not None:
                    self._take(event)
                    yield event
            state, detail = ExecutionState.FINISHED, ""
            if self.failure is not None:
                timed_out = self.failure.code == "turn_timeout"
                state = ExecutionState.TIMEOUT if timed_out else ExecutionState.ERROR
                detail = self.failure.detail
        except TimeoutError:
            state = ExecutionState.TIMEOUT
            detail = f"The turn took longer than {self.parts.turn_timeout_s:g} s."
        except Exception as error:
            state, detail = ExecutionState.ERROR, f"{type(error).__name__}: {error}"
            raise
        finally:
            execution.detail = detail
            execution.final_state = self.session.state
            # Shielded: a client that leaves cancels the turn, not the truth about it.
            await asyncio.shield(records.finish(execution, state))
        if state is ExecutionState.TIMEOUT:
            raise TimedOut(detail, extra=self._extra())
        if self.failure is not None:
            raise FlowFailed(self.failure.detail, code=self.failure.code, extra=self._extra())

    def answer(self) -> Answer:
        known = {"sessionId", "tenantVariables"}
        return Answer(
            text=self.text,
            question=self.question.question or "",
            chat_id=self.session.session_id,
            chat_message_id=self.message_id,
            session_id=self.session.session_id,
            execution_id=self.execution.id,
            agent_flow_executed_data=executed_data(self.execution),
            ignored=sorted(set(self.question.override_config or {}) - known),
        )

    def _take(self, event: Event) -> None:
        match event:
            case NodeFinished():
                self.execution.nodes.append(msgspec.to_builtins(event))
            case TurnEnded():
                self.text = event.text
            case TurnFailed():
                self.failure = event
            case _:
                pass

    def _extra(self) -> dict[str, object]:
        return {"executionId": self.execution.id, "sessionId": self.session.session_id}


async def _next(events: AsyncIterator[Event], deadline: float) -> Event | None:
    # The deadline is held here and not around the turn: between events the consumer's own writes are awaited.
    async with asyncio.timeout_at(deadline):
        return await anext(events, None)


async def _stream(request: web.Request, turn: Turn) -> web.StreamResponse:
    """The turn as Flowise's stream: `data:` lines of `{"event", "data"}`, a comment as heartbeat, `end` last."""
    reply = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            hdrs.CACHE_CONTROL: "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    await reply.prepare(request)
    writing = asyncio.Lock()

    async def send(event: str, data: Any) -> None:
        frame = msgspec.json.encode({"event": event, "data": data})
        async with writing:
            await reply.write(b"message:\ndata:" + frame + b"\n\n")

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            async with writing:
                await reply.write(b":heartbeat\n\n")

    heartbeat = asyncio.create_task(beat())
    try:
        await send("agentFlowEvent", "INPROGRESS")
        begun = False
        async with contextlib.aclosing(turn.run()) as events:
            async for event in events:
                match event:
                    case NodeStarted():
                        await send("nextAgentFlow", _node(event, "INPROGRESS"))
                    case Token():
                        if not begun:
                            begun = True
                            await send("start", event.text)
                        await send("token", event.text)
                    case NodeFinished():
                        await send("nextAgentFlow", _node(event, "FINISHED"))
                    case _:
                        pass
        answer = turn.answer()
        await send("agentFlowExecutedData", answer.agent_flow_executed_data)
        await send("agentFlowEvent", "FINISHED")
        members = msgspec.to_builtins(answer)
        metadata = {name: value for name, value in members.items() if name not in ("text", "agentFlowExecutedData")}
        await send("metadata", metadata)
    except ConnectionError:
        log.info("client left a stream", extra={"execution_id": turn.execution.id})
        raise
    except SwitchroomError as error:
        # The answer has begun, so the problem travels as an event, with the words that the body would have had.
        await send("agentFlowEvent", str(turn.execution.state))
        problem = {"status": error.status, "code": error.code, "detail": error.detail, **error.extra}
        await send("error", {**problem, "correlationId": request_correlation_id(request)})
    finally:
        heartbeat.cancel()
        await asyncio.gather(heartbeat, return_exceptions=True)
    await send("end", "[DONE]")
    await reply.write_eof()
    return reply


def _node(event: NodeStarted | NodeFinished, status: str) -> dict[str, str]:
    return {"nodeId": event.node_id, "nodeLabel": event.label, "status": status}


def _parse(body: Any) -> Question:
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.", faults=[Fault("must be an object", "")])
    try:
        question = msgspec.convert(body, Question)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error
    if not (question.question and question.question.strip()) and question.form is None:
        what = "must be a non-empty string (or give `form`)"
        raise BadInput(f"`question` {what}.", faults=[Fault(what, "/question")])
    if isinstance(question.streaming, str) and question.streaming not in ("true", "false"):
        raise BadInput("`streaming` must be true or false.", faults=[Fault("must be true or false", "/streaming")])
    if not isinstance(question.variables, dict):
        what = "must be an object"
        raise BadInput(f"`tenantVariables` {what}.", faults=[Fault(what, "/overrideConfig/tenantVariables")])
    return question


def _session_id(question: Question) -> str:
    override = (question.override_config or {}).get("sessionId")
    places = {"/chatId": question.chat_id, "/sessionId": question.session_id, "/overrideConfig/sessionId": override}
    for pointer, value in places.items():
        if value is None:
            continue
        if not isinstance(value, str) or not _SESSION_ID.fullmatch(value):
            what = "must be a string of 1 to 256 printable characters"
            raise BadInput(f"`{pointer[1:].replace('/', '.')}` {what}.", faults=[Fault(what, pointer)])
        return value
    return str(uuid.uuid4())
