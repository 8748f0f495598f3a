"""A caller as a program: places a call over WebRTC, speaks from audio files, listens, and reports.

Works against any flow of any Switchroom: it goes by what it hears (levels) and uses the event channel where there is
one. It speaks when the other side has been quiet, as people do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from switchroom.errors import BadInput, TimedOut
from switchroom.realtime.audio import RATE, Samples
from switchroom.realtime.caller import Caller, OnEvent
from switchroom.realtime.report import CallReport, HeardTurn

_MAX_AUDIO_S = 600

__all__ = ["CallReport", "HeardTurn", "load_audio", "place_call"]


async def place_call(
    server_url: str,
    flow_id: str,
    task_id: str,
    wavs: Sequence[Path],
    record: Path | None = None,
    *,
    api_key: str | None = None,
    on_event: OnEvent | None = None,
    timeout_s: float = 120.0,
    hang_up_after_s: float = 1.0,
    loopback: bool = False,
) -> CallReport:
    """Call `task_id`, say each file once the other side has spoken, hang up `hang_up_after_s` after the last answer.

    `record` gets a stereo WAV: left what was said, right what was heard. Raises our errors for a refusal by the server
    (`NotFound`, `Conflict`, …), `Unavailable` when it cannot be reached, `BadInput` for a file that is no audio,
    `TimedOut` when media does not flow within 15 s or the whole takes longer than `timeout_s`.
    """
    speech = [await asyncio.to_thread(load_audio, path) for path in wavs]
    caller = Caller(flow_id, task_id, on_event, loopback=loopback)
    try:
        async with asyncio.timeout(timeout_s):
            await caller.dial(server_url, api_key)
            await caller.converse(list(zip([path.name for path in wavs], speech, strict=True)), hang_up_after_s)
    except TimeoutError:
        raise TimedOut(f"the call took longer than {timeout_s:g} s") from None
    finally:
        await caller.hang_up()
        await caller.save(record)
    return caller.report


def load_audio(path: Path) -> Samples:
    """Any audio file as 48 kHz mono, at most ten minutes. Blocking. Raises `BadInput`."""
    parts: list[Samples] = []
    total = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise BadInput(f"{path.name} holds no audio")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    parts.append(_samples(piece))
                    total += parts[-1].size
                if total > _MAX_AUDIO_S * RATE:
                    raise BadInput(f"{path.name} is longer than {_MAX_AUDIO_S} s")
            for piece in resampler.resample(None):
                parts.append(_samples(piece))
    except FileNotFoundError as error:
        raise BadInput(f"no such file: {path}") from error
    except av.FFmpegError as error:
        raise BadInput(f"{path.name} is not audio that we can read") from error
    if not total:
        raise BadInput(f"{path.name} holds no audio")
    return np.concatenate(parts)


def _samples(mono: av.AudioFrame) -> Samples:
    return np.asarray(mono.to_ndarray(), dtype=np.int16).reshape(-1)
