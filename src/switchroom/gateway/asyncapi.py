"""The AsyncAPI 3 document of the gateway's sockets (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from switchroom import __version__
from switchroom.gateway.asyncapi_media import REALTIME, TELEPHONE, Protocol
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
    media = {"realtime": REALTIME, "telephone": TELEPHONE}
    for name, protocol in media.items():
        messages |= _messages(name, protocol)
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
            "realtime": {
                "address": "/v1/realtime",
                "title": "Realtime sessions",
                "description": "OpenAI's Realtime protocol. `model` names a flow; `call_id` joins a session that runs.",
                "messages": _references(*_named("realtime", REALTIME)),
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": _strings("model", "call_id", "task_id", "intent"),
                        "headers": _strings("Authorization", "Sec-WebSocket-Protocol"),
                    }
                },
            },
            "telephone": _telephone("/api/v1/twilio/{flowId}/stream", {"flowId": "The flow that answers"}),
            "telephoneOfCall": _telephone(
                "/api/v1/twilio/{flowId}/stream/{token}",
                {"flowId": "The flow that answers", "token": "What the webhook's TwiML gave to this call"},
            ),
        },
        "operations": {
            "tellChanges": _operation("send", "notify", "AssetsChanged"),
            "tellKiosk": _operation("send", "kiosk", *to_kiosk),
            "hearKiosk": _operation("receive", "kiosk", *from_kiosk),
            "tellRealtime": _operation("send", "realtime", *_sides("realtime", REALTIME)[1]),
            "hearRealtime": _operation("receive", "realtime", *_sides("realtime", REALTIME)[0]),
            "tellTelephone": _operation("send", "telephone", *_sides("telephone", TELEPHONE)[1]),
            "hearTelephone": _operation("receive", "telephone", *_sides("telephone", TELEPHONE)[0]),
            "tellTelephoneOfCall": _operation("send", "telephoneOfCall", *_sides("telephone", TELEPHONE)[1]),
            "hearTelephoneOfCall": _operation("receive", "telephoneOfCall", *_sides("telephone", TELEPHONE)[0]),
        },
        "components": {"schemas": schemas, "messages": messages},
    }


def _sides(of: str, protocol: Protocol) -> tuple[list[str], list[str]]:
    """The keys of what we receive and of what we send: `realtime.session.update`."""
    return [f"{of}.{name}" for name in protocol.received], [f"{of}.{name}" for name in protocol.sent]


def _named(of: str, protocol: Protocol) -> list[str]:
    received, sent = _sides(of, protocol)
    return list(dict.fromkeys([*received, *sent]))


def _messages(of: str, protocol: Protocol) -> dict[str, Any]:
    return {
        f"{of}.{name}": {"name": name, "title": name, "contentType": "application/json", "payload": payload}
        for name, payload in (protocol.received | protocol.sent).items()
    }


def _telephone(address: str, parameters: dict[str, str]) -> dict[str, Any]:
    return {
        "address": address,
        "title": "Telephone calls",
        "description": "Twilio's Media Streams, in both directions.",
        "parameters": {name: {"description": what} for name, what in parameters.items()},
        "messages": _references(*_named("telephone", TELEPHONE)),
        "bindings": {"ws": {"method": "GET"}},
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
