"""Fill patterns: the 8-byte words that same-filled pages repeat.

Owns the pattern table and the count of pages on each pattern. Never sees a descriptor.
Always holds: an entry that a descriptor refers to does not change; index 0 is the zero pattern.

    word 0      entries ever used, this one included (pattern 0 is zero by definition, so its
                place is free for the count; 0 and 1 both mean none)
    word i      pattern i

Order of an update: entry, count, then (by the caller) the descriptor. Pages that repeat one
machine word are what the kernel's zswap and zram look for; measured there at 5 to 20 % of pages.
"""

from collections import Counter
from typing import Final

from vswapfs.core.buffers import PATTERN_COUNT_MAX
from vswapfs.units import PAGE_BYTES

PATTERN_BYTES: Final = 8
_REPEATS: Final = PAGE_BYTES // PATTERN_BYTES
ZERO_PAGE: Final = bytes(PAGE_BYTES)
ZERO: Final = 0


def pattern_of(data: bytes) -> bytes | None:
    """The 8 bytes that a page of 4096 bytes repeats, or None."""
    pattern = data[:PATTERN_BYTES]
    return pattern if data == pattern * _REPEATS else None


class FillPatterns:
    """The pattern table over its flat buffer, with reference counts that are derived."""

    def __init__(self, view: memoryview) -> None:
        self._words = view.cast("Q")
        self._indexes: dict[int, int] = {}
        self._pages: Counter[int] = Counter()
        self._free: list[int] = []
        self._held = range(0)

    @property
    def used_count(self) -> int:
        """Entries of the table in use, the count word included."""
        return max(self._words[0], 1)

    def pages(self, index: int) -> int:
        """How many descriptors refer to the pattern."""
        return self._pages[index]

    @property
    def distinct_count(self) -> int:
        """Patterns other than zero that at least one page repeats."""
        return len(self._indexes)

    @property
    def page_count(self) -> int:
        """Pages on all patterns, zero included."""
        return self._pages.total()

    def begin_recount(self) -> None:
        """A predecessor left the table: hold a reference on each entry until pages are counted."""
        self._held = range(1, self.used_count)
        self._pages = Counter(self._held)
        self._free = []
        self._indexes = {self._words[index]: index for index in self._held}

    def count(self, index: int) -> None:
        """A page on the pattern was found."""
        self._pages[index] += 1

    def end_recount(self) -> None:
        """All pages are counted: entries without any are free."""
        self._pages -= Counter(self._held)
        self._free = [
            index for index in reversed(range(1, self.used_count)) if not self._pages[index]
        ]
        self._indexes = {
            self._words[index]: index for index in range(1, self.used_count) if self._pages[index]
        }
        self._held = range(0)

    def acquire(self, pattern: bytes) -> int | None:
        """Return the index of the pattern for one more page, or None when the table is full."""
        value = int.from_bytes(pattern, "little")
        if value == 0:
            index = ZERO
        else:
            found = self._indexes.get(value)
            if found is None:
                found = self._add(value)
                if found is None:
                    return None
            index = found
        self._pages[index] += 1
        return index

    def _add(self, value: int) -> int | None:
        if self._free:
            index = self._free.pop()
            self._words[index] = value
        else:
            index = self.used_count
            if index == PATTERN_COUNT_MAX:
                return None
            self._words[index] = value
            self._words[0] = index + 1
        self._indexes[value] = index
        return index

    def drop(self, index: int) -> None:
        """One page fewer on the pattern; its entry may be used again when none is left.

        Raises IndexError if there is no page on it.
        """
        if not self._pages[index]:
            raise IndexError(index)
        self._pages[index] -= 1
        if self._pages[index] == 0:
            del self._pages[index]
            if index != ZERO:
                value = self._words[index]
                # A free entry keeps its pattern, and a recount may have found it before another.
                if self._indexes.get(value) == index:
                    del self._indexes[value]
                self._free.append(index)

    def value(self, index: int) -> int:
        """The pattern as a little-endian number."""
        return 0 if index == ZERO else self._words[index]

    def page(self, index: int) -> bytes:
        """The page of 4096 bytes that repeats the pattern. Raises IndexError if there is none."""
        if index == ZERO:
            return ZERO_PAGE
        if index >= self._words[0]:
            raise IndexError(index)
        return self._words[index].to_bytes(PATTERN_BYTES, "little") * _REPEATS
