"""Putting a stream of RTP packets in order: a pure algorithm, time is passed in.

A machine that listens needs no steady clock, so what is in order is handed on at once: a clean path adds nothing.
Only a gap waits. The wait begins at two frames and follows the path: a packet that comes later than that, or just in
time, makes the next gaps wait longer; it falls back with a half-life of about fifteen seconds. Every slot of the
sender's clock is handed on exactly once, as a packet, as a loss to conceal, or as silence that was not sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

FRAME_S = 0.02
LEAST_WAIT_S = 2 * FRAME_S
MOST_WAIT_S = 10 * FRAME_S
STALL_S = 0.2
"""Without any packet for so long the stream goes on without them, in real time."""
_CAPACITY = 64
_JUMP = 1_000
"""Packets; a larger step in the numbers is another stream."""
_MARGIN = 1.25
_FORGET = 0.999
_REMEMBERED = 32
_MOST_FILLED = 50
"""Slots that one gap may fill: a second. A longer one is a new beginning."""


class Slot(NamedTuple):
    """A piece of the stream. `packet` None: it is to be concealed, `samples` of the RTP clock long; `following` is the
    packet after the gap, which may hold a copy. `sent` False: the sender left it out on purpose (silence)."""

    packet: bytes | None
    samples: int
    following: bytes | None = None
    sent: bool = True


class _Packet(NamedTuple):
    number: int
    timestamp: int
    payload: bytes
    audio: bool = True


class JitterBuffer:
    """One stream. `samples_of(payload)` is a packet's length in samples of the RTP clock (0: broken)."""

    def __init__(self, samples_of: Callable[[bytes], int], frame: int) -> None:
        self._samples_of = samples_of
        self._frame = frame
        self._waiting: dict[int, _Packet] = {}
        self._next: int | None = None
        self._timestamp = 0
        self._gap_since: float | None = None
        self._given_up: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        """Numbers that were not waited for any longer, and since when they had been missed."""
        self._lateness = 0.0
        self._last_s = 0.0
        self._ahead = 0
        """Samples that were handed on while nothing came: the stream's clock has run so far ahead."""
        self.received = self.late = self.duplicates = self.lost = self.reordered = self.resets = 0

    @property
    def wait_s(self) -> float:
        """How long a gap is waited for now."""
        return min(MOST_WAIT_S, max(LEAST_WAIT_S, self._lateness * _MARGIN))

    def put(self, number: int, timestamp: int, payload: bytes, now: float) -> list[Slot]:
        """A packet came: its 16-bit number, its 32-bit timestamp. Returns what can be handed on now, in order."""
        self.received += 1
        self._lateness *= _FORGET
        if self._next is None:
            self._begin(number, timestamp)
        assert self._next is not None
        number = self._next + _signed(number - self._next, 16)
        timestamp = self._timestamp + _signed(timestamp - self._timestamp, 32)
        if abs(number - self._next) > _JUMP or abs(timestamp - self._timestamp) > _JUMP * self._frame:
            self.resets += 1
            self._begin(number, timestamp)
        if number < self._next:
            self._came_late(number, now)
            return []
        if number in self._waiting:
            self.duplicates += 1
            return []
        self._waiting[number] = _Packet(number, timestamp, payload)
        if self._gap_since is not None and number < max(self._waiting):
            self.reordered += 1
            self._lateness = max(self._lateness, now - self._gap_since)
        return self._drain(now)

    def pass_over(self, number: int, now: float) -> list[Slot]:
        """A packet of the stream that is no audio came: its number is not to be missed."""
        if self._next is None:
            return []
        number = self._next + _signed(number - self._next, 16)
        if not 0 <= number - self._next <= _JUMP or number in self._waiting:
            return []
        self._waiting[number] = _Packet(number, self._timestamp, b"", audio=False)
        return self._drain(now)

    def poll(self, now: float) -> list[Slot]:
        """To be called every 20 ms: what is not waited for any longer."""
        if self._next is None:
            return []
        if self._waiting:
            return self._drain(now)
        slots: list[Slot] = []
        while now - self._last_s > STALL_S and len(slots) < _MOST_FILLED:
            self._last_s += FRAME_S
            self._ahead += self._frame
            slots.append(Slot(None, self._frame))
        return slots

    def _begin(self, number: int, timestamp: int) -> None:
        self._next, self._timestamp = number, timestamp
        self._waiting.clear()
        self._given_up.clear()
        self._gap_since = None
        self._ahead = 0

    def _drain(self, now: float) -> list[Slot]:
        slots: list[Slot] = []
        assert self._next is not None
        while self._waiting:
            packet = self._waiting.pop(self._next, None)
            if packet is None:
                if self._gap_since is None:
                    self._gap_since = now
                if now - self._gap_since < self.wait_s and len(self._waiting) < _CAPACITY:
                    break
                self._give_up(slots)
                continue
            self._gap_since = None
            self._hand_on(packet, slots, now)
        return slots

    def _give_up(self, slots: list[Slot]) -> None:
        """Everything up to the first packet that is there counts as lost."""
        assert self._next is not None and self._gap_since is not None
        first = self._waiting[min(self._waiting)]
        missing = first.number - self._next
        for number in range(max(self._next, first.number - _REMEMBERED), first.number):
            self._given_up.append((number, self._gap_since))
        self.lost += missing
        samples = max(0, first.timestamp - self._timestamp)
        filled = min(missing, _MOST_FILLED)
        each = samples // missing or self._frame
        for left in range(filled, 0, -1):
            self._fill(slots, each, first.payload if left == 1 else None, sent=True)
        self._next, self._timestamp = first.number, self._timestamp + each * missing
        self._gap_since = None

    def _hand_on(self, packet: _Packet, slots: list[Slot], now: float) -> None:
        if not packet.audio:
            self._next = packet.number + 1
            return
        left_out = packet.timestamp - self._timestamp
        while left_out >= self._frame and len(slots) < _MOST_FILLED:
            self._fill(slots, self._frame, None, sent=False)
            left_out -= self._frame
        samples = self._samples_of(packet.payload)
        if samples and self._ahead >= samples:
            self._ahead -= samples  # its time was filled already while nothing came
            self.late += 1
        elif samples:
            slots.append(Slot(packet.payload, samples))
        self._next = packet.number + 1
        self._timestamp = packet.timestamp + samples
        self._last_s = now

    def _fill(self, slots: list[Slot], samples: int, following: bytes | None, *, sent: bool) -> None:
        if self._ahead >= samples:
            self._ahead -= samples
        else:
            slots.append(Slot(None, samples, following, sent))

    def _came_late(self, number: int, now: float) -> None:
        for missed, since in self._given_up:
            if missed == number:
                self.late += 1
                self._lateness = max(self._lateness, now - since)
                return
        self.duplicates += 1


def _signed(difference: int, bits: int) -> int:
    """A difference of two counters that wrap, as the shorter way."""
    half = 1 << (bits - 1)
    return ((difference + half) & ((1 << bits) - 1)) - half
