"""Dialect: execution records at `/api/v1/executions`, in Flowise's row shape with our realtime members beside it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import hdrs, web

from switchroom.access import Scope
from switchroom.errors import BadInput, Fault, NotFound
from switchroom.gateway.audio_reply import audio_reply
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import bad_parameter, json_reply, query_int, query_time_ms, rfc3339
from switchroom.gateway.services import services
from switchroom.gateway.trace import executed_data
from switchroom.http_problems import read_json
from switchroom.records import Execution, ExecutionFilter, ExecutionState, Utterance, is_final
from switchroom.records.latencies import Percentiles, percentiles
from switchroom.records.model import Artefact
from switchroom.records.transcript import to_json, to_markdown, to_vtt

MAX_LIMIT = 1000
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FLOW_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WordView(msgspec.Struct, rename="camel"):
    text: str
    start_ms: int
    end_ms: int


class UtteranceView(msgspec.Struct, rename="camel"):
    role: str
    text: str
    start_ms: int
    end_ms: int
    interrupted: bool
    words: list[WordView]


class TimingView(msgspec.Struct, rename="camel"):
    """Milliseconds from the end of the caller's speech, which was `speechEndMs` after the call's beginning."""

    turn: int
    speech_end_ms: int | None
    endpoint_ms: float | None
    transcript_ms: float | None
    first_token_ms: float | None
    first_audio_made_ms: float | None
    first_audio_ms: float | None
    interrupted: bool


class OperatorView(msgspec.Struct, rename="camel"):
    at: str | None
    action: str
    operator: str
    detail: str


class RecordingView(msgspec.Struct, rename="camel"):
    url: str
    format: str
    sample_rate: int
    channels: int
    duration_ms: int
    bytes: int


class ExecutionRow(msgspec.Struct, rename="camel", kw_only=True):
    """A record. `executionData` is the trace as a JSON string, as Flowise's clients read it; times are RFC 3339."""

    id: str
    execution_data: str
    state: ExecutionState
    agentflow_id: str
    session_id: str
    created_date: str | None
    updated_date: str | None
    stopped_date: str | None
    kind: str
    graph_hash: str
    detail: str
    final_state: dict[str, Any]
    task_id: str | None = None
    attempt: int | None = None
    caller_id: str | None = None
    form: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    end_reason: str | None = None
    duration_ms: int | None = None
    transcript: list[UtteranceView] | None = None
    timings: list[TimingView] | None = None
    latencies: dict[str, Percentiles] | None = None
    operators: list[OperatorView] | None = None
    recording: RecordingView | None = None
    artefacts: list[Artefact] | None = None
    """What the flow made of the call after its end; HTML is as the flow wrote it."""


class ExecutionPage(msgspec.Struct):
    data: list[ExecutionRow]
    total: int


class DeleteBody(msgspec.Struct, rename="camel"):
    execution_ids: list[str]


class Deleted(msgspec.Struct, rename="camel"):
    success: bool
    deleted_count: int


def routes() -> list[web.RouteDef]:
    base = "/api/v1/executions"
    return [
        web.get(base, list_executions),
        web.get(base + "/", list_executions),
        web.delete(base, delete_executions),
        web.delete(base + "/", delete_executions),
        web.get(base + "/{execution_id}", get_execution),
        web.delete(base + "/{execution_id}", delete_execution),
        web.get(base + "/{execution_id}/recording", get_recording),
        web.get(base + "/{execution_id}/transcript", get_transcript),
    ]


@operation(
    Scope.RECORDS_READ,
    "List records, newest first; `format=ndjson` streams every match, one row a line",
    tag="executions",
    replies={200: (ExecutionPage, "application/x-ndjson")},
    query={
        "id": (str, "One record"),
        "agentflowId": (str, "Records of one flow"),
        "sessionId": (str, "Records of one session"),
        "taskId": (str, "Attempts of one call"),
        "state": (ExecutionState, "Records in this state"),
        "startDate": (str, "Created at or after this time or date"),
        "endDate": (str, "Created at or before this time, or on or before this date"),
        "page": (Annotated[int, msgspec.Meta(ge=1, le=1_000_000)], "From 1"),
        "limit": (Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)], "Rows a page, 10 unless told"),
        "format": (Literal["json", "ndjson"], "`json` unless told"),
    },
    errors=(400,),
)
async def list_executions(request: web.Request) -> web.StreamResponse:
    wanted = _filter(request)
    kind = request.query.get("format", "json")
    if kind == "ndjson":
        return await _export(request, wanted)
    if kind != "json":
        raise bad_parameter("format", "must be `json` or `ndjson`")
    page = query_int(request, "page", 1, lowest=1, highest=1_000_000)
    limit = query_int(request, "limit", 10, lowest=1, highest=MAX_LIMIT)
    rows, total = await services(request).executions.search(wanted, page=page, limit=limit)
    return json_reply(ExecutionPage([row_of(one) for one in rows], total))


@operation(Scope.RECORDS_READ, "One record", tag="executions", replies={200: ExecutionRow}, errors=(404,))
async def get_execution(request: web.Request) -> web.Response:
    return json_reply(row_of(await _known(request)))


@operation(
    Scope.RECORDS_WRITE, "Delete a record with its recording", tag="executions", replies={200: Deleted}, errors=(404,)
)
async def delete_execution(request: web.Request) -> web.Response:
    execution = await _known(request)
    return json_reply(Deleted(success=True, deleted_count=await services(request).executions.delete([execution.id])))


@operation(
    Scope.RECORDS_WRITE,
    "Delete several records with their recordings",
    tag="executions",
    body=DeleteBody,
    replies={200: Deleted},
    errors=(400, 413),
)
async def delete_executions(request: web.Request) -> web.Response:
    parts = services(request)
    body = await read_json(request, parts.max_body_bytes)
    ids = body.get("executionIds") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not ids:
        what = "must be a non-empty array of record IDs"
        raise BadInput(f"`executionIds` {what}.", faults=[Fault(what, "/executionIds")])
    faults = [Fault("must be a string", f"/executionIds/{i}") for i, one in enumerate(ids) if not isinstance(one, str)]
    if faults:
        raise BadInput("`executionIds` holds something that is not a string.", faults=faults)
    count = await parts.executions.delete(one for one in ids if _UUID.fullmatch(one))
    return json_reply(Deleted(success=True, deleted_count=count))


@operation(
    Scope.RECORDS_READ,
    "The recording, Ogg Opus in stereo: left the caller, right the agent; ranges are served, also while the call runs",
    tag="executions",
    replies={200: "audio/ogg"},
    errors=(404, 416, 503),
)
async def get_recording(request: web.Request) -> web.StreamResponse:
    execution = await _known(request)
    recording = execution.recording
    if recording is None:
        raise NotFound("This record has no recording.", code="no_recording")
    return await audio_reply(request, services(request).audio, recording, f"{execution.id}.{recording.format}")


@operation(
    Scope.RECORDS_READ,
    "The transcript as WebVTT, Markdown or JSON",
    tag="executions",
    replies={200: (list[UtteranceView], "text/vtt", "text/markdown")},
    query={"format": (Literal["json", "vtt", "md"], "`json` unless told")},
    errors=(400, 404),
)
async def get_transcript(request: web.Request) -> web.Response:
    execution = await _known(request)
    match request.query.get("format", "json"):
        case "vtt":
            return web.Response(text=to_vtt(execution.transcript), content_type="text/vtt", charset="utf-8")
        case "md":
            return web.Response(text=to_markdown(execution), content_type="text/markdown", charset="utf-8")
        case "json":
            return web.Response(body=to_json(execution.transcript), content_type="application/json")
        case _:
            raise bad_parameter("format", "must be `vtt`, `md` or `json`")


def row_of(execution: Execution) -> ExecutionRow:
    """A record as the wire shows it."""
    row = ExecutionRow(
        id=execution.id,
        execution_data=msgspec.json.encode(executed_data(execution)).decode(),
        state=execution.state,
        agentflow_id=execution.flow_id,
        session_id=execution.session_id,
        created_date=rfc3339(execution.created_ms),
        updated_date=rfc3339(execution.updated_ms),
        stopped_date=rfc3339(execution.stopped_ms),
        kind=execution.kind,
        graph_hash=execution.graph_hash,
        detail=execution.detail,
        final_state=execution.final_state,
    )
    if execution.kind == "turn":
        return row
    row.task_id, row.attempt, row.caller_id = execution.task_id, execution.attempt, execution.caller_id
    row.form, row.memory = execution.form, execution.memory
    row.end_reason = execution.end_reason or None
    if is_final(execution.state):
        row.duration_ms = max(0, execution.stopped_ms - execution.created_ms)
    row.transcript = [_utterance(one) for one in execution.transcript]
    row.timings = [
        TimingView(
            one.turn,
            one.speech_end_ms,
            one.endpoint_ms,
            one.transcript_ms,
            one.first_token_ms,
            one.first_audio_made_ms,
            one.first_audio_ms,
            one.interrupted,
        )
        for one in execution.timings
    ]
    row.artefacts = execution.artefacts
    row.latencies = percentiles(execution.timings)
    row.operators = [
        OperatorView(rfc3339(one.at_ms), one.action, one.operator, one.detail) for one in execution.operators
    ]
    if (audio := execution.recording) is not None:
        row.recording = RecordingView(
            url=f"/api/v1/executions/{execution.id}/recording",
            format=audio.format,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            duration_ms=audio.duration_ms,
            bytes=audio.bytes,
        )
    return row


def _utterance(one: Utterance) -> UtteranceView:
    words = [WordView(word.text, word.start_ms, word.end_ms) for word in one.words]
    return UtteranceView(one.role, one.text, one.start_ms, one.end_ms, one.interrupted, words)


async def _known(request: web.Request) -> Execution:
    execution_id = request.match_info["execution_id"]
    found = await services(request).executions.get(execution_id) if _UUID.fullmatch(execution_id) else None
    if found is None:
        raise NotFound("There is no record of this ID.", code="execution_not_found")
    return found


def _filter(request: web.Request) -> ExecutionFilter:
    query = request.query
    state = None
    if text := query.get("state"):
        try:
            state = ExecutionState(text)
        except ValueError:
            raise bad_parameter("state", f"must be one of {', '.join(ExecutionState)}") from None
    if (one := query.get("id")) and not _UUID.fullmatch(one):
        raise bad_parameter("id", "must be a UUID")
    if (flow := query.get("agentflowId")) and not _FLOW_ID.fullmatch(flow):
        raise bad_parameter("agentflowId", "must be the ID of a flow")
    start_ms, end_ms = query_time_ms(request, "startDate"), query_time_ms(request, "endDate", end_of_day=True)
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise bad_parameter("startDate", "must not be after `endDate`")
    return ExecutionFilter(
        id=one or None,
        flow_id=flow or None,
        session_id=query.get("sessionId") or None,
        task_id=query.get("taskId") or None,
        state=state,
        start_ms=start_ms,
        end_ms=end_ms,
    )


async def _export(request: web.Request, wanted: ExecutionFilter) -> web.StreamResponse:
    reply = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/x-ndjson", hdrs.CACHE_CONTROL: "no-store"})
    await reply.prepare(request)
    async for execution in services(request).executions.export(wanted):
        await reply.write(msgspec.json.encode(row_of(execution)) + b"\n")
    await reply.write_eof()
    return reply
