"""The cleaner: copies the live records of a segment to the survivor head and frees the segment.

Owns the choice of the victim (by policy.score) and the walk through it, which can stop after any
record and go on later. Never changes a record; it is copied as it is, checksum and all.

The guarantee of the reserve: stores leave RESERVE_SEGMENTS (1) segments free; the survivors of one
victim are at most what fits one segment, and nothing but the cleaner appends to the survivor
head, so a victim needs at most one new segment until it is freed itself. A victim that was begun
can therefore always be finished, at any fill of the pool, and after it the reserve is whole again.
"""

from typing import Final

from vswapfs.core import policy
from vswapfs.core.buffers import Geometry
from vswapfs.core.descriptor import (
    LENGTH_SHIFT,
    OFFSET_SHIFT,
    SEGMENT_SHIFT,
    STORED,
)
from vswapfs.core.loghead import LogHead
from vswapfs.core.segment import SEALED, SegmentTable
from vswapfs.format.record import (
    CODEC_HOLE,
    CODEC_NONE,
    CODEC_SHIFT,
    HEADER,
    HEADER_BYTES,
    LENGTH_MASK,
)

_SCAN_SEGMENTS: Final = 16  # segments scored in the time that one record takes to copy


class Cleaner:
    """Cleans in steps. ``victim`` is the segment being cleaned, or -1."""

    def __init__(
        self,
        geometry: Geometry,
        words: memoryview,
        pool: memoryview,
        segments: SegmentTable,
        survivors: LogHead,
    ) -> None:
        self._geometry = geometry
        self._words = words
        self._pool = pool
        self._segments = segments
        self._head = survivors
        self.victim = -1
        self._at = 0
        self._scan_at = 0
        self._best = -1
        self._best_score = 0.0
        self._exhausted_at = -1
        self._damaged: set[int] = set()
        self.cleaned_total = 0
        self.moved_pages_total = 0
        self.moved_bytes_total = 0

    @property
    def damaged_count(self) -> int:
        """Segments whose walk met a damaged header; they are kept until every page in them dies."""
        return len(self._damaged)

    def exhausted(self) -> bool:
        """True when a whole scan found nothing to clean and no record has died since."""
        return self.victim < 0 and self._segments.change_count == self._exhausted_at

    def run(self, steps: int) -> bool:
        """Do up to ``steps`` record copies (or their worth of scanning); False when there is
        nothing to clean."""
        while steps > 0:
            if self.victim < 0:
                if self.exhausted():
                    return False
                steps -= self._scan()
            else:
                steps -= self._copy(steps)
        return True

    def run_victim(self) -> bool:
        """Clean one whole segment now; False when there is nothing to clean."""
        while self.victim < 0:
            if self.exhausted():
                return False
            self._scan()
        while self.victim >= 0:
            self._copy(1 << 30)
        return True

    def forget(self, segment: int) -> None:
        """The segment was freed because its last record died."""
        self._damaged.discard(segment)
        if segment == self.victim:
            self.victim = -1
        if segment == self._best:
            self._best, self._best_score = -1, 0.0

    def _scan(self) -> int:
        """Score the next few segments; at the end of the table the best one becomes the victim."""
        segments, segment_bytes = self._segments, self._geometry.segment_bytes
        # No free segment means that a predecessor died while it cleaned: what is left of its
        # victim fits the survivor segment, and only such a victim may be chosen.
        most_bytes = segment_bytes if segments.free_count else self._head.room_bytes
        stop = min(self._scan_at + _SCAN_SEGMENTS, self._geometry.slot_count)
        for segment in range(self._scan_at, stop):
            if segments.state(segment) == SEALED and segment not in self._damaged:
                age = segments.next_sequence - segments.sequence(segment)
                live_bytes = segments.live_bytes[segment]
                score = policy.score(live_bytes, segment_bytes, age)
                if score > self._best_score and live_bytes <= most_bytes:
                    self._best, self._best_score = segment, score
        self._scan_at = stop
        if stop == self._geometry.slot_count:
            self.victim, self._at = self._best, 0
            self._scan_at, self._best, self._best_score = 0, -1, 0.0
            if self.victim < 0:
                self._exhausted_at = segments.change_count
        return 1

    def _copy(self, steps: int) -> int:
        """Move up to ``steps`` records of the victim on; returns how many were looked at."""
        victim, at = self.victim, self._at
        segments, words, pool = self._segments, self._words, self._pool
        fill_bytes = segments.fill_bytes(victim)
        base = segments.base(victim)
        place = victim << SEGMENT_SHIFT
        page_count = self._geometry.page_count
        looked = 0
        while looked < steps and at < fill_bytes:
            looked += 1
            _checksum, page, tag = HEADER.unpack_from(pool, base + at)
            length_bytes = HEADER_BYTES + (tag & LENGTH_MASK) + 1
            codec = tag >> CODEC_SHIFT
            if codec == CODEC_NONE or at + length_bytes > fill_bytes:
                self._damaged.add(victim)
                self.victim = -1
                return looked
            if codec != CODEC_HOLE and page < page_count:
                word = place | at << OFFSET_SHIFT | length_bytes << LENGTH_SHIFT | STORED
                if words[page] == word:
                    self._move(page, base + at, length_bytes)
                    if segments.drop_live(victim, length_bytes):
                        self._freed()
                        return looked
            at += length_bytes
        self._at = at
        if at >= fill_bytes:
            # Live bytes that the walk did not meet: a header in it names another page.
            self._damaged.add(victim)
            self.victim = -1
        return looked

    def _move(self, page: int, source: int, length_bytes: int) -> None:
        """Append a copy of the record to the survivor head, then point the page to it."""
        head, pool = self._head, self._pool
        at = head.reserve(length_bytes)
        if at < 0:
            head.close()
            head.open(reserve=True)
            at = head.reserve(length_bytes)
        target = head.base + at
        pool[target : target + length_bytes] = pool[source : source + length_bytes]
        self._words[page] = (
            head.segment << SEGMENT_SHIFT
            | at << OFFSET_SHIFT
            | length_bytes << LENGTH_SHIFT
            | STORED
        )
        self._segments.add_live(head.segment, length_bytes)
        self.moved_pages_total += 1
        self.moved_bytes_total += length_bytes

    def _freed(self) -> None:
        self.victim = -1
        self.cleaned_total += 1
