"""Real parts for the room's tests: blobs in a folder, speech models loaded once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from switchroom.realtime.ears import SpeechParts
from switchroom.realtime.settings import MediaSettings
from switchroom.store import Blobs


@pytest.fixture
def blobs(data_dir: Path) -> Blobs:
    return Blobs(data_dir / "blobs")


@pytest.fixture
def settings() -> MediaSettings:
    return MediaSettings(media_loopback=True, drain_s=2.0, reconnect_grace_s=4.0)


@pytest.fixture
async def parts(settings: MediaSettings) -> AsyncIterator[SpeechParts]:
    parts = await SpeechParts.load(settings)
    yield parts
    await parts.close()
