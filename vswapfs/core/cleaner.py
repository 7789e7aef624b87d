"""The cleaner: copies the live records of a segment to the survivor head and frees the segment.

Owns the choice of the victim (by policy.score) and the walk through it, which can stop after any
record and go on later. Never computes a checksum: a record is copied as it is, and its checksum
bound to the new segment in place of the old one, so that damage stays damage.

The guarantee of the reserve: stores leave RESERVE_SEGMENTS (1) segments free, and where there are
tiers one more, for a segment that is fetched to be cleaned (SegmentTable.kept_count); the survivors
of one victim are at most what fits one segment, and nothing but the cleaner appends to the survivor
head, so a victim needs at most one new segment until it is freed itself. A victim that was begun
can therefore always be finished, at any fill of the pool, and after it the reserve is whole again.
If the process dies in between, what is left of the victim still fits what is left of the survivor
segment (an unfinished copy is taken back), and the successor chooses such a victim first.
"""

from collections.abc import Callable, Container, Iterable
from typing import Final

from vswapfs.core import policy
from vswapfs.core.buffers import Geometry
from vswapfs.core.descriptor import place, stored
from vswapfs.core.loghead import COMPRESSED, LogHead
from vswapfs.core.segment import SegmentTable
from vswapfs.format.codec import recompress
from vswapfs.format.record import CHECKSUM, RecordError, header_at, sequence_binding
from vswapfs.format.settings import RECOMPRESS_LEVEL
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

_SCAN_SEGMENTS: Final = 16  # segments scored in the time that one record takes to copy
_RECOMPRESSION_STEPS: Final = 15  # records copied in the time that one takes to recompress


class Cleaner:
    """Cleans in steps. ``victim`` is the segment being cleaned, or -1."""

    def __init__(
        self,
        geometry: Geometry,
        words: memoryview,
        pool: memoryview,
        segments: SegmentTable,
        survivors: LogHead,
        pages_in: Callable[[int], Iterable[int]],
        busy: Container[int],
    ) -> None:
        """``busy``: segments that I/O is moving, which are left alone."""
        self._geometry = geometry
        self._words = words
        self._pool = pool
        self._segments = segments
        self._head = survivors
        self._pages_in = pages_in
        self.victim = -1
        self._victim_binding = 0
        self._at = 0
        self.recompressing = False
        """Whether the victim's records are made shorter as they are moved."""
        self.recompression_level = RECOMPRESS_LEVEL.default
        self._busy = busy
        self.wanted: list[int] = []
        """Segments fetched from a tier to be cleaned; they come first."""
        self._to_scan: list[int] = []
        self._best = -1
        self._best_score = 0.0
        self._exhausted_at = -1
        self._scan_began_at = 0
        self.damaged_total = 0
        self.cleaned_total = 0
        self.moved_pages_total = 0
        self.moved_bytes_total = 0
        self.recompressed_pages_total = 0
        self.recompression_saved_bytes_total = 0

    def exhausted(self) -> bool:
        """True when a whole scan found nothing to clean and no record has died since."""
        return (
            self.victim < 0
            and not self.wanted
            and self._segments.change_count == self._exhausted_at
        )

    def run(self, steps: int) -> bool:
        """Do up to ``steps`` record copies (or their worth of scanning); False when there is
        nothing to clean, or no memory for it now."""
        if not self._has_memory():
            return False
        while steps > 0:
            if self.victim < 0:
                if self.exhausted():
                    return False
                steps -= self._scan()
            else:
                steps -= self._copy(steps)
        return True

    def recompress(self, sealed_before_s: int) -> None:
        """Begin to recompress the oldest segment of compressed records that was sealed by then, if
        there is one and nothing is being cleaned. What has been moved once is left alone."""
        segments = self._segments
        if self.victim >= 0 or segments.counting or not segments.ram.unused_count:
            return
        cold = [
            segment
            for segment in segments.sealed_in_ram
            if segments.head_of(segment) == COMPRESSED
            and segments.sealed_at_s[segment] <= sealed_before_s
        ]
        if cold:
            self._take(min(cold, key=segments.sequence))
            self.recompressing = self.victim >= 0

    def run_victim(self) -> bool:
        """Clean one whole segment now; False when there is nothing to clean, or no memory, or not
        all is counted: a victim that has less to lose than lives in it is never done."""
        if self._segments.counting or not self._has_memory():
            return False
        self.recompressing = False  # a store waits for the room
        while self.victim < 0:
            if self.exhausted():
                return False
            self._scan()
        while self.victim >= 0:
            self._copy(1 << 30)
        return True

    def _has_memory(self) -> bool:
        """Whether the survivors' next slot can be written to without a wait for memory. With no
        slot unused, what is left of the victim fits the one they have."""
        ram = self._segments.ram
        return not ram.unused_count or ram.has_memory(0)

    def forget(self, segment: int) -> None:
        """The segment was freed because its last record died."""
        if segment == self.victim:
            self._let_go()
        if segment == self._best:
            self._best, self._best_score = -1, 0.0

    def _take(self, segment: int) -> None:
        """Make it the victim, unless it has died or is on its way to a tier since it was chosen."""
        if self._segments.is_sealed_in_ram(segment) and segment not in self._busy:
            self.victim, self._at = segment, SEGMENT_HEADER_BYTES
            self._victim_binding = sequence_binding(self._segments.sequence(segment))

    def _scan(self) -> int:
        """Score the next few segments; once all are, the best one becomes the victim."""
        segments, segment_bytes = self._segments, self._geometry.segment_bytes
        if not self._to_scan:
            self._scan_began_at = segments.change_count
            self._to_scan = list(segments.sealed_in_ram)
        # No free segment means that a predecessor died while it cleaned: what is left of its
        # victim fits the survivor segment, and only such a victim may be chosen.
        most_bytes = segment_bytes if segments.ram.unused_count else self._head.room_bytes
        if self.wanted:
            segment = self.wanted.pop()
            self._take(segment)
            return 1
        next_few = self._to_scan[-_SCAN_SEGMENTS:]
        del self._to_scan[-_SCAN_SEGMENTS:]
        for segment in next_few:
            if segments.is_sealed_in_ram(segment) and segment not in self._busy:
                age = segments.next_sequence - segments.sequence(segment)
                live_bytes = segments.live_bytes[segment]
                score = policy.score(live_bytes, segment_bytes, age)
                if score > self._best_score and live_bytes <= most_bytes:
                    self._best, self._best_score = segment, score
        if not self._to_scan:
            best, self._best, self._best_score = self._best, -1, 0.0
            if best >= 0:
                self._take(best)
            else:
                self._exhausted_at = self._scan_began_at
        return 1

    def _copy(self, steps: int) -> int:
        """Move up to ``steps`` records of the victim on; returns how many were looked at."""
        victim, at = self.victim, self._at
        pool, words, move = self._pool, self._words, self._move
        fill_bytes = self._segments.fill_bytes(victim)
        left_bytes = self._segments.live_bytes[victim]
        base = self._segments.base(victim)
        page_count = self._geometry.page_count
        looked = moved_pages = moved_bytes = 0
        try:
            while looked < steps and at < fill_bytes:
                looked += 1
                try:
                    page, length_bytes = header_at(pool, base + at, base + fill_bytes)
                except RecordError:
                    at = fill_bytes
                    break
                if page < page_count and words[page] == stored(victim, at, length_bytes):
                    move(page, base + at, length_bytes)
                    moved_pages += 1
                    moved_bytes += length_bytes
                    if moved_bytes == left_bytes:
                        break
                    if self.recompressing:
                        looked += _RECOMPRESSION_STEPS
                at += length_bytes
        finally:
            self._at = at
            # Once for all of them: a fifth of the time.
            freed = moved_pages > 0 and self._dropped(victim, moved_bytes, moved_pages)
        if freed:
            return looked
        if at >= fill_bytes:
            self._rescue(victim)
        return looked

    def _rescue(self, victim: int) -> None:
        """The walk ended with live bytes left: a header is damaged. Find the rest through the
        descriptors (reads all of them), move it as it is, and free the segment whatever the
        counts say. A damaged page stays lost, but costs no other one, and no room."""
        self.damaged_total += 1
        base = self._segments.base(victim)
        for page in self._pages_in(victim):
            _, offset_bytes, length_bytes = place(self._words[page])
            self._move(page, base + offset_bytes, length_bytes)
            if self._dropped(victim, length_bytes):
                return
        segments = self._segments
        if segments.drop_live(victim, segments.live_bytes[victim], segments.live_pages[victim]):
            self._freed()

    def _move(self, page: int, source: int, length_bytes: int) -> None:
        """Append a copy of the record to the survivor head, then point the page to it."""
        head, pool = self._head, self._pool
        found: memoryview | bytes = pool[source : source + length_bytes]
        if self.recompressing:
            found = recompress(memoryview(found), self.recompression_level)
            self.recompressed_pages_total += 1
            self.recompression_saved_bytes_total += length_bytes - len(found)
            length_bytes = len(found)
        at = head.reserve(length_bytes)
        if at < 0:
            head.close()
            head.open(reserve=True)
            at = head.reserve(length_bytes)
        target = head.base + at
        pool[target : target + length_bytes] = found
        (bound,) = CHECKSUM.unpack_from(found)
        CHECKSUM.pack_into(pool, target, bound ^ self._victim_binding ^ head.binding)
        self._words[page] = stored(head.segment, at, length_bytes)
        self._segments.live_bytes[head.segment] += length_bytes
        self._segments.live_pages[head.segment] += 1
        self.moved_pages_total += 1
        self.moved_bytes_total += length_bytes

    def _dropped(self, victim: int, length_bytes: int, pages: int = 1) -> bool:
        if self._segments.drop_live(victim, length_bytes, pages):
            self._freed()
            return True
        return False

    def _let_go(self) -> None:
        self.victim, self.recompressing = -1, False

    def _freed(self) -> None:
        self._let_go()
        self.cleaned_total += 1
