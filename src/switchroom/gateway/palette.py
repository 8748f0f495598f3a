"""Dialect: the palette of node kinds at `/api/v1/nodes`, and trying a Custom Function's code at
`/api/v1/node-custom-function`, as canvas editors ask for both."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from switchroom.access import Scope
from switchroom.compact.fields import Kind
from switchroom.compact.kinds import KINDS
from switchroom.compact.sandbox import Sandbox
from switchroom.compact.writer import input_params
from switchroom.errors import BadInput, Fault, NotFound
from switchroom.gateway.operation import operation
from switchroom.gateway.reply import invalid_body, json_reply
from switchroom.gateway.services import services
from switchroom.http_problems import read_json


class PaletteNode(msgspec.Struct, rename="camel"):
    """A node kind as canvas editors list it; `inputs` is its form, `outputs` what its ways on mean."""

    name: str
    label: str
    version: float
    type: str
    color: str
    category: str
    base_classes: list[str]
    description: str
    inputs: list[dict[str, Any]]
    outputs: str


class FunctionBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """Code as a Custom Function node has it, and its input variables by name (an object, or the JSON string of one)."""

    javascript_function: str
    function_input_variables: dict[str, Any] | str | None = None


def routes() -> list[web.RouteDef]:
    return [
        web.get("/api/v1/nodes", palette),
        web.get("/api/v1/nodes/{name}", palette_node),
        web.post("/api/v1/node-custom-function", try_function),
    ]


@operation(Scope.FLOWS_READ, "The node kinds that a canvas may use", tag="flows", replies={200: list[PaletteNode]})
async def palette(request: web.Request) -> web.Response:
    return json_reply([_palette_node(kind) for kind in KINDS])


@operation(Scope.FLOWS_READ, "One node kind", tag="flows", replies={200: PaletteNode}, errors=(404,))
async def palette_node(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    found = next((kind for kind in KINDS if name in (kind.wire, kind.name)), None)
    if found is None:
        raise NotFound(f"There is no node kind {name!r}.", code="node_kind_not_found")
    return json_reply(_palette_node(found))


@operation(
    Scope.FLOWS_WRITE,
    "Run a Custom Function's code once, in the sandbox that flows run it in; the answer is what it returns",
    tag="flows",
    body=FunctionBody,
    replies={200: Any},
    errors=(400, 413, 422),
)
async def try_function(request: web.Request) -> web.Response:
    value = await read_json(request, services(request).max_body_bytes)
    try:
        body = msgspec.convert(value, FunctionBody)
        given = body.function_input_variables or {}
        variables = msgspec.json.decode(given, type=dict[str, Any]) if isinstance(given, str) else given
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error
    except msgspec.DecodeError as error:
        what = "is a string that is not a JSON object"
        raise BadInput(
            f"`functionInputVariables` {what}: {error}.", faults=[Fault(what, "/functionInputVariables")]
        ) from error
    bound = {"$flow": {}, "$vars": {}, "$form": {}, "$state": {}, "$question": ""}
    bound |= {"$" + name.lstrip("$"): item for name, item in variables.items()}
    return json_reply(await Sandbox().call(body.javascript_function, bound))


def _palette_node(kind: Kind) -> PaletteNode:
    return PaletteNode(
        name=kind.wire,
        label=kind.label,
        version=kind.version,
        type=kind.title,
        color=kind.color,
        category="Realtime" if kind.realtime else "Agent Flows",
        base_classes=[kind.title],
        description=kind.description,
        inputs=input_params(kind, kind.wire),
        outputs=kind.ports,
    )
