"""Server-side Lua, addressed by the hash of its content: two versions run side by side during an upgrade."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """`source` is Lua 5.1 as Redis 7.0 runs it. `sha` is its SHA-1, the name under which EVALSHA finds it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", _digest(self.source))


@dataclass(frozen=True, slots=True)
class Library:
    """A function that stays in the server with all that it set up, where a script is set up anew for each call.

    `source` is a Lua chunk that returns `function(keys, args)`; it runs once a server, at the first call. `function` is
    the name of the library and of its one function, `code` what `FUNCTION LOAD` takes.
    """

    name: str
    source: str
    function: str = field(init=False)
    code: str = field(init=False)

    def __post_init__(self) -> None:
        function = f"{self.name}_{_digest(self.source)[:16]}"
        # While a library loads, hardly anything can be called: hence at the first call.
        code = (
            f"#!lua name={function}\nlocal function set_up()\n{self.source}\nend\nlocal run\n"
            f"redis.register_function('{function}', function(keys, args)\n"
            "  if not run then run = set_up() end\n  return run(keys, args)\nend)\n"
        )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "code", code)


def _digest(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
