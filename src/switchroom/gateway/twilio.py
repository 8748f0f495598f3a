"""Dialect: telephone calls from Twilio (and from providers that speak its Media Streams) at `/api/v1/twilio/{flowId}`.

`voice` is the webhook of a number: it puts the call in the flow's queue and answers with TwiML that opens a stream.
`stream` is that stream, brought to a media process. When a stream ends, Twilio asks `voice` again, with the call's ID:
a call that lives on (its media process died) gets a new stream, one that was transferred to a number is dialled there,
one that is over is hung up.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.sax.saxutils import escape, quoteattr

import msgspec
from aiohttp import hdrs, web
from multidict import MultiDict

from switchroom.access import Principal, Scope, presented_key
from switchroom.errors import BadInput, Fault, Forbidden, NotFound, SwitchroomError, TooMany, Unauthorized
from switchroom.gateway.enqueue import accept
from switchroom.gateway.operation import operation
from switchroom.gateway.passage import pass_on
from switchroom.gateway.services import Services, services, usable_flow
from switchroom.gateway.twilio_signature import SIGNATURE, SIGNATURE_SETTINGS, genuine
from switchroom.http_problems import read_body
from switchroom.queue.model import State
from switchroom.realtime.door import Ticket
from switchroom.realtime.phone import KIND, TASK_PARAMETER
from switchroom.store import keys

log = logging.getLogger(__name__)

TWIML = "text/xml"
MAX_FORM_BYTES = 64 << 10
STREAM_S = 30.0
"""A stream that is not opened by then never comes: its caller hung up."""
MAX_FORM_FIELDS = 100
_HANG_UP = "<Hangup/>"
_BUSY = '<Reject reason="busy"/>'
_A_MOMENT = '<Pause length="1"/>'
"""Before a stream is tried again, so that one that cannot be served is not asked for without a rest."""
_OPENED = web.AppKey("twilio_opened", set[asyncio.Task[None]])

_FIELDS = {"From": "ID", "To": "to", "CallSid": "callSid", "CallerName": "callerName", "AnsweredBy": "answeredBy"}
"""Twilio's parameters that become fields of the call's form; an outbound call's caller is its `To`."""


class _Expected(msgspec.Struct, frozen=True):
    """A stream that Twilio was told to open."""

    flow_id: str
    task_id: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Expected).decode


def routes() -> list[web.RouteDef]:
    base = "/api/v1/twilio/{flow_id}"
    return [
        web.post(base + "/voice", voice),
        web.get(base + "/voice", voice_by_get, allow_head=False),
        web.get(base + "/stream", stream, allow_head=False),
        web.get(base + "/stream/{token}", stream_of_call, allow_head=False),
    ]


def install_twilio(app: web.Application) -> None:
    """Gives `app` what watches over streams that were announced."""
    app[_OPENED] = set()
    app.on_cleanup.append(_forget)


async def _forget(app: web.Application) -> None:
    for task in app[_OPENED]:
        task.cancel()
    await asyncio.gather(*app[_OPENED], return_exceptions=True)


# --- the webhook of a number -----------------------------------------------------------------------------------------


@operation(
    None,
    "Webhook of a Twilio number: the call is queued, TwiML that opens its stream comes back",
    tag="calls",
    body="application/x-www-form-urlencoded",
    replies={200: TWIML},
    query={"taskId": (str, "a call that is queued already, such as one that was dialled for it")},
    errors=(400, 401, 403, 404, 409, 413, 503),
)
async def voice(request: web.Request) -> web.Response:
    raw = await read_body(request, MAX_FORM_BYTES)
    form = _form(raw)
    return await _voice(request, form)


@operation(
    None,
    "The same for a number whose webhook is called by GET",
    tag="calls",
    replies={200: TWIML},
    query={"taskId": (str, "a call that is queued already")},
    errors=(400, 401, 403, 404, 409, 503),
)
async def voice_by_get(request: web.Request) -> web.Response:
    return await _voice(request, MultiDict())


async def _voice(request: web.Request, form: MultiDict[str]) -> web.Response:
    principal = await _admitted(request, form)
    parts = services(request)
    flow = await usable_flow(parts, principal, request.match_info["flow_id"])
    given = {**request.query, **form}
    task_id = given.get(TASK_PARAMETER)
    if task_id is None:
        try:
            task_id = await _enqueued(parts, principal, flow.id, given)
        except TooMany as error:
            log.info("a telephone call was turned away", extra={"flow_id": flow.id, "code": error.code})
            return _twiml(_BUSY)
        if task_id is None:
            return _twiml(_BUSY)
    else:
        call = await parts.queue.get(flow.id, task_id)
        if call is None:
            raise NotFound(f"There is no call {task_id!r} in this flow.", code="unknown_task")
        number = await parts.store.call("GETDEL", keys.phone_transfer(task_id))
        if number is not None:
            return _twiml(f"<Dial>{_dialled(number.decode())}</Dial>")
        if call.state in (State.WRAPUP, State.ENDED):
            return _twiml(_HANG_UP)
        return _twiml(_A_MOMENT + await _connect(request, flow.id, task_id))
    return _twiml(await _connect(request, flow.id, task_id))


async def _enqueued(parts: Services, principal: Principal, flow_id: str, given: dict[str, str]) -> str | None:
    """The caller's place in the queue; None when nobody takes calls now (opening hours). Twilio's retries of one call
    find the same place."""
    outbound = given.get("Direction", "").startswith("outbound")
    caller = given.get("To" if outbound else "From", "").strip()
    if not caller:
        raise BadInput("From is required: the caller's number", faults=[Fault("is required", "/From")])
    fields = {ours: given[theirs] for theirs, ours in _FIELDS.items() if given.get(theirs)}
    own = {name: value for name, value in given.items() if name[:1].islower()}  # Twilio's begin with a capital
    form = {**own, **fields, "ID": caller}
    accepted = await accept(parts, principal, flow_id, {"form": form}, given.get("CallSid") or None)
    if accepted.position is None and not accepted.duplicate:
        await parts.queue.abandon(flow_id, accepted.task_id)
        return None
    return accepted.task_id


async def _connect(request: web.Request, flow_id: str, task_id: str) -> str:
    parts = services(request)
    token = secrets.token_urlsafe(24)
    expected = _encode(_Expected(flow_id, task_id))
    await parts.store.call("SET", keys.phone_stream(token), expected, "EX", int(STREAM_S) + 30)
    watch = asyncio.create_task(_unopened(parts, token, flow_id, task_id), name="phone-stream-watch")
    request.app[_OPENED].add(watch)
    watch.add_done_callback(request.app[_OPENED].discard)
    base = _public(request)[0] + f"/api/v1/twilio/{flow_id}"
    url = "ws" + f"{base}/stream/{token}".removeprefix("http")
    again = f"{base}/voice?{urlencode({TASK_PARAMETER: task_id})}"
    parameter = f'<Parameter name="{TASK_PARAMETER}" value={quoteattr(task_id)}/>'
    return (
        f"<Connect><Stream url={quoteattr(url)}>{parameter}</Stream></Connect>"
        f'<Redirect method="POST">{escape(again)}</Redirect>'
    )


async def _unopened(parts: Services, token: str, flow_id: str, task_id: str) -> None:
    """Whoever takes the token first decides: the stream, or this watch, which gives the call up."""
    await asyncio.sleep(STREAM_S)
    try:
        if await parts.store.call("GETDEL", keys.phone_stream(token)) is not None:
            await parts.queue.abandon(flow_id, task_id)
    except SwitchroomError as error:
        log.info("a call without a stream stays queued", extra={"task_id": task_id, "cause": error.code})


# --- the stream ------------------------------------------------------------------------------------------------------


@operation(
    None,
    "A Media Stream from TwiML of your own; its parameter `taskId` names the queued call",
    tag="calls",
    replies={101: None},
    errors=(400, 401, 403, 404, 503),
)
async def stream(request: web.Request) -> web.StreamResponse:
    principal = await _admitted(request, MultiDict())
    _require_socket(request)
    flow = await usable_flow(services(request), principal, request.match_info["flow_id"])
    return await pass_on(request, Ticket(kind=KIND, flow_id=flow.id))


@operation(
    None,
    "The Media Stream of one call, as `voice` named it; good once",
    tag="calls",
    replies={101: None},
    errors=(400, 403, 404, 409, 503),
)
async def stream_of_call(request: web.Request) -> web.StreamResponse:
    parts = services(request)
    key = keys.phone_stream(request.match_info["token"])
    if parts.twilio_token is not None and request.headers.get(SIGNATURE) is not None:
        await _admitted(request, MultiDict())  # else the token alone is the right to this one call
    if await parts.store.call("EXISTS", key):
        _require_socket(request)
    raw = await parts.store.call("GETDEL", key)
    expected = _decode(raw) if raw is not None else None
    if expected is None or expected.flow_id != request.match_info["flow_id"]:
        raise Unauthorized("There is no stream to open at this URL: it is good once, for half a minute.")
    process = await parts.signals.carrier(expected.flow_id, expected.task_id)
    ticket = Ticket(kind=KIND, flow_id=expected.flow_id, task_id=expected.task_id)
    return await pass_on(request, ticket, process=process)


# --- small things ----------------------------------------------------------------------------------------------------


async def _admitted(request: web.Request, form: MultiDict[str]) -> Principal:
    """Who asks: Twilio, by its signature, or somebody with an API key. Raises `Forbidden` for a wrong signature and
    `Unauthorized` for neither."""
    parts = services(request)
    given = request.headers.get(SIGNATURE)
    if parts.twilio_token is not None and given is not None:
        path = request.rel_url.raw_path_qs
        urls = [base + path for base in _public(request)]
        urls += ["ws" + url.removeprefix("http") for url in urls]
        urls += [url + "/" for url in urls]  # Twilio adds one to a stream's URL at times
        if not genuine(parts.twilio_token, urls, form.items(), given, request.headers.get(SIGNATURE_SETTINGS)):
            raise Forbidden(
                f"{SIGNATURE} does not fit this request: is the auth token right, and is SWITCHROOM_PUBLIC_URL the "
                "address that Twilio calls?",
                code="wrong_signature",
            )
        return Principal("twilio", "Twilio", frozenset({Scope.CALLS, Scope.QUEUE_WRITE}))
    principal = await parts.access.check(presented_key(request.headers), Scope.CALLS)
    if parts.twilio_token is not None and principal.key_id == "open":
        raise Unauthorized(f"{SIGNATURE} is missing: this server takes calls that Twilio signed, or an API key.")
    return principal


def _require_socket(request: web.Request) -> None:
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        raise BadInput("this is a WebSocket: the URL of a <Stream>, not of a page", code="websocket_expected")


def _public(request: web.Request) -> list[str]:
    """Where Twilio reaches us, the likeliest first: as configured, else as the request says (a proxy too)."""
    configured = services(request).public_url
    if configured:
        return [configured.rstrip("/")]
    scheme = request.headers.get(hdrs.X_FORWARDED_PROTO, request.scheme).partition(",")[0].strip()
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    host = request.headers.get(hdrs.X_FORWARDED_HOST, request.host).partition(",")[0].strip()
    bases = [f"{scheme}://{host}", f"{request.scheme}://{request.host}"]
    if any(urlsplit(base).hostname is None for base in bases):
        raise BadInput("the request names no host")
    return list(dict.fromkeys(bases))


def _form(raw: bytes) -> MultiDict[str]:
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, strict_parsing=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"the body must be a form (application/x-www-form-urlencoded): {error}") from error
    return MultiDict(pairs)


def _dialled(number: str) -> str:
    """What is inside of TwiML's `<Dial>` for a number, a `tel:` or a `sip:` URI."""
    scheme, _, rest = number.partition(":")
    if scheme in ("sip", "sips"):
        return f"<Sip>{escape(number)}</Sip>"
    return escape(rest if scheme == "tel" else number)


def _twiml(verbs: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>'
    return web.Response(text=text, content_type=TWIML, headers={hdrs.CACHE_CONTROL: "no-store"})
