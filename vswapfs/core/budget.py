"""The write budget: so many bytes a day to the tiers, for flash that wears out.

Owns the arithmetic. The clock comes in as an argument. Always holds: from the first write of a day
on no more than the budget is allowed until 24 hours later, when the next day begins (so across the
end of one it can be two budgets). Across restarts too, because bytes are charged in advance, a
chunk at a time, and the charge is what gets saved (up to the milliseconds that saving takes).
"""

from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400
CHUNK_BYTES: Final = 64 << 20


@dataclass(slots=True)
class Budget:
    """``spent_bytes`` is what is saved: charged, though part of a chunk may not be written yet."""

    bytes_per_day: int
    window_start_s: int
    spent_bytes: int
    charged_ahead_bytes: int = 0

    def left_bytes(self, now_s: int) -> int:
        """What may still be written in this window."""
        self._turn(now_s)
        return max(0, self.bytes_per_day - self.spent_bytes) + self.charged_ahead_bytes

    def may_allow(self, most_bytes: int, now_s: int) -> bool:
        """Whether a write of at most that size would be allowed for sure, or none ever is."""
        return self.left_bytes(now_s) >= min(most_bytes, self.bytes_per_day)

    def charge(self, size_bytes: int, now_s: int) -> bool:
        """Allow a write of that size, or not. ``spent_bytes`` may have changed: save it."""
        if self.left_bytes(now_s) < size_bytes:
            return False
        if self.charged_ahead_bytes < size_bytes:
            chunk = min(max(CHUNK_BYTES, size_bytes), self.bytes_per_day - self.spent_bytes)
            self.spent_bytes += chunk
            self.charged_ahead_bytes += chunk
        self.charged_ahead_bytes -= size_bytes
        return True

    def refund(self, size_bytes: int, window_start_s: int) -> None:
        """A write that was allowed in that window did not happen."""
        if window_start_s == self.window_start_s:
            self.charged_ahead_bytes += size_bytes

    def _turn(self, now_s: int) -> None:
        # Also when the date went back since it was saved: a new window rather than none for years.
        if not self.window_start_s <= now_s < self.window_start_s + DAY_S:
            self.window_start_s = now_s
            self.spent_bytes = 0
            self.charged_ahead_bytes = 0
