"""A message to a model."""

from __future__ import annotations

import msgspec

__all__ = ["Prompt"]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """`role` is `system`, `developer`, `assistant` or `user`."""

    role: str = "system"
    content: str = ""
