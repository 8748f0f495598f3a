"""The compact graph: what runs, what is exported, what is hashed."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

import msgspec

from switchroom.errors import BadInput

__all__ = [
    "VERSION",
    "CompactGraph",
    "Edge",
    "Node",
    "content_hash",
    "from_json",
    "from_msgpack",
    "json_schema",
    "to_json",
    "to_msgpack",
]

VERSION = 1
"""Grows when a reader of the old form would misread the new one; `from_json` refuses a version that it does not know:
a stored flow is then read again from its canvas, which is kept as imported."""

Edge = tuple[str, int | str, str]
"""Source node, output port, target node. A port is the number of the branch (0 where there is only one way on, or for
true and proceed; 1 for false and reject; the last for else); a word only for node kinds that we do not know."""


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One node.

    JSON keys: `i` ID, `t` kind, `l` label (left out where it is the kind's own), `v` version in the canvas (left out
    where it is the kind's own), `p` the iteration that holds it, `x` its inputs by their short names (`kinds.py`). A
    kind that we do not know has `t` as the canvas spelled it, and its inputs as they were.
    """

    id: str = msgspec.field(name="i")
    kind: str = msgspec.field(name="t")
    label: str = msgspec.field(name="l", default="")
    version: int | float | str | None = msgspec.field(name="v", default=None)
    parent: str | None = msgspec.field(name="p", default=None)
    inputs: dict[str, Any] = msgspec.field(name="x", default_factory=dict)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """An input that is a list of objects, whatever a canvas really has there."""
        value = self.inputs.get(key)
        return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


class CompactGraph(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """A flow as a graph in its canonical form: nodes by ID, edges in order, no layout, no credential.

    JSON keys: `v` version of this form, `k` `text` or `realtime`, `n` nodes, `e` edges `[source, port, target]`.
    A Loop is a node with `to` (the node it jumps back to) and `max`; it is never an edge, so edges make no circle.
    """

    v: int
    kind: Literal["text", "realtime"] = msgspec.field(name="k", default="text")
    nodes: tuple[Node, ...] = msgspec.field(name="n", default=())
    edges: tuple[Edge, ...] = msgspec.field(name="e", default=())

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def ways_on(self) -> dict[str, tuple[Edge, ...]]:
        """Edges by their source."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge[0], []).append(edge)
        return {source: tuple(edges) for source, edges in found.items()}

    @cached_property
    def starts(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind == "start" and node.parent is None)

    @cached_property
    def hash(self) -> str:
        return content_hash(self)


_json = msgspec.json.Encoder(order="deterministic")
_pack = msgspec.msgpack.Encoder(order="deterministic")
_from_json = msgspec.json.Decoder(CompactGraph)
_from_pack = msgspec.msgpack.Decoder(CompactGraph)


def to_json(graph: CompactGraph) -> bytes:
    """UTF-8 JSON without blanks, keys in order: equal graphs give equal bytes."""
    return _json.encode(graph)


def to_msgpack(graph: CompactGraph) -> bytes:
    """The same members as the JSON form, as MessagePack."""
    return _pack.encode(graph)


def _checked(graph: CompactGraph) -> CompactGraph:
    if graph.v != VERSION:
        raise BadInput(f"This compact graph has version {graph.v}; this program reads version {VERSION}.")
    return graph


def from_json(data: bytes | str) -> CompactGraph:
    """Raises BadInput if it is not a compact graph."""
    try:
        return _checked(_from_json.decode(data))
    except msgspec.DecodeError as error:
        raise BadInput(f"This is not a compact graph: {error}.") from error


def from_msgpack(data: bytes) -> CompactGraph:
    """Raises BadInput if it is not a compact graph."""
    try:
        return _checked(_from_pack.decode(data))
    except msgspec.DecodeError as error:
        raise BadInput(f"This is not a compact graph: {error}.") from error


def content_hash(graph: CompactGraph) -> str:
    """`sha256:` and the hex digest of the canonical JSON: equal for canvases that run the same."""
    return "sha256:" + hashlib.sha256(to_json(graph)).hexdigest()


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the JSON form."""
    schema = msgspec.json.schema(CompactGraph)
    schema["$defs"]["CompactGraph"]["properties"]["v"] = {"const": VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:switchroom:compact-graph:{VERSION}",
        "title": "Switchroom compact graph",
        **schema,
    }
