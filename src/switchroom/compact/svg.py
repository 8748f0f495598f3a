"""A compact graph as a picture: SVG 1.1 that needs nothing from elsewhere (https://www.w3.org/TR/SVG11/)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

from switchroom.compact.fields import Kind
from switchroom.compact.layout import Box, absolute, layout
from switchroom.compact.model import CompactGraph, Node
from switchroom.compact.palette import BY_NAME

__all__ = ["to_svg"]

_UNKNOWN = "#9aa0a6"
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LETTERS = 23
"""Of a title in a box; the whole one is its tooltip."""
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.kind,.port{font-size:11px;fill:#59636e}"
    ".box{fill:#fff;stroke:#d1d9e0}.holder{fill:#f6f8fa;stroke:#9c89b8;stroke-dasharray:6 4}"
    "path{fill:none;stroke:#818b98;stroke-width:1.5}.loop{stroke:#d97706;stroke-dasharray:5 4}"
)
_ARROW = (
    '<marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 8 4 0 8z" style="fill:{1};stroke:none"/></marker>'
)


def to_svg(graph: CompactGraph) -> str:
    """A drawing from left to right; Iterations are dashed boxes, Loops dashed arrows back with their limit."""
    spots = absolute(graph, layout(graph))
    width = max((box.x + box.width for box in spots.values()), default=0) + 24
    height = max((box.y + box.height for box in spots.values()), default=0) + 72
    holders = {node.parent for node in graph.nodes}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img">',
        f"<title>{len(graph.nodes)} nodes, {len(graph.edges)} edges</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{_ARROW.format('on', '#818b98')}{_ARROW.format('back', '#d97706')}</defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    lines += [_holder(graph.by_id[node_id], box) for node_id, box in spots.items() if node_id in holders]
    lines += [*_ways(graph, spots), *_loops(graph, spots)]
    lines += [_box(graph.by_id[node_id], box) for node_id, box in spots.items() if node_id not in holders]
    return "\n".join([*lines, "</svg>", ""])


def _text(text: str) -> str:
    return escape(_NO_XML.sub(" ", text))


def _title(node: Node) -> str:
    kind = BY_NAME.get(node.kind)
    title = node.label or (kind.label if kind else node.kind) or node.id
    return title if len(title) <= _LETTERS else title[: _LETTERS - 1] + "…"


def _about(node: Node) -> str:
    kind = BY_NAME.get(node.kind)
    return f"<title>{_text(' · '.join(filter(None, (node.label, kind.label if kind else node.kind, node.id))))}</title>"


def _holder(node: Node, box: Box) -> str:
    return (
        f'<g>{_about(node)}<rect class="holder" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" '
        f'rx="10"/><text x="{box.x + 14}" y="{box.y + 26}">{_text(_title(node))}</text></g>'
    )


def _box(node: Node, box: Box) -> str:
    kind = BY_NAME.get(node.kind)
    name = (kind.label if kind else node.kind)[:_LETTERS]
    return (
        f'<g>{_about(node)}<rect class="box" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
        f'<rect x="{box.x}" y="{box.y + 8}" width="4" height="{box.height - 16}" '
        f'fill="{kind.color if kind else _UNKNOWN}"/>'
        f'<text x="{box.x + 16}" y="{box.y + 31}">{_text(_title(node))}</text>'
        f'<text class="kind" x="{box.x + 16}" y="{box.y + 52}">{_text(name)}</text></g>'
    )


def _ways(graph: CompactGraph, spots: dict[str, Box]) -> Iterator[str]:
    for source, port, target in graph.edges:
        kind = BY_NAME.get(graph.by_id[source].kind)
        many = kind is None or kind.ports in ("many", "two")
        out, into = spots[source], spots[target]
        count = 1 + max((way[1] for way in graph.ways_on[source] if isinstance(way[1], int)), default=0)
        share = (port + 1) / (count + 1) if many and isinstance(port, int) else 0.5
        x, y = out.x + out.width, round(out.y + out.height * share)
        end_x, end_y = into.x - 2, into.y + into.height // 2
        bend = max(40, abs(end_x - x) // 2)
        yield (
            f'<path d="M{x} {y}C{x + bend} {y} {end_x - bend} {end_y} {end_x} {end_y}" marker-end="url(#on)"/>'
            + (f'<text class="port" x="{x + 5}" y="{y - 4}">{_text(_way_of(port, kind))}</text>' if many else "")
        )


def _way_of(port: int | str, kind: Kind | None) -> str:
    if kind is not None and kind.name == "humanInput" and port in (0, 1):
        return ("proceed", "reject")[int(port)]
    return str(port)


def _loops(graph: CompactGraph, spots: dict[str, Box]) -> Iterator[str]:
    for node in graph.nodes:
        to = node.inputs.get("to")
        if node.kind != "loop" or not isinstance(to, str) or to not in spots:
            continue
        out, into = spots[node.id], spots[to]
        x, y = out.x + out.width // 2, out.y + out.height
        end_x, end_y = into.x + into.width // 2, into.y + into.height + 2
        low = max(y, end_y) + 44
        yield (
            f'<path class="loop" d="M{x} {y}C{x} {low} {end_x} {low} {end_x} {end_y}" marker-end="url(#back)"/>'
            f'<text class="port" x="{(x + end_x) // 2}" y="{low - 18}">at most {_text(str(node.inputs.get("max", 5)))} '
            "times</text>"
        )
