"""Live calls: transports, voice engines, turn taking, the recorder, and the media process that carries them."""

from switchroom.realtime.settings import IceServer, MediaSettings
from switchroom.realtime.signalling import Answer, SignalClient

__all__ = ["Answer", "IceServer", "MediaSettings", "SignalClient"]
