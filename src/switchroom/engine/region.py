"""Which node is ready: the part of a graph below some entries, and the edges of it that are settled.

An edge is settled when its source ran (taken, or not) or can no longer run. A node is ready when all its edges are
settled and one was taken; it is out when none was. So branches that merge wait for one another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from switchroom.compact.model import CompactGraph, Edge

__all__ = ["Region", "below"]


def below(graph: CompactGraph, entries: Iterable[str]) -> set[str]:
    """The nodes that edges reach from the entries, these included."""
    found: set[str] = set()
    todo = list(entries)
    while todo:
        node_id = todo.pop()
        if node_id in found:
            continue
        found.add(node_id)
        todo += [edge[2] for edge in graph.ways_on.get(node_id, ())]
    return found


class Region:
    """The state of one pass over a part of a graph."""

    def __init__(self, graph: CompactGraph, entries: Iterable[str]) -> None:
        self._graph = graph
        self.came_from: dict[str, list[str]] = {}
        """The nodes whose taken edges led to a node; none for an entry."""
        self.ready: deque[str] = deque(dict.fromkeys(entries))
        inside = below(graph, self.ready)
        self._open = dict.fromkeys(inside, 0)
        self._taken: set[str] = set()
        for node_id in inside:
            for edge in graph.ways_on.get(node_id, ()):
                self._open[edge[2]] += 1

    def settle(self, node_id: str, branch: int | None) -> bool:
        """The node ran and took `branch` (None: every way on). Whether it led anywhere."""
        led = False
        settled: deque[tuple[Edge, bool]] = deque()
        for edge in self._graph.ways_on.get(node_id, ()):
            taken = branch is None or edge[1] == branch
            led = led or taken
            settled.append((edge, taken))
        while settled:
            edge, taken = settled.popleft()
            target = edge[2]
            self._open[target] -= 1
            if taken:
                self._taken.add(target)
                self.came_from.setdefault(target, []).append(edge[0])
            if self._open[target] > 0:
                continue
            if target in self._taken:
                self.ready.append(target)
            else:
                settled.extend((onward, False) for onward in self._graph.ways_on.get(target, ()))
        return led
