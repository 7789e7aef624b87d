"""The segment table: which segments there are, where each lives, how much of it is live.

Owns the home words, the sequence words, the free lists and the live-byte counts. Never looks into
a segment's records. Always holds: two segments never have the same slot; a free segment has no
slot and no live byte; live bytes of a segment are the sum over the descriptors that point into it.
``change_count`` moves on whenever the cleaner could find something new.

    home word   state bits 0-1, fill bytes bits 2-22 (sealed only), tier bits 23-30 (0 is RAM),
                slot bits 31-63; all zero when free, and always replaced in one store
    sequence    head bits 0-7, number bits 8-63: the order in which segments were opened (their age)
"""

from array import array
from typing import Final

from vswapfs.core.buffers import RESERVE_SEGMENTS, Geometry, Region
from vswapfs.errors import PoolFullError
from vswapfs.units import PAGE_BYTES, format_size

FREE: Final = 0
OPEN: Final = 1
SEALED: Final = 2
STATE_MASK: Final = 3
FILL_SHIFT: Final = 2
FILL_MASK: Final = 0x1F_FFFF
TIER_SHIFT: Final = 23
TIER_MASK: Final = 0xFF
SLOT_SHIFT: Final = 31
HEAD_MASK: Final = 0xFF
SEQUENCE_SHIFT: Final = 8

TIER_RAM: Final = 0


def resident_bytes(fill_bytes: int) -> int:
    """What a segment filled that far takes of RAM: the pages that were touched."""
    return -(-fill_bytes // PAGE_BYTES) * PAGE_BYTES


class SegmentTable:
    """The table over its flat buffer; free lists and live bytes are derived."""

    def __init__(self, view: memoryview, pool: Region, geometry: Geometry) -> None:
        self._geometry = geometry
        self._pool = pool
        words = view.cast("Q")
        count = geometry.slot_count
        self.homes = words[:count]
        self._sequences = words[count : 2 * count]
        self.shift = geometry.segment_bytes.bit_length() - 1
        self.live_bytes = array("I", bytes(4 * count))
        self.sealed_resident_bytes = 0
        self.sealed_live_bytes = 0
        self.change_count = 0
        self.next_sequence = 1
        self._free_segments: list[int] = []
        self._free_slots: list[int] = []
        self.derive()

    def derive(self) -> None:
        """Derive free lists and totals from the home words (live bytes come from the caller)."""
        homes = self.homes.tolist()
        slots = {home >> SLOT_SHIFT for home in homes if home & STATE_MASK}
        self._free_segments = [n for n in reversed(range(len(homes))) if homes[n] == 0]
        self._free_slots = [n for n in reversed(range(len(homes))) if n not in slots]
        self.sealed_resident_bytes = 0
        self.sealed_live_bytes = 0
        for number, home in enumerate(homes):
            if home & STATE_MASK:
                self.next_sequence = max(self.next_sequence, self.sequence(number) + 1)
            if home & STATE_MASK == SEALED:
                self.sealed_resident_bytes += resident_bytes(home >> FILL_SHIFT & FILL_MASK)
                self.sealed_live_bytes += self.live_bytes[number]

    def adopt(self, open_at_heads: set[int]) -> None:
        """After live bytes were counted again: finish what a predecessor left half done."""
        for segment, home in enumerate(self.homes.tolist()):
            state = home & STATE_MASK
            if state == OPEN and segment not in open_at_heads:
                self.homes[segment] = 0  # opened, but its head did not get it any more
        self.derive()
        for segment, home in enumerate(self.homes.tolist()):
            if home & STATE_MASK == SEALED and not self.live_bytes[segment]:
                self.free(segment)
        for slot in self._free_slots:
            # Freed by a predecessor that died before it gave the memory back.
            self._pool.release(slot << self.shift, slot + 1 << self.shift)

    @property
    def free_count(self) -> int:
        return len(self._free_slots)

    def state(self, segment: int) -> int:
        return self.homes[segment] & STATE_MASK

    def sequence(self, segment: int) -> int:
        return self._sequences[segment] >> SEQUENCE_SHIFT

    def fill_bytes(self, segment: int) -> int:
        """How far a sealed segment is filled with records."""
        return self.homes[segment] >> FILL_SHIFT & FILL_MASK

    def base(self, segment: int) -> int:
        """The byte of the pool at which a segment in RAM begins."""
        return self.homes[segment] >> SLOT_SHIFT << self.shift

    def open(self, head: int, *, reserve: bool) -> int:
        """Take a free segment and slot for a log head and return its number.

        Without ``reserve`` the last RESERVE_SEGMENTS free ones are not given out.
        Raises PoolFullError; nothing is changed then.
        """
        floor = 0 if reserve else RESERVE_SEGMENTS
        if len(self._free_slots) <= floor:
            limit_bytes = self._geometry.slot_count * self._geometry.segment_bytes
            raise PoolFullError(
                f"the pool is full: limit {format_size(limit_bytes)}",
                remedy="give a larger --pool-limit",
            )
        segment = self._free_segments.pop()
        slot = self._free_slots.pop()
        self._sequences[segment] = self.next_sequence << SEQUENCE_SHIFT | head
        self.next_sequence += 1
        self.homes[segment] = slot << SLOT_SHIFT | TIER_RAM << TIER_SHIFT | OPEN
        return segment

    def seal(self, segment: int, fill_bytes: int) -> None:
        """An open segment is full: it never changes again. Freed at once if nothing in it lives."""
        slot = self.homes[segment] >> SLOT_SHIFT
        self.homes[segment] = (
            slot << SLOT_SHIFT | TIER_RAM << TIER_SHIFT | fill_bytes << FILL_SHIFT | SEALED
        )
        self.change_count += 1
        self.sealed_resident_bytes += resident_bytes(fill_bytes)
        self.sealed_live_bytes += self.live_bytes[segment]
        if not self.live_bytes[segment]:
            self.free(segment)

    def free(self, segment: int) -> None:
        """Give a sealed segment without live bytes, its slot and the slot's memory back."""
        home = self.homes[segment]
        fill_bytes = home >> FILL_SHIFT & FILL_MASK
        self.homes[segment] = 0
        self.sealed_resident_bytes -= resident_bytes(fill_bytes)
        slot = home >> SLOT_SHIFT
        self._free_segments.append(segment)
        self._free_slots.append(slot)
        base = slot << self.shift
        self._pool.release(base, base + resident_bytes(fill_bytes))

    def drop_live(self, segment: int, length_bytes: int) -> bool:
        """A record died. Returns True if that freed its segment.

        Raises OverflowError or IndexError, with nothing changed, if there is no such record.
        """
        live_bytes = self.live_bytes[segment] - length_bytes
        self.live_bytes[segment] = live_bytes
        if self.homes[segment] & STATE_MASK == SEALED:
            self.change_count += 1
            self.sealed_live_bytes -= length_bytes
            if not live_bytes:
                self.free(segment)
                return True
        return False
