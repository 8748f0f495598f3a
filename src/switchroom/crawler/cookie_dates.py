"""When a cookie expires, from every number and date that browsers and exporters write. Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

MAX_AGE_S = 400 * 86_400
"""Chromium's longest life of a cookie; more is clamped to it."""

_WINDOWS_EPOCH_S = 11_644_473_600  # 1601-01-01 to 1970-01-01
_FAR = 1 << 80  # beyond every unit; an integer of JSON may be too large for a float
_JSON_NET = re.compile(r"^\\?/Date\((-?\d{1,17})([+-]\d{4})?\)\\?/$")
_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d+)?")
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?\s*(Z|[+-]\d\d:?\d\d)?|(\d{4})-(\d\d)-(\d\d)",
    re.IGNORECASE,
)
_US = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d\d):(\d\d)\s*(AM|PM)?", re.IGNORECASE)


class UnreadableDate(Exception):
    """The expiry does not let the cookie live: `expired` tells a past date from one that cannot be read."""

    def __init__(self, words: str, *, expired: bool) -> None:
        super().__init__(words)
        self.expired = expired


def expiry_of(value: Any, now_s: float) -> float | None:
    """Unix seconds at which the cookie ends, None for a session cookie; clamped to 400 days from `now_s`.

    Numbers: seconds; above 253402300799 milliseconds; above 1e14 microseconds; above 1e16 microseconds since 1601
    (Chrome's database). Zero, negative, null, false and the year 1 mean a session cookie. A parsed date is taken as it
    stands, without a guess at its unit. Raises `UnreadableDate` for a date in the past or one that cannot be read.
    """
    if value is None or isinstance(value, bool) or value == "":
        return None
    if isinstance(value, int | float):
        return _checked(_from_number(float(max(min(value, _FAR), -1))), now_s)
    if not isinstance(value, str):
        raise UnreadableDate("its expiry is neither a number nor a date", expired=False)
    return _checked(_from_text(value.strip()), now_s)


def _checked(at_s: float | None, now_s: float) -> float | None:
    if at_s is None:
        return None
    if at_s <= now_s:
        raise UnreadableDate("expired", expired=True)
    return min(at_s, now_s + MAX_AGE_S)


def _from_number(number: float) -> float | None:
    if math.isnan(number) or number <= 0:
        return None
    if number > 1e16:
        return number / 1e6 - _WINDOWS_EPOCH_S
    if number > 1e14:
        return number / 1e6
    if number > 253402300799:
        return number / 1000
    return number


@lru_cache(maxsize=1024)
def _from_text(text: str) -> float | None:
    if text.lower() in ("", "session", "null", "none", "0", "-1", "nan"):
        return None
    if _NUMBER.fullmatch(text):
        return _from_number(float(text))
    if found := _JSON_NET.match(text):
        millis = int(found[1])
        return None if millis <= 0 else millis / 1000
    try:
        when = _parse(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        when = None
    if when is None:
        raise UnreadableDate("its expiry is not a date that can be read", expired=False)
    if when.year <= 1:
        return None
    return (
        (when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
        if when.year < 9999
        else 253402300799.0
    )


def _parse(text: str) -> datetime | None:
    if found := _ISO.fullmatch(text):
        if found[8]:
            return datetime(int(found[8]), int(found[9]), int(found[10]), tzinfo=UTC)
        parts = [int(found[i] or 0) for i in range(1, 7)]
        return datetime(*parts[:6], tzinfo=_zone(found[7]))  # type: ignore[misc,arg-type]
    if found := _US.fullmatch(text):  # .NET's invariant culture, month first
        month, day, year, hour, minute, second = (int(found[i]) for i in range(1, 7))
        if found[7]:
            hour = hour % 12 + (12 if found[7].upper() == "PM" else 0)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    # RFC 1123, RFC 850 and Netscape's dashes: "Wed, 09-Jun-2027 10:18:14 GMT"
    when = parsedate_to_datetime(re.sub(r"(?<=\d)-(?=[A-Za-z]{3})|(?<=[A-Za-z]{3})-(?=\d)", " ", text))
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _zone(text: str | None) -> timezone:
    if text is None or text.upper() == "Z":
        return UTC
    digits = text.replace(":", "")
    return timezone((1 if digits[0] == "+" else -1) * timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5])))
