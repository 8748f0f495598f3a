"""Credentials never stand in a compact graph: they are found by the name of their field and by their look."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

__all__ = ["is_secret_name", "scrub_pairs", "scrub_text"]

_NAME = re.compile(
    r"(credential|api[-_ ]?key|secret|passw(or)?d|passphrase|private[-_ ]?key"
    r"|(access|auth|bearer|refresh|session)[-_ ]?token"
    r"|^token$|connection[-_ ]?string|^authorization$|^proxy-authorization$|^cookie$|^x-api-key$)",
    re.I,
)
_LOOK = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_-]{30,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
_HINTS = ("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "AKIA", "AIza", "eyJ", "-----BEGIN ")
"""One of them stands in every text that `_LOOK` finds anything in: most texts are so let through at once."""
_SHORTEST = 15
"""No text of fewer characters has anything that `_LOOK` finds."""
_USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@:{}]+(?::[^\s/@{}]*)?@", re.I)
_VARIABLE = re.compile(r"^\s*(?:(?:Bearer|Basic|Token)\s+)?\{\{[^{}]+\}\}\s*$", re.I)


def is_secret_name(name: str, value: object) -> bool:
    """Whether a field's value must be left out. What only names a variable (`{{$vars.KEY}}`) may stay, and so may true,
    false and numbers."""
    if not isinstance(value, str):
        return False
    # Field names are few and short; a longer one is not worth a place in the cache.
    secret = _is_secret(name) if len(name) <= 64 else bool(_NAME.search(name))
    return secret and not _VARIABLE.match(value)


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None


def scrub_text(text: str) -> str:
    """The text without what looks like a key, a token or a URL's user and password."""
    if "://" in text and "@" in text:
        text = _USERINFO.sub(r"\1", text)
    if len(text) < _SHORTEST or not any(hint in text for hint in _HINTS):
        return text
    return _LOOK.sub("", text)


def scrub_pairs(value: Any) -> Any:
    """A row of key and value (a header, a query parameter): a secret's row keeps its key and loses its value."""
    if isinstance(value, dict):
        name = next((value[key] for key in ("key", "name", "inputArgName", "variableName") if key in value), None)
        if isinstance(name, str):
            return {
                key: item
                for key, item in value.items()
                if not (key in ("value", "inputArgValue", "variableValue") and is_secret_name(name, item))
            }
    return value
