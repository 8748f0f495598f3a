"""Every canvas dialect is read into one compact graph: the form that runs, is exported and is hashed."""

from switchroom.compact.diff import Change, compare
from switchroom.compact.mermaid import to_mermaid
from switchroom.compact.model import (
    CompactGraph,
    Node,
    content_hash,
    from_json,
    from_msgpack,
    json_schema,
    to_json,
    to_msgpack,
)
from switchroom.compact.reader import read_canvas
from switchroom.compact.svg import to_svg
from switchroom.compact.validate import Finding, compact_canvas, sound, validate
from switchroom.compact.writer import expand

__all__ = [
    "Change",
    "CompactGraph",
    "Finding",
    "Node",
    "compact_canvas",
    "compare",
    "content_hash",
    "expand",
    "from_json",
    "from_msgpack",
    "json_schema",
    "read_canvas",
    "sound",
    "to_json",
    "to_mermaid",
    "to_msgpack",
    "to_svg",
    "validate",
]
