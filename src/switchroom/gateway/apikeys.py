"""Stored API keys at `/api/v1/apikey` (Flowise's path): made, listed and revoked; a key is shown once."""

from __future__ import annotations

import msgspec
from aiohttp import web

from switchroom.access import KeyRecord, Scope
from switchroom.errors import BadInput, Fault
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply, read_as, rfc3339
from switchroom.gateway.services import services


class KeyBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """`scopes` says what the key may do; everything if it is left out."""

    key_name: str
    scopes: tuple[Scope, ...] = (Scope.ALL,)


class KeyView(msgspec.Struct, rename="camel", omit_defaults=True):
    """A stored key. `apiKey` is the key itself, in the answer to its making only."""

    id: str
    key_name: str
    scopes: list[Scope]
    created_at: str | None
    api_key: str | None = None


class Revoked(msgspec.Struct):
    affected: int


def routes() -> list[web.RouteDef]:
    base = "/api/v1/apikey"
    return [web.get(base, list_keys), web.post(base, create_key), web.delete(base + "/{key_id}", revoke_key)]


@operation(Scope.KEYS, "List the stored API keys", tag="access", replies={200: list[KeyView]})
async def list_keys(request: web.Request) -> web.Response:
    return json_reply([_view(record) for record in await services(request).access.stored()])


@operation(Scope.KEYS, "Make an API key", tag="access", body=KeyBody, replies={201: KeyView}, errors=(400, 413))
async def create_key(request: web.Request) -> web.Response:
    body = await read_as(request, KeyBody, services(request).max_body_bytes)
    if not body.key_name.strip() or len(body.key_name) > 100:
        what = "must be 1 to 100 characters"
        raise BadInput(f"`keyName` {what}.", faults=[Fault(what, "/keyName")])
    if not body.scopes:
        what = "must name at least one scope"
        raise BadInput(f"`scopes` {what}.", faults=[Fault(what, "/scopes")])
    key, record = await services(request).access.create(body.key_name.strip(), body.scopes)
    view = _view(record)
    view.api_key = key
    return json_reply(view, status=201, headers={"Cache-Control": "no-store"})


@operation(Scope.KEYS, "Revoke an API key", tag="access", replies={200: Revoked}, errors=(404,))
async def revoke_key(request: web.Request) -> web.Response:
    await services(request).access.revoke(request.match_info["key_id"])
    return json_reply(Revoked(affected=1))


def _view(record: KeyRecord) -> KeyView:
    return KeyView(
        id=record.id, key_name=record.name, scopes=list(record.scopes), created_at=rfc3339(record.created_ms)
    )
