"""Digits typed on a phone, collected into one turn."""

from __future__ import annotations


class Keypad:
    """`end` finishes the input at once and is not part of it ("" for none); else it ends `timeout_s` after the last
    digit, or with the `most`-th one (0: any number). Pure: times are monotonic seconds that the caller gives."""

    def __init__(self, *, end: str = "#", timeout_s: float = 3.0, most: int = 0) -> None:
        self._end = end
        self._timeout_s = timeout_s
        self._most = most
        self._digits = ""
        self.due: float | None = None
        """When what was typed is a turn; None while nothing was."""

    def press(self, digit: str, now: float) -> str | None:
        """One of `0-9*#A-D`. The whole input, where this ends it; "" where there was none to end."""
        if self._end and digit == self._end:
            return self.take()
        self._digits += digit
        self.due = now + self._timeout_s
        return self.take() if self._most and len(self._digits) >= self._most else None

    def take(self) -> str:
        """What was typed; the next digit begins anew."""
        digits, self._digits, self.due = self._digits, "", None
        return digits
