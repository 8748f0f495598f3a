"""Opening hours: what is open when, over clock changes too, and what it means for the queue."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchroom.hours import WEEKDAYS, OpeningHours, offset_ms, spans, zone
from switchroom.queue import NewCall, Queue, Rules, State
from switchroom.store import Store

LJUBLJANA = "Europe/Ljubljana"


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def shown(found: list[tuple[int, int]], place: str = LJUBLJANA) -> list[tuple[str, str]]:
    return [
        tuple(datetime.fromtimestamp(end / 1000, ZoneInfo(place)).strftime("%m-%d %H:%M") for end in span)  # type: ignore[misc]
        for span in found
    ]


def test_a_week_with_a_lunch_break_and_a_holiday() -> None:
    hours = OpeningHours(
        timezone=LJUBLJANA,
        weekly={"thu": [("08:00", "12:00"), ("13:00", "16:00")], "fri": [("08:00", "16:00")]},
        closed=["2026-12-25"],
    )
    assert shown(spans(hours, at("2026-12-24T10:30:00+01:00"), days=9)) == [
        ("12-24 08:00", "12-24 12:00"),
        ("12-24 13:00", "12-24 16:00"),
        ("12-31 08:00", "12-31 12:00"),
        ("12-31 13:00", "12-31 16:00"),
        ("01-01 08:00", "01-01 16:00"),
    ]


def test_a_night_runs_into_the_next_day_and_touching_spans_are_one() -> None:
    hours = OpeningHours(
        timezone=LJUBLJANA, weekly={"fri": [("22:00", "06:00"), ("18:00", "22:00")], "sat": [("06:00", "24:00")]}
    )
    assert shown(spans(hours, at("2026-11-20T12:00:00+01:00"), days=3)) == [("11-20 18:00", "11-22 00:00")]


@pytest.mark.parametrize(
    ("day", "weekday", "span", "hours_open"),
    [
        ("2026-03-29", "sun", ("00:00", "24:00"), 23),  # the clocks skip 02:00 to 03:00
        ("2026-10-25", "sun", ("00:00", "24:00"), 25),  # 02:00 to 03:00 comes twice
        ("2026-03-29", "sun", ("01:00", "02:30"), 1),  # closes at a time that is left out: at the change
        ("2026-03-29", "sun", ("02:30", "04:00"), 1),  # opens at a time that is left out: at the change
        ("2026-10-25", "sun", ("02:30", "04:00"), 2.5),  # opens at the first half past two
        ("2026-10-25", "sun", ("01:00", "02:30"), 2.5),  # closes at the second half past two
    ],
)
def test_clock_changes(day: str, weekday: str, span: tuple[str, str], hours_open: float) -> None:
    hours = OpeningHours(timezone=LJUBLJANA, weekly={weekday: [span]})
    (found,) = spans(hours, at(f"{day}T00:00:00+00:00") - 3_600_000, days=2)
    assert (found[1] - found[0]) / 3_600_000 == hours_open


def test_a_span_within_the_skipped_hour_is_none() -> None:
    hours = OpeningHours(timezone=LJUBLJANA, weekly={"sun": [("02:10", "02:50")]})
    assert spans(hours, at("2026-03-28T12:00:00+00:00"), days=3) == []


def test_the_offset_is_that_of_the_moment() -> None:
    assert offset_ms(LJUBLJANA, at("2026-07-01T12:00:00+00:00")) == 7_200_000
    assert offset_ms(LJUBLJANA, at("2026-12-01T12:00:00+00:00")) == 3_600_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"timezone": LJUBLJANA, "weekly": {"monday": []}},
        {"timezone": LJUBLJANA, "weekly": {"mon": [["8:00", "16:00"]]}},
        {"timezone": LJUBLJANA, "weekly": {"mon": [["24:00", "06:00"]]}},
        {"timezone": LJUBLJANA, "closed": ["25.12.2026"]},
        {"weekly": {}},
    ],
)
def test_what_is_no_opening_hours_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, OpeningHours)


@pytest.mark.parametrize("name", ["Atlantis/Capital", "../../etc/passwd", ""])
def test_an_unknown_place_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)


WALL = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
HOURS = st.builds(
    OpeningHours,
    timezone=st.sampled_from([LJUBLJANA, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    weekly=st.dictionaries(st.sampled_from(WEEKDAYS), st.lists(st.tuples(WALL, WALL), max_size=3)),
)


def open_by_the_wall_clock(hours: OpeningHours, moment: datetime) -> bool:
    """The plain meaning: does the clock on the wall show a time within a span of its day, or of a night before?"""
    for back in (0, 1):
        day = moment.date() - timedelta(days=back)
        for start, end in hours.weekly.get(WEEKDAYS[day.weekday()], ()):
            wall = moment.strftime("%H:%M")
            if back == 0 and start <= wall and (wall < end or end <= start):
                return True
            if back == 1 and end <= start and wall < end:
                return True
    return False


@given(hours=HOURS, start=st.integers(1_700_000_000, 1_900_000_000), after=st.integers(0, 9 * 86_400))
def test_open_means_what_the_clock_on_the_wall_says(hours: OpeningHours, start: int, after: int) -> None:
    found = spans(hours, start * 1000, days=15)
    assert all(one < two for one, two in found)
    assert all(one[1] < two[0] for one, two in pairwise(found))
    assert all(end > start * 1000 for _, end in found)
    moment = datetime.fromtimestamp(start + after, ZoneInfo(hours.timezone))
    changes = {(moment + timedelta(days=days)).utcoffset() for days in (-1.5, 0, 1.5)}
    if len(changes) == 1:  # around a clock change the examples above say what holds
        inside = any(one <= (start + after) * 1000 < two for one, two in found)
        assert inside == open_by_the_wall_clock(hours, moment)


def hours_around(now: datetime, opens_in: timedelta) -> OpeningHours:
    """Opens at a full minute: the tests below move the written spans instead of waiting for it."""
    start = (now + opens_in).replace(second=0, microsecond=0)
    return OpeningHours(
        timezone="UTC",
        weekly={WEEKDAYS[start.weekday()]: [(start.strftime("%H:%M"), (start + timedelta(hours=1)).strftime("%H:%M"))]},
    )


async def test_outside_its_hours_a_flow_accepts_and_hands_nothing_out(store: Store) -> None:
    queue = Queue(store)
    now = datetime.now(UTC)
    await queue.configure("night", Rules(hours=hours_around(now, timedelta(hours=3))))
    accepted = await queue.enqueue("night", NewCall(form={"ID": "a"}), Rules())
    assert (accepted.state, accepted.position) == (State.PENDING, 1)
    assert 1.9 * 3_600_000 < accepted.estimate_ms <= 3 * 3_600_000
    assert await queue.claim("night", "w") == []
    status = await queue.status("night")
    assert (status.open, status.pending_count) == (False, 1)
    assert status.opens_at_ms == accepted.estimate_ms + status.now_ms or status.opens_at_ms > status.now_ms
    # Its caller waits from the opening on: the night is no waiting time.
    assert (await queue.detail("night", accepted.task_id)).call.waiting_since_ms == status.opens_at_ms
    await queue.configure("night", Rules(hours=None))
    assert (await queue.status("night")).open
    assert len(await queue.claim("night", "w")) == 1


async def test_the_opening_itself_wakes_a_holder(store: Store) -> None:
    queue = Queue(store)
    await queue.configure("night", Rules(hours=hours_around(datetime.now(UTC), timedelta(hours=3))))
    await queue.enqueue("night", NewCall(form={"ID": "a"}), Rules())
    waiter = asyncio.create_task(queue.wait_claim("w", "night", timeout_s=5))
    await asyncio.sleep(0.05)
    assert not waiter.done()
    opens = int(time.time() * 1000) + 50
    await store.call("HSET", "sr:{night}:conf", "open", f"{opens}-{opens + 60_000}")
    await asyncio.sleep(0.06)
    await queue.tick("night")  # housekeeping does it each second
    assert len(await waiter) == 1
    await queue.close()
    assert (await queue.status("night")).open


async def test_a_flow_that_never_opens_is_closed_and_says_no_time(store: Store) -> None:
    queue = Queue(store)
    await queue.configure("never", Rules(hours=OpeningHours(timezone="UTC")))
    await queue.enqueue("never", NewCall(form={"ID": "a"}), Rules())
    status = await queue.status("never")
    assert (status.open, status.opens_at_ms) == (False, 0)
    assert await queue.claim("never", "w") == []
