"""How Twilio signs its requests: base64 of an HMAC, keyed by the account's auth token, over the URL that it called and
the parameters of the form, sorted by name and then value. (Twilio, "Webhooks security"; SHA-1, or SHA-256 where the
settings header of a shared key says so.)"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit, urlunsplit

SIGNATURE = "X-Twilio-Signature"
SIGNATURE_SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
_HASHES = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_PORTS = {"https": 443, "http": 80, "wss": 443, "ws": 80}

Pairs = Iterable[tuple[str, str]]


def signature(token: str, url: str, pairs: Pairs = (), algorithm: str = "HMAC_SHA1") -> str:
    """The signature of a request. Raises `KeyError` for an algorithm that Twilio does not have."""
    text = url + "".join(name + value for name, value in sorted(set(pairs)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), _HASHES[algorithm]).digest()).decode()


def genuine(token: str, urls: Sequence[str], pairs: Pairs, given: str, settings: str | None = None) -> bool:
    """Whether `given` is the signature of one of `urls`, each with and without its port: Twilio signs either."""
    algorithm = "HMAC_SHA1"
    for part in (settings or "").split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            algorithm = value.strip().upper()
    if algorithm not in _HASHES:
        return False
    pairs = tuple(pairs)
    found = False
    for form in {form for url in urls for form in _forms(url)}:  # all of them, so that the time tells nothing
        found |= hmac.compare_digest(
            signature(token, form, pairs, algorithm).encode(), given.encode("utf-8", "replace")
        )
    return found


def _forms(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    bare = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else host.partition(":")[0]
    port = parts.port or _PORTS.get(parts.scheme, 443)
    return urlunsplit(parts._replace(netloc=bare)), urlunsplit(parts._replace(netloc=f"{bare}:{port}"))
