"""What can be set while an instance is up.

Owns the messages, and the defaults and limits of the values that are numbers. The keys are those
fields of message.Config that can change; a value has the type and the meaning that it has there.
"""

from typing import Final, NamedTuple

import msgspec


class Number(NamedTuple):
    default: int
    least: int
    most: int

    @property
    def span(self) -> str:
        """The limits, in words."""
        return f"{self.least} to {self.most}"

    @property
    def rule(self) -> str:
        return f"a whole number from {self.span}"

    def allows(self, value: int) -> bool:
        return self.least <= value <= self.most


WRITEBACK_START_PCT: Final = Number(90, 2, 100)
WRITEBACK_STOP_PCT: Final = Number(80, 1, 99)
"""Writeback starts when this share of the pool limit is used, and stops below the other:
hysteresis, so that the disk is written in runs and not a segment at a time."""

POLLING_WINDOW_US: Final = Number(200, 0, 10_000)
"""How long the lane polls for the next request before it sleeps (200 is KVM's default for
halt_poll_ns); a task that swaps at random comes back within 10 to 60 us. 0: not at all."""

RECOMPRESS_LEVEL: Final = Number(4, 3, 12)
"""Of LZ4 HC. At 4 payloads are 7 to 17 % shorter than those of the fast compressor, at 20 to 40 us
a page; 9 wins another 0 to 3 % for half as much time again (tools/bench recompress)."""

LOG_LEVELS: Final = ("info", "warning", "error")

Value = int | str | bool | None


class AskSet(msgspec.Struct, tag="set"):
    """Answered with Changed; it is in force then, and a successor will know it."""

    key: str
    value: Value


class Changed(msgspec.Struct, tag="changed"):
    old: Value
    new: Value
