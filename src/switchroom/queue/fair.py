"""Who is served next when a holder serves several flows: shares by weight, over time."""

from __future__ import annotations

from collections.abc import Mapping


class Shares:
    """Deficit round robin kept by one holder: each flow that has calls gets them in proportion to its weight, and one
    that has none saves nothing up for later."""

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def order(self, weights: Mapping[str, int]) -> list[str]:
        """The flows to ask, the one that is owed most first."""
        total = sum(weights.values())
        return sorted(weights, key=lambda flow: -(self._credit.get(flow, 0.0) + weights[flow] / total))

    def took(self, flow_id: str, count: int, weights: Mapping[str, int]) -> None:
        """`count` calls came from this flow."""
        total = sum(weights.values())
        for flow, weight in weights.items():
            self._credit[flow] = self._credit.get(flow, 0.0) + count * weight / total
        self._credit[flow_id] -= count

    def empty(self, flow_id: str) -> None:
        """This flow had nothing for the holder."""
        self._credit[flow_id] = 0.0
