"""Homes: moves sealed segments between RAM and tiers, as plans that others carry out.

Owns which segments are on their way (``busy``) and which tiers take pages. Does no I/O: it says
what to write, read or trim, pins the places meanwhile, and is told how it ended. A segment that
was written has changed one home word; no descriptor is touched, nothing is decompressed.

Always holds: a segment is where its home word says until the I/O has ended well; whatever fails,
it stays there. Only two things are ever done to a tier: writing a whole segment and reading.
Cleaning a tier, draining it and taking it away are all fetching segments into RAM, where they are
cleaned or written out again like any other.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from vswapfs.core import policy
from vswapfs.core.buffers import RESERVE_SEGMENTS
from vswapfs.core.descriptor import place
from vswapfs.core.loghead import INCOMPRESSIBLE
from vswapfs.core.segment import (
    RAM,
    SEALED,
    SLOT_SHIFT,
    STATE_AND_TIER_MASK,
    TIER_SHIFT,
    SegmentTable,
    resident_bytes,
)
from vswapfs.errors import LostPageError
from vswapfs.format.chunk import blocks_bytes
from vswapfs.format.settings import WRITEBACK_START_PCT, WRITEBACK_STOP_PCT

_CHOICES_AT_ONCE: Final = 64
_CHOICES_SHARE: Final = 1 / 16


class Transfer(NamedTuple):
    """A whole segment between RAM (bytes of the pool) and a tier's slot, in either direction."""

    segment: int
    sequence: int
    home: int
    """The home word when it was planned."""
    tier: int
    slot: int
    ram_slot: int
    ram_start: int
    ram_bytes: int
    """What it takes of the RAM slot: the fill, rounded up to whole pages."""
    fill_bytes: int
    length_bytes: int
    """What is written or read of the tier's slot: whole blocks."""
    write_number: int
    """Of this write; of one that is read, the write that brought it there."""


class RecordRead(NamedTuple):
    """A record on a tier that somebody wants to load."""

    page: int
    word: int
    sequence: int
    """Of the segment."""
    write_number: int
    """Of the write that brought the segment there."""
    tier: int
    slot: int
    offset_bytes: int
    length_bytes: int

    @property
    def version(self) -> tuple[int, int]:
        """Which contents of the page are meant: a number of a segment may be used again."""
        return self.word, self.sequence


class Trim(NamedTuple):
    """Free slots of a tier, ascending, whose contents are not needed."""

    tier: int
    slots: list[int]


Fetched = dict[tuple[int, int], bytes | LostPageError]
"""Verified pages, or why not, by RecordRead.version."""


class TierIo(Protocol):
    """What the lane needs of whoever carries the plans out. All of it returns at once."""

    def pump(self) -> None:
        """Start what is due. Called whenever segments were sealed, moved or freed."""

    def room_is_coming(self) -> bool:
        """Whether I/O is under way that will make room in the pool."""

    def read(self, plans: list[RecordRead], done: Callable[[Fetched], None]) -> None:
        """Read records; ``done`` gets the verified pages, or why not, on the lane."""

    def reap(self) -> None:
        """Reads may have ended: see to those that have. Called often."""


class Homes:
    """Plans over a segment table."""

    def __init__(self, segments: SegmentTable) -> None:
        self._segments = segments
        self.busy: set[int] = set()
        self.closed_tiers: set[int] = set()
        """Tiers that get no more segments: failing, or being taken away."""
        self.unreadable: set[int] = set()
        """Sequence numbers of segments that could not be fetched lately."""
        self.writing_back = False
        self.start_share = WRITEBACK_START_PCT.default / 100
        self.stop_share = WRITEBACK_STOP_PCT.default / 100
        """The watermarks: shares of the pool limit."""
        self._choices: list[int] = []
        self.written_segments_total = 0
        self.fetched_segments_total = 0

    # -- writing out -------------------------------------------------------------------------

    def writeback_due(self) -> bool:
        """Whether the watermarks ask for writeback, or the machine does, and a tier can take it."""
        ram = self._segments.ram
        share = self.stop_share if self.writing_back else self.start_share
        self.writing_back = policy.writeback_due(
            ram.used_count, ram.limit, RESERVE_SEGMENTS, share=share
        )
        return (self.writing_back or ram.is_starved) and self.open_tier() is not None

    def would_write_back(self, used_slots: int) -> bool:
        """Whether writeback would start with so many slots used."""
        limit = self._segments.ram.limit
        return policy.writeback_due(used_slots, limit, RESERVE_SEGMENTS, share=self.start_share)

    def open_tier(self) -> int | None:
        """The tier that the next segment goes to, if there is one."""
        for tier, slots in self._segments.tiers.items():
            if tier not in self.closed_tiers and slots.free_count:
                return tier
        return None

    def choose(self, *, leave: int) -> int | None:
        """The next segment to write out: of the densest the incompressible ones, then the oldest.
        ``leave`` is the cleaner's victim, which stays."""
        while self._choices:
            segment = self._choices.pop()
            if self.may_leave(segment) and segment != leave:
                return segment
        # A few at once: looking at all segments for each would take longer than writing one. Not
        # many of a small pool: records die while they wait.
        found = [n for n in self.candidates() if n != leave]
        found.sort(key=self._density_class, reverse=True)  # stable: in a class the same order
        few = min(_CHOICES_AT_ONCE, max(1, int(len(found) * _CHOICES_SHARE)))
        self._choices = found[:few]
        self._choices.reverse()
        return self._choices.pop() if self._choices else None

    def _density_class(self, segment: int) -> int:
        return policy.density_class(self._segments.live_bytes[segment], self._segments.shift)

    def candidates(
        self, *, incompressible: bool = False, idle_since_s: int | None = None
    ) -> list[int]:
        """Segments that can be written out: incompressible ones first, then the oldest."""
        segments = self._segments
        found = [n for n in segments.sealed_in_ram if n not in self.busy]
        if incompressible:
            found = [n for n in found if segments.head_of(n) == INCOMPRESSIBLE]
        if idle_since_s is not None:
            found = [n for n in found if segments.sealed_at_s[n] <= idle_since_s]
        found.sort(key=lambda n: (segments.head_of(n) != INCOMPRESSIBLE, segments.sequence(n)))
        return found

    def may_leave(self, segment: int) -> bool:
        return self._segments.is_sealed_in_ram(segment) and segment not in self.busy

    def plan_write(self, segment: int) -> Transfer | None:
        """Write the segment to the first tier with room; None when there is none, or when the
        segment has died or moved since it was chosen."""
        tier = self.open_tier()
        if tier is None or not self.may_leave(segment):
            return None
        ram_slot = self._segments.slot_of(segment)
        slot = self._segments.tiers[tier].take()
        self._segments.ram.pin(ram_slot)
        number = self._segments.number_write(segment)
        return self._begin(segment, tier, slot, ram_slot, number)

    def _begin(
        self, segment: int, tier: int, slot: int, ram_slot: int, write_number: int
    ) -> Transfer:
        segments = self._segments
        self.busy.add(segment)
        fill_bytes = segments.fill_bytes(segment)
        return Transfer(
            segment, segments.sequence(segment), segments.homes[segment], tier, slot, ram_slot,
            ram_slot << segments.shift, resident_bytes(fill_bytes), fill_bytes,
            blocks_bytes(fill_bytes, segments.chunk_bytes), write_number,
        )  # fmt: skip

    def end_write(self, plan: Transfer, *, ok: bool) -> bool:
        """The write has ended. True if the segment lives on the tier now."""
        segments = self._segments
        self.busy.discard(plan.segment)
        moved = ok and self._same(plan)
        if moved:
            segments.move(plan.segment, plan.tier, plan.slot)
            self.written_segments_total += 1
        else:
            segments.tiers[plan.tier].give_back(plan.slot)
            segments.change_count += 1  # the cleaner may have it again
        segments.ram.unpin(plan.ram_slot)
        return moved

    def _same(self, plan: Transfer) -> bool:
        """Whether the number still means the segment that was planned; it may have been freed
        meanwhile because its last record died, and used again."""
        return (
            self._segments.homes[plan.segment] == plan.home
            and self._segments.sequence(plan.segment) == plan.sequence
        )

    # -- fetching in -------------------------------------------------------------------------

    def plan_fetch(self, segment: int, *, to_clean: bool = False) -> Transfer | None:
        """Read a segment on a tier into RAM; None when RAM has no slot beyond the reserve.

        ``to_clean``: also when the limit was lowered. It is gone from RAM as soon as it is there.
        """
        segments = self._segments
        # It may have died, or moved, since it was chosen.
        if not self._is_at_rest_on_a_tier(segment):
            return None
        if (segments.ram.unused_count if to_clean else segments.free_count) <= RESERVE_SEGMENTS:
            return None
        tier, slot = segments.tier_of(segment), segments.slot_of(segment)
        ram_slot = segments.ram.take()
        segments.tiers[tier].pin(slot)
        return self._begin(segment, tier, slot, ram_slot, segments.write_number(segment))

    def _is_at_rest_on_a_tier(self, segment: int) -> bool:
        segments = self._segments
        return (
            segments.state(segment) == SEALED
            and segments.tier_of(segment) != RAM
            and segment not in self.busy
        )

    def end_fetch(self, plan: Transfer, *, ok: bool) -> bool:
        """The read has ended. True if the segment lives in RAM now."""
        segments = self._segments
        self.busy.discard(plan.segment)
        moved = ok and self._same(plan)
        if moved:
            segments.move(plan.segment, RAM, plan.ram_slot)
            self.fetched_segments_total += 1
        elif ok:
            segments.ram.give_back(plan.ram_slot)
        else:
            segments.ram.give_back_untouched(plan.ram_slot)
        segments.tiers[plan.tier].unpin(plan.slot)
        return moved

    def on_tier(self, tier: int) -> list[int]:
        """The segments of a tier, in the order in which they lie there."""
        wanted, homes = SEALED | tier << TIER_SHIFT, self._segments.homes
        in_use = self._segments.in_use()
        found = [n for n, home in in_use if home & STATE_AND_TIER_MASK == wanted]
        return sorted(found, key=homes.__getitem__)  # the highest bits are the slot

    def tier_short(self, tier: int) -> bool:
        """Whether a tier should be cleaned."""
        slots = self._segments.tiers[tier]
        return policy.tier_short(slots.free_count, slots.slot_count)

    def sparsest(self, tier: int) -> int | None:
        """The segment of a tier that is best cleaned, if one is worth it and can be read."""
        segments = self._segments
        found = [
            segment
            for segment in segments.sparse
            if segments.tier_of(segment) == tier
            and segment not in self.busy
            and segments.sequence(segment) not in self.unreadable
        ]
        return min(found, key=segments.live_bytes.__getitem__, default=None)

    # -- records and trims -------------------------------------------------------------------

    def plan_read(self, page: int, word: int) -> RecordRead:
        """Read one record of a page on a tier; its slot is pinned until ``end_read``."""
        segment, offset_bytes, length_bytes = place(word)
        home = self._segments.homes[segment]
        plan = RecordRead(
            page, word, self._segments.sequence(segment), self._segments.write_number(segment),
            self._segments.tier_of(segment), home >> SLOT_SHIFT, offset_bytes, length_bytes,
        )  # fmt: skip
        self._segments.tiers[plan.tier].pin(plan.slot)
        return plan

    def end_read(self, plan: RecordRead) -> None:
        self._segments.tiers[plan.tier].unpin(plan.slot)

    def plan_trim(self, least_slots: int) -> Trim | None:
        """Trim the freed slots of a tier that has at least so many of them."""
        for tier, slots in self._segments.tiers.items():
            if slots.untrimmed_count >= max(least_slots, 1):
                return Trim(tier, slots.take_for_trim())
        return None

    def end_trim(self, plan: Trim) -> None:
        self._segments.tiers[plan.tier].trimmed(plan.slots)
