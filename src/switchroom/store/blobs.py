"""Files that are too big for the store: recordings, artefacts. Names are ours, never a user's."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from switchroom.errors import NotFound

_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}")


class Blobs:
    """A folder of files with UUID names, each 0600, spread over 256 sub-folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self, suffix: str) -> tuple[str, Path]:
        """Makes an empty file; `suffix` is its extension without the dot. Returns its name and its path."""
        name = f"{uuid.uuid4().hex}.{suffix}"
        path = self.path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return name, path

    def path(self, name: str) -> Path:
        """Where a blob is; a name that is not one of ours is `NotFound`."""
        if not _NAME.fullmatch(name):
            raise NotFound("no such blob")
        return self.root / name[:2] / name

    def delete(self, name: str) -> None:
        """Removes a blob; one that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)
