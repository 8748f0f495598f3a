"""ICE servers as they are given out: with credentials of a limited time where a TURN server shares a secret with us.

The user name is the Unix time of its end and a name, the password base64 of its HMAC-SHA1 under the secret
(draft-uberti-behave-turn-rest-00; coturn's `use-auth-secret`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence

from switchroom.realtime.settings import IceServer


def usable(servers: Sequence[IceServer], who: str, now_s: float | None = None) -> list[IceServer]:
    """`servers` with the credentials that `who` (an ID without a colon) can use from now on."""
    return [_with_credentials(server, who, time.time() if now_s is None else now_s) for server in servers]


def _with_credentials(server: IceServer, who: str, now_s: float) -> IceServer:
    if server.secret is None:
        return server
    username = f"{int(now_s + server.credential_s)}:{who}"
    digest = hmac.new(server.secret.get_secret_value().encode(), username.encode(), hashlib.sha1).digest()
    return IceServer(urls=server.urls, username=username, credential=base64.b64encode(digest).decode())
