"""When to clean, and which segment. Pure functions of the statistics.

Owns the thresholds. Never changes anything.

Cost-benefit is that of the log-structured file system (Rosenblum and Ousterhout, 1992) and of
RAMCloud: the space won, weighed by how long it will stay won (age), over the bytes moved.
"""

from typing import Final

from vswapfs.format.record import RECORD_MAX_BYTES
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

CLEAN_MAX_UTILIZATION: Final = 0.95
"""Segments fuller than this are left alone: the pool is then as dense as zram's allocator (95 to
96 % payload, measured)."""

FREE_LOW_SHARE: Final = 1 / 32
"""Below this share of free segments the cleaner runs between requests, ahead of the stores that
will need the room."""


def score(live_bytes: int, segment_bytes: int, age: int) -> float:
    """Cost-benefit of cleaning a sealed segment; 0 when it is not worth it. Higher is better.

    A segment packed by the cleaner ends with less room than a record needs. Nothing that full is
    worth it, whatever the share (in small segments a record is more than 5 %), or cleaning would
    go round in circles.
    """
    capacity_bytes = segment_bytes - SEGMENT_HEADER_BYTES
    utilization = live_bytes / capacity_bytes
    if utilization > CLEAN_MAX_UTILIZATION or live_bytes > capacity_bytes - RECORD_MAX_BYTES:
        return 0.0
    return (1 - utilization) * (age + 1) / (1 + utilization)


def short_of_segments(free_count: int, slot_count: int, reserve: int) -> bool:
    """True when the cleaner should run even while requests come in."""
    return free_count <= reserve + int(slot_count * FREE_LOW_SHARE)


DENSITY_FLOOR: Final = 0.85
"""Below this share of live bytes the cleaner runs even while requests come in; without it a churn
left 23 % of the pool live (tools/bench density), for a memory limit that nobody was near. Higher
costs: at 0.90 random overwrites were cleaned 4 records each, and took 95 us instead of 75."""


def density_poor(sealed_resident_bytes: int, sealed_live_bytes: int, segment_bytes: int) -> bool:
    """True when so much of the pool is dead that cleaning should not wait for a pause."""
    dead_bytes = sealed_resident_bytes - sealed_live_bytes
    return (
        dead_bytes >= 4 * segment_bytes
        and sealed_live_bytes < sealed_resident_bytes * DENSITY_FLOOR
    )


def density_low(sealed_resident_bytes: int, sealed_live_bytes: int, segment_bytes: int) -> bool:
    """True when idle time should be spent on packing the pool: at least a segment to win."""
    dead_bytes = sealed_resident_bytes - sealed_live_bytes
    return (
        dead_bytes >= segment_bytes
        and sealed_live_bytes < sealed_resident_bytes * CLEAN_MAX_UTILIZATION
    )


COLD_S: Final = 60
"""Segments that are older may be recompressed in idle time."""

TIER_FREE_LOW: Final = 4
TIER_FREE_LOW_SHARE: Final = 1 / 16
"""With at most so many free slots, and of a small tier this share, its sparsest segments are
fetched and cleaned: as late as possible, because a segment that waits gets sparser, and only so
many slots are on their way at once."""

WRITEBACK_CLASSES_SHIFT: Final = 5
"""Segments are written out by 32 classes of live bytes: what is dead when it is written was written
for nothing, and makes the tier fuller; within a class the age decides."""

TIER_CLEAN_MAX_UTILIZATION: Final = 0.85


def writeback_due(used_slots: int, slot_count: int, reserve: int, *, share: float) -> bool:
    """Whether segments should go to a tier now, above ``share`` of the slots."""
    # A small pool needs whole segments of room, whatever the share: due at the latest when stores
    # find none (SegmentTable.kept_count).
    return used_slots > min(slot_count * share, slot_count - reserve - 2)


def tier_short(free_count: int, slot_count: int) -> bool:
    return free_count <= min(TIER_FREE_LOW, int(slot_count * TIER_FREE_LOW_SHARE))


def tier_clean_below(segment_bytes: int) -> float:
    """A segment of a tier with fewer live bytes is worth cleaning. One that the cleaner packed is
    not, whatever its share, as in ``score``: a full tier would be rewritten for ever."""
    packed_bytes = segment_bytes - SEGMENT_HEADER_BYTES - RECORD_MAX_BYTES
    return min(TIER_CLEAN_MAX_UTILIZATION * segment_bytes, packed_bytes)


def density_class(live_bytes: int, segment_shift: int) -> int:
    """Higher is better written out."""
    return live_bytes >> segment_shift - WRITEBACK_CLASSES_SHIFT


GROW_SHARE: Final = 0.80
"""The automatic limit grows when more of it is used."""

PRESSURE_HIGH_PCT: Final = 10.0
"""Share of the last 10 s in which some task waited for memory (/proc/pressure/memory, some)."""


def auto_limit(
    *,
    limit: int,
    used: int,
    least: int,
    most: int,
    segment_bytes: int,
    available_bytes: int,
    reserve_bytes: int,
    pressure_pct: float,
) -> int:
    """The pool limit in segments for the next second, when the machine decides it.

    The pool shrinks when the machine has less than its reserve left or its tasks wait for memory,
    and grows when it is nearly full and the machine has more than twice the reserve.
    """
    if available_bytes < reserve_bytes or pressure_pct > PRESSURE_HIGH_PCT:
        return max(least, min(limit, used) - max(1, used // 16))
    spare = (available_bytes - 2 * reserve_bytes) // segment_bytes
    if spare > 0 and used > limit * GROW_SHARE:
        return min(most, limit + min(spare, max(16, limit // 8)))
    return limit
