"""The store: a connection that batches, the embedded server, key names, scripts, blobs."""

from switchroom.store.blobs import Blobs
from switchroom.store.embedded import EmbeddedServer
from switchroom.store.script import Library, Script
from switchroom.store.seal import SealBroken, Sealer
from switchroom.store.store import Store

__all__ = ["Blobs", "EmbeddedServer", "Library", "Script", "SealBroken", "Sealer", "Store"]
