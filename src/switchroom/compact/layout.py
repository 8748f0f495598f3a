"""Places for a graph's nodes: columns by the longest way from the start, Iterations as boxes around their children."""

from __future__ import annotations

from typing import NamedTuple

from switchroom.compact.model import CompactGraph, Node

__all__ = ["Box", "absolute", "layout"]

_WIDTH, _HEIGHT = 200, 72
_GAP_X, _GAP_Y = 110, 40
_MARGIN = 24
_TITLE = 44


class Box(NamedTuple):
    """Pixels. `x` and `y` count from the Iteration that holds the node, else from the canvas's own origin."""

    x: int
    y: int
    width: int
    height: int


def layout(graph: CompactGraph) -> dict[str, Box]:
    """A box for each node, by its ID; linear in nodes and edges but for the sorting of a column."""
    inside, holders = _holders(graph)
    boxes: dict[str, Box] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for holder in reversed(holders):
        width, height = _level(inside.get(holder, []), graph, sizes, boxes, top=_MARGIN if holder is None else _TITLE)
        if holder is not None:
            sizes[holder] = (width, height)
    for node in graph.nodes:  # those that stand inside of themselves
        boxes.setdefault(node.id, Box(_MARGIN, _MARGIN, _WIDTH, _HEIGHT))
    return boxes


def absolute(graph: CompactGraph, boxes: dict[str, Box]) -> dict[str, Box]:
    """The boxes with all places from the canvas's own origin, outer ones before what they hold."""
    inside, holders = _holders(graph)
    placed: dict[str, Box] = {}
    for holder in holders:
        left, top = (placed[holder].x, placed[holder].y) if holder is not None else (0, 0)
        for node in inside.get(holder, ()):
            box = boxes[node.id]
            placed[node.id] = box._replace(x=box.x + left, y=box.y + top)
    return placed | {node.id: boxes[node.id] for node in graph.nodes if node.id not in placed}


def _holders(graph: CompactGraph) -> tuple[dict[str | None, list[Node]], list[str | None]]:
    """What stands in each Iteration (None: in none), and the Iterations, outermost first."""
    inside: dict[str | None, list[Node]] = {}
    for node in graph.nodes:
        inside.setdefault(node.parent if node.parent in graph.by_id else None, []).append(node)
    holders: list[str | None] = [None]
    for holder in holders:  # it grows as it is read
        holders += [node.id for node in inside.get(holder, ()) if node.id in inside]
    return inside, holders


def _level(
    nodes: list[Node], graph: CompactGraph, sizes: dict[str, tuple[int, int]], boxes: dict[str, Box], *, top: int
) -> tuple[int, int]:
    """Places what stands in one holder; gives the size that the holder needs."""
    depth = _depths(nodes, graph)
    columns: list[list[Node]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for node in nodes:
        columns[depth[node.id]].append(node)
    pull: dict[str, list[float]] = {}
    x, lowest = _MARGIN, top
    for column in columns:
        # Beside what leads there, so that few edges cross.
        column.sort(key=lambda node: sum(pulls) / len(pulls) if (pulls := pull.get(node.id)) else 0.0)
        wide, y = _WIDTH, top
        for node in column:
            width, height = sizes.get(node.id, (_WIDTH, _HEIGHT))
            boxes[node.id] = Box(x, y, width, height)
            for _, port, target in graph.ways_on.get(node.id, ()):
                pull.setdefault(target, []).append(y + (port if isinstance(port, int) else 0) / 1000)
            wide, y = max(wide, width), y + height + _GAP_Y
        lowest = max(lowest, y - _GAP_Y)
        x += wide + _GAP_X
    return x - _GAP_X + _MARGIN, lowest + _MARGIN


def _depths(nodes: list[Node], graph: CompactGraph) -> dict[str, int]:
    """Steps on the longest way to each node; nodes of a circle stay where the way in left them."""
    depth = {node.id: 0 for node in nodes}
    waiting = dict.fromkeys(depth, 0)
    for node in nodes:
        for _, _, target in graph.ways_on.get(node.id, ()):
            if target in waiting:
                waiting[target] += 1
    ready = [node_id for node_id, count in waiting.items() if count == 0]
    while ready:
        source = ready.pop()
        for _, _, target in graph.ways_on.get(source, ()):
            if target in depth:
                depth[target] = max(depth[target], depth[source] + 1)
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
    return depth
