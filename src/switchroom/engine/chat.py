"""What a flow's owner lets a chat client do: who may talk to it, from which pages, how often, and what they may set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = ["ChatSettings", "RateLimit"]


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """At most `limit` turns of one client (its key, else its address) in any `window_s` seconds."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    window_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    message: str = "Too many turns: please wait a moment."


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`public`: anybody may chat, without a key. `allowed_origins`: pages of other hosts whose scripts may (`*`: all).

    `overrides` lists, by a node's label or ID (`*`: every node), the inputs that a turn's `overrideConfig` may
    replace; `override_state` whether it may set Start's state, `override_variables` which variables of `vars` it may
    set. What is not allowed is ignored and named in the reply, or refused with `unknown_overrides: reject`.

    `on_disconnect`: a client that leaves cancels its turn, or leaves it to end by itself. `chatbot` is Flowise's
    `chatbotConfig`, which its chat widget reads: starter prompts, feedback, leads, uploads.

    `speech`: answers can be read aloud, when a person `asked`, or `always` (a streamed answer then brings its sound).
    """

    public: bool = False
    allowed_origins: list[str] = []
    rate_limit: RateLimit | None = None
    overrides: dict[str, list[str]] = {}
    override_variables: list[str] = []
    override_state: bool = False
    unknown_overrides: Literal["ignore", "reject"] = "ignore"
    on_disconnect: Literal["cancel", "detach"] = "cancel"
    chatbot: dict[str, Any] = {}
    speech: Literal["off", "asked", "always"] = "off"
