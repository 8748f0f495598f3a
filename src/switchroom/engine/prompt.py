"""A message to a model."""

from __future__ import annotations

import msgspec

from switchroom.engine.events import Media

__all__ = ["Prompt"]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """`role` is `system`, `developer`, `assistant` or `user`; `media` came with a user's words in an earlier turn."""

    role: str = "system"
    content: str = ""
    media: list[Media] = []
