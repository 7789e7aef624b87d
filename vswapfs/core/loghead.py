"""A log head: the one open segment to which records of a kind are appended.

Owns the HEAD word. Always holds: every byte of the open segment below the position belongs to a
whole record, except perhaps the last reservation; a descriptor never points beyond the position.

    HEAD word   open bit 0, length of the last reservation bits 1-13, position bits 14-34,
                segment bits 35-63; 0 when no segment is open

The bump pointer is the whole allocator. The word keeps the length of the last reservation so that
a successor finds the one record that may be unfinished, and takes it back.
"""

from typing import Final

from vswapfs.core.descriptor import stored
from vswapfs.core.segment import OPEN, SegmentTable
from vswapfs.format.record import HEADER, sequence_binding
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

COMPRESSED: Final = 0
INCOMPRESSIBLE: Final = 1
SURVIVORS: Final = 2

_LAST_SHIFT: Final = 1
_LAST_MASK: Final = 0x1FFF
_POSITION_SHIFT: Final = 14
_POSITION_MASK: Final = 0x1F_FFFF
_SEGMENT_SHIFT: Final = 35


class LogHead:
    """One head over its word. ``segment`` is -1 when none is open; ``base`` is its pool byte, and
    ``binding`` what its sequence binds checksums with."""

    __slots__ = (
        "_limit",
        "_open_word",
        "_segments",
        "_words",
        "base",
        "binding",
        "index",
        "position",
        "segment",
    )

    def __init__(
        self, index: int, words: memoryview, segments: SegmentTable, fill_max_bytes: int
    ) -> None:
        self.index = index
        self._words = words
        self._segments = segments
        self._limit = fill_max_bytes
        word = words[index]
        segment = word >> _SEGMENT_SHIFT
        # A head that still names a segment which is no longer open was interrupted while closing.
        if word & 1 and segments.state(segment) == OPEN:
            self._attach(segment)
            self.position = word >> _POSITION_SHIFT & _POSITION_MASK
        else:
            words[index] = 0
            self._attach(-1)

    def _attach(self, segment: int) -> None:
        self.segment = segment
        if segment < 0:
            # Nothing fits a head without a segment, so that reserve needs no second test.
            self.base = 0
            self.binding = 0
            self.position = self._limit
            self._open_word = 0
        else:
            self.base = self._segments.base(segment)
            self.binding = sequence_binding(self._segments.sequence(segment))
            self.position = SEGMENT_HEADER_BYTES
            self._open_word = segment << _SEGMENT_SHIFT | 1

    def reserve(self, length_bytes: int) -> int:
        """Move the head on by a record and return the record's offset in the segment, or -1.

        Step one of a store: the space is reserved before a byte is written to it.
        """
        position = self.position
        end = position + length_bytes
        if end > self._limit:
            return -1
        self._words[self.index] = (
            self._open_word | end << _POSITION_SHIFT | length_bytes << _LAST_SHIFT
        )
        self.position = end
        return position

    @property
    def room_bytes(self) -> int:
        """What still fits the open segment; 0 when none is open."""
        return self._limit - self.position

    def open(self, *, reserve: bool) -> None:
        """Open the next segment; the head must be closed. Raises PoolFullError."""
        segment = self._segments.open(self.index, reserve=reserve)
        self._attach(segment)
        self._words[self.index] = self._open_word | self.position << _POSITION_SHIFT

    def close(self) -> None:
        """Seal the open segment, if there is one."""
        if self.segment >= 0:
            # The table first: it keeps how far the segment is filled, which a successor needs.
            self._segments.seal(self.segment, self.position)
            self._words[self.index] = 0
            self._attach(-1)

    def take_back_unfinished(self, words: memoryview, page_count: int, pool: memoryview) -> None:
        """Undo the last reservation, unless it became a page: a predecessor may have died before.

        The record says which page that would be. While it was written it may say anything, but
        then no descriptor points to it.
        """
        length_bytes = self._words[self.index] >> _LAST_SHIFT & _LAST_MASK
        if self.segment < 0 or not length_bytes:
            return
        offset_bytes = self.position - length_bytes
        _checksum, page, _tag = HEADER.unpack_from(pool, self.base + offset_bytes)
        if page >= page_count or words[page] != stored(self.segment, offset_bytes, length_bytes):
            self.position = offset_bytes
            self._words[self.index] = self._open_word | offset_bytes << _POSITION_SHIFT
