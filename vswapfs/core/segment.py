"""The segment table: which segments there are, where each lives, how much of it is live.

Owns the home, sequence and write words, the free numbers and the live counts. Never looks into a
segment's records. Always holds: two segments never have the same place; a free segment has no
place and no live byte; live bytes of a segment are the sum over the descriptors that point into it.
``change_count`` moves on whenever the cleaner could find something new.

    home word   state bits 0-1, fill bytes bits 2-22 (sealed only), tier bits 23-30 (0 is RAM),
                slot bits 31-63; all zero when free, and always replaced in one store
    sequence    head bits 0-7, number bits 8-63: the order in which segments were opened (their age)
    write       number of the latest write to a tier that was planned for the segment

Always holds: no sequence and no write number is ever given out again, by whichever process. The
highest of each stays in the word of its segment until a higher one takes its place, so that a
successor finds it there.
"""

from array import array
from collections.abc import Container, Iterator, Sequence
from itertools import compress
from typing import Final

from vswapfs.core import policy
from vswapfs.core.buffers import RESERVE_SEGMENTS, Geometry, Region
from vswapfs.core.slots import RamSlots, TierSlots
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

RAM: Final = 0
TIER_MAX_COUNT: Final = TIER_MASK
SEALED_IN_RAM: Final = SEALED  # the state and tier bits of such a home word
STATE_AND_TIER_MASK: Final = STATE_MASK | TIER_MASK << TIER_SHIFT


def resident_bytes(fill_bytes: int) -> int:
    """What a segment filled that far takes of RAM, or is written of it: whole pages."""
    return -(-fill_bytes // PAGE_BYTES) * PAGE_BYTES


class SegmentTable:
    """The table over its flat buffer; free numbers, slots and live counts are derived."""

    def __init__(
        self,
        view: memoryview,
        pool: Region,
        geometry: Geometry,
        first_sequence: int = 1,
        tier_slot_counts: Sequence[int] = (),
        gone: Container[int] = (),
    ) -> None:
        """``gone``: numbers of the tiers that were removed."""
        self._geometry = geometry
        self._pool = pool
        words = view.cast("Q")
        capacity = geometry.segment_capacity
        self.homes = words[:capacity]
        self._sequences = words[capacity : 2 * capacity]
        self._writes = words[2 * capacity : 3 * capacity]
        self.chunk_bytes = geometry.chunk_bytes
        self.shift = geometry.segment_bytes.bit_length() - 1
        self._sparse_below_bytes = policy.tier_clean_below(geometry.segment_bytes)
        self.count = geometry.slot_count
        self.live_bytes = array("I", bytes(4 * self.count))
        self.live_pages = array("I", bytes(4 * self.count))
        self.sealed_at_s = array("I", bytes(4 * self.count))
        self.now_s = 0
        self.change_count = 0
        self.counting = False
        """Live counts are not whole yet (recount.py): nothing may be concluded from a 0."""
        self.next_sequence = first_sequence
        self.tier_numbers = len(tier_slot_counts)
        """So many numbers of tiers were given out, from 1 on; none is used again."""
        self._tier_slot_counts, self._gone = tier_slot_counts, gone
        self._derive()

    # -- derived state -----------------------------------------------------------------------

    def _derive(self) -> None:
        """Derive free numbers, slots and totals from the home words."""
        tier_slot_counts = self._tier_slot_counts
        self._grow(self._geometry.slot_count + sum(tier_slot_counts))
        used: list[list[int]] = [[] for _ in range(1 + len(tier_slot_counts))]
        for _segment, home in self.in_use():
            if home & STATE_MASK:
                used[home >> TIER_SHIFT & TIER_MASK].append(home >> SLOT_SHIFT)
        homes = self.homes[: self.count].tolist()
        self._free_numbers = [n for n, home in enumerate(homes) if not home][::-1]
        self.ram = RamSlots(self._geometry.slot_count, used[RAM], self._release_slot)
        self.tiers: dict[int, TierSlots] = {
            number: TierSlots(slot_count, used[number])
            for number, slot_count in enumerate(tier_slot_counts, 1)
            if number not in self._gone
        }
        """Those that there are, by number."""
        self._count_kept()
        self._add_up()
        # Of free segments, too: they may have been the last.
        last_sequence = max(self.sequence_words(), default=0) >> SEQUENCE_SHIFT
        self.next_sequence = max(self.next_sequence, last_sequence + 1)
        self._next_write = max(self._writes[: self.count].tolist(), default=0) + 1

    def in_use(self) -> Iterator[tuple[int, int]]:
        """The segments that are not free, and their home words: few of all, where many tiers came
        and went."""
        homes = self.homes[: self.count].tolist()
        return compress(enumerate(homes), homes)

    def _grow(self, count: int) -> None:
        for column in (self.live_bytes, self.live_pages, self.sealed_at_s):
            column.frombytes(bytes(column.itemsize * (count - len(column))))
        self.count = max(self.count, count)

    def _add_up(self) -> None:
        self.sealed_resident_bytes = 0
        self.tier_live_bytes = [0] * (1 + self.tier_numbers)
        """By tier, of sealed segments; [0] is RAM."""
        self.tier_live_pages = [0] * (1 + self.tier_numbers)
        self.sealed_in_ram: set[int] = set()
        self.sparse: set[int] = set()
        """Segments on tiers that are worth cleaning. To look for them took 9 ms at 16 384 slots,
        on the lane, each time that a full tier was looked after."""
        for segment, home in self.in_use():
            if home & STATE_MASK == SEALED:
                self._account(segment, home)

    def _account(self, segment: int, home: int) -> None:
        """Add a sealed segment to the totals of its home."""
        live_bytes, tier = self.live_bytes[segment], home >> TIER_SHIFT & TIER_MASK
        self.tier_live_bytes[tier] += live_bytes
        self.tier_live_pages[tier] += self.live_pages[segment]
        if tier == RAM:
            self.sealed_resident_bytes += resident_bytes(home >> FILL_SHIFT & FILL_MASK)
            self.sealed_in_ram.add(segment)
        elif live_bytes < self._sparse_below_bytes:
            self.sparse.add(segment)

    def _discount(self, segment: int, home: int) -> None:
        """Take it off again."""
        tier = home >> TIER_SHIFT & TIER_MASK
        self.tier_live_bytes[tier] -= self.live_bytes[segment]
        self.tier_live_pages[tier] -= self.live_pages[segment]
        if tier == RAM:
            self.sealed_resident_bytes -= resident_bytes(home >> FILL_SHIFT & FILL_MASK)
            self.sealed_in_ram.discard(segment)
        else:
            self.sparse.discard(segment)

    def adopt(self, open_at_heads: set[int], now_s: int) -> None:
        """Take over what a predecessor left. The live counts have to be counted again."""
        opened = {n for n, home in self.in_use() if home & STATE_MASK == OPEN} - open_at_heads
        for segment in opened:
            self.homes[segment] = 0  # its head did not get it any more
        if opened:
            self._derive()
        # When they were sealed nobody knows; not long ago is the careful answer.
        self.now_s = now_s
        self.sealed_at_s = array("I", [now_s]) * self.count
        self.counting = True

    def counted(self) -> None:
        """The live counts are whole again: finish what was left half done or put off."""
        self.counting = False
        self._add_up()
        # Some may have been freed by a predecessor that died before it gave the memory back. First:
        # the slots of segments that are freed now keep theirs.
        self.ram.release_free()
        for segment, home in self.in_use():
            if home & STATE_MASK == SEALED and not self.live_bytes[segment]:
                self.free(segment)
        self.change_count += 1

    def add_tier(self, slot_count: int) -> int:
        """A tier with that many empty slots; returns its number, from 1 on."""
        first = self.count
        self._grow(first + slot_count)
        for column in (self.homes, self._sequences, self._writes):
            column[first : self.count].tolist()  # has its memory from now on
        self._free_numbers[:0] = reversed(range(first, self.count))
        self.tier_numbers += 1
        self.tiers[self.tier_numbers] = TierSlots(slot_count, ())
        self.tier_live_bytes.append(0)
        self.tier_live_pages.append(0)
        self._count_kept()
        return self.tier_numbers

    def remove_tier(self, tier: int) -> None:
        """Forget an empty tier. Its number is not used again."""
        del self.tiers[tier]
        self._count_kept()

    def _count_kept(self) -> None:
        self.kept_count = RESERVE_SEGMENTS + bool(self.tiers)
        """RAM slots that stores leave: the cleaner's reserve and, where there are tiers, one into
        which a segment can be fetched to be cleaned. Else a full pool above a full tier would stay
        full, however much on the tier is dead."""

    # -- one segment -------------------------------------------------------------------------

    @property
    def free_count(self) -> int:
        """RAM slots that the limit still allows."""
        return self.ram.free_count

    @property
    def sealed_live_bytes(self) -> int:
        """Live bytes of sealed segments in RAM."""
        return self.tier_live_bytes[RAM]

    def state(self, segment: int) -> int:
        return self.homes[segment] & STATE_MASK

    def is_sealed_in_ram(self, segment: int) -> bool:
        return self.homes[segment] & STATE_AND_TIER_MASK == SEALED_IN_RAM

    def tier_of(self, segment: int) -> int:
        return self.homes[segment] >> TIER_SHIFT & TIER_MASK

    def slot_of(self, segment: int) -> int:
        return self.homes[segment] >> SLOT_SHIFT

    def sequence(self, segment: int) -> int:
        return self._sequences[segment] >> SEQUENCE_SHIFT

    def sequence_words(self) -> list[int]:
        """The sequence words of all segments, a copy."""
        words: list[int] = self._sequences[: self.count].tolist()
        return words

    def write_number(self, segment: int) -> int:
        """Of the write that brought a segment to its tier, if it is on one."""
        return self._writes[segment]

    def number_write(self, segment: int) -> int:
        """A number for a write of a segment in RAM to a tier, before that begins."""
        number = self._next_write
        self._next_write += 1
        self._writes[segment] = number
        return number

    def head_of(self, segment: int) -> int:
        """The log head that filled the segment."""
        return self._sequences[segment] & HEAD_MASK

    def fill_bytes(self, segment: int) -> int:
        """How far a sealed segment is filled with records."""
        return self.homes[segment] >> FILL_SHIFT & FILL_MASK

    def base(self, segment: int) -> int:
        """The byte of the pool at which a segment in RAM begins."""
        return self.homes[segment] >> SLOT_SHIFT << self.shift

    def open(self, head: int, *, reserve: bool) -> int:
        """Take a free segment and slot for a log head and return its number.

        Without ``reserve`` the last ``kept_count`` free ones are not given out.
        Raises PoolFullError; nothing is changed then.
        """
        # The cleaner must be able to finish, also when the limit was lowered meanwhile.
        ram = self.ram
        there_is_room = ram.unused_count if reserve else ram.free_count > self.kept_count
        if there_is_room and not reserve and not ram.has_memory(self.kept_count):
            raise PoolFullError(
                "the machine has no memory for the pool now",
                remedy="give a --tier, or end what takes the memory",
            )
        if not there_is_room:
            limit_bytes = self.ram.limit * self._geometry.segment_bytes
            raise PoolFullError(
                f"the pool is full: limit {format_size(limit_bytes)}",
                remedy="give a larger --pool-limit, or a --tier",
            )
        segment = self._free_numbers.pop()
        self._sequences[segment] = self.next_sequence << SEQUENCE_SHIFT | head
        self.next_sequence += 1
        self.homes[segment] = self.ram.take() << SLOT_SHIFT | OPEN
        return segment

    def seal(self, segment: int, fill_bytes: int) -> None:
        """An open segment is full: it never changes again. Freed at once if nothing in it lives,
        or when all is counted."""
        home = self.slot_of(segment) << SLOT_SHIFT | fill_bytes << FILL_SHIFT | SEALED
        self.homes[segment] = home
        self.sealed_at_s[segment] = self.now_s
        self.change_count += 1
        self._account(segment, home)
        if not self.live_bytes[segment] and not self.counting:
            self.free(segment)

    def move(self, segment: int, tier: int, slot: int) -> None:
        """A sealed segment has a new home, in one store; its old place is given back."""
        home = self.homes[segment]
        moved = home & (STATE_MASK | FILL_MASK << FILL_SHIFT) | tier << TIER_SHIFT
        self._discount(segment, home)
        self.homes[segment] = moved | slot << SLOT_SHIFT
        self._account(segment, moved)
        self.change_count += 1
        self._leave(home)

    def free(self, segment: int) -> None:
        """Give a sealed segment without live bytes and its place back."""
        home = self.homes[segment]
        self._discount(segment, home)
        self.homes[segment] = 0
        self._free_numbers.append(segment)
        self._leave(home)

    def _leave(self, home: int) -> None:
        tier, slot = home >> TIER_SHIFT & TIER_MASK, home >> SLOT_SHIFT
        slots = self.ram if tier == RAM else self.tiers[tier]
        slots.give_back(slot)

    def _release_slot(self, slot: int) -> None:
        self._pool.release(slot << self.shift, slot + 1 << self.shift)

    def drop_live(self, segment: int, length_bytes: int, pages: int = 1) -> bool:
        """Records died. Returns True if that freed their segment.

        Raises OverflowError or IndexError, with nothing changed, if there are no such records.
        """
        live_bytes = self.live_bytes[segment] - length_bytes
        live_pages = self.live_pages[segment] - pages
        if live_bytes < 0 or live_pages < 0:
            raise OverflowError(f"segment {segment} has no such record")
        self.live_bytes[segment] = live_bytes
        self.live_pages[segment] = live_pages
        home = self.homes[segment]
        if home & STATE_MASK == SEALED:
            self.change_count += 1
            tier = home >> TIER_SHIFT & TIER_MASK
            self.tier_live_bytes[tier] -= length_bytes
            self.tier_live_pages[tier] -= pages
            if tier and live_bytes < self._sparse_below_bytes:
                self.sparse.add(segment)
            if not live_bytes and not self.counting:
                self.free(segment)
                return True
        return False
