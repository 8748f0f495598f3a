"""Opening hours: the spans of time in which a line is open, in the time of a place."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_HOUR = timedelta(hours=1)


class OpeningHours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a line is open.

    `timezone` is an IANA name (`Europe/Ljubljana`). `weekly` holds spans `["08:00", "16:00"]` by weekday (`mon` to
    `sun`); a span whose end is not later than its start runs into the next day, and `24:00` is the end of a day.
    `closed` are dates (`2026-12-25`) on which no span begins. Raises ValueError for anything else; whether the place is
    known says `zone`.
    """

    timezone: str
    weekly: dict[str, list[tuple[str, str]]] = {}
    closed: list[str] = []

    def __post_init__(self) -> None:
        for day, spans in self.weekly.items():
            if day not in WEEKDAYS:
                raise ValueError(f"`{day}` is no weekday: one of {', '.join(WEEKDAYS)}")
            for start, end in spans:
                if not _TIME.fullmatch(start) or not _TIME.fullmatch(end) or start == "24:00":
                    raise ValueError(f"`{start}`-`{end}` on {day} is no span of a day, such as 08:00-16:00")
        for day in self.closed:
            date.fromisoformat(day)


def zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises ValueError. Reads a file the first time: not for an event loop."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise ValueError(f"`{name}` is no time zone that this machine knows") from error


def spans(hours: OpeningHours, after_ms: int, *, days: int = 15) -> list[tuple[int, int]]:
    """The open spans `(from, to)` that end after a Unix time, over the next `days`; sorted, none touches the next.

    A local time that a clock change leaves out means the moment of the change; one that comes twice opens at the first
    and closes at the second.
    """
    place = zone(hours.timezone)
    first = datetime.fromtimestamp(after_ms / 1000, place).date() - timedelta(days=1)
    closed = set(hours.closed)
    found: list[tuple[int, int]] = []
    for offset in range(days + 2):
        day = first + timedelta(days=offset)
        if day.isoformat() in closed:
            continue
        for start, end in hours.weekly.get(WEEKDAYS[day.weekday()], ()):
            closes_on = day if end > start else day + timedelta(days=1)
            span = _moment(place, day, start, late=False), _moment(place, closes_on, end, late=True)
            if span[0] < span[1] and span[1] > after_ms:
                found.append(span)
    merged: list[tuple[int, int]] = []
    for from_ms, to_ms in sorted(found):
        if merged and from_ms <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], to_ms))
        else:
            merged.append((from_ms, to_ms))
    return merged


def offset_ms(timezone: str, at_ms: int) -> int:
    """What is added to a Unix time for the clock on the wall at that place."""
    offset = datetime.fromtimestamp(at_ms / 1000, zone(timezone)).utcoffset() or timedelta()
    return int(offset.total_seconds() * 1000)


def _moment(place: ZoneInfo, day: date, wall: str, *, late: bool) -> int:
    if wall == "24:00":
        day, wall = day + timedelta(days=1), "00:00"
    local = datetime(day.year, day.month, day.day, int(wall[:2]), int(wall[3:]), tzinfo=place)
    first, second = local.replace(fold=0).astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    if first > second:  # a time that the clocks skip
        return _ms(_change(place, second - _HOUR, first + _HOUR))
    return _ms(second if late else first)


def _change(place: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The second at which the place's offset changes between two moments."""
    old = before.astimezone(place).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, place).utcoffset() == old:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000
