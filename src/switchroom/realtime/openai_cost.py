"""What a call at a Realtime service has cost, by the prices that the operator set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRICES = ("text_in", "text_cached", "audio_in", "audio_cached", "text_out", "audio_out", "minute")
"""Of a million tokens each, but `minute`: of a minute of speech that is written down."""


def cost(usage: Mapping[str, Any], prices: Mapping[str, float]) -> float:
    """`usage` as it is summed on the record: `responses` and `transcriptions` in the service's own words. Cached tokens
    are among the input's; without a price of their own they cost as the others do."""
    said = usage.get("responses") or {}
    came, went = said.get("input_token_details") or {}, said.get("output_token_details") or {}
    cached = came.get("cached_tokens_details") or {}
    total = 0.0
    for kind in ("text", "audio"):
        again = _count(cached, f"{kind}_tokens")
        full = prices.get(f"{kind}_in", 0.0)
        total += max(0, _count(came, f"{kind}_tokens") - again) * full
        total += again * prices.get(f"{kind}_cached", full)
        total += _count(went, f"{kind}_tokens") * prices.get(f"{kind}_out", 0.0)
    written = usage.get("transcriptions") or {}
    heard = written.get("input_token_details") or {}
    total += _count(heard, "audio_tokens") * prices.get("audio_in", 0.0)
    total += _count(heard, "text_tokens") * prices.get("text_in", 0.0)
    total += _count(written, "output_tokens") * prices.get("text_out", 0.0)
    return round(total / 1_000_000 + _count(written, "seconds") / 60 * prices.get("minute", 0.0), 6)


def _count(counted: Mapping[str, Any], name: str) -> float:
    value = counted.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0
