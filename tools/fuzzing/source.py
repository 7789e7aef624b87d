"""Decisions drawn from a fuzzer's bytes, in their order.

Owns how bytes become numbers and choices. Never random: the same bytes are the same decisions. When
the bytes have run out, every draw is 0, the first choice, or empty, so that short inputs are whole.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")

EDGES: Final = (
    0, 1, 2, 7, 8, 9, 15, 16, 39, 40, 41, 59, 60, 63, 64, 65, 79, 80, 127, 255, 256, 511, 512,
    4095, 4096, 4097, 65535, 65536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 1 << 22, 1 << 23,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Where programs go wrong."""


class Source:
    """Reads from the front; ``is_empty`` when there is nothing left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """So many bytes, or as many as are left."""
        found = self._data[self._at : self._at + count]
        self._at += len(found)
        return found

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def byte(self) -> int:
        found = self.take(1)
        return found[0] if found else 0

    def number(self, least: int, most: int) -> int:
        """A number of that range, the ends included."""
        span = most - least + 1
        width = ((span - 1).bit_length() + 7) // 8
        return least + int.from_bytes(self.take(width), "little") % span

    def edge(self, most: int) -> int:
        """A number from 0 to ``most`` that is likely to be where rules change."""
        draw = self.byte()
        if draw < len(EDGES):
            return min(EDGES[draw], most)
        return self.number(0, most)

    def choice(self, choices: Sequence[_T]) -> _T:
        return choices[self.number(0, len(choices) - 1)]

    def one_in(self, count: int) -> bool:
        """Rarely true, and never when the bytes have run out."""
        return self.byte() % count == 1
