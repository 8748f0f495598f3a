"""How the gateway writes and reads small things on the wire: JSON, streams of events, times, query parameters, entity
tags."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import LooseHeaders

from switchroom.errors import BadInput, Fault
from switchroom.http_problems import read_json

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")
_MEMBER = re.compile(r"Object (?:(missing required)|contains unknown) field `(.*)`", re.DOTALL)
"""What msgspec says of a member, with the place of the object that it belongs to."""


def json_reply(value: Any, *, status: int = 200, headers: LooseHeaders | None = None) -> web.Response:
    return web.Response(body=_encode(value), status=status, content_type="application/json", headers=headers)


async def begin_events(request: web.Request) -> web.StreamResponse:
    """A stream of server-sent events that has begun. Proxies are told to pass each one on at once."""
    reply = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            hdrs.CACHE_CONTROL: "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    await reply.prepare(request)
    return reply


def rfc3339(at_ms: int) -> str | None:
    """A Unix time in milliseconds as RFC 3339 UTC; None for 0 (it has not happened)."""
    if not at_ms:
        return None
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"


def query_int(request: web.Request, name: str, default: int, *, lowest: int, highest: int) -> int:
    """An integer of the query, in its range; anything else is a `BadInput` that names the parameter."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        raise bad_parameter(name, f"must be a whole number from {lowest} to {highest}")
    return value


def query_time_ms(request: web.Request, name: str, *, end_of_day: bool = False) -> int | None:
    """An RFC 3339 time of the query, or a date (its first, or with `end_of_day` its last millisecond), in Unix
    milliseconds. Without an offset it is UTC."""
    text = request.query.get(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped "+" of an offset arrives as a space
        if len(text) == 10 and end_of_day:
            at = datetime.combine(at.date(), time.max)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise bad_parameter(name, "must be an RFC 3339 time or a date (2026-11-21)") from error


def bad_parameter(name: str, what: str) -> BadInput:
    return BadInput(f"The query parameter `{name}` {what}.", faults=[Fault(what, f"/query/{name}")])


def invalid_body(error: msgspec.ValidationError) -> BadInput:
    """msgspec's refusal of a body, with the pointer to the place that it names."""
    # msgspec names the place as "Expected … - at `$.settings.skills[2]`", and `[...]` for some member of a map.
    what, _, place = str(error).partition(" - at `$")
    pointer = re.sub(r"\[(\d+)\]", r"/\1", place.rstrip("`").replace("[...]", "")).replace(".", "/")
    if (member := _MEMBER.fullmatch(what)) is not None:
        what = "is required" if member[1] else "is not known here"
        pointer += "/" + member[2].replace("~", "~0").replace("/", "~1")
    return BadInput(f"`{pointer.lstrip('/') or 'body'}` is wrong: {what}.", faults=[Fault(what, pointer)])


def as_shape(value: Any, shape: type[T]) -> T:
    """A decoded body as `shape`. Raises `BadInput` that names the place that is wrong."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error


async def read_as(request: web.Request, shape: type[T], max_bytes: int) -> T:
    """The JSON body as `shape`. Raises `BadInput` or, beyond `max_bytes`, `TooLarge`."""
    return as_shape(await read_json(request, max_bytes), shape)


def not_modified(request: web.Request, etag: str) -> bool:
    """Whether `If-None-Match` names this (quoted) entity tag; weak comparison, as RFC 9110 §13.1.2 asks."""
    given = request.headers.get(hdrs.IF_NONE_MATCH)
    if given is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags
