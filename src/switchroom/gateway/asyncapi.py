"""The AsyncAPI 3 document of the gateway's sockets (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from switchroom import __version__
from switchroom.gateway.kiosk_frames import FROM_KIOSK, TO_KIOSK
from switchroom.gateway.notify import AssetsChanged
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import json_reply


def routes() -> list[web.RouteDef]:
    return [web.get("/asyncapi.json", asyncapi)]


@operation(None, "The AsyncAPI document of the sockets", tag="health", replies={200: dict[str, Any]})
async def asyncapi(request: web.Request) -> web.Response:
    return json_reply(document())


def document() -> dict[str, Any]:
    types = (AssetsChanged, *FROM_KIOSK, *TO_KIOSK)
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    messages = {
        kind.__name__: {
            "name": kind.__name__,
            "title": schemas[kind.__name__]["properties"]["type"]["enum"][0],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        }
        for kind in types
    }
    from_kiosk, to_kiosk = ([kind.__name__ for kind in kinds] for kinds in (FROM_KIOSK, TO_KIOSK))
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Switchroom sockets", "version": __version__},
        "defaultContentType": "application/json",
        "channels": {
            "notify": {
                "address": "/ws",
                "title": "Notify hub",
                "description": "Which assets changed, once a burst of changes is over.",
                "messages": _references("AssetsChanged"),
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": _strings("pipeline", "clientId", "secret"),
                        "headers": _strings("X-Notify-Secret"),
                    }
                },
            },
            "kiosk": {
                "address": "/api/v1/openai-realtime/{flowId}/kiosk",
                "title": "Operator kiosk",
                "description": "A kiosk takes calls of a flow.",
                "parameters": {"flowId": {"description": "The flow whose calls it takes"}},
                "messages": _references(*to_kiosk, *from_kiosk),
                "bindings": {"ws": {"method": "GET"}},
            },
        },
        "operations": {
            "tellChanges": _operation("send", "notify", "AssetsChanged"),
            "tellKiosk": _operation("send", "kiosk", *to_kiosk),
            "hearKiosk": _operation("receive", "kiosk", *from_kiosk),
        },
        "components": {"schemas": schemas, "messages": messages},
    }


def _references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(action: str, channel: str, *names: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _strings(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}
