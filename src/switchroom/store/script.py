"""A server-side Lua script, addressed by the hash of its content: two versions run side by side during an upgrade."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """`source` is Lua 5.1 as Redis 7.0 runs it. `sha` is its SHA-1, the name under which EVALSHA finds it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)
