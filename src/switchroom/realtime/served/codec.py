"""Audio of a served session between the wire's formats and our 48 kHz frames."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import numpy as np

from switchroom.realtime import g711
from switchroom.realtime.audio import RATE, Interpolator, Samples, resample
from switchroom.realtime.g711 import Law
from switchroom.realtime.served.config import Format
from switchroom.realtime.served.protocol import WireError

_LAWS: dict[str, Law] = {"audio/pcmu": "ulaw", "audio/pcma": "alaw"}
MAX_APPEND = 15 << 20
"""Bytes of audio that one event may bring."""
_DELTA_MS = 200


class Incoming:
    """The client's audio, as a stream to 48 kHz."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self._up = Interpolator(form.hz)
        self._odd = b""

    def pieces(self, audio: str) -> list[Samples]:
        """A piece in base64, as samples at the wire's rate, at most a second each. Raises `WireError`."""
        try:
            raw = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise WireError("Invalid 'audio': expected base64.", code="invalid_value", param="audio") from None
        if len(raw) > MAX_APPEND:
            raise WireError(f"'audio' is longer than {MAX_APPEND} bytes.", code="invalid_value", param="audio")
        samples = self._samples(raw)
        return [samples[at : at + self.form.hz] for at in range(0, samples.size, self.form.hz)]

    def up(self, samples: Samples) -> Samples:
        """A piece at 48 kHz. CPU work for more than a few frames."""
        return self._up.feed(samples)

    def _samples(self, raw: bytes) -> Samples:
        if (law := _LAWS.get(self.form.type)) is not None:
            return g711.decode(raw, law)
        raw = self._odd + raw
        whole = len(raw) & ~1
        self._odd = raw[whole:]
        samples: Samples = np.frombuffer(raw[:whole], dtype="<i2").astype(np.int16)
        return samples


def outgoing(samples: Samples, form: Format) -> Iterator[str]:
    """48 kHz samples of a clause as pieces in base64, 200 ms each. CPU work: call it in a thread."""
    raw = on_the_wire(resample(samples, RATE, form.hz), form)
    step = form.hz * _DELTA_MS // 1000 * (1 if form.type in _LAWS else 2)
    for at in range(0, len(raw), step):
        yield base64.b64encode(raw[at : at + step]).decode("ascii")


def on_the_wire(samples: Samples, form: Format) -> bytes:
    """Samples at the rate of `form`, in it."""
    law = _LAWS.get(form.type)
    return g711.encode(samples, law) if law is not None else samples.astype("<i2").tobytes()


def spoken_in(samples16: Samples) -> str:
    """16 kHz samples as the protocol's PCM in base64, for an item that is retrieved. CPU work."""
    return base64.b64encode(resample(samples16, 16_000, 24_000).astype("<i2").tobytes()).decode("ascii")
